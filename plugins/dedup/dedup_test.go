package dedup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Run(t, Plugin, plugintest.Options{})
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{by: [body], max_keys: 2}"})
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{by: [body, 'attributes[\"n\"]'], pass_first: true, max_keys: 10}"})
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{by: [severity, event, scope], ack: memory}"})
}

// stand is what stands around the processor: it keeps the books as the pipeline does, and what is sent on.
type stand struct {
	t      testing.TB
	d      *dedup
	memory creel.Memory
	held   *creel.Custody
	in     int

	mu     sync.Mutex // Run sends as well; guards what follows
	counts creel.Counts
	out    []string // body, attributes
	sent   int
	err    error // what becomes of what is sent on
	log    func(*creel.Log)
	quiet  bool // nothing is noted
}

func newStand(t testing.TB, yaml string, set *metric.Set) *stand {
	t.Helper()
	n, err := config.Parse("test.yaml", []byte(yaml), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	canonical, errs := Plugin.Config.Check(n)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	s := &stand{t: t, held: creel.NewStandingCustody()}
	s.memory.Poison = true
	p, err := Plugin.Open(canonical, creel.Host{Memory: &s.memory, Metrics: set})
	if err != nil {
		t.Fatal(err)
	}
	s.d = p.(*dedup)
	return s
}

// Send takes what the processor sends on.
func (s *stand) Send(b *creel.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !creel.Forward(b) {
		s.counts.Created += b.Len()
	}
	for i := range b.Logs() {
		if s.quiet {
			break
		}
		l := &b.Logs()[i]
		s.out = append(s.out, l.Body.String()+string(l.Attrs.Append(nil)))
		if s.log != nil {
			s.log(l)
		}
	}
	s.sent += b.Len()
	creel.Settle(b, s.err)
}

func (s *stand) process(logs ...creel.Log) (done *error) {
	s.t.Helper()
	r := s.memory.NewRecords()
	for _, l := range logs {
		if l.Origin == nil {
			l.Origin = &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host", Value: creel.String("h")}}}}
		}
		l.Attrs = r.Extend(l.Attrs, 1) // what lies in a slab is poisoned in the end
		r.Logs = append(r.Logs, l)
	}
	b := creel.NewBatch(creel.Logs, r)
	notYet := errors.New("not yet")
	done = &notYet
	b.OnDone(func(err error) { *done = err })
	s.in += b.Len()
	s.give(b)
	return done
}

func (s *stand) give(b *creel.Batch) {
	c := creel.NewCustody(s.held)
	c.Give(b)
	if err := s.d.Process(context.Background(), b, s); err != nil {
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

// balance checks the books.
func (s *stand) balance() {
	s.t.Helper()
	s.add(s.held.Take())
	s.mu.Lock()
	defer s.mu.Unlock()
	_, held := s.held.Len()
	if s.in+s.counts.Created != s.counts.Absorbed+s.sent+held || s.counts.Filtered != 0 {
		s.t.Errorf("%d records went in, %d came out, %d are held, %+v", s.in, s.sent, held, s.counts)
	}
}

func (s *stand) expect(want ...string) {
	s.t.Helper()
	s.mu.Lock()
	if got := strings.Join(s.out, "\n"); got != strings.Join(want, "\n") {
		s.t.Errorf("sent was\n%s\nnot\n%s", got, strings.Join(want, "\n"))
	}
	s.out = nil
	s.mu.Unlock()
	s.balance()
}

func logOf(body string, attrs ...creel.Attr) creel.Log {
	return creel.Log{Body: creel.String(body), Attrs: attrs, Observed: time.Now().UnixNano()}
}

// running runs f with the processor's Run beside it, in a time that passes at once.
func running(t *testing.T, yaml string, f func(s *stand)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, yaml, nil)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- s.d.Run(ctx, s) }()
		f(s)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		s.balance()
		if n := s.memory.Out(); n != 0 {
			t.Errorf("%d batches are not settled", n)
		}
	})
}

func (s *stand) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

const from, to = `"first_observed_timestamp":"2000-01-01T00:00:`, `Z","last_observed_timestamp":"2000-01-01T00:00:`

