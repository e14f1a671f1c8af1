package otlp

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/creelhq/creel"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func FuzzParseLogs(f *testing.F)    { fuzzParse(f, creel.Logs) }
func FuzzParseMetrics(f *testing.F) { fuzzParse(f, creel.Metrics) }
func FuzzParseTraces(f *testing.F)  { fuzzParse(f, creel.Traces) }

func seeds(s creel.Signal) (out [][]byte) {
	for i := range 8 {
		out = append(out, rapid.Custom(func(t *rapid.T) []byte { return drawRequest(t, s) }).Example(i))
	}
	return out
}

// fuzzParse: what Parse accepts can be decoded and encoded, and reads the same afterwards. The oracle is pdata, behind the
// official package: that merges what occurs more than once, as protobuf says, where pdata replaces or adds up. The known
// differences from both: lists and maps in values are replaced, as pdata does, and creel refuses long forms of tags.
func fuzzParse(f *testing.F, s creel.Signal) {
	for _, seed := range seeds(s) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, wire []byte) { survives(t, s, wire) })
}

func survives(t *testing.T, s creel.Signal, wire []byte) (accepted bool) {
	b, err := Parse(s, wire, nil)
	if err != nil {
		return false
	}
	n := b.Len()
	edit(b)
	once := Append(nil, b)
	c, err := Parse(s, once, nil)
	if err != nil {
		t.Fatalf("cannot parse what was encoded: %v", err)
	}
	if c.Len() != n {
		t.Fatalf("%d records became %d", n, c.Len())
	}
	edit(c)
	if twice := Append(nil, c); !bytes.Equal(once, twice) {
		t.Fatalf("encoding is not stable:\n%x\n%x", once, twice)
	}
	AppendJSON(nil, c)
	m := newOfficial(s)
	if proto.Unmarshal(wire, m) != nil {
		return true // invalid UTF-8
	}
	merged, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	p, count := newPdata(s)
	if p.UnmarshalProto(merged) == nil && count() != n {
		t.Fatalf("counted %d records, pdata %d", n, count())
	}
	return true
}

// A few bytes of sound requests are changed at random.
func TestMutations(t *testing.T) {
	if testing.Short() {
		t.Skip("it is one goroutine, and takes long")
	}
	eachSignal(t, func(t *testing.T, s creel.Signal) {
		const seed, rounds = 1, 200
		r := rand.New(rand.NewPCG(seed, uint64(s)))
		accepted := 0
		for _, wire := range seeds(s) {
			for range rounds {
				mutant := bytes.Clone(wire)
				for range 1 + r.IntN(3) {
					mutant[r.IntN(len(mutant))] = byte(r.Uint32())
				}
				if survives(t, s, mutant) {
					accepted++
				}
			}
		}
		if accepted == 0 || accepted == 8*rounds {
			t.Errorf("%d of %d mutants were accepted: this tests nothing", accepted, 8*rounds)
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range creel.Signals() {
		for _, seed := range seeds(s) {
			p, _ := newPdata(s)
			if err := p.UnmarshalProto(seed); err != nil {
				f.Fatal(err)
			}
			text, err := p.MarshalJSON()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(s), text)
		}
	}
	f.Fuzz(func(t *testing.T, signal uint8, text []byte) {
		s := creel.Signal(signal%3 + 1)
		b, err := ParseJSON(s, text, nil)
		if err != nil {
			return
		}
		edit(b)
		once := AppendJSON(nil, b)
		c, err := ParseJSON(s, once, nil)
		if err != nil {
			t.Fatalf("cannot parse what was written: %v\n%s", err, once)
		}
		if c.Len() != b.Len() {
			t.Fatalf("%d records became %d:\n%s", b.Len(), c.Len(), once)
		}
		edit(c)
		if twice := AppendJSON(nil, c); !bytes.Equal(once, twice) {
			t.Fatalf("writing is not stable:\n%s\n%s", once, twice)
		}
	})
}
