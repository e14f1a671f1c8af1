package pressure

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A plant is an agent as far as its memory goes: pipelines of each priority that would take so much, queues that empty so
// fast, and what is known of them is late.
type plant struct {
	base    int64             // what it has anyway
	in      [Full]int64       // bytes a second that come to pipelines of each priority
	out     int64             // bytes a second that go
	waits   int64             // bytes in queues
	garbage int64             // what went, and was not collected
	live    int64             // what the last collection has found
	took    [Full]int64       // by pipelines of each priority
	stood   [Full + 1]float64 // seconds at each level
	order   Order
	due     int // steps until garbage is collected, because it was asked for; 0: it was not
	fresh   int // steps since it was collected
}

const step = often

func (p *plant) look(c *Controller, now time.Time, limit int64) (used int64) {
	most := p.base + p.waits + p.garbage
	used = min(most*11/10, max(most, limit*soft/1000))
	p.order = c.Observe(now, Reading{Used: used, Live: p.live, Most: most}, limit)
	return used
}

func (p *plant) collect() { p.live, p.garbage, p.due, p.fresh = p.base+p.waits, 0, 0, 0 }

// run lets a step pass. A collection takes delay steps; the runtime makes one when what is used has doubled, or is soft.
func (p *plant) run(c *Controller, now time.Time, limit int64, delay int) (used int64, level int) {
	switch {
	case p.due > 1:
		p.due--
	case p.due == 1, p.base+p.waits+p.garbage > min(2*p.live, limit*soft/1000):
		p.collect()
	}
	used = p.look(c, now, limit)
	left := p.order.Grant
	for priority := Full - 1; priority >= 0; priority-- {
		for n := int64(float64(p.in[priority]) * step.Seconds()); n > 0 && priority >= p.order.Level && p.order.Grant > 0; {
			some := min(n, left)
			n, left = n-some, left-some
			p.waits += some
			p.took[priority] += some
			if left == 0 {
				used = max(used, p.look(c, now, limit))
				left = p.order.Grant
			}
		}
	}
	p.fresh++
	if due := p.order.Collect || p.order.Level > 0 && p.fresh >= int(stale/step); due && p.due == 0 {
		p.due = delay
	}
	gone := min(p.waits, int64(float64(p.out)*step.Seconds()))
	p.waits -= gone
	p.garbage += gone
	p.stood[p.order.Level] += step.Seconds()
	return used, p.order.Level
}

// TestPlants: whatever comes and goes, and however late it is seen, the limit is kept, the level does not flap, who has a
// higher priority gets no less, and all is over when the load is.
func TestPlants(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	pressed, partly := 0, 0
	for range 300 {
		const limit = 1 << 30
		p := &plant{base: r.Int64N(limit / 2)}
		delay := 1 + r.IntN(10)                               // at most half a second
		total := max(limit>>10, r.Int64N(limit>>r.IntN(8)*4)) // below, what is a second is no whole number of bytes a step
		for range Full {
			p.in[r.IntN(Full)] += total / Full
		}
		p.out = r.Int64N(total + 1)
		var c Controller
		now := time.Unix(0, 0)
		flaps, last, fell := 0, 0, false
		const minutes = 10
		for i := range int(minutes * time.Minute / step) {
			if r.IntN(2000) == 0 {
				p.out = r.Int64N(total + 1)
				flaps-- // this one has a reason
			}
			used, level := p.run(&c, now.Add(time.Duration(i)*step), limit, delay)
			if used > limit {
				t.Fatalf("step %d: %d of %d bytes are used, at level %d: %+v", i, used, limit, level, *p)
			}
			if level > last && fell {
				flaps++
			}
			fell = level < last || level == last && fell
			last = level
		}
		if most := int(minutes*time.Minute/restless) + 6; flaps > most {
			t.Errorf("the level has fallen and risen again %d times in %d minutes, more than %d: %v", flaps, minutes, most, p.stood)
		}
		held := 0.0
		for level, seconds := range p.stood {
			if level > 0 {
				held += seconds
			}
			if seconds > 30 && level > 0 && level < Full {
				partly++
			}
		}
		if held > 0 {
			pressed++
		}
		for low := range Full - 1 {
			for high := low + 1; high < Full; high++ {
				if p.in[low] > 0 && p.in[high] > 0 && float64(p.took[low])/float64(p.in[low]) > float64(p.took[high])/float64(p.in[high])*1.01 {
					t.Errorf("priority %d got %d of %d a second, %d only %d of %d", low, p.took[low], p.in[low], high, p.took[high], p.in[high])
				}
			}
		}
		p.in = [Full]int64{}
		p.out = max(p.out, total/10, limit/100)
		p.base = min(p.base, limit/2)
		at := now.Add(minutes * time.Minute)
		for i := range int(5 * time.Minute / step) {
			_, last = p.run(&c, at.Add(time.Duration(i)*step), limit, delay)
		}
		if last != 0 {
			t.Errorf("the level is %d when all is over", last)
		}
	}
	t.Logf("%d plants were under pressure, in %d levels of them some flowed and some did not", pressed, partly)
	if pressed < 50 || partly < 20 {
		t.Error("the plants test nothing")
	}
}

// TestLevels: the scale of each reading.
func TestLevels(t *testing.T) {
	for _, c := range []struct {
		used, live int64
		want       int
	}{
		{0, 0, 0}, {900, 690, 0}, {914, 0, 0}, {916, 0, 1}, {945, 0, 5}, {976, 0, Full}, {2000, 0, Full},
		{800, 701, 1}, {800, 775, 5}, {899, 851, Full}, {960, 701, 7},
	} {
		var g Controller
		if got := g.Observe(time.Unix(1, 0), Reading{Used: c.used, Live: c.live}, 1000).Level; got != c.want {
			t.Errorf("%d used and %d alive of 1000 is level %d, want %d", c.used, c.live, got, c.want)
		}
	}
}
