package config_test

import (
	"strings"
	"testing"

	"github.com/creelhq/creel/config"
)

type pair struct{ left, right string }

func (p *pair) UnmarshalText(text []byte) error {
	p.left, p.right, _ = strings.Cut(string(text), " = ")
	return nil
}

func (p pair) MarshalText() ([]byte, error) { return []byte(p.left + " = " + p.right), nil }

func (pair) TypeName() string { return "pair" }

func (pair) EntryText(key, value string) string { return key + " = " + value }

type lists struct {
	Names   []string `doc:"Names." optional:"true" enum:"a|b"`
	Numbers []int    `doc:"Numbers." optional:"true" max:"9"`
	Pairs   []pair   `doc:"Pairs." optional:"true"`
	Inner   []struct {
		In int `doc:"In." default:"1"`
	} `doc:"Objects." optional:"true"`
}

// TestWaysToWriteLists: an element alone is a list of one, and what can be a map keeps the order of the file.
func TestWaysToWriteLists(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		n, err := config.Parse("f", []byte(text), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		got, errs := config.Of[lists]().Check(n)
		if len(errs) > 0 {
			got = []byte(errs.Error())
		}
		if string(got) != want {
			t.Errorf("%s: got %s, not %s", text, got, want)
		}
	}
	f(`names: a`, `{"names":["a"]}`)
	f(`names: c`, `f:1:8: names: must be a or b, got c; did you mean "a"?`)
	f(`numbers: 7`, `{"numbers":[7]}`)
	f(`numbers: 10`, `f:1:10: numbers: must be at most 9, got 10`)
	f(`numbers: x`, `f:1:10: numbers: must be an integer, got x`)
	f(`pairs: x = y`, `{"pairs":["x = y"]}`)
	f(`pairs: {z: 1, a: "2"}`, `{"pairs":["z = 1","a = 2"]}`)
	f(`pairs: [z = 1]`, `{"pairs":["z = 1"]}`)
	f(`pairs: {z: [1]}`, `f:1:8: pairs: must be a list of pair, got a map`)
	f(`names: {a: b}`, `f:1:8: names: must be a list of string, got a map`)
	f(`inner: 3`, `f:1:8: inner: must be a list of object, got 3`)
}

// TestHelpOfLists: help has the names that types give themselves, says what may stand in a list, and breaks long lines.
func TestHelpOfLists(t *testing.T) {
	type options struct {
		lists
		Long string `doc:"It is a long way to the end of a line, and when it is reached the words go on in the next one, which begins below." optional:"true"`
	}
	var help strings.Builder
	config.Of[options]().Explain(&help)
	const want = `names  list of a|b
    Names.
numbers  list of integer, at most 9
    Numbers.
pairs  list of pair
    Pairs.
inner  list of object
    Objects.
    in  integer, default 1
        In.
long  string
    It is a long way to the end of a line, and when it is reached the words go on in the next one,
    which begins below.
`
	if help.String() != want {
		t.Errorf("got\n%s", help.String())
	}
}
