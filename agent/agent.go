// Package agent runs an agent: a configuration, the pipeline that it describes, a state directory and an admin
// endpoint. It can be embedded: a program of one's own hands Run its plugins.
//
// It knows no plugin by name, and nothing of command lines; signals reach it as a cancelled context and a reload
// channel.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent/pressure"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/task"
)

// Options say what to run. Config, Data and Plugins are required.
type Options struct {
	Config  string // the configuration's file
	Text    []byte // if not nil, the configuration itself; Config is then only what errors call it
	Data    string // the state directory; it is made, with mode 0700, if it does not exist
	Plugins []creel.Plugin
	Version string            // of the program, for logs and metrics
	Log     io.Writer         // nil: standard error
	Env     *config.Env       // what ${env:…} and ${file:…} see; nil: the process's
	Reload  <-chan struct{}   // each element asks for a reload; nil: never
	Memory  *creel.Memory     // of records; nil: one of its own
	Metrics *metric.Set       // its instruments; nil: a set of its own
	Hub     string            // the hub's URL; if not empty, it counts instead of agent.hub.url
	Labels  map[string]string // added to agent.labels
	// Admission decides about what is sent to the agent's collectors; nil: everything is welcome.
	Admission creel.Admission

	// Ready is told once everything runs, if it is not nil.
	Ready func()
}

// Run runs the agent until ctx is done, drains, and returns nil. Any other return is an error to start: a config.Errors
// if the configuration is wrong. Agents in one process do not disturb each other.
func Run(ctx context.Context, o Options) error {
	if o.Env == nil {
		env := config.OSEnv()
		o.Env = &env
	}
	if o.Log == nil {
		o.Log = os.Stderr
	}
	if o.Memory == nil {
		o.Memory = &creel.Memory{}
	}
	if o.Metrics == nil {
		o.Metrics = metric.NewSet()
	}
	c, err := o.load()
	if err != nil {
		return err
	}
	dir, err := openState(o.Data)
	if err != nil {
		return err
	}
	defer dir.close()
	a := &agent{Options: o, dir: dir, started: time.Now(), settings: c.Settings, metrics: o.Metrics}
	a.telemetry = &telemetry{metrics: a.metrics}
	a.level.Set(c.Settings.Log.level())
	a.log = slog.New(a.telemetry.handler(c.Settings.Log.handler(o.Log, &a.level)))
	dir.log = a.log
	return a.run(ctx, c)
}

func (o *Options) load() (*Config, error) {
	var c *Config
	var err error
	if o.Text != nil {
		c, err = Parse(o.Config, o.Text, *o.Env, o.Plugins)
	} else {
		c, err = Load(o.Config, *o.Env, o.Plugins)
	}
	if err != nil {
		return nil, err
	}
	if o.Hub != "" {
		c.Settings.Hub.URL = o.Hub
	}
	labels := maps.Clone(o.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	maps.Copy(labels, c.Settings.Labels)
	c.Settings.Labels = labels
	return c, nil
}

// The books are looked at so often, and a difference is told of when it has been there for so long.
const (
	auditEvery    = time.Second
	auditPatience = time.Minute
)

type agent struct {
	Options
	dir       *stateDir
	log       *slog.Logger
	level     slog.LevelVar
	metrics   *metric.Set
	telemetry *telemetry
	engine    *pipeline.Engine
	letters   *deadletter.Store
	guard     *pressure.Guard
	hub       *control.Client // nil: none
	started   time.Time

	mu       sync.Mutex // guards what follows
	settings Settings
	state    string // initializing, running or stopping
	reloaded report.Reload
}

func (a *agent) run(ctx context.Context, c *Config) error {
	a.setState("initializing")
	metric.Process(a.metrics)
	a.metrics.Sub(metric.Label{Name: "version", Value: a.Version}).GaugeFunc("creel.agent.info", "Is 1; its labels tell of the agent.", "", func() float64 { return 1 })

	tasks := task.New(task.Options{})
	tasksCtx, stopTasks := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = tasks.Run(tasksCtx) }) // it ends with its context
	defer wg.Wait()
	defer stopTasks()

	letters, err := deadletter.Open(filepath.Join(a.Data, "deadletters"), deadletter.Options{
		MaxSize: int64(c.Settings.DeadLetters.MaxSize), Log: func(what string) { a.log.Warn(what) },
	})
	if err != nil {
		return err
	}
	defer func() {
		if err := letters.Close(); err != nil {
			a.log.Error("dead letters do not close cleanly", "error", err)
		}
	}()
	a.letters = letters
	meterLetters(a.metrics, letters)
	a.engine = pipeline.New(pipeline.Options{
		Log: a.log, Metrics: a.metrics, Memory: a.Memory, Tasks: tasks, State: a.dir.component, Resource: a.resource(), Self: a.telemetry,
		Sender: creel.Sender{Agent: a.dir.id, Started: a.started}, Admission: a.Admission,
		Spools: filepath.Join(a.Data, "spool"), Letters: letters,
	})
	a.guard = pressure.NewGuard(a.obey, a.log, a.metrics)
	a.guard.Limit(c.Settings.Memory.bytes(pressure.CgroupLimit("/")))
	wg.Go(func() { a.guard.Run(tasksCtx) })
	if _, err := a.engine.Apply(ctx, c.Plan); err != nil {
		return err
	}
	wg.Go(func() { a.engine.Audit(tasksCtx, auditEvery, auditPatience) })
	admin, err := a.serveAdmin()
	if err != nil {
		return errors.Join(err, a.drain())
	}
	defer admin.close()
	if url := c.Settings.Hub.URL; url != "" {
		if a.hub, err = a.connect(url); err != nil {
			return errors.Join(err, a.drain())
		}
	}
	if err := a.writeEndpoints(); err != nil {
		a.log.Warn("endpoints.json is not written: commands do not find this agent", "error", err)
	}
	a.warn(c)
	a.setState("running")
	a.log.Info("agent runs", "id", a.dir.id, "version", a.Version, "config", a.Config, "data", a.Data,
		"collectors", len(c.Plan.Collectors), "exporters", len(c.Plan.Exporters))
	if a.hub != nil {
		hubCtx, disconnect := context.WithCancel(context.Background())
		wg.Go(func() { a.hub.Run(hubCtx) })
		defer disconnect() // after everything was drained: until then it reports
	}
	if a.Ready != nil {
		a.Ready()
	}
	for {
		select {
		case <-ctx.Done():
			a.setState("stopping")
			return a.drain()
		case <-a.Reload:
			if _, err := a.reload(); err != nil {
				a.log.Error("reload refused, everything goes on as before", "error", err)
			}
		}
	}
}

