package aggregate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{points: {}}"})
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{points: {drop_attributes: [n]}, max_series: 5}"})
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{points: {}, max_series: 5, ack: memory}"})
	const made = "metrics: [{name: lines, by: {n: 'attributes[\"n\"]'}}, {name: spans, from: traces, kind: sum, value: 'attributes[\"n\"]'}, {name: some, kind: histogram, value: 'attributes[\"n\"]', where: 'attributes[\"n\"] > 3'}]"
	for _, more := range []string{"", ", ack: memory", ", keep_input: false, max_series: 7", ", keep_input: false, ack: memory"} {
		plugintest.Run(t, Plugin, plugintest.Options{Config: "{" + made + more + "}"})
	}
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{keep_input: false, metrics: [{name: some, kind: gauge, value: 'attributes[\"n\"]', where: 'attributes[\"n\"] > 3'}, {name: spans, from: traces, where: 'attributes[\"n\"] > 3'}]}"})
}

// stand is what stands around the processor: it keeps the books as the pipeline does, and what is sent on.
type stand struct {
	t       testing.TB
	a       *aggregate
	memory  creel.Memory
	metrics *metric.Set
	held    *creel.Custody
	in      int

	mu     sync.Mutex // Run sends as well; guards what follows
	counts creel.Counts
	out    []string
	sent   int
	err    error // what becomes of what is sent on
	quiet  bool  // nothing is noted
}

func newStand(t testing.TB, yaml string) *stand {
	t.Helper()
	s := &stand{t: t, held: creel.NewStandingCustody(), metrics: metric.NewSet()}
	s.memory.Poison = true
	a, err := open(yaml, creel.Host{Memory: &s.memory, Metrics: s.metrics})
	if err != nil {
		t.Fatal(err)
	}
	s.a = a
	return s
}

func open(yaml string, h creel.Host) (*aggregate, error) {
	n, err := config.Parse("test.yaml", []byte(yaml), config.Env{})
	if err != nil {
		return nil, err
	}
	canonical, errs := Plugin.Config.Check(n)
	if len(errs) > 0 {
		return nil, errs
	}
	p, err := Plugin.Open(canonical, h)
	if err != nil {
		return nil, err
	}
	return p.(*aggregate), nil
}

// Send takes what the processor sends on.
func (s *stand) Send(b *creel.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !creel.Forward(b) {
		s.counts.Created += b.Len()
	}
	s.sent += b.Len()
	if !s.quiet {
		switch b.Signal() {
		case creel.Logs:
			for _, l := range b.Logs() {
				s.out = append(s.out, "log "+l.Body.String())
			}
		case creel.Metrics:
			for i := range b.Metrics() {
				s.out = append(s.out, describe(&b.Metrics()[i]))
			}
		case creel.Traces:
			for _, sp := range b.Spans() {
				s.out = append(s.out, "span "+sp.Name)
			}
		}
	}
	creel.Settle(b, s.err)
}

// describe writes a point as name{attributes}[start time]value.
func describe(m *creel.Metric) string {
	text := m.Desc.Name + string(m.Attrs.Append(nil))
	if len(m.Origin.Resource.Attrs) > 0 {
		text += string(m.Origin.Resource.Attrs.Append(nil))
	}
	text += fmt.Sprintf("[%d %d]", m.Start, m.Time)
	if h := m.Histogram; h != nil {
		return text + fmt.Sprintf("n=%d sum=%v min=%v max=%v %v %v", h.Count, h.Sum.Value, h.Min.Value, h.Max.Value, h.Bounds, h.Counts)
	}
	return text + m.Value.String()
}

// send gives the processor records of a signal, and returns what whoever waits for them is told.
func (s *stand) send(signal creel.Signal, fill func(r *creel.Records)) (done *error) {
	s.t.Helper()
	r := s.memory.NewRecords()
	fill(r)
	b := creel.NewBatch(signal, r)
	notYet := errors.New("not yet")
	done = &notYet
	b.OnDone(func(err error) { *done = err })
	s.give(b)
	return done
}

func (s *stand) give(b *creel.Batch) {
	s.in += b.Len()
	c := creel.NewCustody(s.held)
	c.Give(b)
	if err := s.a.Process(context.Background(), b, s); err != nil {
		s.t.Fatal(err)
	}
	c.End(nil, s.add)
}

func (s *stand) add(n creel.Counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Created += n.Created
	s.counts.Filtered += n.Filtered
	s.counts.Absorbed += n.Absorbed
}

