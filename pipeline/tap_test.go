package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
)

// street is an engine whose collector in lends its sink; double makes every body twice as large; out notes bodies and
// whether batches still had their wire bytes.
type street struct {
	*pipeline.Engine
	t      *testing.T
	memory creel.Memory
	sinks  chan creel.Sink
	sink   creel.Sink

	mu     sync.Mutex
	bodies []int64
	wired  int
}

const streetConfig = `
collectors: {in: {variant: %d}}
processors: {double: {variant: %[1]d}}
exporters: {out: , in: }
pipelines: {p: {from: [in], through: [double], to: [out, in]}}`

func newStreet(t *testing.T) *street {
	s := &street{t: t, sinks: make(chan creel.Sink, 1), Engine: pipeline.New(pipeline.Options{})}
	s.memory.Poison = true
	s.apply(1)
	t.Cleanup(func() {
		if err := s.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		if n := s.memory.Out(); n != 0 {
			t.Errorf("%d batches are not settled", n)
		}
	})
	return s
}

func (s *street) plugins() []creel.Plugin {
	out := func(none, creel.Host) (creel.Exporter, error) {
		return creel.ExporterFunc(func(_ context.Context, batches []*creel.Batch) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, b := range batches {
				if b.Wire() != nil {
					s.wired++
				}
				for _, l := range b.Logs() {
					s.bodies = append(s.bodies, l.Body.Int())
				}
			}
			return nil
		}), nil
	}
	return []creel.Plugin{
		creel.NewCollector("in", "Lends its sink.", func(none, creel.Host) (creel.Collector, error) {
			return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
				s.sinks <- out
				<-ctx.Done()
				return nil
			}), nil
		}),
		creel.NewProcessor("double", "Doubles bodies, and drops those above 100.", func(none, creel.Host) (creel.Processor, error) {
			return creel.ProcessorFunc(func(_ context.Context, b *creel.Batch, next creel.Next) error {
				if b.Wire() != nil {
					next.Send(b)
					return nil
				}
				logs := b.EditLogs()
				for i := range logs {
					logs[i].Body = creel.Int(2 * logs[i].Body.Int())
				}
				b.Keep(func(i int) bool { return logs[i].Body.Int() <= 100 })
				next.Send(b)
				return nil
			}), nil
		}),
		creel.NewExporter("out", "Notes.", out),
		creel.NewExporter("in", "Has the collector's name.", func(none, creel.Host) (creel.Exporter, error) {
			return creel.ExporterFunc(func(context.Context, []*creel.Batch) error { return nil }), nil
		}),
	}
}

