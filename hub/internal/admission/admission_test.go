package admission

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
)

// clock is a time that stands still until it is moved.
type clock struct{ t time.Time }

func newClock() *clock                { return &clock{time.Unix(1_700_000_000, 0)} }
func (c *clock) now() time.Time       { return c.t }
func (c *clock) pass(d time.Duration) { c.t = c.t.Add(d) }
func from(agent string) creel.Sender {
	return creel.Sender{Agent: agent, Started: time.Unix(1, 2), Exporter: "otlp/hub"}
}
func named(n uint64) (id creel.ID) { binary.BigEndian.PutUint64(id[8:], n); id[0] = 1; return id }
func after(err error) time.Duration {
	var t *creel.Throttled
	if !errors.As(err, &t) {
		panic(fmt.Sprintf("want a *creel.Throttled, got %v", err))
	}
	return t.After
}

// TestEverySecond holds the limit against a model: a plain list of what was let in, and when. No window of a second has more than a
// second and a burst are worth, or a second and the one request that is larger; who comes when told is let in; and what
// is let in over a long time is the limit, if enough is asked for.
func TestEverySecond(t *testing.T) {
	throttled, large := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(1, 5000).Draw(t, "records a second")
		byteLimit := rapid.SampledFrom([]int64{0, 10_000, 1_000_000}).Draw(t, "bytes a second")
		c := newClock()
		a := New(Options{Records: limit, Bytes: byteLimit, Now: c.now})
		type one struct {
			at             time.Time
			records, bytes int64
		}
		var in []one
		largest, largestBytes := limit, byteLimit // a burst is a second's worth
		for range rapid.IntRange(1, 150).Draw(t, "requests") {
			c.pass(time.Duration(rapid.SampledFrom([]int64{0, 0, 1, 1e6, 5e7, 3e8, 2e9}).Draw(t, "pause")))
			n := rapid.IntRange(1, int(limit)).Draw(t, "n")
			if rapid.IntRange(0, 19).Draw(t, "large") == 0 {
				n *= 5
			}
			bytes := n * rapid.IntRange(1, 400).Draw(t, "size")
			err := a.Admit(creel.Caller{}, from("a"), creel.Logs, n, bytes)
			if err != nil {
				throttled++
				if rapid.Bool().Draw(t, "come back") {
					d := after(err)
					c.pass(d - 1)
					if d > time.Millisecond && a.Admit(creel.Caller{}, from("a"), creel.Logs, n, bytes) == nil {
						t.Fatalf("told to come back in %v, and let in before", d)
					}
					c.pass(1)
					if err = a.Admit(creel.Caller{}, from("a"), creel.Logs, n, bytes); err != nil {
						t.Fatalf("came back in %v as told, and %v", d, err)
					}
				}
			}
			if err != nil {
				continue
			}
			if int64(n) > limit {
				large++
			}
			largest, largestBytes = max(largest, int64(n)), max(largestBytes, int64(bytes))
			in = append(in, one{c.t, int64(n), int64(bytes)})
			var records, size int64
			for i := len(in) - 1; i >= 0 && c.t.Sub(in[i].at) <= time.Second; i-- {
				records, size = records+in[i].records, size+in[i].bytes
			}
			if records > limit+largest || byteLimit > 0 && size > byteLimit+largestBytes {
				t.Fatalf("%d records and %d bytes in a second, the limits are %d and %d", records, size, limit, byteLimit)
			}
		}
	})
	if throttled == 0 || large == 0 {
		t.Errorf("throttled %d requests, and let %d in that were larger than the burst: the test has shown nothing", throttled, large)
	}
}

// TestLimitIsReached: who comes as told gets what the limit says, neither less nor more.
func TestLimitIsReached(t *testing.T) {
	c := newClock()
	a := New(Options{Records: 1000, Now: c.now})
	begin, n := c.t, 0
	for n < 100_000 {
		if err := a.Admit(creel.Caller{}, from("a"), creel.Logs, 70, 1); err != nil {
			c.pass(after(err))
			continue
		}
		n += 70
	}
	if got := float64(n-1000) / c.t.Sub(begin).Seconds(); got < 999 || got > 1001 {
		t.Errorf("%.1f records a second, want 1000", got)
	}
}