func TestCounts(t *testing.T) {
	running(t, "{}", func(s *stand) {
		s.process(logOf("a"), logOf("b"), logOf("a"))
		s.wait(4 * time.Second)
		s.process(logOf("a"), creel.Log{Body: creel.String("a"), Severity: 9, Observed: time.Now().UnixNano()})
		s.expect()
		s.wait(6 * time.Second)
		s.expect(
			`a{"log_count":3,`+from+`00`+to+`04Z"}`,
			`b{"log_count":1,`+from+`00`+to+`00Z"}`,
			`a{"log_count":1,`+from+`04`+to+`04Z"}`,
		)
		s.wait(20 * time.Second)
		s.expect()
		s.process(logOf("a"))
	})
}

func TestPassFirst(t *testing.T) {
	running(t, "{pass_first: true, log_count_attribute: n}", func(s *stand) {
		s.process(logOf("a"), logOf("b"), logOf("a"), logOf("a"))
		s.expect(`a{}`, `b{}`)
		s.wait(10 * time.Second)
		s.expect(`a{"n":2,` + from + `00` + to + `00Z"}`)
		s.process(logOf("a"))
		s.expect(`a{}`)
	})
}

// TestAcknowledged: whoever waits for a record is told with the record that stands for it, and what became of that.
func TestAcknowledged(t *testing.T) {
	running(t, "{where: 'body != \"c\"'}", func(s *stand) {
		first, second, other := s.process(logOf("a")), s.process(logOf("a"), logOf("c")), s.process(logOf("c"))
		if *other != nil {
			t.Errorf("what passed is %v", *other)
		}
		if *first == nil || *second == nil {
			t.Error("told of records that are not yet sent")
		}
		s.mu.Lock()
		s.err = errors.New("refused")
		s.mu.Unlock()
		s.wait(10 * time.Second)
		if !errors.Is(*first, s.err) || !errors.Is(*second, s.err) {
			t.Errorf("told %v and %v", *first, *second)
		}
	})
	running(t, "{ack: memory}", func(s *stand) {
		first := s.process(logOf("a"))
		if *first != nil {
			t.Errorf("not told: %v", *first)
		}
		s.expect()
	})
}

func TestBy(t *testing.T) {
	attr := func(key string, v creel.Value) creel.Attr { return creel.Attr{Key: key, Value: v} }
	one, two := attr("x", creel.Int(1)), attr("y", creel.List(creel.String("l"), creel.Map(attr("k", creel.Bytes([]byte{1})))))
	id := func(i int64) creel.Attr { return attr("id", creel.Int(i)) }
	f := func(yaml string, counts string, logs ...creel.Log) {
		t.Helper()
		running(t, yaml, func(s *stand) {
			var got []string
			s.log = func(l *creel.Log) { n, _ := l.Attrs.Get("log_count"); got = append(got, n.String()) }
			s.process(logs...)
			s.wait(10 * time.Second)
			if strings.Join(got, " ") != counts {
				t.Errorf("%s: counted %v, not %v", yaml, got, counts)
			}
		})
	}
	f("{}", "2 1", logOf("a", one, two), logOf("a", two, one), logOf("a", one))
	f("{ignore: [id]}", "3 1", logOf("a", one, id(1)), logOf("a", id(2), one), logOf("a", one), logOf("a", two, id(2)))
	f("{by: [body]}", "2 1", logOf("a", one), logOf("a", two), logOf("b"))
	f("{by: [severity]}", "1 2", creel.Log{Severity: 1}, creel.Log{Severity: 9}, creel.Log{Severity: 9})
	f("{by: [event]}", "2 1", creel.Log{Event: "x"}, creel.Log{Event: "x"}, creel.Log{Event: "y"})
	f(`{by: ['attributes["x"]']}`, "2 1", logOf("a", one, id(1)), logOf("b", one), logOf("b", two))
	other := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host", Value: creel.String("other")}}}}
	f("{}", "1 1", logOf("a"), creel.Log{Body: creel.String("a"), Origin: other})
	f("{by: [body]}", "2", logOf("a"), creel.Log{Body: creel.String("a"), Origin: other})
	scope := &creel.Origin{Scope: creel.Scope{Name: "lib"}}
	f("{by: [scope]}", "2 1", creel.Log{Origin: scope}, creel.Log{Origin: &creel.Origin{Scope: scope.Scope}}, logOf("a"))
}

