package control

import (
	"bytes"
	"maps"
	"testing"
)

// TestCursors: what is written is read again, also as part of a Tenure, and what is too much or no such text is nothing.
func TestCursors(t *testing.T) {
	of := map[string][]byte{"collectors.sql/a": {0, 1, 255, '"'}, "collectors.sql/b": []byte(`"; epoch=9; cursor=x`)}
	tenure := Tenure{Epoch: 3, Orphan: Forever, Cursor: EncodeCursors(of)}
	if got := ParseTenure(tenure.String()); got != tenure || !maps.EqualFunc(DecodeCursors(got.Cursor), of, bytes.Equal) {
		t.Errorf("%q is read as %+v", tenure.String(), got)
	}
	for _, none := range []map[string][]byte{nil, {"a": nil}, {"a": make([]byte, MaxCursors/2), "b": make([]byte, MaxCursors/2+1)}} {
		if text := EncodeCursors(none); text != "" {
			t.Errorf("%d collectors: %d bytes", len(none), len(text))
		}
	}
	for _, text := range []string{"", "%", "bm9uZQ"} {
		if got := DecodeCursors(text); got != nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
	k := &known{}
	x, y := Cursor{"d", 1, "x", []byte("1")}, Cursor{"d", 1, "y", []byte("1")}
	for i, c := range []struct {
		now  []Cursor
		news int
	}{{nil, 0}, {[]Cursor{x}, 1}, {[]Cursor{x, y}, 1}, {[]Cursor{x, y}, 0}, {[]Cursor{{"d", 1, "x", []byte("2")}, y}, 1}, {[]Cursor{{"d", 2, "x", []byte("2")}, y}, 1}, {nil, 0}, {[]Cursor{y}, 1}} {
		if news := k.fresh(c.now); len(news) != c.news {
			t.Errorf("%d: told of %+v", i, news)
		}
	}
}
