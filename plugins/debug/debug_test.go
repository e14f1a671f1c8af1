package debug

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

func exported(t *testing.T, c Config, now time.Time, batches ...*creel.Batch) string {
	t.Helper()
	var out bytes.Buffer
	x := &exporter{Config: c, out: &out, now: func() time.Time { return now }}
	for _, b := range batches {
		if err := x.Export(t.Context(), []*creel.Batch{b}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(400 * time.Millisecond)
	}
	return out.String()
}

func TestLines(t *testing.T) {
	at := time.Date(2026, 11, 24, 1, 2, 3, 4e6, time.UTC).UnixNano()
	o := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host.name", Value: creel.String("h")}, {Key: "service.name", Value: creel.String("shop")}}}, Scope: creel.Scope{Name: "lib", Version: "2"}}
	attrs := creel.Attrs{{Key: "k", Value: creel.Int(1)}}
	log := creel.NewLogs([]creel.Log{{Origin: o, Time: at, Severity: creel.SeverityWarn, Body: creel.String("bad \x1b[31m\nthing\""), Attrs: attrs}})
	points := creel.NewMetrics([]creel.Metric{
		{Origin: o, Time: at, Desc: &creel.Descriptor{Name: "cpu", Unit: "1"}, Value: creel.Double(0.5), Attrs: attrs},
		{Time: at, Desc: &creel.Descriptor{Name: "lat", Unit: "s"}, Histogram: &creel.Histogram{Count: 2, Sum: creel.Optional{Value: 3, Valid: true}}},
	})
	span := creel.NewSpans([]creel.Span{{Origin: o, Name: "GET", TraceID: creel.TraceID{1}, SpanID: creel.SpanID{2}, Start: at, End: at + 5e6, Status: creel.Status{Code: creel.StatusError, Message: "oh"}}})
	all := Config{Verbosity: "normal", SamplingInitial: 100}
	want := `log 2026-11-24T01:02:03.004Z WARN shop bad \x1b[31m\nthing" {k=1}
metric 2026-11-24T01:02:03.004Z shop cpu {k=1} 0.5 1
metric 2026-11-24T01:02:03.004Z lat count=2 sum=3 s
span 2026-11-24T01:02:03.004Z shop GET 5ms 01000000000000000000000000000000/0200000000000000 error oh
`
	if got := exported(t, all, time.Unix(1, 0), log, points, span); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	all.Verbosity = "detailed"
	if got := exported(t, all, time.Unix(1, 0), log, points, span); !strings.Contains(got, "resource {host.name=h service.name=shop} scope=lib@2") || strings.Contains(got, "\x1b") {
		t.Errorf("got\n%s", got)
	}
	all.Verbosity = "basic"
	if got := exported(t, all, time.Unix(1, 0), log); !strings.HasPrefix(got, "logs: 1 records, ") {
		t.Errorf("got\n%s", got)
	}
}

func TestSampling(t *testing.T) {
	batch := func() *creel.Batch { return creel.NewLogs(make([]creel.Log, 10)) }
	got := exported(t, Config{Verbosity: "normal", SamplingInitial: 3, SamplingThereafter: 5}, time.Unix(1, 0), batch(), batch(), batch(), batch())
	// Seconds: three batches in the first, one in the second.
	if lines, more := strings.Count(got, "log "), strings.Count(got, "… and 22 more in that second\n"); lines != 3+5+3+1 || more != 1 {
		t.Errorf("%d lines, and %d say what was left out:\n%s", lines, more, got)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestErrorOfTheWriter(t *testing.T) {
	x := &exporter{Config: Config{Verbosity: "basic"}, out: broken{}, now: time.Now}
	if err := x.Export(t.Context(), []*creel.Batch{creel.NewLogs(make([]creel.Log, 1))}); err == nil {
		t.Error("an error of the writer is not told")
	}
}
