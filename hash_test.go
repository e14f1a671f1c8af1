package creel_test

import (
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
