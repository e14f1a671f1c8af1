package prometheus

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/creelhq/creel"
)

// exposed returns an exposition of about n series, some of them in histograms, as services have.
func exposed(n int) string {
	var s strings.Builder
	for f := 0; f < n/100; f++ {
		switch f % 5 {
		case 0:
			fmt.Fprintf(&s, "# HELP http_request_duration_%d_seconds How long requests took.\n# TYPE http_request_duration_%d_seconds histogram\n", f, f)
			for i := range 8 {
				for b, bound := range []string{"0.005", "0.01", "0.05", "0.1", "0.5", "1", "2.5", "5", "10", "+Inf"} {
					fmt.Fprintf(&s, "http_request_duration_%d_seconds_bucket{method=\"GET\",path=\"/api/v1/%d\",le=\"%s\"} %d\n", f, i, bound, 100*b)
				}
				fmt.Fprintf(&s, "http_request_duration_%d_seconds_sum{method=\"GET\",path=\"/api/v1/%d\"} 17.25\nhttp_request_duration_%d_seconds_count{method=\"GET\",path=\"/api/v1/%d\"} 900\n", f, i, f, i)
			}
		case 1:
			fmt.Fprintf(&s, "# HELP memory_%d_bytes Bytes in use.\n# TYPE memory_%d_bytes gauge\n", f, f)
			for i := range 100 {
				fmt.Fprintf(&s, "memory_%d_bytes{pool=\"pool-%d\"} 1.234567e+%02d\n", f, i, i%10)
			}
		default:
			fmt.Fprintf(&s, "# HELP requests_%d_total Requests so far.\n# TYPE requests_%d_total counter\n", f, f)
			for i := range 100 {
				fmt.Fprintf(&s, "requests_%d_total{code=\"200\",handler=\"/api/v1/query\",instance_id=\"node-%d\"} %d\n", f, i, i*12345)
			}
		}
	}
	return s.String()
}

// TestAllocations: a round with the series of the one before allocates nothing by series or line.
func TestAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("the short form is for the race detector, with which pools forget at random")
	}
	text := exposed(1000)
	c, tg := bench(t, "{}")
	memory := &creel.Memory{}
	if n := least(20, func() { pass(t, c, tg, memory, text) }); n > 20 {
		t.Errorf("%d samples allocated %v times", c.samples, n)
	}
}

// least returns the least of some rounds' allocations.
func least(rounds int, f func()) float64 {
	n := testing.AllocsPerRun(1, f)
	for range rounds {
		n = min(n, testing.AllocsPerRun(1, f))
	}
	return n
}

// pass converts text once.
func pass(t testing.TB, c *converter, tg *target, m *creel.Memory, text string) {
	o := outcome{start: time.Unix(0, testTime)}
	b := c.convert(m, tg, text, false, &o)
	must(t, o.err)
	tg.sent(o)
	creel.Settle(b, nil)
}

// BenchmarkConvert is what becomes of 5 000 series: read alone, and made records of; and, to compare, the time of Prometheus'
// library, and the limit: to look at each byte once to find the ends of lines.
func BenchmarkConvert(b *testing.B) {
	text := exposed(5000)
	f := func(name string, once func()) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				once()
			}
		})
	}
	f("limit", func() {
		n := 0
		for rest := text; ; n++ {
			i := strings.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			rest = rest[i+1:]
		}
		if n < 5000 {
			b.Fatal(n)
		}
	})
	var p parser
	f("read", func() {
		p.reset(text, false)
		for {
			kind, err := p.next()
			must(b, err)
			if kind == lineEnd {
				return
			}
		}
	})
	c, tg := bench(b, "{}")
	memory := &creel.Memory{}
	f("convert", func() { pass(b, c, tg, memory, text) })
	f("expfmt", func() {
		reader := expfmt.NewTextParser(model.UTF8Validation)
		_, err := reader.TextToMetricFamilies(io.NopCloser(strings.NewReader(text)))
		must(b, err)
	})
}