func (s *stand) points(list ...creel.Metric) *error {
	s.t.Helper()
	return s.send(creel.Metrics, func(r *creel.Records) {
		for _, m := range list {
			if m.Origin == nil {
				m.Origin = &creel.Origin{}
			}
			m.Attrs = append(creel.Attrs(r.Attrs.Make(len(m.Attrs))[:0]), m.Attrs...) // which is poisoned in the end
			r.Metrics = append(r.Metrics, m)
		}
	})
}

func (s *stand) logs(list ...creel.Log) *error {
	s.t.Helper()
	return s.send(creel.Logs, func(r *creel.Records) {
		for _, l := range list {
			if l.Origin == nil {
				l.Origin = &creel.Origin{}
			}
			r.Logs = append(r.Logs, l)
		}
	})
}

// flush ends the interval and compares what is sent, since the last time.
func (s *stand) flush(want ...string) {
	s.t.Helper()
	s.a.flush(s)
	s.expect(want...)
	if batches, _ := s.held.Len(); batches != 0 {
		s.t.Errorf("%d batches are held", batches)
	}
	if n := s.memory.Out(); n != 0 {
		s.t.Errorf("%d batches are not settled", n)
	}
}

func (s *stand) expect(want ...string) {
	s.t.Helper()
	s.add(s.held.Take())
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := strings.Join(s.out, "\n"); got != strings.Join(want, "\n") {
		s.t.Errorf("sent was\n%s\nnot\n%s", got, strings.Join(want, "\n"))
	}
	s.out = nil
	_, held := s.held.Len()
	if s.in+s.counts.Created != s.counts.Absorbed+s.counts.Filtered+s.sent+held {
		s.t.Errorf("%d records went in, %d came out, %d are held, %+v", s.in, s.sent, held, s.counts)
	}
}

func (s *stand) counted(name string) (n float64) {
	s.metrics.Gather(func(p metric.Point) {
		if p.Name == name {
			n = p.Value
		}
	})
	return n
}

func attrs(pairs ...any) (as creel.Attrs) {
	for i := 0; i < len(pairs); i += 2 {
		v, ok := pairs[i+1].(string)
		if ok {
			as = append(as, creel.Attr{Key: pairs[i].(string), Value: creel.String(v)})
		} else {
			as = append(as, creel.Attr{Key: pairs[i].(string), Value: creel.Int(int64(pairs[i+1].(int)))})
		}
	}
	return as
}

func TestWrongOptions(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		if _, err := open(yaml, creel.Host{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, not %q", yaml, err, want)
		}
	}
	f("{}", "says nothing to do")
	f("{points: {drop_attributes: [a], keep_attributes: [b]}}", "drop_attributes as well")
	f("{points: {where: severity >= ERROR}}", "data points do not have")
	f("{metrics: [{name: a}, {name: b}, {name: a, where: severity >= ERROR}]}", "two of them are called")
	f("{metrics: [{name: ''}]}", "must not be empty")
	f("{metrics: [{name: a, kind: sum}]}", "is needed for kind: sum")
	f("{metrics: [{name: a, value: body}]}", "no use")
	f("{metrics: [{name: a, kind: histogram, value: body, buckets: [1, 1]}]}", "must rise")
	f("{metrics: [{name: a, from: traces, where: severity >= ERROR}]}", "traces do not have")
	f("{metrics: [{name: a, from: traces, kind: sum, value: severity}]}", "traces do not have")
	f("{metrics: [{name: a, from: traces, by: {x: body}}]}", "traces do not have")
}

// TestRun: points are sent at the end of each interval, and the last ones when the processor is to stop.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, "{interval: 10s, metrics: [{name: lines}]}")
		base := time.Now().UnixNano()
		at := func(second int64) int64 { return base + second*1e9 }
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- s.a.Run(ctx, s) }()
		wait := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		s.logs(creel.Log{}, creel.Log{})
		wait(9 * time.Second)
		s.expect("log null", "log null")
		wait(time.Second)
		s.expect(fmt.Sprintf("lines{}[%d %d]2", at(0), at(10)))
		wait(10 * time.Second)
		s.expect()
		s.logs(creel.Log{})
		wait(3 * time.Second)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		s.expect("log null", fmt.Sprintf("lines{}[%d %d]1", at(20), at(23)))
		if n := s.memory.Out(); n != 0 {
			t.Errorf("%d batches are not settled", n)
		}
	})
}
