package metric_test

import (
	"bytes"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/creelhq/creel/metric"
)

func TestTextAgainstPrometheusParser(t *testing.T) {
	s := metric.NewSet(metric.Label{Name: "agent.id", Value: "a\"b\\c\nd"})
	s.Counter("creel.export.attempts", "Tries \\ and\nbreaks.", "{request}").Add(7)
	s.Sub(metric.Label{Name: "component", Value: "x"}).Counter("creel.export.attempts", "Tries \\ and\nbreaks.", "{request}").Add(8)
	s.Gauge("creel.queue.usage", "Fill.", "By").Set(2.5)
	s.GaugeFunc("creel.share", "Share.", "1", func() float64 { return math.Inf(1) })
	s.CounterFunc("process.cpu.time", "CPU.", "s", func() float64 { return 3 })
	h := s.Histogram("creel.wait", "Wait.", "s", 0.1, 1)
	for _, v := range []float64{0.05, 0.1, 0.5, 9} {
		h.Observe(v)
	}
	var out bytes.Buffer
	if err := metric.WriteText(&out, s); err != nil {
		t.Fatal(err)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	attempts := families["creel_export_attempts_total"]
	if len(attempts.GetMetric()) != 2 || attempts.GetMetric()[0].GetCounter().GetValue() != 7 || attempts.GetHelp() != "Tries \\ and\nbreaks." {
		t.Errorf("got %v", attempts)
	}
	if l := attempts.GetMetric()[0].GetLabel()[0]; l.GetName() != "agent_id" || l.GetValue() != "a\"b\\c\nd" {
		t.Errorf("got label %v", l)
	}
	for _, name := range []string{"creel_queue_usage_bytes", "creel_share_ratio", "process_cpu_time_seconds_total"} {
		if families[name] == nil {
			t.Errorf("%s is missing in\n%s", name, out.String())
		}
	}
	hist := families["creel_wait_seconds"].GetMetric()[0].GetHistogram()
	if hist.GetSampleCount() != 4 || hist.GetBucket()[0].GetCumulativeCount() != 2 || hist.GetBucket()[1].GetCumulativeCount() != 3 {
		t.Errorf("got %v", hist)
	}
}

func TestClosedSetsAreGone(t *testing.T) {
	s := metric.NewSet()
	child := s.Sub(metric.Label{Name: "a", Value: "b"})
	child.Counter("x", "X.", "").Inc()
	child.Close()
	s.Gather(func(p metric.Point) { t.Errorf("%s is still there", p.Name) })
}

func TestNilSetWorks(t *testing.T) {
	var s *metric.Set
	s.Counter("x", "X.", "").Inc()
	s.Sub().Gauge("y", "Y.", "").Set(1)
	s.GaugeFunc("z", "Z.", "", nil)
	s.Gather(func(p metric.Point) { t.Errorf("%s was gathered", p.Name) })
	s.Close()
}

func TestBugsPanic(t *testing.T) {
	s := metric.NewSet()
	s.Counter("x", "X.", "")
	for name, f := range map[string]func(){
		"other kind": func() { s.Gauge("x", "X.", "") },
		"bad name":   func() { s.Gauge("a-b", "X.", "") },
		"bounds":     func() { s.Histogram("h", "H.", "", 2, 1) },
	} {
		func() {
			defer func() {
				if p, _ := recover().(string); !strings.HasPrefix(p, "BUG: ") {
					t.Errorf("%s: %v", name, p)
				}
			}()
			f()
		}()
	}
}

func TestConcurrentUse(t *testing.T) {
	s := metric.NewSet()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				child := s.Sub()
				child.Counter("c", "C.", "").Inc()
				s.Counter("all", "All.", "").Inc()
				s.Gauge("g", "G.", "").Add(1)
				s.Histogram("h", "H.", "", 1, 2).Observe(1.5)
				s.Gather(func(metric.Point) {})
				child.Close()
			}
		})
	}
	wg.Wait()
	if s.Counter("all", "", "").Load() != 1600 || s.Gauge("g", "", "").Load() != 1600 {
		t.Error("counts were lost")
	}
}

func TestMeasuringDoesNotAllocate(t *testing.T) {
	s := metric.NewSet()
	c, g, h := s.Counter("c", "C.", ""), s.Gauge("g", "G.", ""), s.Histogram("h", "H.", "", 1, 2, 3)
	if n := testing.AllocsPerRun(100, func() { c.Inc(); g.Add(1); h.Observe(2) }); n != 0 {
		t.Errorf("allocates %v times", n)
	}
}
