// Package center is what an agent knows of places that many share: a Source of documents of configuration that change, a
// Registry of services and who offers them, or both. Each place is a package below this one, a value that a main hands to
// the agent: a file, an HTTP server, etcd, Consul, Nacos, Eureka, the DNS, a list.
//
// It knows nothing of what documents and services mean, nor of what an agent does with them.
package center

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/creelhq/creel/config"
)

// A Document is a piece of configuration that a center holds.
type Document struct {
	Name string // unique in its center: a key, a path. Errors call it so
	Text []byte // YAML, or JSON if Name ends in .json
}

// A Snapshot is all that a Source has to say at one moment. It is immutable.
type Snapshot struct {
	Revision  string     // as the center counts, to be shown: etcd's revision, an ETag, Consul's index
	Documents []Document // by name
}

// A Source tells what a center says.
type Source interface {
	// Watch calls f with what the center says, and again whenever that is different, until ctx is done; it returns then.
	// It connects, tries again with backoff, and tells of trouble with Host.Health. While the center is away, or says
	// what cannot be true, f is not called: nothing changes. f returns soon; it is not called concurrently.
	Watch(ctx context.Context, f func(Snapshot))
}

// Host is what the agent lends to a Source or a Registry.
type Host struct {
	ID     string          // of the center, such as etcd/main
	Log    *slog.Logger    // nil: none; carries the id
	Health func(err error) // told when something does not work, and nil when it works again; nil: nobody is
	Last   *Snapshot       // what a Source has said in an earlier run of the process; nil: nothing
}

// A Center is a value, as a creel.Plugin is: a kind of place that holds configuration, or knows who offers a service.
type Center struct {
	Name   string // as written in a configuration: agent.centers.etcd
	Doc    string // one sentence
	Config config.Schema

	// Open makes a Source with the options that Config.Check returned. It does not connect. An error says why a center with
	// these options holds no documents. nil: none ever does.
	Open func(cfg []byte, h Host) (Source, error)

	// Registry makes a Registry likewise. nil: it is none.
	Registry func(cfg []byte, h Host) (Registry, error)
	// ReadOnly says that nobody can register there: what it lists comes about in other ways.
	ReadOnly bool
}

// Common are the options of every center.
type Common struct {
	AllowEmpty bool `doc:"Believe a center that suddenly has no document at all, or an empty one. Otherwise that is taken for a mistake, and what runs goes on. A service that suddenly nobody offers is believed after 90 seconds, or at once with this." default:"false"`
}

// New returns a Center whose options are of type C. It is a Source, if open is not nil, and a Registry, if registry is not.
func New[C any](name, doc string, open func(C, Host) (Source, error), registry func(C, Host) (Registry, error)) Center {
	return Center{Name: name, Doc: doc, Config: config.Of[C](), Open: decoding(open), Registry: decoding(registry)}
}

// NewReadOnly returns a Center that is a Registry with which nobody can register, and nothing else.
func NewReadOnly[C any](name, doc string, registry func(C, Host) (Registry, error)) Center {
	c := New(name, doc, nil, registry)
	c.ReadOnly = true
	return c
}

// decoding returns open for options that are not decoded yet; nil for nil.
func decoding[C, R any](open func(C, Host) (R, error)) func([]byte, Host) (R, error) {
	if open == nil {
		return nil
	}
	return func(cfg []byte, h Host) (none R, _ error) {
		c, err := config.Decode[C](cfg)
		if err != nil {
			return none, fmt.Errorf("decode options: %w", err)
		}
		if h.Log == nil {
			h.Log = slog.New(slog.DiscardHandler)
		}
		if h.Health == nil {
			h.Health = func(error) {}
		}
		return open(c, h)
	}
}
