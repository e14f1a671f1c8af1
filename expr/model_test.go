package expr_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
	lang "github.com/expr-lang/expr"
)

// TestNumbers compares and calculates with random numbers, many of them at the edges, against numbers without limits.
func TestNumbers(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	random := func() (creel.Value, *big.Float) {
		exact := new(big.Float).SetPrec(2000)
		edge := []int64{0, 1, -1, 1 << 53, 1<<53 + 1, -1<<53 - 1, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, math.MinInt64 + 1, 1 << 62, 3037000500}[r.IntN(12)]
		n := edge + r.Int64N(5) - 2 // may wrap, which is as good
		if r.IntN(3) == 0 {
			n = int64(r.Uint64())
		}
		if r.IntN(2) == 0 {
			return creel.Int(n), exact.SetInt64(n)
		}
		f := float64(n)
		if r.IntN(2) == 0 {
			f += r.Float64()
		}
		return creel.Double(f), exact.SetFloat64(f)
	}
	type comparison struct {
		is    expr.Condition
		holds func(int) bool
	}
	type calculation struct {
		of    expr.Expression
		model func(z, x, y *big.Float) *big.Float
	}
	var comparisons []comparison
	for op, holds := range map[string]func(int) bool{
		"==": func(c int) bool { return c == 0 }, "!=": func(c int) bool { return c != 0 },
		"<": func(c int) bool { return c < 0 }, "<=": func(c int) bool { return c <= 0 },
		">": func(c int) bool { return c > 0 }, ">=": func(c int) bool { return c >= 0 },
	} {
		comparisons = append(comparisons, comparison{condition(t, "attributes.a "+op+" attributes.b"), holds})
	}
	var calculations []calculation
	for op, model := range map[string]func(z, x, y *big.Float) *big.Float{"+": (*big.Float).Add, "-": (*big.Float).Sub, "*": (*big.Float).Mul} {
		e, err := expr.ParseExpression("attributes.a " + op + " attributes.b")
		if err != nil {
			t.Fatal(err)
		}
		calculations = append(calculations, calculation{e, model})
	}
	rec := &expr.Record{Log: &creel.Log{Origin: &creel.Origin{}}}
	for range 20000 {
		a, x := random()
		b, y := random()
		rec.Log.Attrs = creel.Attrs{{Key: "a", Value: a}, {Key: "b", Value: b}}
		for _, c := range comparisons {
			if got := c.is.Match(rec); got != c.holds(x.Cmp(y)) {
				t.Fatalf("%v of %v and %v is %v", c.is, a, b, got)
			}
		}
		if a.Kind() == creel.ValueDouble || b.Kind() == creel.ValueDouble {
			continue
		}
		for _, c := range calculations {
			want := c.model(new(big.Float).SetPrec(2000), x, y)
			exact, accuracy := want.Int64()
			got := c.of.Eval(rec)
			if fits := accuracy == big.Exact; fits && !got.Equal(creel.Int(exact)) || !fits && got.Kind() != creel.ValueEmpty {
				t.Fatalf("%v of %v and %v is %v, not %v", c.of, a, b, got, want)
			}
		}
	}
}

// writer writes random expressions of a wanted kind. All that they name is there, and no number in them gets large.
type writer struct{ *rand.Rand }

func (w writer) pick(texts ...string) string { return texts[w.IntN(len(texts))] }

func (w writer) number(depth int) string {
	if depth == 0 {
		return w.pick("1", "2.5", "7", "-3", "0", `attributes["http.status"]`, "attributes.ratio", "len(body)", "0x1f")
	}
	a, b, s := w.number(depth-1), w.number(depth-1), w.text(depth-1)
	return w.pick(
		"("+a+" + "+b+")", "("+a+" - "+b+")", "("+a+" * 3)", "("+a+" / 4)", "(int("+a+") % 5)", "-("+a+")", "abs("+a+")", "max("+a+", "+b+")", "min("+a+", "+b+")",
		"floor("+a+")", "ceil("+a+")", "len("+s+")", "indexOf("+s+", \"a\")", "("+w.condition(depth-1)+" ? "+a+" : "+b+")", "sum(["+a+", "+b+"])", "count(["+a+", "+b+"], # > 2)",
		"["+a+", "+b+"][1]", "(let x = "+a+"; x + x)", "(attributes.nobody ?? "+a+")", "int("+a+")", "float("+a+")",
	)
}

