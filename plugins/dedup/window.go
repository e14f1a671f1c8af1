package dedup

import (
	"time"
	"unsafe"

	"github.com/creelhq/creel"
)

// A window is what is remembered of an interval. The records in it are copies that share no memory with what came in:
// a string of that would keep the whole buffer that it was received in.
type window struct {
	records *creel.Records // the first of each, to be sent in the end; nil as long as there is none
	entries []entry        // what is known of records.Logs, in the same order
	byHash  map[uint64]int32
	origins map[uint64][]*creel.Origin // copies, by hash
	size    int                        // bytes that are remembered

	// held answers for all records that were counted: whoever waits for one waits for what is sent in the end.
	held *creel.Batch
}

// entry is how often a record was seen, and when.
type entry struct {
	count       int64
	first, last int64
	next        int32 // another with the same hash, counted from 1
	values      []creel.Value
}

func newWindow() *window {
	return &window{byHash: make(map[uint64]int32), origins: make(map[uint64][]*creel.Origin)}
}

// reset empties w, and keeps its memory.
func (w *window) reset() {
	clear(w.entries)
	clear(w.byHash)
	clear(w.origins)
	*w = window{entries: w.entries[:0], byHash: w.byHash, origins: w.origins}
}

// count counts the records of b that have a hash. It returns the batch that is to pass, nil if there is none; and, if
// nobody shall wait for them, one that answers for those that were counted.
func (d *dedup) count(b *creel.Batch, s *scratch) (pass, counted *creel.Batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	logs, w := b.Logs(), d.now
	passing := 0
	var from, origin *creel.Origin // the last one, and its copy
	for i := range logs {
		if s.hashes[i] == 0 {
			passing++
			continue
		}
		l := &logs[i]
		if origin == nil || l.Origin != from {
			from, origin = l.Origin, d.intern(w, l.Origin)
		}
		if origin == nil || !d.countOne(w, s.hashes[i], l, origin, s.values[i*d.calculated:(i+1)*d.calculated]) {
			s.hashes[i] = 0
			passing++
		}
	}
	switch passing {
	case len(logs):
		return b, nil
	case 0:
		return nil, d.answer(w, b)
	}
	logs = b.EditLogs()
	n := 0
	for i := range logs { // those that pass stay in their order; that of the others does not matter any more
		if s.hashes[i] == 0 {
			logs[n], logs[i] = logs[i], logs[n]
			n++
		}
	}
	return b, d.answer(w, b.Split(passing))
}

// answer makes w answer for b's records, which it has counted. If nobody shall wait for w, it returns an empty batch that
// answers for them.
func (d *dedup) answer(w *window, b *creel.Batch) *creel.Batch {
	switch {
	case d.Ack == "memory":
		counted := creel.NewLogs(nil)
		counted.Absorb(b)
		return counted
	case w.held == nil:
		b.Hold()
		w.held = b
	default:
		w.held.Absorb(b)
	}
	return nil
}

// countOne returns false when l is to pass.
func (d *dedup) countOne(w *window, hash uint64, l *creel.Log, o *creel.Origin, values []creel.Value) bool {
	first, known := w.byHash[hash]
	if known {
		for i := first; i >= 0; i = w.entries[i].next - 1 {
			if d.same(w, i, l, o, values) {
				w.entries[i].see(l)
				return true
			}
		}
	} else {
		first = -1
	}
	if len(w.entries) == d.MaxKeys || w.size >= int(d.MaxSize) {
		d.overflow.Inc()
		return false
	}
	if w.records == nil {
		w.records = d.memory.NewRecords()
	}
	c := copier{records: w.records, text: &d.text}
	e := entry{next: first + 1, values: c.values(values)}
	w.byHash[hash] = int32(len(w.entries))
	w.records.Logs = append(w.records.Logs, c.log(l, o))
	w.size += c.size
	if !d.PassFirst {
		e.see(l)
	}
	w.entries = append(w.entries, e)
	return !d.PassFirst
}

func (e *entry) see(l *creel.Log) {
	at := l.Observed
	if at == 0 {
		at = l.Time
	}
	if e.count == 0 || at < e.first {
		e.first = at
	}
	e.last = max(e.last, at)
	e.count++
}