func TestOverflow(t *testing.T) {
	set := metric.NewSet()
	count := func() (n float64) {
		set.Gather(func(p metric.Point) {
			if p.Name == "creel.dedup.overflow" {
				n = p.Value
			}
		})
		return n
	}
	s := newStand(t, "{max_keys: 2}", set)
	s.process(logOf("a"), logOf("b"), logOf("c"), logOf("a"), logOf("c"))
	s.expect("c{}", "c{}")
	s.d.flush(s)
	s.balance()
	if count() != 2 {
		t.Errorf("counted %v", count())
	}
	s = newStand(t, "{max_size: 4KiB}", set)
	s.process(logOf(strings.Repeat("x", 5000)), logOf("b"))
	s.expect("b{}")
	s.d.flush(s)
	s = newStand(t, "{max_size: 4KiB, by: [body]}", set) // many resources
	for i := range 100 {
		s.process(creel.Log{Body: creel.String("a"), Origin: &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "n", Value: creel.Int(int64(i))}}}}})
	}
	if s.sent < 50 {
		t.Errorf("%d of 100 passed", s.sent)
	}
	s.d.flush(s)
	s.balance()
}

// TestModel compares counts with those of a map, over intervals that end now and then; hashes that collide included.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for _, yaml := range []string{"{max_keys: 20}", "{pass_first: true, max_keys: 20}"} {
		s := newStand(t, yaml, nil)
		want, got := map[string]int64{}, map[string]int64{}
		s.log = func(l *creel.Log) {
			n, ok := l.Attrs.Get("log_count")
			if !ok {
				n = creel.Int(1)
			}
			got[l.Body.String()] += n.Int()
		}
		for range 500 {
			var logs []creel.Log
			for range r.IntN(20) {
				body := fmt.Sprint(r.IntN(30))
				want[body]++
				logs = append(logs, logOf(body))
			}
			s.process(logs...)
			if r.IntN(10) == 0 {
				s.d.flush(s)
			}
			s.balance()
		}
		s.d.flush(s)
		s.balance()
		if fmt.Sprint(want) != fmt.Sprint(got) {
			t.Errorf("seed %d, %s: counted %v, not %v", seed, yaml, got, want)
		}
		if n := s.memory.Out(); n != 0 {
			t.Errorf("%d batches are not settled", n)
		}
	}
}

// TestCollision: what has the same hash is compared.
func TestCollision(t *testing.T) {
	s := newStand(t, "{}", nil)
	s.d.mu.Lock()
	o := &creel.Origin{}
	for _, body := range []string{"a", "b", "a", "c", "b"} {
		l := logOf(body)
		l.Observed = 0
		s.d.countOne(s.d.now, 7, &l, o, nil)
	}
	s.d.mu.Unlock()
	s.in = 3 // which nobody has given
	s.d.flush(s)
	if got := strings.Join(s.out, " "); got != `a{"log_count":2} b{"log_count":2} c{"log_count":1}` {
		t.Errorf("sent was %s", got)
	}
}

// TestWirePassesOn: a batch of which nothing is counted keeps its bytes.
func TestWirePassesOn(t *testing.T) {
	s := newStand(t, "{pass_first: true}", nil)
	wire := otlp.Append(nil, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{}, Body: creel.String("x")}}))
	for _, want := range []bool{true, false} {
		b, err := otlp.Parse(creel.Logs, wire, &s.memory)
		if err != nil {
			t.Fatal(err)
		}
		sent := false
		c := creel.NewCustody(s.held)
		c.Give(b)
		if err := s.d.Process(context.Background(), b, creel.NextFunc(func(b *creel.Batch) {
			sent = b.Wire() != nil
			s.Send(b)
		})); err != nil {
			t.Fatal(err)
		}
		c.End(nil, nil)
		if sent != want {
			t.Errorf("the bytes passed on is %v", sent)
		}
	}
	s.d.flush(s)
}
