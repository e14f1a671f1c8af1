package expr

import (
	"fmt"
	"slices"
	"strings"

	"github.com/creelhq/creel"
)

// Target is a place of a record that can be read, set and deleted, such as attributes["user"], body or severity. It is
// immutable and may be used concurrently, with a Record each.
type Target struct{ p *place }

// place is a field, or with steps an entry of one that is a map.
type place struct {
	text  string
	field *field
	steps []step
}

// step is a key of a map. One that was written with dots, such as a.b in attributes.a.b, is a key if there is such a key,
// and else leads through the map a.
type step struct {
	key    string
	dotted bool
}

// ParseTarget compiles text.
func ParseTarget(text string) (Target, error) {
	p, err := parsePlace(text)
	return Target{p}, err
}

// UnmarshalText is ParseTarget.
func (t *Target) UnmarshalText(text []byte) (err error) {
	*t, err = ParseTarget(string(text))
	return err
}

// MarshalText returns the text that t was made from.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// TypeName is what help calls it.
func (Target) TypeName() string { return "place" }

// String returns the text that t was made from.
func (t Target) String() string {
	if t.p == nil {
		return ""
	}
	return t.p.text
}

// IsZero reports whether t is the zero Target, which is no place.
func (t Target) IsZero() bool { return t.p == nil }

// Fits reports whether records of s have the place, and it can be changed there.
func (t Target) Fits(s creel.Signal) bool { return t.fits(index(s)) }

func (t Target) fits(signal int) bool {
	return t.p != nil && t.p.field.fits(signal) && !t.p.field.fixed[signal]
}

// Accepts returns an error when nothing that e gives can be stored in t, such as a map as severity.
func (t Target) Accepts(e Expression) error {
	if len(t.p.steps) > 0 {
		return nil
	}
	can, gives := t.p.field.can(), e.p.kinds
	if !can.meets(gives) && gives != nothing {
		return fmt.Errorf("%s is %v, but %s is %v", t, can, e, gives)
	}
	return nil
}

// Get returns what is there, and whether something is.
func (t Target) Get(r *Record) (creel.Value, bool) {
	s := r.signal()
	if t.p == nil || !t.p.field.fits(s) {
		return creel.Value{}, false
	}
	if t.p.steps != nil {
		return find(t.p.field.attrs(r), t.p.steps)
	}
	v := t.p.field.get[s](r)
	return v, v.Kind() != creel.ValueEmpty && (v.Kind() != creel.ValueString || v.Str() != "")
}

// Set stores v; an empty v deletes, except that it is a value for an attribute and its likes. It returns false, and
// changes nothing, when v cannot be stored there, such as a map as severity. v must not refer to the record's own list of
// attributes; Eval sees to that.
func (t Target) Set(r *Record, v creel.Value) bool {
	switch {
	case !t.fits(r.signal()):
		return false
	case t.p.steps != nil:
		return t.p.store(r, v)
	}
	return (t.p.field.can() | nothing).has(v) && t.p.field.set(r, v)
}

// Delete empties the place.
func (t Target) Delete(r *Record) {
	switch {
	case !t.fits(r.signal()):
	case t.p.steps == nil:
		t.p.field.set(r, creel.Value{})
	default:
		if _, ok := find(t.p.field.attrs(r), t.p.steps); ok {
			t.p.remove(r)
		}
	}
}

// attribute returns the key of the attribute that p surely is; "" if it is something else.
func (p *place) attribute() string {
	if p.field.name != "attributes" || len(p.steps) != 1 || p.steps[0].dotted {
		return ""
	}
	return p.steps[0].key
}

func (p *place) store(r *Record, v creel.Value) bool {
	switch p.field.name {
	case "attributes":
		as := r.attrs()
		*as = r.put(*as, p.steps, v, false)
	case "body":
		if k := r.Log.Body.Kind(); k != creel.ValueMap && k != creel.ValueEmpty {
			return false
		}
		r.Log.Body = creel.Map(r.put(r.Log.Body.Map(), p.steps, v, true)...)
	case "resource":
		return r.change(placeResource, p, v)
	case "scope":
		return r.change(placeScope, p, v)
	}
	return true
}

func (p *place) remove(r *Record) {
	switch p.field.name {
	case "attributes":
		as := r.attrs()
		*as = r.drop(*as, p.steps, false)
	case "body":
		r.Log.Body = creel.Map(r.drop(r.Log.Body.Map(), p.steps, true)...)
	case "resource":
		r.change(placeResourceDelete, p, creel.Value{})
	case "scope":
		r.change(placeScopeDelete, p, creel.Value{})
	}
}

// in returns the key that s stands for in as, and what is left of s to be looked up in the map there.
func (s step) in(as creel.Attrs) (key string, v creel.Value, ok bool, rest string) {
	if v, ok = as.Get(s.key); ok || !s.dotted {
		return s.key, v, ok, ""
	}
	for i := range len(s.key) {
		if s.key[i] != '.' {
			continue
		}
		if v, ok := as.Get(s.key[:i]); ok && v.Kind() == creel.ValueMap {
			return s.key[:i], v, true, s.key[i+1:]
		}
	}
	return s.key, creel.Value{}, false, ""
}

// find looks up what steps lead to.
func find(as creel.Attrs, steps []step) (creel.Value, bool) {
	for s := steps[0]; ; {
		_, v, ok, rest := s.in(as)
		switch {
		case !ok:
			return creel.Value{}, false
		case rest != "":
			s = step{rest, true}
		case len(steps) == 1:
			return v, true
		default:
			steps = steps[1:]
			s = steps[0]
		}
		as = v.Map()
	}
}

// put returns as with v where steps lead, through maps that are made if there are none. With shared, as itself stays as
// it is; the maps in it always do.
func (r *Record) put(as creel.Attrs, steps []step, v creel.Value, shared bool) creel.Attrs {
	key, old, ok, rest := steps[0].in(as)
	as = r.entries(as, 1, shared)
	switch {
	case rest != "":
		v = creel.Map(r.put(old.Map(), append([]step{{rest, true}}, steps[1:]...), v, true)...)
	case len(steps) > 1:
		v = creel.Map(r.put(old.Map(), steps[1:], v, true)...)
	case !ok:
		return append(as, creel.Attr{Key: key, Value: v})
	}
	as.Set(key, v)
	return as
}

// drop returns as without what steps lead to, which is there. shared is as in put.
func (r *Record) drop(as creel.Attrs, steps []step, shared bool) creel.Attrs {
	key, old, _, rest := steps[0].in(as)
	if shared {
		as = r.entries(as, 0, true)
	}
	switch {
	case rest != "":
		as.Set(key, creel.Map(r.drop(old.Map(), append([]step{{rest, true}}, steps[1:]...), true)...))
	case len(steps) > 1:
		as.Set(key, creel.Map(r.drop(old.Map(), steps[1:], true)...))
	default:
		as.Delete(key)
	}
	return as
}

// steps makes the steps of keys that are written one after the other; those after a dot are joined.
func joinSteps(steps []step) (joined []step) {
	for _, s := range steps {
		if n := len(joined); n > 0 && s.dotted && joined[n-1].dotted {
			joined[n-1].key += "." + s.key
			continue
		}
		joined = append(joined, s)
	}
	for i := range joined {
		joined[i].dotted = joined[i].dotted && strings.Contains(joined[i].key, ".")
	}
	return slices.Clip(joined)
}
