package route_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/route"
)

// options checks options as a configuration's are.
func options(text string) ([]byte, error) {
	n, err := config.Parse("x.yaml", []byte(text), config.Env{})
	if err != nil {
		return nil, err
	}
	canonical, errs := route.Plugin.Config.Check(n)
	if len(errs) > 0 {
		return nil, errs
	}
	return canonical, nil
}

// outlets are outputs that note what came to them, and do with it what the framework does.
type outlets struct {
	got     map[string][]string // bodies, by output; "next" is the way on
	batches int
	wire    int // batches that came with their bytes
}

func (o *outlets) to(name string) creel.Next {
	return creel.NextFunc(func(b *creel.Batch) {
		if !creel.Forward(b) {
			panic("a batch is in no custody")
		}
		o.batches++
		if b.Wire() != nil {
			o.wire++
		}
		for _, l := range b.Logs() {
			o.got[name] = append(o.got[name], l.Body.String())
		}
		creel.Settle(b, nil)
	})
}

func (o *outlets) host() creel.Host {
	h := creel.Host{Outputs: map[string]creel.Next{}}
	for _, name := range []string{"a", "b", "c"} {
		h.Outputs[name] = o.to(name)
	}
	return h
}

func open(t testing.TB, text string, o *outlets) creel.Processor {
	t.Helper()
	canonical, err := options(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := route.Plugin.Open(canonical, o.host())
	if err != nil {
		t.Fatal(err)
	}
	return p.(creel.Processor)
}

// process sends b through the processor, in a custody as the framework's.
func (o *outlets) process(t testing.TB, p creel.Processor, b *creel.Batch) creel.Counts {
	t.Helper()
	o.got, o.batches, o.wire = map[string][]string{}, 0, 0
	c := creel.NewCustody(nil)
	c.Give(b)
	err := p.Process(t.Context(), b, o.to("next"))
	if err != nil {
		t.Error(err)
	}
	var counts creel.Counts
	c.End(err, func(n creel.Counts) { counts = n })
	return counts
}

func logs(n int) []creel.Log {
	o := &creel.Origin{}
	list := make([]creel.Log, n)
	for i := range list {
		list[i] = creel.Log{Origin: o, Body: creel.Int(int64(i)), Severity: creel.SeverityInfo, Attrs: creel.Attrs{{Key: "n", Value: creel.Int(int64(i))}}}
	}
	return list
}

// TestConformance runs the suite with outputs that lead where the pipeline does: so it counts what comes to them.
func TestConformance(t *testing.T) {
	p := route.Plugin
	p.Open = func(cfg []byte, h creel.Host) (any, error) {
		var on atomic.Pointer[creel.Next]
		out := creel.NextFunc(func(b *creel.Batch) { (*on.Load()).Send(b) })
		h.Outputs = map[string]creel.Next{"a": out, "b": out}
		c, err := route.Plugin.Open(cfg, h)
		if err != nil {
			return nil, err
		}
		return creel.ProcessorFunc(func(ctx context.Context, b *creel.Batch, next creel.Next) error {
			on.Store(&next)
			return c.(creel.Processor).Process(ctx, b, next)
		}), nil
	}
	plugintest.Run(t, p, plugintest.Options{
		Config: `rules: [{when: attributes.n % 2 == 1, to: a, copy: true}, {when: attributes.n < 2, to: b}, {when: attributes.n < 5, to: a}]`,
	})
}

func TestRoute(t *testing.T) {
	var o outlets
	f := func(text, want string, created int) {
		t.Helper()
		n := o.process(t, open(t, text, &o), creel.NewLogs(logs(6)))
		var got []string
		for _, name := range []string{"a", "b", "c", "next"} {
			if o.got[name] != nil {
				got = append(got, name+" "+strings.Join(o.got[name], ""))
			}
		}
		if g := strings.Join(got, ", "); g != want {
			t.Errorf("%s: %s, not %s", text, g, want)
		}
		if want := (creel.Counts{Created: created}); n != want {
			t.Errorf("%s: counted %+v, not %+v", text, n, want)
		}
	}
	f(`rules: [{when: attributes.n % 2 == 0, to: a}]`, "a 024, next 135", 0)
	f(`{rules: [{when: attributes.n % 2 == 0, to: a}], otherwise: b}`, "a 024, b 135", 0)
	f(`{rules: [{when: attributes.n % 2 == 0, to: a}], otherwise: a}`, "a 024135", 0)
	f(`rules: [{when: attributes.n < 2, to: a}, {when: attributes.n < 4, to: b}, {when: attributes.n == 5, to: a}]`, "a 015, b 23, next 4", 0)
	f(`rules: [{when: 'true', to: a}, {when: 'true', to: b}]`, "a 012345", 0)
	f(`rules: [{when: 'false', to: a}]`, "next 012345", 0)
	f(`rules: [{when: 'name == "x"', to: a}]`, "next 012345", 0)
	f(`rules: [{when: attributes.n > 2, to: a, copy: true}]`, "a 345, next 012345", 3)
	f(`rules: [{when: 'true', to: a, copy: true}]`, "a 012345, next 012345", 6)
	f(`rules: [{when: attributes.n > 2, to: a, copy: true}, {when: attributes.n == 4, to: a, copy: true}, {when: attributes.n % 2 == 1, to: b, copy: true}, {when: attributes.n == 3, to: c}]`,
		"a 345, b 135, c 3, next 01245", 6)
	f(`rules: [{when: attributes.n > 4, to: a}, {when: attributes.n > 2, to: a, copy: true}]`, "a 345, next 01234", 2)
}

// TestEveryRecordArrives: random batches under random rules, against what the rules say of each record.
func TestEveryRecordArrives(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		var rules []string
		type rule struct {
			mod, is int
			to      string
			copy    bool
		}
		var model []rule
		for range 1 + r.IntN(4) {
			m := rule{1 + r.IntN(4), r.IntN(3), string("abc"[r.IntN(3)]), r.IntN(2) == 0}
			model = append(model, m)
			rules = append(rules, fmt.Sprintf("{when: attributes.n %% %d == %d, to: %s, copy: %v}", m.mod, m.is, m.to, m.copy))
		}
		n, want, copies := r.IntN(40), map[string][]string{}, map[string][]string{}
		created := 0
		for i := range n {
			dest, copied := "next", map[string]bool{}
			for _, m := range model {
				if i%m.mod != m.is {
					continue
				}
				if !m.copy {
					dest = m.to
					break
				}
				if !copied[m.to] {
					copied[m.to] = true
					created++
					copies[m.to] = append(copies[m.to], fmt.Sprint(i))
				}
			}
			want[dest] = append(want[dest], fmt.Sprint(i))
		}
		var o outlets
		text := "rules: [" + strings.Join(rules, ", ") + "]"
		counts := o.process(t, open(t, text, &o), creel.NewLogs(logs(n)))
		for _, name := range []string{"a", "b", "c", "next"} {
			if got, want := fmt.Sprint(o.got[name]), fmt.Sprint(append(copies[name], want[name]...)); got != want {
				t.Fatalf("%s with %d records: %s got %s, not %s", text, n, name, got, want)
			}
		}
		if counts != (creel.Counts{Created: created}) {
			t.Fatalf("%s with %d records: counted %+v, not %d created", text, n, counts, created)
		}
	}
}

