package creel

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/trace"
)

// Kind is the kind of a plugin, which is also the section of the configuration that its components stand in.
type Kind uint8

// The kinds of plugins.
const (
	KindCollector Kind = iota + 1
	KindProcessor
	KindExporter
)

// String returns the kind as one writes of it: collector, processor or exporter.
func (k Kind) String() string {
	switch k {
	case KindCollector:
		return "collector"
	case KindProcessor:
		return "processor"
	case KindExporter:
		return "exporter"
	}
	return "unknown"
}

// A Plugin is a value: what is built in, runs as a child process or in WebAssembly differs only in Open. A distribution
// is a slice of them.
type Plugin struct {
	Kind   Kind
	Name   string // as written in a configuration file
	Doc    string // one sentence
	Polled bool   // Collect is one round; the scheduler calls it

	// Portable means that what a collector saves in its State, up to 4 KiB, means the same at any agent, such as how far it has read
	// in a database: whoever gets a document next that a hub places goes on from there. Where in files of its host it is does not.
	Portable bool

	// Example is a whole configuration, in YAML, that shows what the plugin is for; "" if there is none. The reference
	// page has it, and a test runs the tests that stand in it: see WithExample.
	Example string

	// Config drives decoding, checks, help, reference pages and forms.
	Config config.Schema

	// Waits returns how long somebody waits with options cfg: a collector's client for records to be safe, or whoever waits
	// for records that a processor holds. 0, or no Waits: for ever, or not at all.
	Waits func(cfg []byte) time.Duration

	// Open makes a component: a Collector, Processor or Exporter, as Kind says. cfg is what Config.Check returned. Open
	// takes in no data, reads no State, and binds only through h.Listen; it may fail, and then leaves nothing behind.
	// Validating a configuration never calls it. If the component is an io.Closer, it is closed in the end.
	Open func(cfg []byte, h Host) (any, error)
}

// NewCollector returns the Plugin of a collector that runs until it is stopped.
func NewCollector[C any](name, doc string, open func(C, Host) (Collector, error)) Plugin {
	return newPlugin(KindCollector, name, doc, open)
}

// NewPolled returns the Plugin of a collector whose Collect is one round, which the scheduler calls at an interval.
func NewPolled[C any](name, doc string, open func(C, Host) (Collector, error)) Plugin {
	p := newPlugin(KindCollector, name, doc, open)
	p.Polled = true
	return p
}

// NewProcessor returns the Plugin of a processor.
func NewProcessor[C any](name, doc string, open func(C, Host) (Processor, error)) Plugin {
	return newPlugin(KindProcessor, name, doc, open)
}

// NewExporter returns the Plugin of an exporter.
func NewExporter[C any](name, doc string, open func(C, Host) (Exporter, error)) Plugin {
	return newPlugin(KindExporter, name, doc, open)
}

// WithExample returns p with a configuration that shows what it is for: package file's embedded example.yaml, say.
func (p Plugin) WithExample(yaml string) Plugin {
	p.Example = yaml
	return p
}

// WithWaits returns p with what its options say of waiting: see Plugin.Waits.
func WithWaits[C any](p Plugin, waits func(C) time.Duration) Plugin {
	p.Waits = func(cfg []byte) time.Duration {
		c, err := config.Decode[C](cfg)
		if err != nil {
			panic("BUG: checked options do not decode: " + err.Error())
		}
		return waits(c)
	}
	return p
}

func newPlugin[C, I any](kind Kind, name, doc string, open func(C, Host) (I, error)) Plugin {
	return Plugin{Kind: kind, Name: name, Doc: doc, Config: config.Of[C](), Open: func(cfg []byte, h Host) (any, error) {
		c, err := config.Decode[C](cfg)
		if err != nil {
			return nil, fmt.Errorf("decode options: %w", err)
		}
		return open(c, h.Ready())
	}}
}

