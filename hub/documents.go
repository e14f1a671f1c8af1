package hub

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
)

// known is what a hub knows of what may stand in documents: the options of its own plugins.
type known struct{ plugins []creel.Plugin }

// schema returns what may stand at a path, such as exporters.otlp/hub.
func (k known) schema(path string) (config.Schema, bool) {
	section, id, _ := strings.Cut(path, ".")
	switch {
	case path == "agent":
		return agent.SettingsSchema(), true
	case section == "pipelines" && id != "":
		return config.Of[pipeline.Route](), true
	}
	name, _, _ := strings.Cut(id, "/")
	i := slices.IndexFunc(k.plugins, func(p creel.Plugin) bool { return pipeline.Section(p.Kind) == section && p.Name == name })
	if i < 0 {
		return config.Schema{}, false
	}
	return pipeline.Schema(k.plugins[i]), true
}

// conceal marks what is secret.
func (k known) conceal(n *config.Node) *config.Node {
	return n.Conceal(func(n *config.Node) (config.Schema, bool) { return k.schema(n.Path()) })
}

// check looks into the sections of a document. What it says of pipelines is not whether what they name is there: an agent
// has other documents, and its own file.
func (k known) check(name, text string) (list []api.Problem, _ []string) {
	root, err := config.Parse(name, []byte(text), config.Env{Defer: true})
	if err != nil {
		return []api.Problem{{Message: err.Error()}}, nil
	}
	var errs config.Errors
	if n := root.Get("agent"); n != nil {
		_, found := agent.SettingsSchema().Check(n)
		errs = append(errs, found...)
	}
	for _, section := range []string{"collectors", "processors", "exporters", "pipelines"} {
		for id, n := range root.Get(section).Entries() {
			s, ok := k.schema(section + "." + id)
			if !ok {
				e := n.KeyErrorf("this hub has no plugin for it")
				e.Hint = config.DidYouMean(strings.Split(id, "/")[0], k.names(section))
				errs = append(errs, e)
				continue
			}
			_, found := s.Check(n)
			errs = append(errs, found...)
		}
	}
	if root.Get("once").Text() == "true" {
		errs = append(errs, k.rounds(root.Get("collectors"))...)
	}
	errs.Sort()
	for _, e := range errs {
		list = append(list, api.Problem{Line: e.Line, Column: e.Col, Path: e.Path, Message: e.Message, Hint: e.Hint})
	}
	return list, nil
}

// rounds checks that all collectors of a document that is to be done once work in rounds.
func (k known) rounds(collectors *config.Node) (errs config.Errors) {
	n := 0
	for id, node := range collectors.Entries() {
		name, _, _ := strings.Cut(id, "/")
		i := slices.IndexFunc(k.plugins, func(p creel.Plugin) bool { return p.Kind == creel.KindCollector && p.Name == name })
		if n++; i >= 0 && !k.plugins[i].Polled {
			errs = append(errs, node.KeyErrorf("the document is to be done once, and a collector %s never ends: it does not work in rounds", name))
		}
	}
	if n == 0 {
		errs = append(errs, &config.Error{File: "document", Line: 1, Col: 1, Message: "the document is to be done once, and has no collector that could do something"})
	}
	return errs
}

func (k known) names(section string) (list []string) {
	for _, p := range k.plugins {
		if pipeline.Section(p.Kind) == section {
			list = append(list, p.Name)
		}
	}
	return list
}

// withQuickLook returns plugins with the hub's own exporter, which replaces another of its name.
func withQuickLook(plugins []creel.Plugin, own creel.Plugin) []creel.Plugin {
	list := slices.DeleteFunc(slices.Clone(plugins), func(p creel.Plugin) bool { return p.Kind == own.Kind && p.Name == own.Name })
	return append(list, own)
}

// documentSchema describes a document for editors.
func documentSchema(plugins []creel.Plugin) ([]byte, error) {
	whole := agent.Parts{Plugins: plugins}.JSONSchema()
	for _, key := range agent.OwnSettings() {
		delete(whole["properties"].(map[string]any)["agent"].(map[string]any)["properties"].(map[string]any), key)
	}
	schema, err := json.Marshal(api.DocumentSchema(whole))
	if err != nil {
		return nil, fmt.Errorf("describe documents: %w", err)
	}
	return schema, nil
}
