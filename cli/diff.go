package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
)

func (c *Commands) diff() *cobra.Command {
	format := "table"
	cmd := &cobra.Command{
		Use: "diff FILE FILE | diff -c FILE", Short: "Show what two configurations say differently, and what a reload would touch.",
		Long: "Compare what two configurations mean: order, comments, quotes, anchors, and whether they are YAML or JSON make no difference,\n" +
			"and references such as ${env:HOST} are compared as they are written. Either may be a directory: then all the .yaml, .yml\n" +
			"and .json files in it and in its agent.d are put together. With -c FILE, compare FILE with what the agent on this machine\n" +
			"runs: all options then, defaults filled in; that a secret is another one is not seen, and what the hub or centers have\n" +
			"given it is shown as removed, though it stays.\n\n" +
			"Below stands what the agent would do if it ran the first and got the second. Secrets are not shown.\n" +
			"Exit code 0: they are the same; 1: they are not; 2: one of them cannot be read.",
		Example: fmt.Sprintf("  %[1]s diff old.yaml new.yaml\n  %[1]s diff -c /etc/creel/creel.yaml\n  %[1]s diff /etc/creel new/ -o json", c.Name),
		Args:    cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var r diffReport
			var err error
			switch {
			case c.file != "" && len(args) == 0:
				r, err = c.diffRunning(cmd.Context())
			case c.file == "" && len(args) == 2:
				r, err = c.diffFiles(args[0], args[1])
			default:
				return errors.New("what is to be compared? Say two FILEs, or -c FILE for the agent that runs")
			}
			if err != nil {
				return err
			}
			paths := make([]string, len(r.Differences))
			for i, d := range r.Differences {
				paths[i] = d.Path
			}
			if err := c.Print(format, r, paths, r.print); err != nil {
				return err
			}
			if len(r.Differences) > 0 {
				return Exit(ExitNo, errors.New("they are not the same"))
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	answerFlag(cmd, &format)
	return c.WithData(c.mayHaveConfig(cmd))
}

type diffReport struct {
	Differences []config.Difference `json:"differences"`
	Reload      *report.Change      `json:"reload,omitempty"`    // what it would touch
	Unknown     string              `json:"unknown,omitempty"`   // why that is not known
	Elsewhere   []string            `json:"elsewhere,omitempty"` // documents that the agent runs and that do not come from files
}

func (r *diffReport) print(w *tabwriter.Writer) {
	for _, d := range r.Differences {
		sign, what := map[string]string{config.Added: "+", config.Removed: "-", config.Changed: "~"}[d.Kind], d.Old+d.New
		if d.Kind == config.Changed {
			what = d.Old + " → " + d.New
		}
		fmt.Fprintf(w, "%s %s\t%s\t%s\n", sign, printable(d.Path), printable(what), printable(d.Where))
	}
	switch {
	case r.Unknown != "":
		fmt.Fprintf(w, "\nwhat a reload would do is not known:\n  %s\n", indented(r.Unknown))
	case len(r.Differences) > 0:
		fmt.Fprintln(w, "\na reload:")
		changeTable(w, *r.Reload)
	}
	if len(r.Elsewhere) > 0 {
		fmt.Fprintf(w, "\nwhat stands in these is shown as removed, but stays: %s\n", printable(strings.Join(r.Elsewhere, ", ")))
	}
}

// diffFiles compares two files or directories.
func (c *Commands) diffFiles(old, next string) (diffReport, error) {
	var trees [2]*config.Node
	for i, name := range []string{old, next} {
		n, err := c.readTree(name, config.Env{Defer: true})
		if err != nil {
			return diffReport{}, err
		}
		trees[i] = n.Conceal(c.schemaOf)
	}
	r := diffReport{Differences: config.Diff(trees[0], trees[1])}
	plans, err := c.plans(config.OSEnv(), old, next)
	if err != nil { // maybe because of what references stand for
		plans, err = c.plans(config.Env{Defer: true}, old, next)
	}
	if err != nil {
		r.Unknown = err.Error()
		return r, nil
	}
	change := pipeline.Diff(plans[0], plans[1])
	r.Reload = &change
	return r, nil
}

// plans compiles configurations as an agent on this machine would.
func (c *Commands) plans(env config.Env, names ...string) (plans []*pipeline.Plan, err error) {
	machine, err := c.Parts().Parse("nothing.json", []byte("{}"), env) // for the labels that it has anyway
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		n, err := c.readTree(name, env)
		if err != nil {
			return nil, err
		}
		options, errs := agent.SettingsSchema().Check(n.Get("agent"))
		if len(errs) > 0 {
			return nil, errs
		}
		settings, err := config.Decode[agent.Settings](options)
		if err != nil {
			return nil, err
		}
		labels := maps.Clone(machine.Settings.Labels)
		maps.Copy(labels, settings.Labels)
		p, err := pipeline.Compile(n, c.Plugins, labels)
		if err != nil {
			return nil, err
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// readTree reads a configuration from a file, or what the files of a directory make together.
func (c *Commands) readTree(name string, env config.Env) (*config.Node, error) {
	files, err := filesOf(name)
	if err != nil {
		return nil, Exit(ExitUsage, fmt.Errorf("read configuration: %w", err))
	}
	c.file = name // that is where complain says errors are
	var list []*config.Node
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, Exit(ExitUsage, fmt.Errorf("read configuration: %w", err))
		}
		n, err := config.Parse(file, text, env)
		if err != nil {
			return nil, Exit(ExitUsage, err)
		}
		list = append(list, n)
	}
	// Sections are put together, and what is said of the agent itself; a component stands in one file.
	n, err := config.Merge(func(path string) bool { return !strings.Contains(path, ".") || strings.HasPrefix(path, "agent.") }, list...)
	if err != nil {
		return nil, Exit(ExitUsage, err)
	}
	return n, nil
}

// filesOf returns the files that a configuration consists of.
func filesOf(name string) (files []string, err error) {
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	for _, dir := range []string{name, filepath.Join(name, "agent.d")} {
		entries, err := os.ReadDir(dir)
		if err != nil && (dir == name || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
		for _, e := range entries {
			if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there is no .yaml, .yml or .json file in %s", name)
	}
	return files, nil
}

// schemaOf returns the Schema of what stands at a place of a configuration.
func (c *Commands) schemaOf(n *config.Node) (config.Schema, bool) {
	section, id, _ := strings.Cut(n.Path(), ".")
	if n.Path() == "agent" {
		return agent.SettingsSchema(), true
	}
	for _, cc := range c.Centers {
		rest, isCenter := strings.CutPrefix(n.Path(), "agent.centers.")
		if name, _, _ := strings.Cut(rest, "/"); isCenter && name == cc.Name {
			return center.Schema(cc), true
		}
	}
	for _, p := range c.Plugins {
		if name, _, _ := strings.Cut(id, "/"); id != "" && section == pipeline.Section(p.Kind) && name == p.Name {
			return pipeline.Schema(p), true
		}
	}
	return config.Schema{}, false
}

// diffRunning compares the configuration file with what the agent here runs.
func (c *Commands) diffRunning(ctx context.Context) (diffReport, error) {
	cfg, err := c.load()
	if err != nil {
		return diffReport{}, Exit(ExitUsage, err) // it is no answer
	}
	old, err := c.running(ctx)
	if err != nil {
		return diffReport{}, err
	}
	state, err := c.state(ctx)
	if err != nil {
		return diffReport{}, err
	}
	next := cfg.Effective()
	if old["agent"] == nil {
		delete(next, "agent") // it does not tell
	}
	r := diffReport{Reload: &report.Change{}}
	if r.Differences, err = diffOptions(old, next); err != nil {
		return diffReport{}, Exit(ExitNo, fmt.Errorf("read what the agent answers: %w", err))
	}
	touched := func(key string) bool { // what switches a component on does not touch it
		return slices.ContainsFunc(r.Differences, func(d config.Difference) bool { return strings.HasPrefix(d.Path, key+".") && d.Path != key+".enabled" })
	}
	for component := range cfg.Plan.Components() {
		switch key := component.Key(); {
		case old[key] == nil:
			r.Reload.Open = append(r.Reload.Open, key)
		case touched(key):
			r.Reload.Reopen = append(r.Reload.Reopen, key)
		default:
			r.Reload.Keep = append(r.Reload.Keep, key)
		}
	}
	for key, options := range old {
		if next[key] == nil && key != "agent" && isComponent(options) {
			r.Reload.Close = append(r.Reload.Close, key)
		}
	}
	slices.Sort(r.Reload.Close)
	for _, d := range state.Configuration.Documents {
		if d.Source != "file" && len(r.Differences) > 0 {
			r.Elsewhere = append(r.Elsewhere, d.Source+":"+d.Name)
		}
	}
	return r, nil
}

// isComponent tells a component's options from a pipeline's.
func isComponent(options json.RawMessage) bool {
	var o struct {
		From, Through, To json.RawMessage
	}
	return json.Unmarshal(options, &o) == nil && (o.From == nil || o.Through == nil || o.To == nil)
}

// diffOptions compares options by component. They stand nowhere.
func diffOptions(old, next map[string]json.RawMessage) ([]config.Difference, error) {
	const section = "options" // one, so that what lacks there is told of as a whole
	var trees [2]*config.Node
	for i, options := range []map[string]json.RawMessage{old, next} {
		text, err := json.Marshal(map[string]any{section: options})
		if err != nil {
			return nil, err
		}
		text = []byte(strings.ReplaceAll(string(text), "${", "$${")) // it is what references stood for
		if trees[i], err = config.Parse("options.json", text, config.Env{}); err != nil {
			return nil, err
		}
	}
	list := config.Diff(trees[0], trees[1])
	for i := range list {
		list[i].Path, list[i].Where = strings.TrimPrefix(list[i].Path, section+"."), ""
	}
	return list, nil
}