// Host is what the agent lends to one component. The zero value works in tests, once Ready has filled it; a Plugin's
// Open does that.
type Host struct {
	ID       string        // the component's id, such as file/nginx
	Log      *slog.Logger  // carries the id
	Metrics  *metric.Set   // carries the id
	Tracer   *trace.Tracer // carries the component's path, as Telemetry has it; nil works
	Memory   *Memory       // of records
	State    State         // nil: nothing is remembered; see Ready
	Resource Resource      // of this host and agent: what a collector that observes this machine says of itself
	Sockets  Sockets       // nil: the network
	Self     Telemetry     // the agent's own, for the plugin that makes records of it

	// Sender is what an exporter says of itself to another agent; its zero value: nothing.
	Sender Sender
	// Admission is asked by collectors that others send to; nil: everything is welcome.
	Admission Admission
	// Identity is what an option such as tls.identity means; nil: this agent has none.
	Identity Identity
	// Hubs is what an option such as endpoint: hub means; nil: this agent has none.
	Hubs Hubs
	// Taken returns what of a source a disk queue already had when the agent started, sorted, whether or not the collector
	// has come to remember it: it must not be sent again. See Batch.SetParts. Ready makes it one that knows of nothing.
	Taken func(source uint64) []Range

	// Outputs has the pipelines that a configuration option tagged ref:"pipeline" names; see Output.
	Outputs map[string]Next
}

// Ready returns h with defaults for what is missing: a logger that discards, a State in memory.
func (h Host) Ready() Host {
	if h.Log == nil {
		h.Log = slog.New(slog.DiscardHandler)
	}
	if h.State == nil {
		h.State = &memoryState{}
	}
	if h.Metrics == nil {
		h.Metrics = metric.NewSet()
	}
	if h.Sockets == nil {
		h.Sockets = plainSockets{}
	}
	if h.Taken == nil {
		h.Taken = func(uint64) []Range { return nil }
	}
	return h
}

// Listen binds address, or takes over the socket that a component with the same address has: sockets outlive a reload.
// Accepting starts in Collect. Closing the listener gives the socket back. protocol says what is spoken there, such as
// otlp/grpc, to those who look for it.
func (h Host) Listen(network, address, protocol string) (net.Listener, error) {
	return h.Sockets.Listen(network, address, protocol)
}

// Output returns the way into the pipeline that the component's options name.
func (h Host) Output(pipeline string) (Next, error) {
	if next, ok := h.Outputs[pipeline]; ok {
		return next, nil
	}
	return nil, fmt.Errorf("find output: there is no pipeline %q", pipeline)
}

// Protocols that Host.Listen is told of, which agents of a hub look for there.
const (
	OTLPGRPC = "otlp/grpc"
	OTLPHTTP = "otlp/http"
)

// Sockets hands out sockets that outlive a reload. It may be called concurrently.
type Sockets interface {
	Listen(network, address, protocol string) (net.Listener, error)
}

type plainSockets struct{}

func (plainSockets) Listen(network, address, _ string) (net.Listener, error) {
	return net.Listen(network, address)
}

// State remembers one component's few bytes across restarts: offsets, cursors. Its methods may be called concurrently.
type State interface {
	// Load returns what was saved last and its version; nothing and 0 if nothing was.
	Load() (data []byte, version uint64, err error)
	// Save replaces the state if it still has the given version, else fails with ErrStale, and returns the new version.
	// When it returns, data survives a crash of the process and of the machine.
	Save(data []byte, version uint64) (uint64, error)
}

// ErrStale is what Save returns when somebody else has saved since.
var ErrStale = errors.New("state was changed by somebody else")

type memoryState struct {
	mu      sync.Mutex
	data    []byte
	version uint64
}

func (s *memoryState) Load() ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.data), s.version, nil
}

func (s *memoryState) Save(data []byte, version uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version != s.version {
		return 0, ErrStale
	}
	s.data, s.version = slices.Clone(data), s.version+1
	return s.version, nil
}

// Telemetry is the agent's own telemetry. A component sees none that its own records cause on their way: so it cannot
// feed on itself.
type Telemetry interface {
	// Gather yields the current value of every instrument.
	Gather(yield func(metric.Point))
	// Subscribe calls f with every log record from now on, in the goroutine that logs: f must be quick and must not log.
	// If a component logs, the attribute "component" is its path, such as exporters.otlp/hub; trace_id and span_id are those
	// of the span that it logs in.
	Subscribe(f func(slog.Record)) (cancel func())
	// SubscribeSpans calls f with every span that ends from now on, in the goroutine that ends it: f must be quick and must
	// end none. The attribute "component" is as in log records. Spans are made while somebody subscribes.
	SubscribeSpans(f func(trace.Data)) (cancel func())
}
