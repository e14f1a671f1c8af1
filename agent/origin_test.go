package agent_test

import (
	"strings"
	"testing"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
)

// TestOrigins: of every option that is in force it is told where it comes from, once, and no secret is.
func TestOrigins(t *testing.T) {
	env := config.Env{Lookup: func(name string) (string, bool) { return "from-" + name, name == "SITE" || name == "SECRET" }}
	c, err := agent.Parts{Plugins: plugins(new(int))}.Parse("creel.yaml", []byte(`agent:
  labels: {site: "${env:SITE}"}
  drain: 60s
collectors:
  tick/a: {secret: "${env:SECRET}"}
  tick/unused: {}
exporters:
  sink:
pipelines:
  p: {from: [tick/a], to: [sink]}
`), env)
	if err != nil {
		t.Fatal(err)
	}
	c.Settings.Hub.URL, c.Settings.Labels = []string{"http://127.0.0.1:1"}, map[string]string{"site": "from-SITE", "by": "flag"} // as Run does
	where := map[string]string{}
	for _, o := range c.Origins() {
		if where[o.Path] != "" {
			t.Errorf("%s is told of twice", o.Path)
		}
		where[o.Path] = o.Value + " | " + o.Where
		if strings.Contains(o.Value, "from-SECRET") || strings.Contains(o.Path, "unused") {
			t.Errorf("%+v should not be told", o)
		}
	}
	for path, want := range map[string]string{
		"agent.drain":               "1m | creel.yaml:3:3",
		"agent.log.level":           "info | default",
		"agent.labels.site":         "from-SITE | creel.yaml:2:12 ${env:SITE}",
		"agent.labels.by":           "flag | start",
		"agent.hub.url":             `["http://127.0.0.1:1"] | start`,
		"collectors.tick/a.secret":  "[redacted] | creel.yaml:5:12 ${env:SECRET}",
		"collectors.tick/a.enabled": "true | default",
		"pipelines.p.from":          `["tick/a"] | creel.yaml:10:7`,
		"pipelines.p.priority":      "5 | default",
	} {
		if where[path] != want {
			t.Errorf("%s is %q, want %q", path, where[path], want)
		}
	}
	if len(where) < 25 {
		t.Errorf("only %d options are told of: %v", len(where), where)
	}
}
