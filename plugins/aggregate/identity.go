package aggregate

import (
	"hash/maphash"
	"math"
	"math/bits"
	"strings"

	"github.com/creelhq/creel"
)

// hasher makes numbers of what tells series apart.
type hasher struct{ seed maphash.Seed }

// mix returns a number in which every bit of a and b counts.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd6e8feb86659fd93)
	return hi ^ lo
}

func (h hasher) str(s string) uint64 { return maphash.String(h.seed, s) }

// attrs returns the same for the same attributes in another order. Those that keep does not want are left out.
func (h hasher) attrs(as creel.Attrs, keep func(string) bool) (n uint64) {
	for i := range as {
		if keep == nil || keep(as[i].Key) {
			n += mix(h.str(as[i].Key), h.value(as[i].Value))
		}
	}
	return n
}

func (h hasher) value(v creel.Value) (n uint64) {
	n = uint64(v.Kind())
	switch v.Kind() {
	case creel.ValueString:
		return mix(n, h.str(v.Str()))
	case creel.ValueBytes:
		return mix(n, maphash.Bytes(h.seed, v.Bytes()))
	case creel.ValueInt:
		return mix(n, uint64(v.Int()))
	case creel.ValueDouble:
		return mix(n, math.Float64bits(v.Double()))
	case creel.ValueBool:
		if v.Bool() {
			n |= 1 << 8
		}
	case creel.ValueList:
		for _, e := range v.List() {
			n = mix(n, h.value(e))
		}
	case creel.ValueMap:
		for _, a := range v.Map() { // in its order, as Value.Equal compares it
			n = mix(mix(n, h.str(a.Key)), h.value(a.Value))
		}
	}
	return n
}

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
	h := mix(mix(t.attrs(r.Attrs, nil), t.attrs(s.Attrs, nil)), mix(t.str(s.Name), t.str(s.Version)))
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
	h := mix(mix(t.str(d.Name), t.str(d.Unit)), uint64(d.Kind)<<16|uint64(d.Temporality)<<8)
	same := func(k *creel.Descriptor) bool {
		return k.Name == d.Name && k.Unit == d.Unit && k.Kind == d.Kind && k.Temporality == d.Temporality && k.Monotonic == d.Monotonic
	}
	return t.kinds.find(h, same, func() *creel.Descriptor {
		c := *d
		c.Name, c.Unit, c.Description, c.Metadata = strings.Clone(d.Name), strings.Clone(d.Unit), strings.Clone(d.Description), d.Metadata.Clone()
		return &c
	})
}
