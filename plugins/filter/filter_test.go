package filter_test

import (
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/filter"
)

func TestConformance(t *testing.T) {
	plugintest.Run(t, filter.Plugin, plugintest.Options{Config: `drop: [attributes.n == 1]`})
	plugintest.Run(t, filter.Plugin, plugintest.Options{Config: `keep: [severity >= INFO, attributes.n == 1]`})
}

// options checks options as a configuration's are.
func options(text string) ([]byte, error) {
	n, err := config.Parse("x.yaml", []byte(text), config.Env{})
	if err != nil {
		return nil, err
	}
	canonical, errs := filter.Plugin.Config.Check(n)
	if len(errs) > 0 {
		return nil, errs
	}
	return canonical, nil
}

func open(t testing.TB, text string) creel.Processor {
	t.Helper()
	canonical, err := options(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := filter.Plugin.Open(canonical, creel.Host{})
	if err != nil {
		t.Fatal(err)
	}
	return p.(creel.Processor)
}

func logs() []creel.Log {
	o := &creel.Origin{}
	return []creel.Log{
		{Origin: o, Body: creel.String("debug"), Severity: creel.SeverityDebug},
		{Origin: o, Body: creel.String("info"), Severity: creel.SeverityInfo, Attrs: creel.Attrs{{Key: "n", Value: creel.Int(1)}}},
		{Origin: o, Body: creel.String("unknown")},
		{Origin: o, Body: creel.String("error"), Severity: creel.SeverityError, Attrs: creel.Attrs{{Key: "n", Value: creel.Int(2)}}},
	}
}

// through returns the bodies of what a processor lets through.
func through(t testing.TB, p creel.Processor, b *creel.Batch) string {
	t.Helper()
	var bodies []string
	err := p.Process(t.Context(), b, creel.NextFunc(func(b *creel.Batch) {
		for _, l := range b.Logs() {
			bodies = append(bodies, l.Body.Str())
		}
	}))
	if err != nil {
		t.Error(err)
	}
	return strings.Join(bodies, " ")
}

func TestFilter(t *testing.T) {
	f := func(config, want string) {
		t.Helper()
		if got := through(t, open(t, config), creel.NewLogs(logs())); got != want {
			t.Errorf("%s lets through %q, not %q", config, got, want)
		}
	}
	f(`drop: [severity < INFO]`, "info unknown error")
	f(`keep: [severity >= INFO]`, "info error")
	f(`drop: [severity < INFO, attributes.n == 2]`, "info unknown")
	f(`keep: [severity >= ERROR, attributes.n == 1]`, "info error")
	f(`drop: ['true']`, "")
	f(`keep: ['false']`, "")
	f(`drop: [severity == nil]`, "debug info error")
	// What does not fit leaves logs alone.
	f(`drop: [duration > duration("0s")]`, "debug info unknown error")
	f(`keep: [kind == "server"]`, "debug info unknown error")
	f(`keep: [kind == "server", attributes.n == 1]`, "info")
}

func TestErrors(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		canonical, err := options(text)
		if err == nil {
			_, err = filter.Plugin.Open(canonical, creel.Host{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, not %s", text, err, want)
		}
	}
	f(`{}`, "set one of drop and keep")
	f(`{drop: ['true'], keep: ['true']}`, "set one of drop and keep")
	f("drop:\n  - sverity < INFO", "did you mean severity?")
	f("drop:\n  - sverity < INFO", "x.yaml:2")
}

// TestWireIsKept: a batch of which nothing is dropped goes on as the bytes that it came in.
func TestWireIsKept(t *testing.T) {
	wire := otlp.Append(nil, creel.NewLogs(logs()))
	f := func(config string, kept bool) {
		t.Helper()
		b, err := otlp.Parse(creel.Logs, wire, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = open(t, config).Process(t.Context(), b, creel.NextFunc(func(b *creel.Batch) {
			if (b.Wire() != nil) != kept {
				t.Errorf("%s: the bytes are kept: %v", config, !kept)
			}
		}))
		if err != nil {
			t.Error(err)
		}
	}
	f(`drop: [severity > ERROR]`, true)
	f(`drop: [kind == "server"]`, true)
	f(`drop: [severity == ERROR]`, false)
}