func (w writer) text(depth int) string {
	if depth == 0 {
		return w.pick(`"a"`, `""`, `"B a"`, "body", "attributes.user", "attributes.tags[0]", "attributes.k8s.node.name")
	}
	a, b := w.text(depth-1), w.text(depth-1)
	return w.pick(
		"("+a+" + "+b+")", "lower("+a+")", "upper("+a+")", "trim("+a+")", "trimPrefix("+a+", "+b+")", "trimSuffix("+a+", "+b+")", "replace("+a+", \"a\", "+b+")", "split("+a+", \"a\")[0]",
		"join(split("+a+", \" \"), "+b+")", a+"[1:]", a+"[:-1]", "string("+a+")", "toBase64("+a+")", "("+w.condition(depth-1)+" ? "+a+" : "+b+")", "map(["+a+"], # + "+b+")[0]", "("+a+" ?? "+b+")", "{k: "+a+"}.k",
	)
}

func (w writer) condition(depth int) string {
	if depth == 0 {
		return w.pick("true", "false", "attributes.ok", `(attributes.user == "ann")`)
	}
	a, b := w.condition(depth-1), w.condition(depth-1)
	n, m, s, t := w.number(depth-1), w.number(depth-1), w.text(depth-1), w.text(depth-1)
	return w.pick(
		"("+a+" && "+b+")", "("+a+" or "+b+")", "!("+a+")", "not ("+a+")", "("+n+" "+w.pick("==", "!=", "<", "<=", ">", ">=")+" "+m+")", "("+s+" "+w.pick("==", "!=", "<", ">", "contains", "startsWith", "endsWith", "not contains")+" "+t+")",
		"("+s+" matches \"a|t$\")", "("+s+" in ["+t+", \"a\"])", "("+n+" not in ["+m+", 7])", "any(["+s+"], # == "+t+")", "all(["+n+", "+m+"], # >= 0)", "("+s+" in attributes)", "("+a+" ? "+b+" : "+a+")", "("+a+" == "+b+")",
	)
}

// TestRandomExpressions: of what is written at random, creel's closures and expr-lang's machine say the same.
func TestRandomExpressions(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := writer{rand.New(rand.NewPCG(seed, 1))}
	env := map[string]any{"body": plain(log().Log.Body), "attributes": plain(creel.Map(attrs()...))}
	compared := 0
	for range 2000 {
		text := []func(int) string{w.number, w.text, w.condition}[w.IntN(3)](1 + w.IntN(3))
		want, err := lang.Eval(text, env)
		if err != nil {
			continue // creel is the one that makes it empty
		}
		e, err := expr.ParseExpression(text)
		if err != nil {
			if strings.Contains(err.Error(), "always empty") {
				continue
			}
			t.Fatalf("%s: %v", text, err)
		}
		compared++
		if got := plain(e.Eval(log())); normal(got) != normal(want) {
			t.Fatalf("%s: creel has %s, expr-lang %s", text, normal(got), normal(want))
		}
	}
	if compared < 1000 {
		t.Errorf("only %d expressions could be compared", compared)
	}
}

// TestPatterns: patterns that need no regular expression match what the regular expression does.
func TestPatterns(t *testing.T) {
	texts := []string{"", "a", "abc", "xabc", "abcx", "xabcx", "ABC", "ab\nc", "abc\n", "\nabc", "a.c", "^abc$", "\xff", "x\xffy", "�", "é", "aé"}
	for _, pattern := range []string{"", "^", "$", "^$", "a", "abc", "^abc", "abc$", "^abc$", `\Aabc\z`, "(?i)abc", "(?m)^abc$", "(?m)abc$", "a.c", `a\.c`, "a|b", "[a]bc", "(abc)", "(?:abc)", "é", "^é", "�", "^�$", `\^abc\$`, "abc|", "x*", "a{1}bc", "(?s)a.c"} {
		is := condition(t, "body matches "+string(creel.String(pattern).Append(nil)))
		re := regexp.MustCompile(pattern)
		for _, text := range texts {
			r := &expr.Record{Log: &creel.Log{Body: creel.String(text)}}
			if got, want := is.Match(r), re.MatchString(text); got != want {
				t.Errorf("%q matches %q: %v", text, pattern, got)
			}
		}
	}
}

// TestConcurrent: one expression serves many goroutines, with a Record each. It means most with -race.
func TestConcurrent(t *testing.T) {
	var all []expr.Expression
	for _, e := range expr.Reference() {
		parsed, err := expr.ParseExpression(e.Example)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parsed)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				for _, e := range all {
					for _, r := range records() {
						e.Eval(r)
					}
				}
			}
		})
	}
	wg.Wait()
}
