package prometheus

import (
	"slices"
	"strings"
	"testing"

	"github.com/creelhq/creel"
)

// TestStart: a counter begins where it is first seen, where it has gone down, or where its target says.
func TestStart(t *testing.T) {
	c, tg := bench(t, "{}")
	at := testTime
	step := func(text string, open bool) creel.Metric {
		t.Helper()
		at += 10e9
		o := outcome{start: timeAt(at)}
		b := c.convert(nil, tg, text, open, &o)
		must(t, o.err)
		tg.sent(o)
		return b.Metrics()[0]
	}
	f := func(text string, open bool, want int64) {
		t.Helper()
		if m := step(text, open); m.Start != want {
			t.Errorf("%q begins at %d, want %d", text, m.Start-testTime, want-testTime)
		}
	}
	for _, kind := range []string{"# TYPE a counter\na ", "# TYPE a histogram\na_count ", "# TYPE a summary\na_count "} {
		first := at + 10e9
		f(kind+"5\n", false, first)
		f(kind+"5\n", false, first)
		f(kind+"7\n", false, first)
		f(kind+"6\n", false, at+10e9)
		f("b 1\n", false, 0)
	}
	created := "# TYPE c counter\nc_total 5\nc_created 1999999999\n# EOF\n"
	f(created, true, 1999999999e9)
	f(strings.Replace(created, "5", "3", 1), true, 1999999999e9)
	f("# TYPE c counter\nc_created 2000000001\nc_total 1\n# EOF\n", true, 2000000001e9)
	f("# TYPE c counter\nc_total 1\nc_created 2999999999\n# EOF\n", true, 2000000001e9) // it is in the future: a wrong clock
	f("# TYPE c counter\nc_total 0\n# EOF\n", true, at+10e9)

	c, tg = bench(t, "{process_start: true}")
	f("# TYPE a counter\na 1\nprocess_start_time_seconds 1.9e9\n", false, 1.9e9*1e9)
}

// TestOver: when a series is not exposed any more, or its target fails, that is said once.
func TestOver(t *testing.T) {
	page := newPage(t, "# TYPE a counter\na{x=\"1\"} 5\n# TYPE h histogram\nh_bucket{y=\"2\",le=\"1\"} 1\nh_bucket{y=\"2\",le=\"+Inf\"} 1\ns 1 1000\n")
	c := open(t, "{targets: ['"+page.URL+"'], labels: {site: north}}", creel.Host{Memory: &creel.Memory{Poison: true}})
	f := func(want ...string) {
		t.Helper()
		got := round(t, c, false)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	a, h, s := `a{x="1",site="north"} counter `, `h{y="2",site="north"} histogram `, `s{site="north"} gauge 1`
	f(a+"5", h+"count=1 sum=0 bounds=[1] counts=[1 0]", s)
	page.set("# TYPE a counter\na{x=\"1\"} 6\n")
	f(a+"6", h+"over")
	f(a + "6")
	start := only(c).series
	page.set("broken")
	f(a + "over")
	f()
	page.set("# TYPE a counter\na{x=\"1\"} 7\nbroken\n")
	f()
	page.set("# TYPE a counter\na{x=\"1\"} 8\n")
	f(a + "8")
	for _, now := range only(c).series {
		for _, before := range start {
			if len(start) != 1 || now.start != before.start || now.start == 0 {
				t.Error("a failure of the target has made its counter begin anew")
			}
		}
	}
	var k sink
	k.refuse = true
	page.set("b 1\n")
	if err := c.Collect(t.Context(), &k); err == nil {
		t.Error("a batch that was refused was no error")
	}
	f(a+"over", `b{site="north"} gauge 1`)
	page.set("")
	f(`b{site="north"} gauge over`)
	if n := len(only(c).series); n > 0 {
		t.Errorf("%d series are remembered of none", n)
	}
}

func only(c *collector) *target {
	for _, t := range c.targets {
		return t
	}
	return nil
}

// TestLabels: whose label counts, and what labels say of where a series comes from.
func TestLabels(t *testing.T) {
	f := func(yaml, text string, want ...string) {
		t.Helper()
		c := open(t, yaml, creel.Host{})
		tg, err := newTarget(c.options, "127.0.0.1:9100", map[string]string{"zone": "a", "__meta_x": "y"})
		must(t, err)
		ms, err := convert(&c.converter, tg, text, false)
		must(t, err)
		var got []string
		for i := range ms {
			name, _ := ms[i].Origin.Resource.Attrs.Get("service.name")
			instance, _ := ms[i].Origin.Resource.Attrs.Get("service.instance.id")
			got = append(got, describe(&ms[i])+" of "+name.Str()+" "+instance.Str()+" "+strings.TrimPrefix(ms[i].Origin.Scope.Name, scopeName))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	text := "x{zone=\"b\",job=\"j\",instance=\"i\",exported_job=\"k\"} 1\ny{otel_scope_name=\"lib\",otel_scope_version=\"2\"} 2\n"
	f("{}", text, `x{exported_zone="b",exported_exported_job="j",exported_instance="i",exported_job="k",zone="a"} gauge 1 of prometheus 127.0.0.1:9100 `, `y{zone="a"} gauge 2 of prometheus 127.0.0.1:9100 lib`)
	f("{honor_labels: true, job: n}", text, `x{zone="b",exported_job="k"} gauge 1 of j i `, `y{zone="a"} gauge 2 of n 127.0.0.1:9100 lib`)
	f("{labels: {job: other, instance: that}}", "x 1\n", `x{zone="a"} gauge 1 of other that `)

	c, tg := bench(t, "{}")
	ms, err := convert(c, tg, "x 1\n# TYPE target info\ntarget_info{k8s_pod=\"p\",\"server.address\"=\"no\"} 1\n# EOF\n", true)
	must(t, err)
	pod, _ := ms[0].Origin.Resource.Attrs.Get("k8s_pod")
	address, _ := ms[0].Origin.Resource.Attrs.Get("server.address")
	if len(ms) != 1 || pod.Str() != "p" || address.Str() != "127.0.0.1" {
		t.Errorf("got %d points of %v", len(ms), ms[0].Origin.Resource.Attrs)
	}
	origin := ms[0].Origin
	if ms, err = convert(c, tg, "# TYPE target info\ntarget_info{k8s_pod=\"p\",\"server.address\"=\"no\"} 1\nx 1\n# EOF\n", true); err != nil || ms[0].Origin != origin {
		t.Errorf("the origin is another one in the next round: %v", err)
	}
}
