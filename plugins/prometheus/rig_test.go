package prometheus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

// must fails the test if err is not nil.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newRand returns a source of chance, whose seed is printed when the test fails.
func newRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the seed was %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// options returns the checked options that yaml stands for.
func options(t testing.TB, yaml string) Config {
	t.Helper()
	n, err := config.Parse("test.yaml", []byte(yaml), config.Env{})
	must(t, err)
	canonical, errs := Plugin.Config.Check(n)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	c, err := config.Decode[Config](canonical)
	must(t, err)
	return c
}

func open(t testing.TB, yaml string, h creel.Host) *collector {
	t.Helper()
	c, err := New(options(t, yaml), h.Ready())
	must(t, err)
	t.Cleanup(func() { must(t, c.(*collector).Close()) })
	return c.(*collector)
}

// page is a target of which a test says what it exposes.
type page struct {
	*httptest.Server
	mu     sync.Mutex
	text   string
	kind   string
	handle http.HandlerFunc // instead, if set
	asked  []*http.Request
}

func newPage(t testing.TB, text string) *page {
	p := &page{text: text, kind: "text/plain; version=0.0.4"}
	if strings.HasSuffix(text, "# EOF\n") {
		p.kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		text, kind, handle := p.text, p.kind, p.handle
		p.asked = append(p.asked, r)
		p.mu.Unlock()
		if handle != nil {
			handle(w, r)
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write([]byte(text))
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *page) set(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
}

func (p *page) serve(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handle = h
}

// sink keeps what it is sent as text, and settles it, after which nothing may look at it.
type sink struct {
	batches [][]string
	refuse  bool
}

func (k *sink) Send(ctx context.Context, b *creel.Batch) error {
	if k.refuse {
		return context.Canceled
	}
	k.batches = append(k.batches, describeAll(b.Metrics()))
	creel.Settle(b, nil)
	return nil
}

func (k *sink) TrySend(b *creel.Batch) bool { return k.Send(context.Background(), b) == nil }

// round does one, and returns the points, without those about targets unless all is set.
func round(t testing.TB, c *collector, all bool) []string {
	t.Helper()
	var k sink
	must(t, c.Collect(t.Context(), &k))
	var list []string
	for _, b := range k.batches {
		for _, line := range b {
			if about := strings.HasPrefix(line, "scrape_") || strings.HasPrefix(line, "up"); all || !about {
				list = append(list, line)
			}
		}
	}
	return list
}

func describeAll(ms []creel.Metric) (list []string) {
	for i := range ms {
		list = append(list, describe(&ms[i]))
	}
	return list
}

// describe writes a point for a reader, without its times.
func describe(m *creel.Metric) string {
	var s strings.Builder
	s.WriteString(m.Desc.Name)
	if len(m.Attrs) > 0 {
		s.WriteByte('{')
		for i, a := range m.Attrs {
			if i > 0 {
				s.WriteByte(',')
			}
			fmt.Fprintf(&s, "%s=%q", a.Key, a.Value.Str())
		}
		s.WriteByte('}')
	}
	switch m.Desc.Kind {
	case creel.Gauge:
		s.WriteString(" gauge")
	case creel.Sum:
		s.WriteString(map[bool]string{true: " counter", false: " sum"}[m.Desc.Monotonic])
	case creel.HistogramKind:
		s.WriteString(" histogram")
	case creel.SummaryKind:
		s.WriteString(" summary")
	}
	switch {
	case m.Flags&noValue != 0:
		s.WriteString(" over")
	case m.Histogram != nil:
		fmt.Fprintf(&s, " count=%d sum=%v bounds=%v counts=%v", m.Histogram.Count, m.Histogram.Sum.Value, m.Histogram.Bounds, m.Histogram.Counts)
	case m.Summary != nil:
		fmt.Fprintf(&s, " count=%d sum=%v quantiles=%v", m.Summary.Count, m.Summary.Sum, m.Summary.Quantiles)
	default:
		s.WriteString(" " + strconv.FormatFloat(m.Value.Double(), 'g', -1, 64))
	}
	for _, e := range m.Exemplars {
		fmt.Fprintf(&s, " # %v %v trace=%v span=%v", e.Value, e.Time, e.TraceID, e.SpanID)
		for _, a := range e.Attrs {
			fmt.Fprintf(&s, " %s=%q", a.Key, a.Value.Str())
		}
	}
	return s.String()
}

const testTime = int64(2_000_000_000e9)

// bench is a converter with one target.
func bench(t testing.TB, yaml string) (*converter, *target) {
	c := open(t, yaml, creel.Host{})
	tg, err := newTarget(c.options, "127.0.0.1:9100", nil)
	must(t, err)
	return &c.converter, tg
}

// convert returns the points of an exposition.
func convert(c *converter, tg *target, text string, open bool) ([]creel.Metric, error) {
	o := outcome{start: time.Unix(0, testTime)}
	b := c.convert(nil, tg, text, open, &o)
	tg.sent(o)
	return b.Metrics()[:b.Len()-len(aboutTargets)], o.err
}

// tryOptions returns what is wrong with options.
func tryOptions(yaml string) error {
	n, err := config.Parse("test.yaml", []byte(yaml), config.Env{})
	if err != nil {
		return err
	}
	if _, errs := Plugin.Config.Check(n); len(errs) > 0 {
		return errs
	}
	return nil
}