// TestAgentsApart: an agent's limit is its own, and outlives its restart; those without a name share one.
func TestAgentsApart(t *testing.T) {
	c := newClock()
	a := New(Options{Records: 10, Now: c.now})
	admit := func(s creel.Sender, want bool) {
		t.Helper()
		if err := a.Admit(creel.Caller{}, s, creel.Logs, 10, 1); (err == nil) != want {
			t.Errorf("%v: got %v, want let in: %v", s, err, want)
		}
	}
	again := from("a")
	again.Started, again.Exporter = again.Started.Add(time.Hour), "otlp/other"
	admit(from("a"), true)
	admit(again, false)
	admit(from("b"), true)
	admit(creel.Sender{}, true)
	admit(creel.Sender{}, false)
	if n, ok := a.Counts("a"); !ok || n != (Counts{Requests: 1, Records: 10, Bytes: 1, ThrottledRequests: 1, ThrottledRecords: 10}) {
		t.Errorf("counted %+v", n)
	}
	if _, ok := a.Counts("c"); ok {
		t.Error("somebody is known who never came")
	}
}

// TestForgetting: memory is bounded, who was not heard for an hour is forgotten, and who does not fit is unknown.
func TestForgetting(t *testing.T) {
	c := newClock()
	a := New(Options{Records: 1, Senders: 100, Now: c.now})
	for i := range 150 {
		a.Took(from(fmt.Sprint(i)), named(1), creel.Logs, 1)
	}
	size := func() (n int) {
		for i := range a.shards {
			n += len(a.shards[i].senders)
		}
		return n - 1 // unknown
	}
	if size() != 100 || a.known.Load() != 100 || len(a.unknown.streams) != 0 {
		t.Fatalf("%d senders, %d counted, %d exporters of nobody", size(), a.known.Load(), len(a.unknown.streams))
	}
	if a.Admit(creel.Caller{}, from("200"), creel.Logs, 1, 1) != nil || a.Admit(creel.Caller{}, from("201"), creel.Logs, 1, 1) == nil {
		t.Error("those who are too many do not share a limit")
	}
	c.pass(30 * time.Minute)
	if err := a.Admit(creel.Caller{}, from("7"), creel.Logs, 10_000, 1); err != nil { // it owes for hours
		t.Fatal(err)
	}
	a.Took(from("8"), named(2), creel.Logs, 1)
	c.pass(31 * time.Minute)
	a.Took(from("new"), named(1), creel.Logs, 1)
	if size() != 3 {
		t.Errorf("%d senders are known after an hour, want 7, 8 and the new one", size())
	}
	c.pass(61 * time.Minute)
	a.Took(from("newer"), named(1), creel.Logs, 1)
	if size() != 2 {
		t.Errorf("%d senders are known, want 7, which owes, and the newest", size())
	}
	for i := range 10 * maxStreams {
		s := from("newer")
		s.Started = s.Started.Add(time.Duration(i))
		a.Took(s, named(1), creel.Logs, 1)
	}
	_, s := a.lock("newer", a.now())
	a.shardOf("newer").mu.Unlock()
	if len(s.streams) != maxStreams {
		t.Errorf("%d exporters of one agent are counted", len(s.streams))
	}
	a.Took(from(string(make([]byte, 1000))), named(1), creel.Logs, 1)
	if size() != 2 {
		t.Error("a name of 1000 bytes is remembered")
	}
}

