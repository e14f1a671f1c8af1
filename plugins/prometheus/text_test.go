package prometheus

import (
	"slices"
	"strings"
	"testing"
)

// TestConvert has what becomes of expositions: the lines that are given, and the points.
func TestConvert(t *testing.T) {
	f := func(name string, open bool, text string, want ...string) {
		t.Run(name, func(t *testing.T) {
			c, tg := bench(t, "{}")
			if open {
				text += "# EOF\n"
			}
			ms, err := convert(c, tg, text, open)
			must(t, err)
			if got := describeAll(ms); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
	f("nothing", false, "")
	f("nothing", true, "")
	f("comments and blanks", false, "# a comment\n\n#\n# HELP\n \t \n#HELP x y\n x \t 1 \n\ty\t2\n", "x gauge 1", "y gauge 2")
	f("labels", false, "x{} 1\nx{a=\"b\"}2\nx { a = \"b\" , c=\"d\", } 3 1000\nx{e=\"\"} 4 77\n",
		"x gauge 1", `x{a="b"} gauge 2`, `x{a="b",c="d"} gauge 3`, "x gauge 4")
	f("escapes", false, `x{a="C:\\dir\n\"x\"",b="\d"} 1`+"\n", `x{a="C:\\dir\n\"x\"",b="\\d"} gauge 1`)
	f("UTF-8", false, `{"name with spaces",label="x"} 1`+"\n"+`{a="b","q\"t","l bl"="ü"} 2`+"\n"+`x{"l.b"="v"} 3`+"\n",
		`name with spaces{label="x"} gauge 1`, `q"t{a="b",l bl="ü"} gauge 2`, `x{l.b="v"} gauge 3`)
	f("numbers", false, "a NaN\nb +Inf\nc -Inf\nd 1e3\ne -0.5\nf 123456789012345678\ng 00012\nh inf\n",
		"a gauge NaN", "b gauge +Inf", "c gauge -Inf", "d gauge 1000", "e gauge -0.5", "f gauge 1.2345678901234568e+17", "g gauge 12", "h gauge +Inf")
	f("types", false, "# TYPE a_total counter\na_total 1\n# TYPE b gauge\nb 2\n# TYPE c untyped\nc 3\n# TYPE d COUNTER\nd 4\n",
		"a_total counter 1", "b gauge 2", "c gauge 3", "d counter 4")
	f("OpenMetrics types", true, "# TYPE a counter\na_total 1\na_created 1.5\n# TYPE b info\nb_info{v=\"1\"} 1\n# TYPE c stateset\nc{c=\"x\"} 1\n# TYPE d unknown\nd 2\n# TYPE e gaugehistogram\ne_bucket{le=\"+Inf\"} 1\ne_gcount 1\n",
		"a_total counter 1", `b_info{v="1"} sum 1`, `c{c="x"} sum 1`, "d gauge 2")
	f("histogram", false, "# TYPE h histogram\nh_bucket{le=\"1\",a=\"x\"} 1\nh_bucket{a=\"x\",le=\"2\"} 3\nh_bucket{a=\"y\",le=\"2\"} 7\nh_bucket{a=\"x\",le=\"+Inf\"} 4\nh_sum{a=\"x\"} 5.5\nh_count{a=\"x\"} 4\nh_bucket{a=\"y\",le=\"1\"} 2\nh_count{a=\"y\"} 9\n",
		`h{a="x"} histogram count=4 sum=5.5 bounds=[1 2] counts=[1 2 1]`, `h{a="y"} histogram count=9 sum=0 bounds=[1 2] counts=[2 5 2]`)
	f("histogram that counts meanwhile", false, "# TYPE h histogram\nh_bucket{le=\"1\"} 5\nh_bucket{le=\"2\"} 4\nh_bucket{le=\"+Inf\"} 6\nh_count 7\n",
		"h histogram count=6 sum=0 bounds=[1 2] counts=[5 0 1]")
	f("histogram without buckets, without a count, with neither", false, "# TYPE h histogram\nh_count 3\nh_sum 4\n# TYPE i histogram\ni_bucket{le=\"+Inf\"} 2\n# TYPE j histogram\nj_bucket{le=\"1\"} 2\nj_sum 2\nj 1\n",
		"h histogram count=3 sum=4 bounds=[] counts=[]", "i histogram count=2 sum=0 bounds=[] counts=[2]")
	f("summary", false, "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"0.9\"} NaN\ns_sum 10\ns_count 4\n# TYPE r summary\nr{quantile=\"0.5\"} 1\n",
		"s summary count=4 sum=10 quantiles=[{0.5 1} {0.9 NaN}]")
	f("repeated", false, "x 1\nx 2\nx{a=\"1\",b=\"2\"} 3\nx{b=\"2\",a=\"1\"} 4\nx 5 1000\n", "x gauge 1", `x{a="1",b="2"} gauge 3`, "x gauge 5")
	f("exemplars", true, "# TYPE a counter\na_total 1 # {trace_id=\"0123456789abcdef0123456789abcdef\",span_id=\"0123456789abcdef\",x=\"y\"} 0.5 1.25\n# TYPE h histogram\nh_bucket{le=\"1\"} 1 # {trace_id=\"bad\"} 0.7\nh_bucket{le=\"+Inf\"} 1 # {} 3\nh_count 1\n",
		`a_total counter 1 # 0.5 1250000000 trace=0123456789abcdef0123456789abcdef span=0123456789abcdef x="y"`,
		`h histogram count=1 sum=0 bounds=[1] counts=[1 0] # 0.7 0 trace= span= trace_id="bad" # 3 0 trace= span=`)
}

// TestMalformed: of a text that is wrong nothing is taken, and the error says where and why.
func TestMalformed(t *testing.T) {
	f := func(open bool, text, want string) {
		t.Helper()
		c, tg := bench(t, "{max_samples: 5}")
		ms, err := convert(c, tg, text, open)
		if err == nil || !strings.Contains(err.Error(), want) || len(ms) > 0 {
			t.Errorf("%q gives %v and %d points, want an error with %q", text, err, len(ms), want)
		}
	}
	f(false, "a 1\nb 2", "line 2: there is no line feed")
	f(false, "a 1\n\nb\n", "line 3: after \"b\" must come a blank and a value")
	f(false, "a 1x\n", "must be a number")
	f(false, "a 0x1p3\n", "must be a number")
	f(false, "a 1_0\n", "must be a number")
	f(false, "a 1 2 3\n", "more than a value and a time")
	f(false, "a 1 2.5\n", "whole milliseconds")
	f(false, "a 1 99999999999999999\n", "whole milliseconds")
	f(false, "a 1 # {x=\"y\"} 1\n", "more than a value")
	f(false, "1a 1\n", "must begin with the name")
	f(false, "a{b} 1\n", "must have =")
	f(false, "a{b=c} 1\n", "must be in double quotes")
	f(false, "a{b=\"c} 1\n", "is not closed")
	f(false, "a{b=\"c\\\"} 1\n", "is not closed")
	f(false, "a{b=\"c\"; 1\n", "a comma or a closing brace")
	f(false, "a{b=\"c\",b=\"d\"} 1\n", "twice")
	f(false, "a{__name__=\"d\"} 1\n", "reserved")
	f(false, "a{\"b\"} 1\n", "must have =")
	f(false, "{} 1\n", "has no name")
	f(false, "{\"a\",\"b\"} 1\n", "must have =")
	f(false, "a{b=\"\xff\"} 1\n", "must be UTF-8")
	f(false, "# TYPE a thing\n", "must be counter, gauge")
	f(false, "# TYPE a\n", "the type of \"a\" is missing")
	f(false, "# TYPE a! gauge\n", "is no name")
	f(false, "# TYPE h histogram\nh_bucket{le=\"x\"} 1\n", "label le of")
	f(false, strings.Repeat("a 1\n", 6), "max_samples")
	f(true, "a 1\n", "# EOF is missing")
	f(true, "a 1\n# EOF\nb 1\n", "something after # EOF")
	f(true, "a 1\n\n# EOF\n", "an empty line")
	f(true, "a  1\n# EOF\n", "must be a number")
	f(true, "a 1 \n# EOF\n", "more than a value")
	f(true, "# a comment\n# EOF\n", "HELP, TYPE, UNIT or EOF")
	f(true, "a 1 x\n# EOF\n", "seconds since 1970")
	f(true, "a 1 # 1\n# EOF\n", "must begin with its labels")
	f(true, "# TYPE a gauge\n# TYPE a gauge\n# EOF\n", "twice")
	f(true, "a{b=\"c\",} 1\n# EOF\n", "must have a label")
}

// TestText: what goes beyond points: descriptions, units, times.
func TestText(t *testing.T) {
	c, tg := bench(t, "{}")
	ms, err := convert(c, tg, "# HELP a_seconds In \\\\ and\\nout.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 3 1999999990.123456789\na_seconds_created 1999999980.5\n# UNIT b bytes_per_second\nb 1\n# EOF\n", true)
	must(t, err)
	d := ms[0].Desc
	if d.Name != "a_seconds_total" || d.Description != "In \\ and\nout." || d.Unit != "s" || ms[0].Time != 1999999990_123456789 || ms[0].Start != 1999999980_500000000 {
		t.Errorf("got %+v in %+v", d, ms[0])
	}
	if v, _ := d.Metadata.Get("prometheus.type"); v.Str() != "counter" {
		t.Errorf("the type is %v", v)
	}
	if ms[1].Desc.Unit != "By/s" || ms[1].Time != testTime {
		t.Errorf("got %+v at %d", ms[1].Desc, ms[1].Time)
	}
	if ms, err = convert(c, tg, "x 1 -5\n", false); err != nil || ms[0].Time != -5e6 {
		t.Errorf("got %+v, %v", ms, err)
	}
}

// FuzzText: whatever the text is, reading it ends, and what can be read once can be read again, with the same result.
func FuzzText(f *testing.F) {
	for _, text := range []string{
		"# HELP a b\n# TYPE a counter\na{b=\"c\\n\"} 1 1000\n", "{\"a b\",c=\"d\"} NaN\n", "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n",
		"# TYPE a counter\n# UNIT a s\na_total 1 1.5 # {x=\"y\"} 1 2\na_created 1\n# EOF\n", "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_count 1\n", "a{b=\"\xff\"} 1\n",
		"# TYPE target info\ntarget_info{a=\"b\"} 1\n# EOF\n", "x{job=\"a\",otel_scope_name=\"b\"} 1\n",
	} {
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, open bool) {
		c, tg := bench(t, "{labels: {b: x}, max_samples: 1000}")
		first, err := convert(c, tg, text, open)
		want := describeAll(first)
		again, againErr := convert(c, tg, text, open)
		if (err == nil) != (againErr == nil) || !slices.Equal(want, describeAll(again)) {
			t.Errorf("got %q, %v and then %q, %v", want, err, describeAll(again), againErr)
		}
		known := 0
		for _, s := range tg.series {
			if !s.stamped {
				known++
			}
		}
		over, err := convert(c, tg, "broken", false)
		if err == nil || len(over) != known {
			t.Errorf("of %d series %d are over, %v", known, len(over), err)
		}
	})
}
