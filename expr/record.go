package expr

import (
	"encoding/hex"
	"time"
	"unsafe"

	"github.com/creelhq/creel"
)

// Record is what an expression looks at: exactly one of Log, Metric and Span is set. A processor uses one Record for all
// records of a batch, and no longer (see Read and Edit): then records that shared an Origin still share one after
// Target.Set. It is used by one goroutine.
type Record struct {
	Log    *creel.Log
	Metric *creel.Metric
	Span   *creel.Span

	Memory *creel.Records // where attributes, lists and maps are made; nil: on the heap
	Now    int64          // what now() is, in nanoseconds since the Unix epoch; 0: the clock is read when first asked

	logs    []creel.Log // those of Read or Edit
	metrics []creel.Metric
	spans   []creel.Span

	made    []byte        // strings that were made; what is below len is handed out and never changes
	args    []creel.Value // arguments of the calls that are under way
	vars    []creel.Value // variables, and elements of lists that are walked, by their slots
	changes []change
	turn    int
}

// Read returns a Record to read the records of b with; Seek sets it to one of them.
func Read(b *creel.Batch) *Record {
	switch b.Signal() {
	case creel.Logs:
		return &Record{logs: b.Logs()}
	case creel.Metrics:
		return &Record{metrics: b.Metrics()}
	}
	return &Record{spans: b.Spans()}
}

// Edit returns a Record to change the records of b with. b gives up its wire bytes.
func Edit(b *creel.Batch) *Record {
	memory := b.Records()
	r := Read(b)
	r.Memory = memory
	return r
}

// Rewrite calls change with one record of b after the other. While r has no Memory, change must only tell whether it would
// change r; from the first for which it does, that one called anew, it may. So b keeps its wire bytes if nothing changes.
func Rewrite(b *creel.Batch, change func(r *Record) bool) {
	r := Read(b)
	for i := range b.Len() {
		if r.Seek(i); !change(r) {
			continue
		}
		for r = Edit(b); i < b.Len(); i++ {
			r.Seek(i)
			change(r)
		}
		return
	}
}

// Seek sets r to the i-th record of the batch.
func (r *Record) Seek(i int) {
	switch {
	case r.logs != nil:
		r.Log = &r.logs[i]
	case r.metrics != nil:
		r.Metric = &r.metrics[i]
	default:
		r.Span = &r.spans[i]
	}
}

// signal returns the index of r's signal in tables, and that of none when r is empty.
func (r *Record) signal() int {
	switch {
	case r.Log != nil:
		return 0
	case r.Metric != nil:
		return 1
	case r.Span != nil:
		return 2
	}
	return 3
}

func (r *Record) origin() **creel.Origin {
	switch {
	case r.Log != nil:
		return &r.Log.Origin
	case r.Metric != nil:
		return &r.Metric.Origin
	}
	return &r.Span.Origin
}

// attrs returns the record's own attributes.
func (r *Record) attrs() *creel.Attrs {
	switch {
	case r.Log != nil:
		return &r.Log.Attrs
	case r.Metric != nil:
		return &r.Metric.Attrs
	}
	return &r.Span.Attrs
}

func (r *Record) dropped() *uint32 {
	switch {
	case r.Log != nil:
		return &r.Log.Dropped
	case r.Span != nil:
		return &r.Span.Dropped
	}
	return nil
}

// Attrs returns the record's own attributes, to change, and the count of those that it has lost; the latter is nil for a
// data point, which has none.
func (r *Record) Attrs() (attrs *creel.Attrs, dropped *uint32) { return r.attrs(), r.dropped() }

func (r *Record) now() int64 {
	if r.Now == 0 {
		r.Now = time.Now().UnixNano()
	}
	return r.Now
}

// make returns n bytes for a string. They come from chunks, so that most strings cost no allocation.
func (r *Record) make(n int) []byte {
	used := len(r.made)
	if cap(r.made)-used < n {
		r.made, used = make([]byte, 0, max(2*n, 4096)), 0
	}
	r.made = r.made[:used+n]
	return r.made[used:]
}

// text returns b, which make has returned, as a string.
func (r *Record) text(b []byte) creel.Value {
	return creel.String(unsafe.String(unsafe.SliceData(b), len(b)))
}

// copied returns a string like b.
func (r *Record) copied(b []byte) creel.Value {
	s := r.make(len(b))
	copy(s, b)
	return r.text(s)
}

func (r *Record) hex(b []byte) creel.Value {
	s := r.make(2 * len(b))
	hex.Encode(s, b)
	return r.text(s)
}

// forget takes back the strings that were made since r.made was before.
func (r *Record) forget(before []byte) {
	if unsafe.SliceData(r.made) != unsafe.SliceData(before) {
		before = r.made[:0]
	}
	r.made = before
}

// values returns n values for a list.
func (r *Record) values(n int) []creel.Value {
	if r.Memory == nil {
		return make([]creel.Value, n)
	}
	return r.Memory.Values.Make(n)
}

// entries returns as, moved to where n more can be appended, or a copy that can be.
func (r *Record) entries(as creel.Attrs, n int, copied bool) creel.Attrs {
	switch {
	case r.Memory != nil && !copied:
		return r.Memory.Extend(as, n)
	case r.Memory != nil:
		return append(creel.Attrs(r.Memory.Attrs.Make(len(as) + n)[:0]), as...)
	case copied:
		return append(make(creel.Attrs, 0, len(as)+n), as...)
	}
	return as
}

// own returns v with its lists and maps copied: v refers to attributes of r, which may be changed in place.
func (r *Record) own(v creel.Value) creel.Value {
	switch v.Kind() {
	case creel.ValueList:
		vs := r.values(len(v.List()))
		for i, e := range v.List() {
			vs[i] = r.own(e)
		}
		return creel.List(vs...)
	case creel.ValueMap:
		as := r.entries(v.Map(), 0, true)
		for i := range as {
			as[i].Value = r.own(as[i].Value)
		}
		return creel.Map(as...)
	}
	return v
}

// let sets a variable.
func (r *Record) let(slot int, v creel.Value) {
	for len(r.vars) <= slot {
		r.vars = append(r.vars, creel.Value{})
	}
	r.vars[slot] = v
}
