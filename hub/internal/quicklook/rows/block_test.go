package rows

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

var pieces = []string{"a", "Zz", "é", "ß", "0", "42", "-1.50", " ", "\"", "\\", "{", "}", "[", "]", ":", ",", "\n", "世界", "\xff", "\u2028", "null", "true", "1e3", "0x10", "NaN", ""}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(6) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

func randomValue(r *rand.Rand, depth int) creel.Value {
	switch n := r.IntN(9); {
	case n < 4:
		return creel.String(randomText(r))
	case n == 4:
		return creel.Int(r.Int64N(2000) - 1000)
	case n == 5:
		return creel.Double(float64(r.IntN(100)) / 4)
	case n == 6:
		return creel.Bool(r.IntN(2) == 0)
	case n == 7 && depth > 0:
		return creel.List(randomValue(r, depth-1), randomValue(r, depth-1))
	case n == 8 && depth > 0:
		return creel.Map(creel.Attr{Key: randomText(r), Value: randomValue(r, depth-1)})
	}
	return creel.Value{}
}

// TestAttributesAreFound: what attributes.get returns is what the standard library finds, and the filter of a block knows
// it; so it does every word of a body.
func TestAttributesAreFound(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 3000 {
		attrs := creel.Attrs{}
		for range r.IntN(5) {
			attrs = append(attrs, creel.Attr{Key: randomText(r), Value: randomValue(r, 2)})
		}
		text := string(attrs.Append(nil))
		body := clean(randomText(r) + " " + randomText(r))
		b := newBlock()
		b.add(&row{id: 1, body: body, attrs: attributes{text: text}}, attrs)
		f := newFilter(b.tokens)
		var want map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for key, raw := range want {
			value := string(raw)
			_ = json.Unmarshal(raw, &value) // a string as it is
			if string(raw) == "null" {
				value = "null"
			}
			a := attributes{text}
			if have, is := a.get(key); !is || have != value {
				t.Fatalf("%q of %s is %q, %v, not %q", key, text, have, is, value)
			}
			if !f.has(pairToken(nil, key, value)) {
				t.Fatalf("the filter does not know %q=%q of %s", key, value, text)
			}
		}
		if _, is := (&attributes{text}).get("absent"); is {
			t.Fatalf("%s has an attribute that is absent", text)
		}
		for _, w := range tokens(body) {
			if !f.has(token(nil, 'w', w)) {
				t.Fatalf("the filter does not know the word %q of %q", w, body)
			}
			if q, err := parseWords(w); err != nil || !q.holds(body, new([]byte)) {
				t.Fatalf("%q is not found in %q", w, body)
			}
		}
	}
}

// TestFilterIsOfUse: it says "perhaps" for nothing about once in a hundred.
func TestFilterIsOfUse(t *testing.T) {
	known := make(map[uint64]struct{})
	for i := range 5000 {
		known[token(nil, 'w', fmt.Sprint("known", i))] = struct{}{}
	}
	f := newFilter(known)
	wrong := 0
	for i := range 100_000 {
		if f.has(token(nil, 'w', fmt.Sprint("absent", i))) {
			wrong++
		}
	}
	if wrong > 2000 {
		t.Errorf("%d of 100000 absent words are perhaps there", wrong)
	}
	if filter(nil).has(1) {
		t.Error("an empty filter has something")
	}
}

// TestBlocks: what is put into a block comes out of it, and damage is an error, never a panic.
func TestBlocks(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	c := newCodec()
	for range 200 {
		b := newBlock()
		var rows []row
		for range 1 + r.IntN(20) {
			x := row{
				id: r.Int64(), time: r.Int64() - r.Int64(), severity: r.IntN(30) - 2, text: randomText(r), resource: r.Int64(), scope: randomText(r), event: randomText(r),
				trace: randomText(r), span: randomText(r), body: randomText(r), isJSON: r.IntN(2) == 0, attrs: attributes{randomText(r)},
			}
			rows = append(rows, x)
			b.add(&x, nil)
		}
		data := c.enc.EncodeAll(b.raw, nil)
		i := 0
		if _, err := c.decode(data, nil, func(x *row) {
			if *x != rows[i] {
				t.Fatalf("got %+v, not %+v", *x, rows[i])
			}
			i++
		}); err != nil || i != len(rows) {
			t.Fatalf("%d of %d records came out: %v", i, len(rows), err)
		}
		broken := append([]byte(nil), data...)
		broken[r.IntN(len(broken))] ^= 1 << r.IntN(8)
		_, _ = c.decode(broken, nil, func(*row) {}) // it may be an unused bit
		cut := c.enc.EncodeAll(b.raw[:r.IntN(len(b.raw))], nil)
		_, _ = c.decode(cut, nil, func(*row) {}) // it may be between two records
	}
}

// TestLowerCase: it is what strings.ToLower says, for all lengths and every byte.
func TestLowerCase(t *testing.T) {
	var room []byte
	for n := range 20 {
		for c := range 256 {
			for at := range n {
				text := strings.Repeat("aZ", 10)[:at] + string([]byte{byte(c)}) + strings.Repeat("@[", 10)[:n-at-1]
				if got, want := lowerCase(text, &room), strings.ToLower(text); got != want {
					t.Fatalf("%q became %q, not %q", text, got, want)
				}
			}
		}
	}
}
