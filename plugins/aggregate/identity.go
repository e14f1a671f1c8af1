package aggregate

import (
	"strings"

	"github.com/creelhq/creel"
)

// sameAttrs reports whether kept are those of as that keep wants, in any order.
func sameAttrs(kept, as creel.Attrs, keep func(string) bool) bool {
	if keep == nil && kept.Equal(as) {
		return true
	}
	n := 0
	for i := range as {
		if keep != nil && !keep(as[i].Key) {
			continue
		}
		if v, ok := kept.Get(as[i].Key); !ok || !v.Equal(as[i].Value) {
			return false
		}
		n++
	}
	return n == len(kept)
}

// A known is a copy of an Origin or a Descriptor that came with records, and a number of its own. A copy, since a string
// of the original keeps the whole buffer alive that it was received in.
type known[T any] struct {
	is   *T
	hash uint64
	idle int // intervals in which it did not come
}

type (
	place = known[creel.Origin]
	kind  = known[creel.Descriptor]
)

// interner gives what has the same content the same known.
type interner[T any] struct {
	byHash map[uint64][]*known[T]
	n, max int
}

// find returns the known with a hash that is the same, or makes one; it returns nil if there are too many.
func (in *interner[T]) find(hash uint64, same func(*T) bool, make func() *T) *known[T] {
	for _, k := range in.byHash[hash] {
		if same(k.is) {
			k.idle = 0
			return k
		}
	}
	if in.n >= in.max {
		return nil
	}
	in.n++
	k := &known[T]{is: make(), hash: hash}
	in.byHash[hash] = append(in.byHash[hash], k)
	return k
}

// forget gives up what has not come for some intervals.
func (in *interner[T]) forget() {
	for h, list := range in.byHash {
		kept := list[:0]
		for _, k := range list {
			if k.idle++; k.idle <= idleLimit {
				kept = append(kept, k)
			}
		}
		in.n -= len(list) - len(kept)
		clear(list[len(kept):])
		if in.byHash[h] = kept; len(kept) == 0 {
			delete(in.byHash, h)
		}
	}
}

// place returns the place of records with this resource and scope; nil if there are too many.
func (t *table) place(r *creel.Resource, s *creel.Scope) *place {
	h := t.Mix(t.Mix(t.Attrs(r.Attrs, nil), t.Attrs(s.Attrs, nil)), t.Mix(t.String(s.Name), t.String(s.Version)))
	same := func(o *creel.Origin) bool {
		return o.Scope.Name == s.Name && o.Scope.Version == s.Version && o.Scope.SchemaURL == s.SchemaURL && o.Resource.SchemaURL == r.SchemaURL &&
			o.Resource.Attrs.Equal(r.Attrs) && o.Scope.Attrs.Equal(s.Attrs)
	}
	return t.places.find(h, same, func() *creel.Origin {
		return &creel.Origin{
			Resource: creel.Resource{Attrs: r.Attrs.Clone(), Dropped: r.Dropped, SchemaURL: strings.Clone(r.SchemaURL), Entities: cloneEntities(r.Entities)},
			Scope:    creel.Scope{Name: strings.Clone(s.Name), Version: strings.Clone(s.Version), Attrs: s.Attrs.Clone(), Dropped: s.Dropped, SchemaURL: strings.Clone(s.SchemaURL)},
		}
	})
}

func cloneEntities(list []creel.EntityRef) (out []creel.EntityRef) {
	names := func(list []string) (out []string) {
		for _, s := range list {
			out = append(out, strings.Clone(s))
		}
		return out
	}
	for _, e := range list {
		out = append(out, creel.EntityRef{
			SchemaURL: strings.Clone(e.SchemaURL), Type: strings.Clone(e.Type), IDKeys: names(e.IDKeys), DescriptionKeys: names(e.DescriptionKeys),
		})
	}
	return out
}

// kind returns the kind of data points with this descriptor; nil if there are too many. Descriptions do not tell metrics
// apart.
func (t *table) kind(d *creel.Descriptor) *kind {
	h := t.Mix(t.Mix(t.String(d.Name), t.String(d.Unit)), uint64(d.Kind)<<16|uint64(d.Temporality)<<8)
	same := func(k *creel.Descriptor) bool {
		return k.Name == d.Name && k.Unit == d.Unit && k.Kind == d.Kind && k.Temporality == d.Temporality && k.Monotonic == d.Monotonic
	}
	return t.kinds.find(h, same, func() *creel.Descriptor {
		c := *d
		c.Name, c.Unit, c.Description, c.Metadata = strings.Clone(d.Name), strings.Clone(d.Unit), strings.Clone(d.Description), d.Metadata.Clone()
		return &c
	})
}
