package parse

import (
	"context"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Run(t, Plugin, plugintest.Options{Config: "format: json"})
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{format: logfmt, on_error: drop}"})
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{format: regex, regex: '(?P<all>line)', prefix: p., to: body}"})
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{format: key_value, from: 'attributes[\"text\"]', delimiter: m, pair_delimiter: t, keep_original: true}"})
}

// observed is when the lines of tests were collected: 2026-11-24T14:00:00Z.
const observed = 1_795_528_800_000_000_000

// run gives logs to p and returns what is sent on.
func run(t testing.TB, p *processor, logs ...creel.Log) []creel.Log {
	t.Helper()
	for i := range logs {
		logs[i].Origin, logs[i].Observed = origin, observed
	}
	var out []creel.Log
	must(t, p.Process(context.Background(), creel.NewLogs(logs), creel.NextFunc(func(b *creel.Batch) {
		out = append(out, b.Logs()...)
	})))
	return out
}

// process is run with a processor of these options.
func process(t testing.TB, options string, logs ...creel.Log) []creel.Log {
	t.Helper()
	return run(t, open(t, options), logs...)
}

// parsed parses one line.
func parsed(t testing.TB, options, line string) creel.Log {
	t.Helper()
	return process(t, options, creel.Log{Body: creel.String(line)})[0]
}
