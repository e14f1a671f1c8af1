package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent/change"
	"github.com/creelhq/creel/agent/trial"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/pipeline"
)

// Fragments is the name of a directory beside a configuration file: the *.yaml, *.yml and *.json in it are parts of the
// configuration, in the order of their names.
const Fragments = "agent.d"

// readFiles returns a configuration file and the fragments beside it.
func readFiles(file string) (change.Pieces, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	pieces := change.Pieces{{Name: file, Text: text}}
	dir := fragmentsOf(file)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)) {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		pieces = append(pieces, change.Document{Name: name, Text: text})
	}
	return pieces, nil
}

func fragmentsOf(file string) string { return filepath.Join(filepath.Dir(file), Fragments) }

// OwnSettings returns what of the section agent only the agent's own files may say: where it listens, whom it obeys, where it
// is known and how much it does at once. Else a document could cut off the agent from where it came from.
func OwnSettings() []string { return []string{"hub", "admin", "centers", "services", "watch", "tasks"} }

// The keys of a document that say whom it is for. What is below place is for hubs, which choose among those that it selects; of
// what comes from a hub only the sections count, for what else is in it that hub has understood.
const (
	documentKey = "document"
	selectorKey = "selector"
	placeKey    = "place"
	spreadKey   = "spread"
	priorityKey = "priority"
)

// merge makes one tree of all documents of a set. Those of centers are left out which are not meant for this agent; the
// hub has chosen before. The error is a config.Errors.
func merge(set change.Set, env config.Env, labels map[string]string) (*config.Node, error) {
	var roots []*config.Node
	var errs config.Errors
	for _, source := range set.Sources() {
		for _, d := range set[source] {
			root, err := config.Parse(shown(source, d), d.Text, env)
			var more config.Errors
			if errors.As(err, &more) {
				errs = append(errs, more...)
				continue
			}
			if err != nil {
				return nil, err
			}
			if source != change.File {
				meant, wrong := meant(source, root, labels)
				errs = append(errs, wrong...)
				if !meant && source != HubSource {
					continue
				}
				root = root.Without(aside(source, root)...)
			}
			roots = append(roots, root)
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return config.Merge(mergedDeep, roots...)
}

// aside returns the keys of a document that are no configuration.
func aside(source string, root *config.Node) []string {
	keys := []string{documentKey, selectorKey, placeKey, spreadKey, priorityKey}
	if source == HubSource && root.Get(documentKey) != nil { // else it is of another OpAMP server, which may not have
		sections := []string{"agent", "pipelines", trial.Section, pipeline.Section(creel.KindCollector), pipeline.Section(creel.KindProcessor), pipeline.Section(creel.KindExporter)}
		for key := range root.Entries() {
			if !slices.Contains(sections, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// shown is what errors call a document.
func shown(source string, d change.Document) string {
	if source == change.File {
		return d.Name
	}
	name := d.Name
	if d.Version != "" {
		name += "@" + d.Version
	}
	if filepath.Ext(d.Name) == ".json" {
		return source + ":" + d.Name // the ending says what it is
	}
	return source + ":" + name
}

// mergedDeep tells which maps several documents may add to: the sections, and the agent's settings.
func mergedDeep(path string) bool {
	return path == "agent" || strings.HasPrefix(path, "agent.") || !strings.Contains(path, ".")
}

// meant tells whether a document that is no file of the agent's own is for this agent, and what in it is wrong.
func meant(source string, root *config.Node, labels map[string]string) (bool, config.Errors) {
	var errs config.Errors
	for _, key := range OwnSettings() {
		if n := root.Get("agent").Get(key); n != nil {
			errs = append(errs, n.KeyErrorf("may stand in the agent's own file only"))
		}
	}
	selector, err := expr.ParseSelector(root.Get(selectorKey).Text())
	if err != nil {
		errs = append(errs, root.Get(selectorKey).Errorf("%v", err))
	}
	if place := root.Get(placeKey); place != nil && place.Text() != "all" && source != HubSource {
		errs = append(errs, place.Errorf("must be all: only a hub can choose among the agents that a document selects"))
	}
	return len(errs) == 0 && selector.Match(labels), errs
}