func (a *agent) setState(s string) {
	a.mu.Lock()
	a.state = s
	a.mu.Unlock()
}

func (a *agent) warn(c *Config) {
	for _, w := range c.Plan.Warnings {
		a.log.Warn("configuration: " + w)
	}
}

// obey passes on what the memory allows.
func (a *agent) obey(o pressure.Order) {
	p := pipeline.Pressure{Level: o.Level, Bytes: o.Grant}
	if o != (pressure.Order{}) { // else there is no limit
		p.More = a.guard.More
	}
	a.engine.SetPressure(p)
}

// drain stops collecting and delivers what was collected, as far as that is possible in time.
func (a *agent) drain() error {
	a.mu.Lock()
	patience := a.settings.Drain
	a.mu.Unlock()
	a.log.Info("agent stops", "drain", patience)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	err := a.engine.Drain(ctx)
	a.log.Info("agent stopped", "took", time.Since(began).Round(time.Millisecond))
	return err
}

// reload reads the configuration anew and changes what is different. If it is wrong, or something new cannot be opened,
// nothing happens.
func (a *agent) reload() (report.Change, error) {
	c, err := a.load()
	var change report.Change
	if err == nil {
		change, err = a.engine.Apply(context.Background(), c.Plan)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reloaded = report.Reload{Time: time.Now(), Change: change}
	if err != nil {
		a.reloaded.Error = err.Error()
		return change, err
	}
	if c.Settings.Log.Format != a.settings.Log.Format || c.Settings.Admin != a.settings.Admin || c.Settings.Hub != a.settings.Hub || !sameLabels(c.Settings.Labels, a.settings.Labels) {
		a.log.Warn("agent.labels, agent.admin, agent.hub and agent.log.format take effect when the agent is started again")
	}
	a.settings = c.Settings
	a.level.Set(c.Settings.Log.level())
	a.guard.Limit(c.Settings.Memory.bytes(pressure.CgroupLimit("/")))
	a.warn(c)
	if err := a.writeEndpoints(); err != nil {
		a.log.Warn("endpoints.json is not written: commands may not find this agent", "error", err)
	}
	a.log.Info("reloaded", "open", change.Open, "reopen", change.Reopen, "close", change.Close, "keep", len(change.Keep))
	return change, nil
}

// connect makes the client that tells the hub of this agent.
func (a *agent) connect(url string) (*control.Client, error) {
	labels := maps.Clone(a.settings.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	for _, attr := range a.resource().Attrs {
		if attr.Key != "creel.agent.id" {
			labels[attr.Key] = attr.Value.Str()
		}
	}
	return control.NewClient(control.ClientOptions{URL: url, Log: a.log.With("component", "agent.hub"), Agent: control.Agent{
		ID: a.dir.id, Version: a.Version, Labels: labels,
		Health: a.health, Components: a.components, Routes: a.engine.Routes, Ledger: a.engine.Ledger,
		Effective: func() []byte { return effectiveJSON(a.engine.Plan()) },
	}})
}

// resource says what this agent and its host are, with the names of OpenTelemetry's semantic conventions.
func (a *agent) resource() creel.Resource {
	attrs := creel.Attrs{
		{Key: "os.type", Value: creel.String(runtime.GOOS)},
		{Key: "host.arch", Value: creel.String(runtime.GOARCH)},
		{Key: "creel.agent.id", Value: creel.String(a.dir.id)},
	}
	if name, err := os.Hostname(); err == nil {
		attrs.Set("host.name", creel.String(name))
	}
	keys := make([]string, 0, len(a.settings.Labels))
	for k := range a.settings.Labels {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		attrs.Set(k, creel.String(a.settings.Labels[k]))
	}
	return creel.Resource{Attrs: attrs}
}

// Endpoints is what endpoints.json in the state directory says, so that commands find a running agent.
type Endpoints struct {
	Version int               `json:"version"` // of this format: 1
	ID      string            `json:"id"`      // the agent's
	PID     int               `json:"pid"`
	Admin   string            `json:"admin"` // the admin endpoint's Unix socket
	Listen  []report.Endpoint `json:"listen"`
}

func (a *agent) writeEndpoints() error {
	return WriteJSON(filepath.Join(a.Data, "endpoints.json"), Endpoints{
		Version: 1, ID: a.dir.id, PID: os.Getpid(), Admin: AdminSocket(a.Data), Listen: a.engine.Endpoints(),
	})
}

// AdminSocket returns the path of the admin endpoint of the agent whose state directory is data.
func AdminSocket(data string) string { return filepath.Join(data, "admin.sock") }

func sameLabels(a, b map[string]string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }
