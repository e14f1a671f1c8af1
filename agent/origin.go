package agent

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
)

// Origin is the value of one option that is in force, and where it comes from.
type Origin struct {
	Path  string `json:"path"`  // such as exporters.otlp/hub.endpoint
	Value string `json:"value"` // lists as JSON; secrets redacted
	Where string `json:"where"` // file:line:column, followed by references such as ${env:HOST} that stand there; default; or start
}

// atStart is where comes from what no file says: the machine, a flag, or the program that embeds the agent.
const atStart = "start"

// Origins tells of the options of the agent, of the components that are in use, and of the pipelines that run.
func (c *Config) Origins() []Origin {
	list := c.settingsOrigins()
	add := func(s config.Schema, n *config.Node) {
		for _, o := range s.Origins(n) {
			list = append(list, Origin(o))
		}
	}
	for _, cc := range c.Centers {
		add(center.Schema(cc.Center), c.root.Get("agent").Get("centers").Get(cc.ID))
	}
	told := make(map[string]bool) // a processor has an instance in each pipeline
	for k := creel.KindCollector; k <= creel.KindExporter; k++ {
		for component := range c.Plan.Components() {
			if path := component.Path(); component.Plugin.Kind == k && !told[path] {
				told[path] = true
				add(pipeline.Schema(component.Plugin), c.root.Get(pipeline.Section(k)).Get(component.ID))
			}
		}
	}
	for _, p := range c.Plan.Pipelines {
		add(config.Of[pipeline.Route](), c.root.Get("pipelines").Get(p.ID))
	}
	return list
}

// settingsOrigins tells of the section agent.
func (c *Config) settingsOrigins() []Origin {
	now := map[string]string{"agent.hub.url": ""}
	if urls := c.Settings.Hub.URL; len(urls) > 0 {
		text, err := json.Marshal(urls)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		now["agent.hub.url"] = string(text)
	}
	for k, v := range c.Settings.Labels {
		now["agent.labels."+k] = v
	}
	var list []Origin
	for _, o := range config.Of[sections]().Origins(c.root) {
		if !strings.HasPrefix(o.Path, "agent.") || o.Path == "agent.centers" {
			continue // what is free here has a schema elsewhere
		}
		if v, known := now[o.Path]; known {
			delete(now, o.Path)
			if v != o.Value {
				o.Value, o.Where = v, atStart
			}
		}
		list = append(list, Origin(o))
	}
	for _, path := range slices.Sorted(maps.Keys(now)) {
		if now[path] != "" {
			list = append(list, Origin{path, now[path], atStart})
		}
	}
	return list
}

// Effective returns the options that are in force, defaults filled in and secrets redacted: of the agent under agent, of
// each component under its key, and of each pipeline under its path.
func (c *Config) Effective() map[string]json.RawMessage {
	options := effective(c.Plan)
	canonical, errs := SettingsSchema().Check(c.root.Get("agent"))
	if len(errs) > 0 {
		panic("BUG: settings that were right are not: " + errs.Error())
	}
	var settings map[string]any
	if err := json.Unmarshal(SettingsSchema().Redact(canonical), &settings); err != nil {
		panic("BUG: " + err.Error())
	}
	if hub, ok := settings["hub"].(map[string]any); ok && len(c.Settings.Hub.URL) > 0 {
		hub["url"] = c.Settings.Hub.URL
	}
	if len(c.Settings.Labels) > 0 {
		settings["labels"] = c.Settings.Labels
	}
	delete(settings, "centers") // their secrets have a schema of their own
	if len(c.Centers) > 0 {
		centers := make(map[string]json.RawMessage)
		for _, cc := range c.Centers {
			centers[cc.ID] = center.Schema(cc.Center).Redact(cc.Options)
		}
		settings["centers"] = centers
	}
	text, err := json.Marshal(settings)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	options["agent"] = text
	return options
}
