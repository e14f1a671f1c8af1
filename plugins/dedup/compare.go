package dedup

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
)

// Field is a part of a record that is compared.
type Field struct {
	word  string          // the name of a part
	value expr.Expression // if it is none
}

// UnmarshalText reads the name of a part, or an expression.
func (f *Field) UnmarshalText(text []byte) error {
	switch s := string(text); s {
	case "body", "severity", "event", "attributes", "resource", "scope":
		f.word = s
		return nil
	default:
		return f.value.UnmarshalText(text)
	}
}

// MarshalText returns the text that f was made from.
func (f Field) MarshalText() ([]byte, error) {
	if f.word != "" {
		return []byte(f.word), nil
	}
	return f.value.MarshalText()
}

// measure fills s with the hashes of b's records. It returns false when none is to be counted.
func (d *dedup) measure(b *creel.Batch, s *scratch) (some bool) {
	s.hashes, s.values, s.origin = s.hashes[:0], s.values[:0], nil
	logs, rec := b.Logs(), expr.Read(b)
	for i := range logs {
		rec.Seek(i)
		if !d.Where.IsZero() && !d.Where.Match(rec) {
			s.hashes = append(s.hashes, 0)
			for range d.calculated {
				s.values = append(s.values, creel.Value{})
			}
			continue
		}
		some = true
		s.hashes = append(s.hashes, max(1, d.hash(rec, s)))
	}
	return some
}

// hash returns the hash of what is compared, and appends what is calculated to s.values.
func (d *dedup) hash(rec *expr.Record, s *scratch) (h uint64) {
	l := rec.Log
	for i := range d.By {
		switch f := &d.By[i]; f.word {
		case "body":
			h = mix(h, d.hashValue(l.Body))
		case "severity":
			h = mix(mix(h, uint64(l.Severity)), maphash.String(d.seed, l.SeverityText))
		case "event":
			h = mix(h, maphash.String(d.seed, l.Event))
		case "attributes":
			h = mix(h, d.hashAttrs(l.Attrs, d.Ignore))
		case "resource":
			if l.Origin != s.origin {
				s.origin, s.hash = l.Origin, d.hashAttrs(l.Origin.Resource.Attrs, nil)
			}
			h = mix(h, s.hash)
		case "scope":
			h = mix(mix(h, maphash.String(d.seed, l.Origin.Scope.Name)), maphash.String(d.seed, l.Origin.Scope.Version))
		default:
			v := f.value.Eval(rec)
			s.values = append(s.values, v)
			h = mix(h, d.hashValue(v))
		}
	}
	return h
}

// mix returns a number in which every bit of a and b counts.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd6e8feb86659fd93)
	return hi ^ lo
}

// hashAttrs returns the same for the same attributes in another order.
func (d *dedup) hashAttrs(as creel.Attrs, ignore []string) (h uint64) {
	for i := range as {
		if len(ignore) == 0 || !slices.Contains(ignore, as[i].Key) {
			h += mix(maphash.String(d.seed, as[i].Key), d.hashValue(as[i].Value))
		}
	}
	return h
}

func (d *dedup) hashValue(v creel.Value) (h uint64) {
	h = uint64(v.Kind())
	switch v.Kind() {
	case creel.ValueString:
		return mix(h, maphash.String(d.seed, v.Str()))
	case creel.ValueBytes:
		return mix(h, maphash.Bytes(d.seed, v.Bytes()))
	case creel.ValueInt:
		return mix(h, uint64(v.Int()))
	case creel.ValueDouble:
		return mix(h, math.Float64bits(v.Double()))
	case creel.ValueBool:
		if v.Bool() {
			h |= 1 << 8
		}
	case creel.ValueList:
		for _, e := range v.List() {
			h = mix(h, d.hashValue(e))
		}
	case creel.ValueMap:
		for _, a := range v.Map() { // in its order, as Value.Equal compares it
			h = mix(mix(h, maphash.String(d.seed, a.Key)), d.hashValue(a.Value))
		}
	}
	return h
}

// same reports whether l is to be counted to the e-th record of w, whose hash it has.
func (d *dedup) same(w *window, e int32, l *creel.Log, o *creel.Origin, values []creel.Value) bool {
	kept := &w.records.Logs[e]
	next := 0
	for i := range d.By {
		equal := false
		switch d.By[i].word {
		case "body":
			equal = kept.Body.Equal(l.Body)
		case "severity":
			equal = kept.Severity == l.Severity && kept.SeverityText == l.SeverityText
		case "event":
			equal = kept.Event == l.Event
		case "attributes":
			equal = sameAttrs(kept.Attrs, l.Attrs, d.Ignore)
		case "resource":
			equal = kept.Origin == o || sameAttrs(kept.Origin.Resource.Attrs, o.Resource.Attrs, nil)
		case "scope":
			equal = kept.Origin == o || kept.Origin.Scope.Name == o.Scope.Name && kept.Origin.Scope.Version == o.Scope.Version
		default:
			equal = w.entries[e].values[next].Equal(values[next])
			next++
		}
		if !equal {
			return false
		}
	}
	return true
}

// sameAttrs reports whether as and bs are the same, but for their order and for those to ignore.
func sameAttrs(as, bs creel.Attrs, ignore []string) bool {
	if len(ignore) == 0 && len(as) == len(bs) && as.Equal(bs) {
		return true
	}
	return contains(as, bs, ignore) && contains(bs, as, ignore)
}

func contains(as, bs creel.Attrs, ignore []string) bool {
	for i := range bs {
		if slices.Contains(ignore, bs[i].Key) {
			continue
		}
		if v, ok := as.Get(bs[i].Key); !ok || !v.Equal(bs[i].Value) {
			return false
		}
	}
	return true
}
