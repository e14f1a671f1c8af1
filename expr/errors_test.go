package expr_test

import (
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
)

// TestErrors: what cannot mean anything is refused at load, and the caret stands under it.
func TestErrors(t *testing.T) {
	f := func(text, message, caret string) {
		t.Helper()
		_, err := expr.ParseCondition(text)
		if err == nil {
			t.Errorf("%s: no error", text)
			return
		}
		lines := strings.Split(err.Error(), "\n")
		if !strings.Contains(lines[0], message) {
			t.Errorf("%s: the error is %v, not %s", text, err, message)
		}
		if last := lines[len(lines)-1]; caret != "" && last != " | "+caret {
			t.Errorf("%s: the caret is at %q, not %q:\n%v", text, last, caret, err)
		}
	}
	f(`severity >= "ERROR"`, `a severity cannot be compared with a string; severities are TRACE, DEBUG`, `.........^`)
	f(`time > 5`, `a time cannot be compared with an integer; a time is made by date(`, `.....^`)
	f(`duration > 5`, `a duration cannot be compared with an integer; a duration is made like duration(`, `.........^`)
	f(`bodi contains "x"`, `there is no field bodi; did you mean body?`, `^`)
	f(`body == "ä" && sevrity > INFO`, `there is no field sevrity; did you mean severity?`, `...............^`)
	f(`lowr(body) == "x"`, `there is no function lowr; did you mean lower?`, `^`)
	f(`severity > DEBG`, `did you mean DEBUG?`, `...........^`)
	f(`nothing_like_it_at_all > 1`, `there is no field nothing_like_it_at_all (1:1)`, `^`)
	f(`severity_text`, `a condition must be a boolean, not a string`, `^`)
	f(`severity_text && true`, `a condition must be a boolean, not a string`, `^`)
	f(`!severity_text`, `what is negated must be a boolean`, `^`)
	f(`status == "eror"`, `"eror" is none of unset, ok, error`, `..........^`)
	f(`kind == "server" && kind == "gauge"`, `is none of`, ``)
	f(`status in ["ok", "bad"]`, `"bad" is none of`, `..........^`)
	f(`kind == "servr"`, `is none of none, gauge`, `........^`)
	f(`body == "x" && duration > duration("1s")`, `no kind of record has all the fields`, ``)
	f(`lower(5) == "x"`, `argument 1 of lower(text) must be a string, not an integer`, `......^`)
	f(`lower() == "x"`, `it is lower(text), but has 0 arguments here`, `^`)
	f(`lower(body, body) == "x"`, `it is lower(text), but has 2 arguments here`, `^`)
	f(`body matches "("`, `missing closing )`, `.............^`)
	f(`body matches severity_text`, `must be a constant string`, `.............^`)
	f(`body matches "(x{1000}){1000}"`, `regular expression`, ``)
	f(`body matches "`+strings.Repeat("x{1000}", 6)+`"`, `at most 5000 are allowed`, ``)
	f(`extract(body, "a(b)", 2) == "x"`, `has no group 2`, ``)
	f(`extract(body, "a(b)", "name") == "x"`, `has no group`, ``)
	f(`extract(body, severity_text) == "x"`, `argument 2 of extract(text, pattern, group?) must be constant`, `..............^`)
	f(`time > date("24/11/2026")`, `this is always empty: date("24/11/2026")`, `.......^`)
	f(`time > date("x", "2006", "Mars/Olympus")`, `no time zone "Mars/Olympus"`, ``)
	f(`duration("5 minutes") > duration("1s")`, `this is always empty`, `^`)
	f(`1 / 0 > 1`, `this is always empty`, `..^`)
	f(`severity + 1 > 2`, `a severity + an integer has no meaning`, `.........^`)
	f(`time + time > now()`, `a time + a time has no meaning`, `.....^`)
	f(`severity_text - 1 > 2`, `has no meaning`, ``)
	f(`severity_text > nil`, `only asked for with == and !=`, ``)
	f(`severity in ["ERROR"]`, `a severity cannot be compared with a string; severities are`, `............^`)
	f(`attribute["x"] == 1`, `there is no field attribute; did you mean attributes?`, `^`)
	f(`body + duration("1s") > 1`, `anything + a duration has no meaning`, `.....^`)
	f(`[1] > [2]`, `must be`, ``)
	f(`body.lower() == "x"`, `there are no methods`, `.....^`)
	f(`# > 1`, ``, ``)
	f(`1; 2`, `an expression is one value`, ``)
	f(`any(attributes.tags, #acc == 1)`, `there is no #acc`, ``)
	f(`reduce(attributes.tags, #acc + 1) > 1`, `there is no function reduce`, ``)
	f(`1..2 == 3`, `.. is not supported here`, ``)
	f(`body ==`, `unexpected token EOF`, ``)
	f(`body == "x`, `literal not terminated`, ``)
	f("body == 'x' &&\n  sverity > INFO", `there is no field sverity; did you mean severity? (2:3)`, `..^`)
	f(``, `unexpected token EOF`, ``)
	f(strings.Repeat("(", 20000), ``, ``)
	f(strings.Repeat("!", 60000)+"true", ``, ``)
	f(strings.Repeat("!", 100)+"true", `nested more than 64 deep`, ``)
	f(strings.Repeat(" ", 70000)+"true", `at most 65536 are allowed`, ``)
}