// intern returns w's copy of o; nil if there is none, and no room for one.
func (d *dedup) intern(w *window, o *creel.Origin) *creel.Origin {
	h := d.Mix(d.Attrs(o.Resource.Attrs, nil), d.Attrs(o.Scope.Attrs, nil))
	for _, known := range w.origins[h] {
		if sameOrigin(known, o) {
			return known
		}
	}
	if w.size >= int(d.MaxSize) {
		d.overflow.Inc()
		return nil
	}
	c := &creel.Origin{Resource: o.Resource, Scope: o.Scope}
	c.Resource.Attrs, c.Scope.Attrs = o.Resource.Attrs.Clone(), o.Scope.Attrs.Clone()
	for _, s := range []*string{&c.Resource.SchemaURL, &c.Scope.Name, &c.Scope.Version, &c.Scope.SchemaURL} {
		*s = d.text.copy(*s)
	}
	w.origins[h] = append(w.origins[h], c)
	w.size += int(unsafe.Sizeof(*c)) + 64*(len(c.Resource.Attrs)+len(c.Scope.Attrs))
	return c
}

func sameOrigin(a, b *creel.Origin) bool {
	return a.Scope.Name == b.Scope.Name && a.Scope.Version == b.Scope.Version && a.Scope.SchemaURL == b.Scope.SchemaURL &&
		a.Resource.SchemaURL == b.Resource.SchemaURL && a.Resource.Attrs.Equal(b.Resource.Attrs) && a.Scope.Attrs.Equal(b.Scope.Attrs)
}

// finish makes records what is to be sent.
func (w *window) finish(countAttribute string) {
	logs, n := w.records.Logs, 0
	var text arena
	stamp := func(at int64) creel.Value {
		var buf [len(time.RFC3339Nano)]byte
		b := time.Unix(0, at).UTC().AppendFormat(buf[:0], time.RFC3339Nano)
		return creel.String(text.copy(unsafe.String(unsafe.SliceData(b), len(b))))
	}
	for i := range logs {
		e := &w.entries[i]
		if e.count == 0 { // it has passed, and nothing like it came after it
			continue
		}
		l := logs[i]
		l.Attrs = w.records.Extend(l.Attrs, 3)
		l.Attrs.Set(countAttribute, creel.Int(e.count))
		if e.first > 0 {
			l.Attrs.Set("first_observed_timestamp", stamp(e.first))
			l.Attrs.Set("last_observed_timestamp", stamp(e.last))
		}
		logs[n] = l
		n++
	}
	clear(logs[n:])
	w.records.Logs = logs[:n]
}

// copier copies a record so that it shares no memory with where it came from.
type copier struct {
	records *creel.Records
	text    *arena
	size    int
}

func (c *copier) log(from *creel.Log, o *creel.Origin) creel.Log {
	l := *from
	c.size += int(unsafe.Sizeof(l) + unsafe.Sizeof(entry{}))
	l.Origin, l.Body, l.Attrs = o, c.value(from.Body), c.attrs(from.Attrs)
	l.SeverityText, l.Event = c.str(l.SeverityText), c.str(l.Event)
	return l
}

func (c *copier) str(s string) string {
	c.size += len(s)
	return c.text.copy(s)
}

func (c *copier) attrs(from creel.Attrs) creel.Attrs {
	c.size += len(from) * int(unsafe.Sizeof(creel.Attr{}))
	to := c.records.Attrs.Make(len(from))
	for i := range from {
		to[i] = creel.Attr{Key: c.str(from[i].Key), Value: c.value(from[i].Value)}
	}
	return to
}

func (c *copier) values(from []creel.Value) []creel.Value {
	c.size += len(from) * int(unsafe.Sizeof(creel.Value{}))
	to := c.records.Values.Make(len(from))
	for i := range from {
		to[i] = c.value(from[i])
	}
	return to
}

func (c *copier) value(v creel.Value) creel.Value {
	switch v.Kind() {
	case creel.ValueString:
		return creel.String(c.str(v.Str()))
	case creel.ValueBytes:
		b := v.Bytes()
		s := c.str(unsafe.String(unsafe.SliceData(b), len(b)))
		return creel.Bytes(unsafe.Slice(unsafe.StringData(s), len(s)))
	case creel.ValueList:
		return creel.List(c.values(v.List())...)
	case creel.ValueMap:
		return creel.Map(c.attrs(v.Map())...)
	}
	return v
}

// arena hands out copies of strings, from chunks that are never used again. The zero arena is ready.
type arena struct{ chunk []byte }

const arenaChunk = 32 << 10

func (a *arena) copy(s string) string {
	if len(s) == 0 {
		return ""
	}
	if cap(a.chunk)-len(a.chunk) < len(s) {
		if len(s) > arenaChunk/4 {
			return string([]byte(s))
		}
		a.chunk = make([]byte, 0, arenaChunk)
	}
	n := len(a.chunk)
	a.chunk = append(a.chunk, s...)
	return unsafe.String(&a.chunk[n], len(s))
}