// apply makes the configuration with a variant run.
func (s *street) apply(variant int) {
	s.t.Helper()
	root, err := config.Parse("t.yaml", fmt.Appendf(nil, streetConfig, variant), config.Env{})
	if err != nil {
		s.t.Fatal(err)
	}
	plan, err := pipeline.Compile(root, s.plugins(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.Apply(context.Background(), plan); err != nil {
		s.t.Fatal(err)
	}
	s.sink = <-s.sinks
}

// send sends a batch and waits until it is delivered.
func (s *street) send(b *creel.Batch) {
	s.t.Helper()
	done := make(chan error, 1)
	b.OnDone(func(err error) { done <- err })
	if err := s.sink.Send(context.Background(), b); err != nil {
		s.t.Fatal(err)
	}
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
}

func (s *street) bodiesBatch(bodies ...int64) *creel.Batch {
	r := s.memory.NewRecords()
	for _, n := range bodies {
		r.Logs = append(r.Logs, creel.Log{Body: creel.Int(n)})
	}
	return creel.NewBatch(creel.Logs, r)
}

// renderBody shows a record as its body.
func renderBody(b *creel.Batch, i int) []byte { return b.Logs()[i].Body.Append(nil) }

func (s *street) tap(o pipeline.TapOptions) *pipeline.Tap {
	s.t.Helper()
	o.Render = renderBody
	if o.Rate == 0 {
		o.Rate = 1000
	}
	tap, err := s.Tap(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(tap.Close)
	return tap
}

// shown returns the lines that are there.
func shown(tap *pipeline.Tap) []string {
	lines := []string{}
	for {
		select {
		case line := <-tap.Lines():
			tap.Taken(line)
			lines = append(lines, string(line))
		default:
			return lines
		}
	}
}

func TestTapSeesWhatPassesItsEdge(t *testing.T) {
	s := newStreet(t)
	even := func(b *creel.Batch) func(int) bool {
		logs := b.Logs()
		return func(i int) bool { return logs[i].Body.Int()%4 == 0 }
	}
	taps := map[string]*pipeline.Tap{
		"[1 2 60]":  s.tap(pipeline.TapOptions{Edge: "collectors.in"}),
		"[1 2 60 ]": s.tap(pipeline.TapOptions{Edge: "pipelines.p.double", Before: true}),
		"[2 4]":     s.tap(pipeline.TapOptions{Edge: "p/double"}),
		"[2 4 ]":    s.tap(pipeline.TapOptions{Edge: "out"}),
		"[4]":       s.tap(pipeline.TapOptions{Edge: "p.double", Match: even}),
	}
	s.send(s.bodiesBatch(1, 2, 60))
	for want, tap := range taps {
		if got := fmt.Sprint(shown(tap)); got != strings.ReplaceAll(want, " ]", "]") {
			t.Errorf("%s shows %s, not %s", tap.Edge, got, want)
		}
	}
	if c := taps["[4]"].Counts(); c != (pipeline.TapCounts{Passed: 2, Looked: 2, Shown: 1}) {
		t.Errorf("the counts are %+v", c)
	}
	for _, tap := range taps {
		tap.Close()
		tap.Close() // which means nothing
	}
	s.send(s.bodiesBatch(3))
	for _, tap := range taps {
		if lines := shown(tap); len(lines) > 0 {
			t.Errorf("%s shows %v after it was closed", tap.Edge, lines)
		}
	}
}

func TestTapSurvivesReload(t *testing.T) {
	s := newStreet(t)
	tap := s.tap(pipeline.TapOptions{Edge: "p.double"})
	for i := range 4 {
		s.apply(10 + i)
		s.send(s.bodiesBatch(int64(i)))
	}
	if got := fmt.Sprint(shown(tap)); got != "[0 2 4 6]" {
		t.Errorf("the tap shows %s", got)
	}
	if _, err := s.Apply(context.Background(), &pipeline.Plan{}); err != nil {
		t.Fatal(err)
	}
	s.apply(20)
	s.send(s.bodiesBatch(50))
	if got := fmt.Sprint(shown(tap)); got != "[100]" {
		t.Errorf("after its component was away, the tap shows %s", got)
	}
}

func TestTapIsBounded(t *testing.T) {
	s := newStreet(t)
	slow, deaf := s.tap(pipeline.TapOptions{Edge: "collectors.in", Rate: 5}), s.tap(pipeline.TapOptions{Edge: "collectors.in", Rate: 1e9})
	began := time.Now()
	const batches, size = 500, 100
	for range batches {
		s.send(s.bodiesBatch(make([]int64, size)...)) // nobody reads the taps meanwhile
	}
	took := time.Since(began).Seconds()
	c := slow.Counts()
	if c.Passed != batches*size || c.Shown < 5 || float64(c.Shown) > 5+5*took || c.Looked < c.Shown {
		t.Errorf("in %v s a tap of 5/s counts %+v", took, c)
	}
	if c := deaf.Counts(); c.Passed != batches*size || c.Shown != 256 || c.Shown != int64(len(shown(deaf))) {
		t.Errorf("a tap that nobody reads counts %+v", c)
	}
	s.send(s.bodiesBatch(1))
	if c := deaf.Counts(); c.Looked > 20_000+size+int64(20_000*(took+1)) {
		t.Errorf("a tap looked at %d records in %v s", c.Looked, took)
	}
}

func TestTapKeepsWireBytes(t *testing.T) {
	s := newStreet(t)
	tap := s.tap(pipeline.TapOptions{Edge: "p.double", Rate: 1})
	s.send(creel.NewWire(creel.Logs, 1, []byte("wire"), &s.memory, func(_ []byte, r *creel.Records) {
		r.Logs = append(r.Logs, creel.Log{Body: creel.Int(7)})
	}))
	if got := fmt.Sprint(shown(tap)); got != "[7]" || s.wired != 1 {
		t.Errorf("the tap shows %s, and %d batches have kept their wire bytes", got, s.wired)
	}
}

func TestTapHarmsNobody(t *testing.T) {
	s := newStreet(t)
	tap, err := s.Tap(pipeline.TapOptions{Edge: "collectors.in", Rate: 10, Render: func(*creel.Batch, int) []byte { panic("on purpose") }})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	s.send(s.bodiesBatch(1))
	s.send(s.bodiesBatch(2))
	if err := tap.Err(); err == nil || !strings.Contains(err.Error(), "on purpose") {
		t.Errorf("the tap says %v", err)
	}
	if !slices.Equal(s.bodies, []int64{2, 4}) {
		t.Errorf("%v arrived", s.bodies)
	}
}

func TestTapErrors(t *testing.T) {
	s := newStreet(t)
	for edge, want := range map[string]string{
		"in":            `"in" can be any of collectors.in, exporters.in`,
		"exporters.ott": `there is no edge "exporters.ott"; known are collectors.in, exporters.in, exporters.out, pipelines.p.double; did you mean "exporters.out"?`,
		"":              `there is no edge ""; known are collectors.in, exporters.in, exporters.out, pipelines.p.double`,
	} {
		_, err := s.Tap(pipeline.TapOptions{Edge: edge, Rate: 1})
		if missing := (*pipeline.NoEdge)(nil); !errors.As(err, &missing) || err.Error() != want {
			t.Errorf("%q: %v", edge, err)
		}
	}
	if _, err := s.Tap(pipeline.TapOptions{Edge: "out", Rate: 1, Before: true}); err == nil || !strings.Contains(err.Error(), "is no processor") {
		t.Errorf("before an exporter: %v", err)
	}
	if _, err := s.Tap(pipeline.TapOptions{Edge: "out"}); err == nil {
		t.Error("a rate of 0 is accepted")
	}
	byID := s.tap(pipeline.TapOptions{Edge: "double"})
	if byID.Edge != "pipelines.p.double" {
		t.Errorf("double is %s", byID.Edge)
	}
	byID.Close()
	var open []*pipeline.Tap
	for range 8 {
		open = append(open, s.tap(pipeline.TapOptions{Edge: "out"}))
	}
	if _, err := s.Tap(pipeline.TapOptions{Edge: "out", Rate: 1}); !errors.Is(err, pipeline.ErrTaps) {
		t.Errorf("a ninth tap: %v", err)
	}
	open[3].Close()
	s.tap(pipeline.TapOptions{Edge: "out"})
}

// TestTapsDuringReloads opens and closes taps everywhere while everything is changed under load. No tap may see memory that
// is used again, and the books must balance.
func TestTapsDuringReloads(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	e := w.engine()
	w.apply(e, randomConfig(r))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	var lines, waited [4]int
	for i := range lines {
		r := rand.New(rand.NewPCG(seed, uint64(i)+1))
		wg.Go(func() {
			for ctx.Err() == nil {
				var keys []string
				for c := range e.Plan().Components() {
					keys = append(keys, c.Key())
				}
				if len(keys) == 0 {
					continue
				}
				key := keys[r.IntN(len(keys))]
				tap, err := e.Tap(pipeline.TapOptions{
					Edge: key, Before: strings.HasPrefix(key, "pipelines.") && r.IntN(2) == 0, Rate: 1e6,
					Render: func(b *creel.Batch, i int) []byte { return b.Logs()[i].Attrs.Append(nil) },
				})
				if err != nil {
					waited[i]++ // it has gone meanwhile
					continue
				}
				for range 50 {
					select {
					case line := <-tap.Lines():
						tap.Taken(line)
						if lines[i]++; !strings.Contains(string(line), `"collector":`) {
							t.Errorf("%s shows %s", tap.Edge, line)
						}
					case <-time.After(10 * time.Millisecond): // nothing passes there
					}
				}
				if err := tap.Err(); err != nil {
					t.Error(err)
				}
				tap.Close()
			}
		})
	}
	for range 60 {
		w.apply(e, randomConfig(r))
		time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond) // load, not synchronisation
	}
	cancel()
	wg.Wait()
	if err := e.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, p := range e.Ledger().Pipelines {
		if p.Unexplained != 0 || p.Held != 0 {
			t.Errorf("the books do not balance: %+v", p)
		}
	}
	if lines[0]+lines[1]+lines[2]+lines[3] == 0 {
		t.Error("nothing was shown: the test tests nothing")
	}
	t.Logf("shown %v, no edge %v", lines, waited)
}
