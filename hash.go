package creel

import (
	"cmp"
	"hash/fnv"
	"hash/maphash"
	"io"
	"math"
	"math/bits"
	"slices"
)

// Rendezvous returns names in the order in which key prefers them: by their highest random weights (A Name-Based Mapping Scheme
// for Rendezvous, Thaler and Ravishankar, 1996). It is the same in every process. When one of the names goes, only the keys that
// preferred it go elsewhere, evenly to all others.
func Rendezvous(key string, names []string) []string {
	weight := make(map[string]uint64, len(names))
	for _, name := range names {
		h := fnv.New64a()
		_, _ = io.WriteString(h, key+"\x00"+name) // it never fails
		w := h.Sum64()                            // in whose upper bits the end of name hardly counts: mixed as splitmix64 does
		w = (w ^ w>>30) * 0xbf58476d1ce4e5b9
		w = (w ^ w>>27) * 0x94d049bb133111eb
		weight[name] = w ^ w>>31
	}
	names = slices.Clone(names)
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(weight[b], weight[a]), cmp.Compare(a, b)) })
	return names
}

// A Hasher makes numbers of what records hold, for tables in memory that find equal records: what is equal has the same
// number, and what differs has another as a rule. Each Hasher has a secret seed of its own, so that nobody can choose
// records that collide. It may be used concurrently.
type Hasher struct{ seed maphash.Seed }

// NewHasher returns a Hasher with a new seed.
func NewHasher() Hasher { return Hasher{maphash.MakeSeed()} }

// Mix returns a number in which every bit of a and b counts, and their order.
func (Hasher) Mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd6e8feb86659fd93)
	return hi ^ lo
}

// String hashes a text.
func (h Hasher) String(s string) uint64 { return maphash.String(h.seed, s) }

// Value hashes a value: what Value.Equal calls equal has the same hash.
func (h Hasher) Value(v Value) (n uint64) {
	n = uint64(v.kind)
	switch v.kind {
	case ValueString:
		return h.Mix(n, h.String(v.Str()))
	case ValueBytes:
		return h.Mix(n, maphash.Bytes(h.seed, v.Bytes()))
	case ValueInt:
		return h.Mix(n, uint64(v.Int()))
	case ValueDouble:
		return h.Mix(n, math.Float64bits(v.Double()))
	case ValueBool:
		return h.Mix(n, v.num)
	case ValueList:
		for _, e := range v.List() {
			n = h.Mix(n, h.Value(e))
		}
	case ValueMap:
		for _, a := range v.Map() {
			n = h.Mix(h.Mix(n, h.String(a.Key)), h.Value(a.Value))
		}
	}
	return n
}

// Attrs hashes the attributes for whose keys keep returns true, all if it is nil. Unlike in a map, their order does not
// count.
func (h Hasher) Attrs(as Attrs, keep func(key string) bool) (n uint64) {
	for i := range as {
		if keep == nil || keep(as[i].Key) {
			n += h.Mix(h.String(as[i].Key), h.Value(as[i].Value))
		}
	}
	return n
}
