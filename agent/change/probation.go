package change

import (
	"fmt"
	"slices"
	"time"
)

// Vitals is how everything is at one moment.
type Vitals struct {
	Components  map[string]Vital
	Unexplained int64         // records that the books leave over
	CPU         time.Duration // that the process has used
}

// Vital is how one component is. Counts are since the agent started.
type Vital struct {
	Healthy  bool
	Error    string // why it is not
	Failures int64  // calls of it that have failed
	Records  int64  // that it was given, or has collected
	Dropped  int64  // records that were given up on its account
}

// samples is how many are taken in the length of a probation.
const samples = 30

// fewest is how many samples it takes to judge.
const fewest = 3

// A window is the samples of a while, oldest first.
type window struct {
	length time.Duration
	at     []time.Time
	list   []Vitals
}

func (w *window) add(now time.Time, v Vitals) {
	w.at, w.list = append(w.at, now), append(w.list, v)
	old := 0
	for old < len(w.at)-1 && now.Sub(w.at[old]) > w.length {
		old++
	}
	w.at, w.list = slices.Delete(w.at, 0, old), slices.Delete(w.list, 0, old)
}

// span returns the seconds between the first sample and the last.
func (w *window) span() float64 {
	if len(w.at) < 2 {
		return 0
	}
	return w.at[len(w.at)-1].Sub(w.at[0]).Seconds()
}

// ill returns the share of samples in which a component was not healthy, and why it is not in the last one, "" if it is.
func (w *window) ill(key string) (share float64, last string) {
	n, there := 0, 0
	for _, v := range w.list {
		c, ok := v.Components[key]
		last = ""
		if !ok {
			continue
		}
		there++
		if !c.Healthy {
			n++
			last = c.Error
		}
	}
	if there == 0 {
		return 0, ""
	}
	return float64(n) / float64(there), last
}

// growth returns how much a component's counts have grown. A component that is replaced begins at 0 again.
func (w *window) growth(key string) (g Vital) {
	for i := 1; i < len(w.list); i++ {
		a, b := w.list[i-1].Components[key], w.list[i].Components[key]
		g.Failures += step(a.Failures, b.Failures)
		g.Records += step(a.Records, b.Records)
		g.Dropped += step(a.Dropped, b.Dropped)
	}
	return g
}

func step(before, now int64) int64 {
	if now < before {
		return now
	}
	return now - before
}

// A probation is the time for which a change is watched.
type probation struct {
	changed []string // components that were opened or opened again
	before  *window
	after   *window
	until   time.Time
}

// What counts as worse. The figures are generous: a rollback that nobody understands is worse than a slow one.
const (
	tooIll      = 0.5  // of the samples: a component that was healthy before is not
	someDropped = 10   // records; fewer are no reason
	dropShare   = 0.01 // of its records that a component drops more than before
	someFailed  = 5    // failures; fewer are no reason
	moreFailed  = 2    // times as many failures a second as before
	moreCPU     = 0.5  // cores more than before, and
	timesCPU    = 2    // times as much as before, while
	busier      = 1.5  // times as many records are no excuse
)

// worse says what is worse than before the change, "" if nothing is. The first half of the time is for settling down.
func (p *probation) worse(now time.Time) string {
	if left := p.until.Sub(now); left > p.after.length/2 || len(p.after.list) < fewest {
		return ""
	}
	for _, key := range p.changed {
		if why := p.worseAt(key); why != "" {
			return key + " " + why
		}
	}
	if why := p.unexplained(); why != "" {
		return why
	}
	if len(p.changed) > 0 && now.After(p.until) {
		return p.hungry()
	}
	return ""
}

// worseAt compares one component with itself.
func (p *probation) worseAt(key string) string {
	illBefore, lastBefore := p.before.ill(key)
	if illBefore >= tooIll || lastBefore != "" {
		return "" // it failed before
	}
	if share, why := p.after.ill(key); share >= tooIll && why != "" {
		return "fails: " + why
	}
	before, after := p.before.growth(key), p.after.growth(key)
	if after.Dropped >= someDropped && ratio(after.Dropped, after.Records) > ratio(before.Dropped, before.Records)+dropShare {
		return fmt.Sprintf("drops records: %d of %d, before %d of %d", after.Dropped, after.Records, before.Dropped, before.Records)
	}
	rateBefore, rateAfter := perSecond(before.Failures, p.before.span()), perSecond(after.Failures, p.after.span())
	if after.Failures >= someFailed && rateAfter > moreFailed*rateBefore+float64(someFailed)/p.after.length.Seconds() {
		return fmt.Sprintf("fails more often: %.2g times a second, before %.2g", rateAfter, rateBefore)
	}
	return ""
}

func ratio(part, all int64) float64 {
	if part == 0 {
		return 0
	}
	return float64(part) / float64(max(all, part))
}

func perSecond(n int64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(n) / seconds
}

// unexplained tells whether the books, which balanced before, do not any more.
func (p *probation) unexplained() string {
	if slices.ContainsFunc(p.before.list, func(v Vitals) bool { return v.Unexplained != 0 }) {
		return ""
	}
	half := p.after.list[len(p.after.list)/2:]
	if slices.ContainsFunc(half, func(v Vitals) bool { return v.Unexplained == 0 }) {
		return ""
	}
	return fmt.Sprintf("the ledger leaves %d records unexplained", half[len(half)-1].Unexplained)
}

// hungry tells whether the process needs much more of the processor for the same work.
func (p *probation) hungry() string {
	before, after := p.before.cores(), p.after.cores()
	if p.before.span() < p.after.length.Seconds()/2 || after < timesCPU*before || after < before+moreCPU {
		return ""
	}
	if p.after.records() > busier*p.before.records() {
		return ""
	}
	return fmt.Sprintf("%.2g processor cores are used, before %.2g, for as many records", after, before)
}

// cores returns how many processor cores the process has used.
func (w *window) cores() float64 {
	if w.span() == 0 {
		return 0
	}
	return (w.list[len(w.list)-1].CPU - w.list[0].CPU).Seconds() / w.span()
}

// records returns how many records a second the components have seen, all in all.
func (w *window) records() (n float64) {
	if len(w.list) == 0 {
		return 0
	}
	for key := range w.list[len(w.list)-1].Components {
		n += perSecond(w.growth(key).Records, w.span())
	}
	return n
}