func TestTargetErrors(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if _, err := expr.ParseTarget(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, not %s", text, err, want)
		}
	}
	f(`signal`, `signal cannot be changed`)
	f(`duration`, `duration cannot be changed`)
	f(`nobody`, `a place is a field or an entry of one`)
	f(`"x"`, `a place is a field`)
	f(`attributes[body]`, `a place is a field`)
	f(`severity.x`, `severity has no entries`)
	f(`scope`, `a scope is set by its parts`)
	f(`attributes[`, `unexpected token`)
}

// TestAccepts: what can never be stored is refused.
func TestAccepts(t *testing.T) {
	f := func(target, text string, ok bool) {
		t.Helper()
		to, err := expr.ParseTarget(target)
		if err != nil {
			t.Fatal(err)
		}
		e, err := expr.ParseExpression(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := to.Accepts(e); (err == nil) != ok {
			t.Errorf("%s takes %s: %v", target, text, err)
		}
	}
	f(`severity`, `"ERROR"`, true)
	f(`severity`, `ERROR`, true)
	f(`severity`, `attributes.level`, true)
	f(`severity`, `body contains "x"`, false)
	f(`time`, `observed_time`, true)
	f(`time`, `5`, false)
	f(`attributes.x`, `time`, true)
	f(`body`, `attributes`, true)
	f(`name`, `value`, false)
	f(`severity_text`, `nil`, true)
}

// TestLongChains: a long list of conditions is not a deep one.
func TestLongChains(t *testing.T) {
	c, err := expr.ParseCondition(`body == "0"` + strings.Repeat(` || body == "x"`, 500) + ` || body startsWith "GET"`)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Match(log()) {
		t.Error("the last of many conditions was not asked")
	}
}

// TestFits: an expression fits the signals whose records have all its fields.
func TestFits(t *testing.T) {
	f := func(text string, logs, metrics, traces bool) {
		t.Helper()
		c, err := expr.ParseCondition(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			return
		}
		for i, want := range []bool{logs, metrics, traces} {
			s := creel.Signals()[i]
			if c.Fits(s) != want {
				t.Errorf("%s fits %v: %v", text, s, !want)
			}
			if !want && c.Match(records()[i]) {
				t.Errorf("%s matches %v, which it does not fit", text, s)
			}
		}
	}
	f(`attributes.user == "ann"`, true, true, true)
	f(`resource.zone == "eu" && scope.name != ""`, true, true, true)
	f(`body != nil`, true, false, false)
	f(`name == "http.get"`, false, true, true)
	f(`kind == "gauge"`, false, true, false)
	f(`kind == "server"`, false, false, true)
	f(`duration > duration("1s")`, false, false, true)
	f(`value > 1`, false, true, false)
	f(`time != nil`, true, true, false)
	f(`trace_id == ""`, true, false, true)
	f(`signal == "logs"`, true, true, true)
	f(`true`, true, true, true)
	var none expr.Condition
	if none.Match(log()) || none.Fits(creel.Logs) || !none.IsZero() || none.String() != "" {
		t.Error("the zero condition is not nothing")
	}
	c, _ := expr.ParseCondition("true")
	if c.Match(&expr.Record{}) || c.Fits(0) || c.Fits(9) {
		t.Error("a condition matches no record")
	}
}
