package dedup

import (
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
			h = d.Mix(h, d.Value(l.Body))
		case "severity":
			h = d.Mix(d.Mix(h, uint64(l.Severity)), d.String(l.SeverityText))
		case "event":
			h = d.Mix(h, d.String(l.Event))
		case "attributes":
			h = d.Mix(h, d.Attrs(l.Attrs, d.compared))
		case "resource":
			if l.Origin != s.origin {
				s.origin, s.hash = l.Origin, d.Attrs(l.Origin.Resource.Attrs, nil)
			}
			h = d.Mix(h, s.hash)
		case "scope":
			h = d.Mix(d.Mix(h, d.String(l.Origin.Scope.Name)), d.String(l.Origin.Scope.Version))
		default:
			v := f.value.Eval(rec)
			s.values = append(s.values, v)
			h = d.Mix(h, d.Value(v))
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
