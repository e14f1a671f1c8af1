package agent

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
	"time"

	"github.com/creelhq/creel/agent/change"
	"github.com/creelhq/creel/agent/pressure"
	"github.com/creelhq/creel/center"
	centerfile "github.com/creelhq/creel/center/file"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/report"
)

// HubSource is the source of the documents that the hub hands out.
const HubSource = "hub"

// configurationFile is the file in the state directory that keeps what runs and what has proved good.
const configurationFile = "configuration.json"

// manager returns what decides which configuration runs.
func (a *agent) manager() *change.Manager[*Config] {
	file := filepath.Join(a.Data, configurationFile)
	return change.New(change.Options[*Config]{
		Build:     func(s change.Set) (*Config, error) { return a.parts().compile(s, *a.Env) },
		Apply:     a.apply,
		Vitals:    a.vitals,
		Probation: func(c *Config) time.Duration { return c.Settings.Probation },
		Load: func(v any) error {
			text, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read the kept configuration: %w", err)
			}
			if err := json.Unmarshal(text, v); err != nil {
				a.dir.setAside(file, err)
			}
			return nil
		},
		Save: func(v any) error { return WriteJSON(file, v) },
		Told: a.notify,
		Log:  a.log,
	})
}

// apply makes a configuration run: all of it or, with an error, nothing.
func (a *agent) apply(ctx context.Context, c *Config) (report.Receipt, error) {
	c.Plan.Resource = a.resource(c.Settings.Labels)
	a.terms.begin(c.handed)
	r, err := a.engine.Apply(ctx, c.Plan)
	if err != nil {
		return r, err
	}
	a.terms.run(c.handed)
	a.mu.Lock()
	s, before := c.Settings, a.settings
	s.Hub.URL = a.hubURL(s.Hub.URL)
	if s.Log.Format != a.own.Log.Format || s.Admin != a.own.Admin || !s.Hub.equal(a.own.Hub) || s.DeadLetters != a.own.DeadLetters ||
		s.Tasks.Slots != a.own.Tasks.Slots || s.Tasks.Capacity != a.own.Tasks.Capacity || !maps.Equal(s.Tasks.Classes, a.own.Tasks.Classes) {
		a.log.Warn("agent.admin, agent.hub, agent.tasks, agent.dead_letters and agent.log.format take effect when the agent is started again")
	}
	a.settings, a.config = s, c
	a.mu.Unlock()
	a.level.Set(s.Log.level())
	a.guard.Limit(s.Memory.bytes(pressure.CgroupLimit("/")))
	a.requires.Set(s.Requires)
	a.watchAll(s.Watch, c.Centers)
	a.offer()
	for _, w := range c.Plan.Warnings {
		a.log.Warn("configuration: " + w)
	}
	if a.started.Load() { // else it is not ready to be found
		a.writeEndpoints()
	}
	if !maps.Equal(before.Labels, s.Labels) {
		a.notify()
	}
	return r, nil
}

// reload reads the agent's own file anew. by is who asks; with force, what has failed before is tried again.
func (a *agent) reload(ctx context.Context, by string, force bool) (report.Receipt, error) {
	p, err := a.file()
	if err != nil {
		a.log.Error("reload refused, everything goes on as before", "error", err)
		return report.Receipt{Time: time.Now().UTC(), Source: by, Outcome: report.Refused, Error: err.Error()}, err
	}
	return a.changes.Change(ctx, change.File, by, p, force)
}

// hears tells whether a source still has anything to say: the hub, or a center that the agent's own file names.
func (a *agent) hears(source string) bool {
	if source == HubSource {
		return a.own.Hub.configured()
	}
	var centers map[string]json.RawMessage
	if a.own.Centers != nil && json.Unmarshal(a.own.Centers, &centers) != nil {
		return true // what is wrong with it is told elsewhere
	}
	text, named := centers[source]
	if !named {
		return false
	}
	section, err := config.Parse("agent.centers.json", fmt.Appendf(nil, "{%q: %s}", source, text), config.Env{})
	if err != nil {
		return true // likewise
	}
	list, _ := a.parts().CheckCenters(section)
	return len(list) == 0 || list[0].Nothing == nil
}

// watched is something whose changes are heard.
type watched struct {
	options []byte
	cancel  context.CancelFunc
	over    chan struct{}
}

