// Package metric is creel's own instruments: counters, gauges and histograms that cost one atomic operation, and their
// exposition as text. It knows nothing of records or pipelines; plugins/self makes records of what it gathers.
package metric

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Label tells instruments of one name apart.
type Label struct{ Name, Value string }

// Kind is the kind of an instrument.
type Kind uint8

// The kinds.
const (
	KindCounter Kind = iota + 1
	KindGauge
	KindHistogram
)

// String returns the kind as the Prometheus text format names it.
func (k Kind) String() string { return [...]string{"", "counter", "gauge", "histogram"}[k] }

// A Counter only grows. Its methods may be called concurrently and do not allocate.
type Counter struct{ n atomic.Uint64 }

// Add adds n.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Inc adds one.
func (c *Counter) Inc() { c.n.Add(1) }

// Load returns the count.
func (c *Counter) Load() uint64 { return c.n.Load() }

// A Gauge goes up and down. Its methods may be called concurrently and do not allocate.
type Gauge struct{ bits atomic.Uint64 }

// Set sets the value.
func (g *Gauge) Set(v float64) { g.bits.Store(math.Float64bits(v)) }

// Add adds v, which may be negative.
func (g *Gauge) Add(v float64) { addFloat(&g.bits, v) }

// Load returns the value.
func (g *Gauge) Load() float64 { return math.Float64frombits(g.bits.Load()) }

func addFloat(bits *atomic.Uint64, v float64) {
	for {
		old := bits.Load()
		if bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// A Histogram counts observations in buckets. Its methods may be called concurrently and do not allocate.
type Histogram struct {
	bounds []float64
	counts []atomic.Uint64 // one more than bounds
	sum    atomic.Uint64   // bits of a float64
}

// Observe counts v into the first bucket whose bound is not below it.
func (h *Histogram) Observe(v float64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.counts[i].Add(1)
	addFloat(&h.sum, v)
}

// A Point is the value of one instrument at one moment. The slices belong to whoever gathers, to be read only.
type Point struct {
	Name, Help, Unit string
	Kind             Kind
	Labels           []Label
	Start            time.Time // since when it counts
	Value            float64   // of a counter or gauge
	Count            uint64    // what follows is a histogram's
	Sum              float64
	Bounds           []float64
	Counts           []uint64 // Counts[i] is for (Bounds[i-1], Bounds[i]]; one more than Bounds
}

// A Set is a group of instruments that have labels in common. A nil Set works, but is not gathered. All methods may be
// called concurrently. Asking twice for one name gives the same instrument; a name that is used with another kind, or
// is not made of letters, digits, '_' and '.', is a bug and panics.
type Set struct {
	parent *Set
	labels []Label

	mu       sync.Mutex
	made     map[string]*instrument
	children []*Set
}

type instrument struct {
	Point
	counter *Counter
	gauge   *Gauge
	hist    *Histogram
	read    func() float64
}

// NewSet returns an empty Set whose instruments carry labels.
func NewSet(labels ...Label) *Set { return &Set{labels: labels} }

// Sub returns a new Set that is gathered with s and carries its labels and these.
func (s *Set) Sub(labels ...Label) *Set {
	if s == nil {
		return NewSet(labels...)
	}
	child := &Set{parent: s, labels: append(slices.Clone(s.labels), labels...)}
	s.mu.Lock()
	s.children = append(s.children, child)
	s.mu.Unlock()
	return child
}

// Close takes s out of its parent: what it measured is over.
func (s *Set) Close() {
	if s == nil || s.parent == nil {
		return
	}
	p := s.parent
	p.mu.Lock()
	p.children = slices.DeleteFunc(p.children, func(c *Set) bool { return c == s })
	p.mu.Unlock()
}

// Counter returns the counter of this name, such as creel.export.attempts. The unit is UCUM's: By, s, {request}.
func (s *Set) Counter(name, help, unit string) *Counter {
	return s.instrument(name, help, unit, KindCounter, func(i *instrument) { i.counter = &Counter{} }).counter
}

// CounterFunc makes a counter whose value is read when it is gathered. It replaces one of the same name.
func (s *Set) CounterFunc(name, help, unit string, read func() float64) {
	s.setRead(s.instrument(name, help, unit, KindCounter, func(*instrument) {}), read)
}

// Gauge returns the gauge of this name.
func (s *Set) Gauge(name, help, unit string) *Gauge {
	return s.instrument(name, help, unit, KindGauge, func(i *instrument) { i.gauge = &Gauge{} }).gauge
}

// GaugeFunc makes a gauge whose value is read when it is gathered. It replaces one of the same name.
func (s *Set) GaugeFunc(name, help, unit string, read func() float64) {
	s.setRead(s.instrument(name, help, unit, KindGauge, func(*instrument) {}), read)
}

// Histogram returns the histogram of this name. bounds are the buckets' upper bounds, in ascending order.
func (s *Set) Histogram(name, help, unit string, bounds ...float64) *Histogram {
	if !slices.IsSorted(bounds) {
		panic("BUG: bounds of " + name + " are not in order")
	}
	return s.instrument(name, help, unit, KindHistogram, func(i *instrument) {
		i.hist = &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
	}).hist
}

func (s *Set) setRead(i *instrument, read func() float64) {
	if s == nil {
		return
	}
	s.mu.Lock()
	i.read = read
	s.mu.Unlock()
}

func (s *Set) instrument(name, help, unit string, k Kind, fill func(*instrument)) *instrument {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") != "" {
		panic(fmt.Sprintf("BUG: %q is no name for an instrument", name))
	}
	if s == nil {
		i := &instrument{}
		fill(i)
		return i
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.made[name]; i != nil {
		if i.Kind != k {
			panic(fmt.Sprintf("BUG: %s is a %v already, not a %v", name, i.Kind, k))
		}
		return i
	}
	i := &instrument{Point: Point{Name: name, Help: help, Unit: unit, Kind: k, Labels: s.labels, Start: time.Now()}}
	fill(i)
	if s.made == nil {
		s.made = make(map[string]*instrument)
	}
	s.made[name] = i
	return i
}

// Gather yields the value of every instrument of s and its children, those of one name one after the other, sorted by
// name and labels.
func (s *Set) Gather(yield func(Point)) {
	points := s.points(nil)
	slices.SortFunc(points, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.CompareFunc(a.Labels, b.Labels, func(a, b Label) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
		}))
	})
	for _, p := range points {
		yield(p)
	}
}

func (s *Set) points(to []Point) []Point {
	if s == nil {
		return to
	}
	s.mu.Lock()
	made := make([]instrument, 0, len(s.made))
	for _, i := range s.made {
		made = append(made, *i)
	}
	children := slices.Clone(s.children)
	s.mu.Unlock()
	for _, i := range made { // reading may call out: the lock is not held
		to = append(to, i.point())
	}
	for _, c := range children {
		to = c.points(to)
	}
	return to
}

func (i *instrument) point() Point {
	p := i.Point
	switch {
	case i.read != nil:
		p.Value = i.read()
	case i.counter != nil:
		p.Value = float64(i.counter.Load())
	case i.gauge != nil:
		p.Value = i.gauge.Load()
	case i.hist != nil:
		p.Bounds, p.Counts = i.hist.bounds, make([]uint64, len(i.hist.counts))
		for n := range i.hist.counts {
			p.Counts[n] = i.hist.counts[n].Load()
			p.Count += p.Counts[n]
		}
		p.Sum = math.Float64frombits(i.hist.sum.Load())
	}
	return p
}
