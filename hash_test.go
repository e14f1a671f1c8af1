package creel_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/creelhq/creel"
)

func TestHasher(t *testing.T) {
	h := creel.NewHasher()
	values := []creel.Value{
		{}, creel.String(""), creel.String("a"), creel.Bytes([]byte("a")), creel.Int(1), creel.Int(0), creel.Double(1), creel.Double(0), creel.Bool(true), creel.Bool(false),
		creel.List(), creel.List(creel.Int(1)), creel.List(creel.Int(1), creel.Int(2)), creel.List(creel.Int(2), creel.Int(1)), creel.List(creel.List(creel.Int(1))),
		creel.Map(), creel.Map(creel.Attr{Key: "a", Value: creel.Int(1)}), creel.Map(creel.Attr{Key: "b", Value: creel.Int(1)}),
	}
	seen := map[uint64]creel.Value{}
	for _, v := range values {
		n := h.Value(v)
		if n != h.Value(v.Clone()) {
			t.Errorf("a copy of %v has another hash", v)
		}
		if other, ok := seen[n]; ok {
			t.Errorf("%v and %v have the same hash", v, other)
		}
		seen[n] = v
	}
	as := creel.Attrs{{Key: "a", Value: creel.Int(1)}, {Key: "b", Value: creel.Int(2)}, {Key: "c", Value: creel.Int(3)}}
	turned := creel.Attrs{as[2], as[0], as[1]}
	notC := func(key string) bool { return key != "c" }
	if h.Attrs(as, nil) != h.Attrs(turned, nil) || h.Attrs(as, notC) != h.Attrs(as[:2], nil) || h.Attrs(as, nil) == h.Attrs(as, notC) {
		t.Error("attributes: order or choice are not as told")
	}
	if n := testing.AllocsPerRun(10, func() { h.Attrs(as, notC) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestRendezvous: keys go to names evenly; when a name goes only its keys go elsewhere, to all others; when one comes it gets its
// share, and no key changes between two others.
func TestRendezvous(t *testing.T) {
	const keys = 3000
	names := []string{"hub-1", "hub-2", "hub-3"}
	count, moved := map[string]int{}, map[string]int{}
	for i := range keys {
		key := fmt.Sprint("agent-", i)
		before := creel.Rendezvous(key, names)
		count[before[0]]++
		if other := creel.Rendezvous(key, []string{"hub-3", "hub-1", "hub-2"}); !slices.Equal(before, other) {
			t.Fatalf("%s: %q, and in another order %q", key, before, other)
		}
		less := creel.Rendezvous(key, names[:2])
		if before[0] != "hub-3" && less[0] != before[0] {
			t.Fatalf("%s goes from %s to %s, though only hub-3 is gone", key, before[0], less[0])
		}
		if before[0] == "hub-3" {
			moved[less[0]]++
		}
		if more := creel.Rendezvous(key, append(slices.Clip(names), "hub-4")); more[0] != before[0] && more[0] != "hub-4" {
			t.Fatalf("%s goes from %s to %s, though only hub-4 is new", key, before[0], more[0])
		}
	}
	for _, name := range names {
		if count[name] < keys/3-150 || count[name] > keys/3+150 { // some six standard deviations
			t.Errorf("keys go to %v", count)
		}
	}
	if moved["hub-1"] < keys/6-120 || moved["hub-2"] < keys/6-120 {
		t.Errorf("keys of a name that is gone go to %v", moved)
	}
}
