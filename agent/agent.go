// Package agent runs an agent: a configuration, the pipeline that it describes, a state directory and an admin
// endpoint. It can be embedded: a program of one's own hands Run its plugins.
//
// What becomes of the configuration package change decides, whether the agent collects package life. This package knows no
// plugin and no center by name, and nothing of command lines; signals reach it as a cancelled context and a reload channel.
package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent/change"
	"github.com/creelhq/creel/agent/identity"
	"github.com/creelhq/creel/agent/life"
	"github.com/creelhq/creel/agent/pressure"
	"github.com/creelhq/creel/agent/requires"
	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/task"
	"github.com/creelhq/creel/trace"
)

// Options say what to run. Config, Data and Plugins are required.
type Options struct {
	Config  string // the configuration's file; fragments beside it count as well
	Text    []byte // if not nil, the configuration itself; Config is then only what errors call it
	Data    string // the state directory; it is made, with mode 0700, if it does not exist
	Plugins []creel.Plugin
	Centers []center.Center   // where configuration may come from beside the file and the hub
	Version string            // of the program, for logs and metrics
	Log     io.Writer         // nil: standard error
	Env     *config.Env       // what ${env:…} and ${file:…} see; nil: the process's
	Reload  <-chan struct{}   // each element asks for a reload; nil: never
	Memory  *creel.Memory     // of records; nil: one of its own
	Metrics *metric.Set       // its instruments; nil: a set of its own
	Hub     string            // the hub's URL; if not empty, it counts instead of agent.hub.url
	Stay    bool              // it goes to no other hub than the one at Hub: it is that hub's own
	Labels  map[string]string // added to agent.labels
	// Admission decides about what is sent to the agent's collectors; nil: everything is welcome.
	Admission creel.Admission
	// Identity is who the agent is to its hub; nil: what the state directory says, where the agent has joined one.
	Identity creel.Identity

	// Ready is told once everything runs, if it is not nil.
	Ready func()
}

// ErrRestart is what Run returns, after everything was drained, when the agent was asked to start again.
var ErrRestart = errors.New("the agent was asked to start again")

// Run runs the agent until ctx is done or it is asked to stop, drains, and returns nil, or ErrRestart. Any other return is
// an error to start: a config.Errors if the configuration is wrong. Agents in one process do not disturb each other.
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
	file, err := o.file()
	if err != nil {
		return err
	}
	if _, err := o.parts().compile(change.Set{change.File: file}, *o.Env); err != nil && !o.knowsMore() {
		return err // nothing was begun
	}
	own, err := ownSettingsOf(change.Set{change.File: file}, *o.Env)
	if err != nil {
		return err
	}
	dir, err := openState(o.Data)
	if err != nil {
		return err
	}
	defer dir.close()
	a := &agent{
		Options: o, dir: dir, began: time.Now(), own: own, settings: own, metrics: o.Metrics, orders: make(chan control.Order, 1),
		watches: make(map[string]*watched), troubles: make(map[string]trouble), offers: make(map[string]*watched),
	}
	a.settings.Labels = o.parts().labels(own)
	a.tracer = trace.New(trace.Options{})
	a.telemetry = &telemetry{metrics: a.metrics, tracer: a.tracer}
	a.level.Set(own.Log.level())
	a.log = slog.New(trace.Handler(a.telemetry.handler(own.Log.handler(o.Log, &a.level))))
	dir.log = a.log
	a.own.Hub.URL = a.hubURL(own.Hub.URL)
	a.settings.Hub.URL = a.own.Hub.URL
	if err := a.join(); err != nil {
		return err
	}
	a.hubs = a.knownHubs()
	return a.run(ctx, file)
}

// file returns what the agent's own file says, as one piece or several.
func (o *Options) file() (change.Pieces, error) {
	if o.Text != nil {
		return change.Pieces{{Name: o.Config, Text: o.Text}}, nil
	}
	return readFiles(o.Config)
}

func (o *Options) parts() Parts {
	return Parts{Plugins: o.Plugins, Centers: o.Centers, Labels: o.Labels}
}

// knowsMore reports whether the state directory has documents of a hub or a center, without which the file may be wrong.
func (o *Options) knowsMore() bool {
	_, err := os.Stat(filepath.Join(o.Data, configurationFile))
	return err == nil || !errors.Is(err, fs.ErrNotExist)
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
	tracer    *trace.Tracer
	telemetry *telemetry
	engine    *pipeline.Engine
	letters   *deadletter.Store
	guard     *pressure.Guard
	changes   *change.Manager[*Config]
	life      *life.Machine
	requires  *requires.Guards
	orders    chan control.Order
	hub       *control.Client // nil: none
	hubs      *knownHubs
	terms     *terms
	costs     costs
	cursors   cursors
	joined    *identity.Identity // nil: no hub was joined, or Options say who the agent is
	serving   context.Context    // done when the agent is to end
	began     time.Time
	own       Settings    // of the agent's own file, as it was at the start
	started   atomic.Bool // there is a configuration that runs
	logged    tail
	shown     atomic.Pointer[planText]

	acting sync.Mutex // held while what life asks for is done

	mu       sync.Mutex // guards what follows
	kept     life.Kept
	config   *Config             // that runs; nil before the start
	settings Settings            // of it, with what Options overrule
	watches  map[string]*watched // the agent's own files, and centers, by id
	troubles map[string]trouble  // of centers that do not work, by the path of what they are there for
	offers   map[string]*watched // services that are registered, by name; those without options are on their way out
}