// TestWireIsKept: a batch that goes one way goes as the bytes that it came in, and its copies too.
func TestWireIsKept(t *testing.T) {
	wire := otlp.Append(nil, creel.NewLogs(logs(4)))
	var o outlets
	f := func(text string, batches, wires int) {
		t.Helper()
		var memory creel.Memory
		memory.Poison = true
		b, err := otlp.Parse(creel.Logs, wire, &memory)
		if err != nil {
			t.Fatal(err)
		}
		o.process(t, open(t, text, &o), b)
		if o.batches != batches || o.wire != wires {
			t.Errorf("%s: %d batches, %d with bytes", text, o.batches, o.wire)
		}
		if memory.Out() != 0 {
			t.Errorf("%s: %d records' memory is still out", text, memory.Out())
		}
	}
	f(`rules: [{when: attributes.n >= 0, to: a}]`, 1, 1)
	f(`rules: [{when: attributes.n < 0, to: a}]`, 1, 1)
	f(`rules: [{when: attributes.n >= 0, to: a, copy: true}]`, 2, 2)
	f(`rules: [{when: attributes.n > 0, to: a}]`, 2, 0)
	f(`rules: [{when: attributes.n > 0, to: a, copy: true}]`, 2, 0)
}

func TestErrors(t *testing.T) {
	var o outlets
	f := func(text, want string) {
		t.Helper()
		canonical, err := options(text)
		if err == nil {
			_, err = route.Plugin.Open(canonical, o.host())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, not %s", text, err, want)
		}
	}
	f(`{}`, "rules")
	f(`rules: []`, "rules must not be empty")
	f(`rules: [{when: 'true', to: nowhere}]`, `rules[0].to: find output: there is no pipeline "nowhere"`)
	f(`{rules: [{when: 'true', to: a}], otherwise: nowhere}`, `otherwise: find output: there is no pipeline "nowhere"`)
	f(`rules: [{when: 'sverity > 1', to: a}]`, `did you mean severity?`)
	f(`rules: [{to: a}]`, `when`)
}
