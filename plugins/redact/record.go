package redact

import (
	"slices"
	"strconv"
	"unsafe"

	"github.com/creelhq/creel"
)

// The functions of this file walk through a record. With own they replace what is found; without, they change nothing
// and return true as soon as there is something to replace.

// record looks at all of a record that it is to look at.
func (w *work) record() (found bool) {
	rec, own := w.rec, w.rec.Memory
	var o **creel.Origin
	switch {
	case rec.Log != nil:
		o, found = &rec.Log.Origin, w.log(rec.Log, own)
	case rec.Metric != nil:
		o, found = &rec.Metric.Origin, w.metric(rec.Metric, own)
	case rec.Span != nil:
		o, found = &rec.Span.Origin, w.span(rec.Span, own)
	}
	if w.resource && *o != w.from {
		w.from, w.to = *o, w.origin(*o)
	}
	if w.resource && w.to != *o {
		if found = true; own != nil {
			*o = w.to
		}
	}
	for _, place := range w.places {
		if found && own == nil {
			return true
		}
		v, ok := place.Get(rec)
		if !ok {
			continue
		}
		if v, changed := w.value(v, own); changed {
			if found = true; own != nil {
				place.Set(rec, v)
			}
		}
	}
	return found
}

// origin returns what becomes of o: o itself if there is nothing to replace.
func (r *redactor) origin(o *creel.Origin) *creel.Origin {
	if !r.attrs(&o.Resource.Attrs, nil) {
		return o
	}
	c := *o
	c.Resource.Attrs = slices.Clone(o.Resource.Attrs)
	r.attrs(&c.Resource.Attrs, &creel.Records{})
	return &c
}

func (r *redactor) log(l *creel.Log, own *creel.Records) (found bool) {
	if r.body {
		if v, changed := r.value(l.Body, own); changed {
			if found = true; own == nil {
				return true
			}
			l.Body = v
		}
	}
	return r.attributes && r.attrs(&l.Attrs, own) || found
}

func (r *redactor) metric(m *creel.Metric, own *creel.Records) (found bool) {
	if !r.attributes {
		return false
	}
	found = r.attrs(&m.Attrs, own)
	for i := range m.Exemplars {
		if found && own == nil {
			return true
		}
		found = r.attrs(&m.Exemplars[i].Attrs, own) || found
	}
	return found
}

func (r *redactor) span(s *creel.Span, own *creel.Records) (found bool) {
	if r.name {
		found = r.str(&s.Name, own) || found
	}
	if r.others {
		found = r.str(&s.Status.Message, own) || found
	}
	if !r.attributes {
		return found
	}
	found = r.attrs(&s.Attrs, own) || found
	for i := range s.Events {
		if found && own == nil {
			return true
		}
		found = r.attrs(&s.Events[i].Attrs, own) || found
		if r.others {
			found = r.str(&s.Events[i].Name, own) || found
		}
	}
	for i := range s.Links {
		if found && own == nil {
			return true
		}
		found = r.attrs(&s.Links[i].Attrs, own) || found
	}
	return found
}

func (r *redactor) str(s *string, own *creel.Records) bool {
	if r.clean(*s) {
		return false
	}
	if own != nil {
		*s = r.rewrite(*s)
	}
	return true
}

// attrs looks at a record's own attributes, which may be changed in place.
func (r *redactor) attrs(as *creel.Attrs, own *creel.Records) (found bool) {
	for i := 0; i < len(*as); i++ {
		a := &(*as)[i]
		v, changed := r.entry(a.Key, a.Value, own)
		if !changed {
			continue
		}
		if found = true; own == nil {
			return true
		}
		if v.Kind() == creel.ValueEmpty { // removed
			*as = append((*as)[:i], (*as)[i+1:]...)
			i--
			continue
		}
		a.Value = v
	}
	return found
}

// entry returns what becomes of a value with a name; an empty one if both are to be removed.
func (r *redactor) entry(key string, v creel.Value, own *creel.Records) (creel.Value, bool) {
	if !r.isKey(key) {
		return r.value(v, own)
	}
	if v.Kind() == creel.ValueEmpty || r.isKeyMark(v.Str()) {
		return v, false
	}
	if own == nil {
		return v, true
	}
	r.counted[kindKey].Inc()
	switch r.replace {
	case "remove":
		return creel.Value{}, true
	case "hash":
		return creel.String(r.hashed(kindKey, v.String())), true
	}
	return creel.String(keyMask), true
}

// value returns what becomes of v.
func (r *redactor) value(v creel.Value, own *creel.Records) (creel.Value, bool) {
	switch v.Kind() {
	case creel.ValueString:
		s := v.Str()
		if !r.str(&s, own) {
			return v, false
		}
		return creel.String(s), true
	case creel.ValueBytes:
		b := v.Bytes()
		s := unsafe.String(unsafe.SliceData(b), len(b)) // immutable as the value is
		if !r.str(&s, own) {
			return v, false
		}
		return creel.Bytes([]byte(s)), true
	case creel.ValueInt:
		if !r.isCard(v.Int()) {
			return v, false
		}
		if own == nil {
			return v, true
		}
		return creel.String(r.rewrite(strconv.FormatInt(v.Int(), 10))), true
	case creel.ValueList:
		return r.list(v, own)
	case creel.ValueMap:
		return r.dict(v, own)
	}
	return v, false
}

// list copies a list when the first change to it is due.
func (r *redactor) list(v creel.Value, own *creel.Records) (creel.Value, bool) {
	var out []creel.Value
	for i, e := range v.List() {
		e, changed := r.value(e, own)
		if !changed {
			continue
		}
		if own == nil {
			return v, true
		}
		if out == nil {
			out = own.Values.Make(len(v.List()))
			copy(out, v.List())
		}
		out[i] = e
	}
	if out == nil {
		return v, false
	}
	return creel.List(out...), true
}

// dict does for a map what list does for a list.
func (r *redactor) dict(v creel.Value, own *creel.Records) (creel.Value, bool) {
	var out creel.Attrs
	kept := 0
	for i, a := range v.Map() {
		e, changed := r.entry(a.Key, a.Value, own)
		if changed && own == nil {
			return v, true
		}
		if changed && out == nil {
			out = own.Attrs.Make(len(v.Map()))
			copy(out, v.Map()[:i])
			kept = i
		}
		if out != nil && !(changed && e.Kind() == creel.ValueEmpty) {
			out[kept] = creel.Attr{Key: a.Key, Value: e}
			kept++
		}
	}
	if out == nil {
		return v, false
	}
	return creel.Map(out[:kept]...), true
}

// isCard reports whether a number is that of a card: JSON's are not always in quotes.
func (r *redactor) isCard(n int64) bool {
	if !r.cards || n < 1e12 {
		return false
	}
	var digits [20]byte
	_, ok := cardAt(unsafe.String(&digits[0], len(strconv.AppendInt(digits[:0], n, 10))), 0)
	return ok
}

// glob is a name in which * stands for any text; the case of ASCII letters does not matter.
type glob string

func (r *redactor) isKey(key string) bool {
	for _, g := range r.keys {
		if g.match(key) {
			return true
		}
	}
	return false
}

// match goes back to the last * when what follows it does not fit, which is enough: an earlier one need not give way.
func (g glob) match(s string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for i < len(s) {
		switch {
		case j < len(g) && g[j] == '*':
			star, mark = j, i
			j++
		case j < len(g) && lower(g[j]) == lower(s[i]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	for j < len(g) && g[j] == '*' {
		j++
	}
	return j == len(g)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