func (a *agent) run(ctx context.Context, file change.Pieces) error {
	metric.Process(a.metrics)
	a.metrics.Sub(metric.Label{Name: "version", Value: a.Version}).GaugeFunc("creel.agent.info", "Is 1; its labels tell of the agent.", "", func() float64 { return 1 })
	defer a.telemetry.Subscribe(a.logged.add)()

	background, end := context.WithCancel(context.Background()) // of what goes on until everything is drained
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	tasks := task.New(task.Options{Slots: a.own.Tasks.Slots, Classes: a.own.Tasks.Classes, Seed: seed(a.dir.id)})
	wg.Go(func() { _ = tasks.Run(background) }) // it ends with its context

	letters, err := deadletter.Open(filepath.Join(a.Data, "deadletters"), deadletter.Options{
		MaxSize: int64(a.own.DeadLetters.MaxSize), Log: func(what string) { a.log.Warn(what) },
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
		Log: a.log, Metrics: a.metrics, Memory: a.Memory, Tasks: tasks, State: a.stateOf, Self: a.telemetry, Tracer: a.tracer,
		Sender: creel.Sender{Agent: a.dir.id, Started: a.began}, Admission: a.Admission, Identity: a.Identity, Hubs: a.hubs,
		Spools: filepath.Join(a.Data, "spool"), Letters: letters,
		Ended: a.notify,
	})
	a.terms = &terms{set: a.engine.SetTerms}
	a.guard = pressure.NewGuard(a.obey, a.log, a.metrics)
	wg.Go(func() { a.guard.Run(background) })
	if a.joined != nil {
		wg.Go(func() { a.joined.Run(background) })
	}
	if err := a.begin(); err != nil {
		return err
	}
	defer func() { _, _ = a.life.Fire(life.Ended, "") }() // whatever came before

	changing, stopChanging := context.WithCancel(ctx)
	defer stopChanging()
	a.serving = changing
	a.changes = a.manager()
	if a.own.Hub.configured() {
		if a.hub, err = a.connect(); err != nil {
			return err
		}
	}
	admin, err := a.serveAdmin()
	if err != nil {
		return err
	}
	defer admin.close()
	begin, err := a.startWhenReady(changing, file)
	if err != nil || ctx.Err() != nil {
		if errors.Is(err, context.Cause(ctx)) {
			err = nil // it was told to stop before it ran, and did
		}
		return errors.Join(err, a.drain())
	}
	if a.hub != nil {
		wg.Go(func() { a.hub.Run(background) }) // until everything was drained it reports
		wg.Go(func() { a.hubs.keep(background) })
		if d := a.own.Hub.Discover; d.Center != "" {
			wg.Go(func() { a.discover(background, d) })
		}
	}
	wg.Go(func() { a.engine.Audit(background, auditEvery, auditPatience) })
	var changers sync.WaitGroup
	changers.Go(func() { a.changes.Run(changing) })
	changers.Go(func() { a.requires.Run(changing, a.required, begin...) })
	if a.Ready != nil {
		a.Ready()
	}
	restart := a.serve(ctx)
	_, _ = a.life.Fire(life.Stop, "") // it is always possible
	stopChanging()
	a.withdraw()
	a.stopWatching()
	changers.Wait()
	a.changes.Stop()
	err = a.drain()
	if restart && err == nil {
		return ErrRestart
	}
	return err
}

// seed makes agents start what has a jitter at other times than each other.
func seed(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return h.Sum64()
}

// serve does what the agent is asked for until it is to end, and reports whether it is to start again.
func (a *agent) serve(ctx context.Context) (restart bool) {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-a.Reload:
			_, _ = a.reload(ctx, "signal", false) // it is logged
		case o := <-a.orders:
			switch done := a.order(o); {
			case done && o.Do == control.Restart:
				return true
			case done && o.Do == control.Stop:
				return false
			}
		}
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
	patience := a.now().Drain
	a.log.Info("agent stops", "drain", patience)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	err := a.engine.Drain(ctx)
	a.log.Info("agent stopped", "took", time.Since(began).Round(time.Millisecond))
	return err
}

// now returns the settings that count now.
func (a *agent) now() Settings {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settings
}

// resource says what this agent and its host are, with the names of OpenTelemetry's semantic conventions.
func (a *agent) resource(labels map[string]string) creel.Resource {
	attrs := creel.Attrs{{Key: "creel.agent.id", Value: creel.String(a.dir.id)}}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		attrs.Set(k, creel.String(labels[k]))
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

func (a *agent) writeEndpoints() {
	err := WriteJSON(filepath.Join(a.Data, "endpoints.json"), Endpoints{
		Version: 1, ID: a.dir.id, PID: os.Getpid(), Admin: AdminSocket(a.Data), Listen: a.engine.Endpoints(),
	})
	if err != nil {
		a.log.Warn("endpoints.json is not written: commands may not find this agent", "error", fmt.Errorf("write endpoints: %w", err))
	}
}

// AdminSocket returns the path of the admin endpoint of the agent whose state directory is data.
func AdminSocket(data string) string { return filepath.Join(data, "admin.sock") }