// watch runs f until the returned value is stopped.
func watch(options []byte, f func(ctx context.Context)) *watched {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{options, cancel, make(chan struct{})}
	go func() {
		defer close(w.over)
		f(ctx)
	}()
	return w
}

// stop returns when f has, or after a second, when it ends by itself.
func (w *watched) stop() {
	w.cancel()
	select {
	case <-w.over:
	case <-time.After(time.Second):
	}
}

// watchAll watches the agent's own files if that is asked for, and the centers that are named, and no others any more.
func (a *agent) watchAll(files bool, list []CenterConfig) {
	list = slices.DeleteFunc(slices.Clone(list), func(c CenterConfig) bool { return c.Nothing != nil })
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, w := range a.watches {
		i := slices.IndexFunc(list, func(c CenterConfig) bool { return c.ID == id })
		if id == change.File && files || i >= 0 && string(list[i].Options) == string(w.options) {
			continue
		}
		w.cancel() // it may be what asked for this change
		delete(a.watches, id)
		delete(a.troubles, centersPath+id)
		if i < 0 && id != change.File {
			a.changes.Offer(id, "", nil)
		}
	}
	if files && a.Text == nil && a.watches[change.File] == nil {
		a.watches[change.File] = watch(nil, a.watchFiles)
	}
	for _, c := range list {
		if a.watches[c.ID] == nil {
			a.watchCenter(c)
		}
	}
}

// watchFiles takes in what is written into the agent's own files.
func (a *agent) watchFiles(ctx context.Context) {
	l := centerfile.Listen(a.log, a.Config, fragmentsOf(a.Config))
	last := a.changes.Running()[change.File].Hash()
	look := func() {
		p, err := a.file()
		if now := p.Hash(); err == nil && now == last {
			return
		} else {
			last = now
		}
		_, _ = a.reload(ctx, change.File, false) // it is logged
	}
	look() // they may have changed since they were read
	l.Run(ctx, look)
}

// watchCenter begins to watch a center. a.mu is held.
func (a *agent) watchCenter(c CenterConfig) {
	path := centersPath + c.ID
	log := a.log.With("component", path)
	before := &center.Snapshot{}
	for _, d := range a.changes.Running()[c.ID] {
		before.Documents = append(before.Documents, center.Document{Name: d.Name, Text: d.Text})
	}
	source, err := center.Open(c.Center, c.Options, center.Host{ID: c.ID, Log: log, Last: before, Health: func(err error) { a.centerIs(path, err) }})
	if err != nil {
		a.troubles[path] = trouble{err, time.Now()}
		log.Error("center is not watched", "error", err)
		return
	}
	a.watches[c.ID] = watch(c.Options, func(ctx context.Context) {
		source.Watch(ctx, func(s center.Snapshot) {
			p := make(change.Pieces, len(s.Documents))
			for i, d := range s.Documents {
				p[i] = change.Document{Name: d.Name, Version: s.Revision, Text: d.Text}
			}
			a.changes.Offer(c.ID, s.Revision, p)
		})
	})
}

// trouble is why a center does not work, and since when.
type trouble struct {
	err   error
	since time.Time
}

// centerIs notes whether a center does what it is there for at a path of the configuration.
func (a *agent) centerIs(path string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, known := a.troubles[path]
	switch {
	case err == nil:
		delete(a.troubles, path)
	case known:
		a.troubles[path] = trouble{err, before.since}
	default:
		a.troubles[path] = trouble{err, time.Now()}
	}
}

// stopWatching ends all that could ask for a change.
func (a *agent) stopWatching() {
	a.mu.Lock()
	list := slices.Collect(maps.Values(a.watches))
	clear(a.watches)
	a.mu.Unlock()
	for _, w := range list {
		w.stop()
	}
}

// vitals is how everything is now, for what watches a change.
func (a *agent) vitals() change.Vitals {
	now := a.engine.Vitals()
	v := change.Vitals{Components: make(map[string]change.Vital, len(now.Components)), Unexplained: now.Unexplained, CPU: metric.CPU()}
	for key, c := range now.Components {
		v.Components[key] = change.Vital{Healthy: c.Healthy, Error: c.Error, Failures: c.Failed, Records: c.In, Dropped: c.Dropped}
	}
	return v
}