// TestRepeats: a batch counts once in a run of an exporter, as long as it is among the last fifty; those without a name
// always do, and no new one is taken for a repeat.
func TestRepeats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := New(Options{Now: newClock().now})
		next := rapid.Uint64().Draw(t, "first")
		random := rand.New(rand.NewPCG(next, 1))
		var list []uint64
		var taken, repeats int64
		for range rapid.IntRange(1, 3000).Draw(t, "batches") {
			n := int64(random.IntN(9) + 1)
			id := creel.ID{}
			switch what := random.IntN(4); {
			case what == 0:
				taken += n
			case what == 1 && len(list) > 0:
				id = named(list[len(list)-1-random.IntN(min(len(list), 50))])
				repeats += n
			default:
				id = named(next)
				list = append(list, next)
				next += 1 + uint64(random.IntN(3))*0x1_0000_0001
				taken += n
			}
			a.Took(from("a"), id, creel.Logs, int(n))
		}
		if got := a.Streams("a", from("a").Started)[0]; got.Taken != taken || got.Repeats != repeats || got.Exporter != "otlp/hub" {
			t.Fatalf("counted %+v, want %d taken and %d repeats", got, taken, repeats)
		}
	})
}

// TestStreams: exporters, runs and agents do not know each other's batches.
func TestStreams(t *testing.T) {
	c := newClock()
	a := New(Options{Now: c.now})
	run1, run2, other := from("a"), from("a"), from("a")
	run2.Started = run2.Started.Add(1)
	other.Exporter = "otlp/also"
	for _, s := range []creel.Sender{run1, run2, other, from("b"), run1} {
		a.Took(s, named(7), creel.Logs, 5)
	}
	got := a.Streams("a", run1.Started)
	want := []Stream{{"otlp/also", 5, 0, c.t.UTC()}, {"otlp/hub", 5, 5, c.t.UTC()}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c.pass(time.Second)
	a.Restart("a", run1.Started, "otlp/hub")
	a.Took(run1, named(7), creel.Logs, 3)
	if got := a.Streams("a", run1.Started); got[1] != (Stream{"otlp/hub", 3, 0, c.t.UTC()}) {
		t.Errorf("after a restart of the count: %+v", got[1])
	}
	if got := a.Streams("a", run2.Started); len(got) != 1 || got[0].Taken != 5 {
		t.Errorf("the other run: %+v", got)
	}
}

// TestMetrics: totals are told, whoever sent.
func TestMetrics(t *testing.T) {
	m := metric.NewSet()
	a := New(Options{Records: 10, Now: newClock().now, Metrics: m})
	for _, agent := range []string{"a", "b", "", "a"} {
		if a.Admit(creel.Caller{}, from(agent), creel.Logs, 10, 1) == nil {
			a.Took(from(agent), named(1), creel.Logs, 10)
		}
	}
	a.Took(from("b"), named(1), creel.Logs, 10)
	got := []uint64{a.admitted.records.Load(), a.throttled.requests.Load(), a.throttled.records.Load(), a.taken.Load(), a.repeated.Load(), uint64(a.known.Load())}
	if want := []uint64{30, 1, 10, 30, 10, 2}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestConcurrently: nothing is lost between goroutines.
func TestConcurrently(t *testing.T) {
	a := New(Options{Senders: 50})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				s := from(fmt.Sprint(i % 40))
				if err := a.Admit(creel.Caller{}, s, creel.Logs, 3, 10); err != nil {
					t.Error(err)
				}
				a.Took(s, named(uint64(g*10_000+i)), creel.Logs, 3)
			}
		})
	}
	wg.Wait()
	var records, taken int64
	for i := range 40 {
		n, _ := a.Counts(fmt.Sprint(i))
		records += n.Records
		for _, s := range a.Streams(fmt.Sprint(i), from("").Started) {
			taken += s.Taken
		}
	}
	if records != 8*2000*3 || taken != records {
		t.Errorf("let in %d and took %d of %d records", records, taken, 8*2000*3)
	}
}

// TestAllocations: a request costs none.
func TestAllocations(t *testing.T) {
	a := New(Options{Records: 1 << 40, Bytes: 1 << 40})
	n := uint64(0)
	request := func() {
		n++
		if a.Admit(creel.Caller{}, from("0193b7c5-6b1e-7d0e-8000-0123456789ab"), creel.Logs, 100, 10_000) != nil {
			t.Fatal("throttled")
		}
		a.Took(from("0193b7c5-6b1e-7d0e-8000-0123456789ab"), named(n), creel.Logs, 100)
	}
	request()
	if got := testing.AllocsPerRun(1000, request); got != 0 {
		t.Errorf("%v allocations a request", got)
	}
}
