package pressure

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A plant is an agent as far as its memory goes: pipelines of each priority that would take so much, queues that empty so
// fast, and what is known of them is late.
type plant struct {
	base  int64             // what it has anyway
	in    [Full]int64       // bytes a second that come to pipelines of each priority
	out   int64             // bytes a second that go
	waits int64             // bytes in queues
	known []int64           // what was in use, at each of the last steps: what a collection finds is old
	took  [Full]int64       // by pipelines of each priority
	stood [Full + 1]float64 // seconds at each level
}

const step = often

func (p *plant) run(c *Controller, now time.Time, limit int64, delay int) (used int64, level int) {
	known := p.base
	if n := len(p.known); n > 0 {
		known = p.known[max(0, n-delay)]
	}
	used = p.base + p.waits
	level = c.Observe(now, Reading{Used: min(used*5/4, max(used, limit*soft/1000)), Live: known}, limit)
	for priority, bytes := range p.in {
		if priority >= level {
			n := int64(float64(bytes) * step.Seconds())
			p.waits += n
			p.took[priority] += n
		}
	}
	p.waits = max(0, p.waits-int64(float64(p.out)*step.Seconds()))
	p.known = append(p.known, p.base+p.waits)
	p.stood[level] += step.Seconds()
	return used, level
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
		delay := 1 + r.IntN(10) // at most half a second
		total := r.Int64N(limit * 140 / 1000 * int64(time.Second/step) / int64(delay+1))
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
				t.Fatalf("step %d: %d of %d bytes are used, at level %d: %+v", i, used, limit, level, p.in)
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

// TestLevels: the scale of each reading, and none without a limit.
func TestLevels(t *testing.T) {
	for _, c := range []struct {
		used, live int64
		want       int
	}{
		{0, 0, 0}, {900, 690, 0}, {914, 0, 0}, {916, 0, 1}, {945, 0, 5}, {976, 0, Full}, {2000, 0, Full},
		{800, 701, 1}, {800, 775, 5}, {899, 851, Full}, {960, 701, 7},
	} {
		var g Controller
		if got := g.Observe(time.Unix(1, 0), Reading{c.used, c.live}, 1000); got != c.want {
			t.Errorf("%d used and %d alive of 1000 is level %d, want %d", c.used, c.live, got, c.want)
		}
		if got := g.Observe(time.Unix(2, 0), Reading{c.used, c.live}, 0); got != 0 {
			t.Errorf("without a limit there is level %d", got)
		}
	}
}
