// Package center is what an agent knows of places that hold configuration for many: a Source of documents that change.
// Each place is a package below this one, a value that a main hands to the agent: a file, an HTTP server, etcd, Consul,
// Nacos.
//
// It knows nothing of what the documents mean, nor of what an agent does with them.
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

// Host is what the agent lends to a Source.
type Host struct {
	ID     string          // of the center, such as etcd/main
	Log    *slog.Logger    // nil: none; carries the id
	Health func(err error) // told when something does not work, and nil when it works again; nil: nobody is
	Last   *Snapshot       // what it has said in an earlier run of the process; nil: nothing
}

// A Center is a value, as a creel.Plugin is: a kind of place that holds configuration.
type Center struct {
	Name   string // as written in a configuration: agent.centers.etcd
	Doc    string // one sentence
	Config config.Schema

	// Open makes a Source with the options that Config.Check returned. It does not connect.
	Open func(cfg []byte, h Host) (Source, error)
}

// Common are the options of every center.
type Common struct {
	AllowEmpty bool `doc:"Believe a center that suddenly has no document at all, or an empty one. Otherwise that is taken for a mistake, and what runs goes on." default:"false"`
}

// New returns a Center whose options are of type C.
func New[C any](name, doc string, open func(C, Host) (Source, error)) Center {
	return Center{Name: name, Doc: doc, Config: config.Of[C](), Open: func(cfg []byte, h Host) (Source, error) {
		c, err := config.Decode[C](cfg)
		if err != nil {
			return nil, fmt.Errorf("decode options: %w", err)
		}
		if h.Log == nil {
			h.Log = slog.New(slog.DiscardHandler)
		}
		if h.Health == nil {
			h.Health = func(error) {}
		}
		return open(c, h)
	}}
}
