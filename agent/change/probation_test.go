package change

import (
	"strings"
	"testing"
	"time"
)

func TestWorse(t *testing.T) {
	begin := time.Unix(0, 0)
	const length = time.Minute
	// at makes a window of a sample each second.
	at := func(sample func(i int64) Vitals) *window {
		w := &window{length: length}
		for i := range int64(61) {
			w.add(begin.Add(time.Duration(i)*time.Second), sample(i))
		}
		return w
	}
	one := func(v Vital) Vitals { return Vitals{Components: map[string]Vital{"x": v}} }
	calm := func(i int64) Vitals {
		v := one(Vital{Healthy: true, Records: 100 * i})
		v.CPU = time.Duration(i) * 100 * time.Millisecond
		return v
	}
	f := func(name string, before, after func(int64) Vitals, want string) {
		t.Helper()
		p := &probation{changed: []string{"x"}, before: at(before), after: at(after), until: begin.Add(length)}
		got := p.worse(begin.Add(length + 1))
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	none := func(int64) Vitals { return Vitals{} }
	ill := func(int64) Vitals { return one(Vital{Error: "no route"}) }

	f("nothing", calm, calm, "")
	f("new and well", none, calm, "")
	f("new and ill", none, ill, "x fails: no route")
	f("ill", calm, ill, "x fails: no route")
	f("ill before", ill, ill, "")
	f("ill at times", calm, func(i int64) Vitals { return one(Vital{Healthy: i%4 != 0, Error: "now and then"}) }, "")
	f("recovered", calm, func(i int64) Vitals { return one(Vital{Healthy: i > 40, Error: "at first"}) }, "")
	f("ill of late before", func(i int64) Vitals { return one(Vital{Healthy: i < 55, Error: "just now"}) }, ill, "")

	drops := func(share int64) func(int64) Vitals {
		return func(i int64) Vitals { return one(Vital{Healthy: true, Records: 1000 * i, Dropped: share * i}) }
	}
	f("drops", drops(0), drops(100), "x drops records: 6000 of 60000, before 0 of 60000")
	f("drops as before", drops(100), drops(105), "")
	f("drops less", drops(100), drops(1), "")
	f("drops a few", calm, func(i int64) Vitals { return one(Vital{Healthy: true, Records: 100, Dropped: min(i, 9)}) }, "")

	fails := func(each int64) func(int64) Vitals {
		return func(i int64) Vitals { return one(Vital{Healthy: true, Records: 100 * i, Failures: each * i}) }
	}
	f("fails more", fails(1), fails(3), "x fails more often")
	f("fails as before", fails(3), fails(4), "")

	lost := func(i int64) Vitals { v := calm(i); v.Unexplained = 7; return v }
	f("lost", calm, lost, "leaves 7 records unexplained")
	f("lost before", lost, lost, "")
	f("under way", calm, func(i int64) Vitals { v := calm(i); v.Unexplained = i % 2; return v }, "")

	busy := func(records int64) func(int64) Vitals {
		return func(i int64) Vitals {
			v := one(Vital{Healthy: true, Records: records * i})
			v.CPU = time.Duration(i) * time.Second
			return v
		}
	}
	f("hungry", calm, busy(100), "1 processor cores are used, before 0.1")
	f("more to do", calm, busy(1000), "")
	f("hungry before", busy(100), busy(100), "")
}

// A component that is replaced counts from 0 again.
func TestGrowth(t *testing.T) {
	w := &window{length: time.Hour}
	for i, n := range []int64{5, 9, 2, 4} {
		w.add(time.Unix(int64(i), 0), Vitals{Components: map[string]Vital{"x": {Dropped: n}}})
	}
	if g := w.growth("x"); g.Dropped != 4+2+2 {
		t.Errorf("grew by %d, want 8", g.Dropped)
	}
}
