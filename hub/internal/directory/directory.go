// Package directory knows who is there, as the control state has it: hubs, agents that are connected to one, and services that agents
// offer. It tells whoever watches what changes, and those who come back what has changed since.
//
// It writes nothing, and knows nothing of how entries come to be there. Each change has the revision of the control state, which is
// the same at every hub, so that who has watched at one can go on at another.
package directory

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

const (
	hubsPrefix     = "hubs/"     // hubs/<id>
	sessionsPrefix = "sessions/" // sessions/<agent>
	servicesPrefix = "services/" // services/<name>/<agent>
)

// Options configure a Directory. Store is required.
type Options struct {
	Store   state.Store
	Keep    int           // of the last changes, at least so many are told to who comes back; 0: 8192
	Batch   time.Duration // changes within this time are told together; 0: 100 ms
	Still   time.Duration // how often who watches hears that nothing has changed; 0: 15 s
	Log     *slog.Logger
	Metrics *metric.Set
}

// A Directory knows who is there. Its methods may be called concurrently.
type Directory struct {
	o           Options
	incarnation string
	stop        context.CancelFunc
	over        sync.WaitGroup
	group       []state.Entry // changes of a revision of which more follow; only who follows the control state has it

	mu       sync.Mutex
	entries  map[string]*api.DirectoryEntry // by key; none is ever changed
	revision int64                          // up to which all is known
	changes  []change                       // the last ones, oldest first; it grows, and is replaced
	from     int64                          // the revision after which they are all that there were
	changed  chan struct{}                  // closed when there are more
}

// A change is of one entry. before and after are nil where there was or is none.
type change struct {
	revision int64
	since    int64 // the revision as of which before was: the one before, or an earlier one if this hub has not heard of all between
	before   *api.DirectoryEntry
	after    *api.DirectoryEntry
}

// Open takes up who is there, and follows the control state. Close ends that.
func Open(ctx context.Context, o Options) (*Directory, error) {
	o.Keep, o.Batch, o.Still = cmp.Or(o.Keep, 8192), cmp.Or(o.Batch, 100*time.Millisecond), cmp.Or(o.Still, 15*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metric.NewSet()
	}
	d := &Directory{o: o, entries: make(map[string]*api.DirectoryEntry), changed: make(chan struct{})}
	var err error
	if d.incarnation, err = state.Incarnation(ctx, o.Store); err != nil {
		return nil, err
	}
	store := present{o.Store}
	list, revision, err := store.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask who is there: %w", err)
	}
	for _, e := range list {
		if x := d.read(e); x != nil {
			d.entries[e.Key] = x
		}
	}
	d.revision, d.from = revision, revision
	following, stop := context.WithCancel(context.Background())
	d.stop = stop
	// All is watched, because changes must come in their order. This hub follows most of it anyway.
	d.over.Go(func() { state.Follow(following, store, "", revision, o.Log, d.all, d.one) })
	o.Metrics.GaugeFunc("creel.hub.directory.entries", "Hubs, agents and services that are there.", "{entry}", func() float64 {
		d.mu.Lock()
		defer d.mu.Unlock()
		return float64(len(d.entries))
	})
	return d, nil
}

// Close ends it. Who watches is not told any more.
func (d *Directory) Close() {
	d.stop()
	d.over.Wait()
}

// present is a Store of which only that is listed which says who is there.
type present struct{ state.Store }

func (p present) List(ctx context.Context, _ ...string) ([]state.Entry, int64, error) {
	return p.Store.List(ctx, hubsPrefix, sessionsPrefix, servicesPrefix)
}

// value is what hubs write of each other, of agents and of services.
type value struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	URL     string            `json:"url"`
	Started time.Time         `json:"started"`
	Hub     string            `json:"hub"`
	Since   time.Time         `json:"since"`
	Labels  map[string]string `json:"labels"`
	Address string            `json:"address"`
	Tags    []string          `json:"tags"`
	Meta    map[string]string `json:"meta"`
	Weight  int               `json:"weight"`
}

// read returns what is said of somebody, nil if nobody is there.
func (d *Directory) read(e state.Entry) *api.DirectoryEntry {
	x := &api.DirectoryEntry{Revision: e.Revision}
	if id, ok := strings.CutPrefix(e.Key, hubsPrefix); ok {
		x.Kind, x.ID = api.KindHub, id
	} else if id, ok := strings.CutPrefix(e.Key, sessionsPrefix); ok {
		x.Kind, x.ID = api.KindAgent, id
	} else if rest, ok := strings.CutPrefix(e.Key, servicesPrefix); ok {
		x.Kind = api.KindService
		x.Service, x.ID, _ = strings.Cut(rest, "/")
	}
	if x.Kind == "" || e.Value == nil {
		return nil
	}
	var v value
	if err := json.Unmarshal(e.Value, &v); err != nil {
		d.o.Log.Error("what is said of somebody cannot be read and is left out", "key", e.Key, "error", err)
		return nil
	}
	x.Name, x.Labels, x.Hub, x.Since = v.Name, v.Labels, v.Hub, v.Since
	switch x.Kind {
	case api.KindHub:
		x.URL, x.Since = v.URL, v.Started
	case api.KindService:
		x.Address, x.Tags, x.Meta, x.Weight = v.Address, v.Tags, v.Meta, v.Weight
	}
	return x
}

// one takes in a change of the control state.
func (d *Directory) one(e state.Entry) {
	if d.group = append(d.group, e); e.More {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.group {
		d.put(e, e.Revision, e.Revision-1)
	}
	d.group = d.group[:0]
	d.reached(e.Revision)
}

// all takes in who is there as of a revision, when this hub has not heard of all changes up to it.
func (d *Directory) all(list []state.Entry, revision int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.group = d.group[:0]
	there := make(map[string]bool, len(list))
	for _, e := range list {
		there[e.Key] = true
		if old := d.entries[e.Key]; old == nil || old.Revision != e.Revision {
			d.put(e, revision, d.revision)
		}
	}
	var gone []string
	for key := range d.entries {
		if !there[key] {
			gone = append(gone, key)
		}
	}
	slices.Sort(gone)
	for _, key := range gone {
		d.put(state.Entry{Key: key}, revision, d.revision)
	}
	if n := len(d.changes); revision > d.revision && (n == 0 || d.changes[n-1].revision < revision) { // all is as it was, but something may have come and gone
		d.changes = append(d.changes, change{revision: revision, since: d.revision})
	}
	d.reached(revision)
}

// put notes what an entry is now. d.mu is held.
func (d *Directory) put(e state.Entry, revision, since int64) {
	before, after := d.entries[e.Key], d.read(e)
	switch {
	case before == nil && after == nil:
		return
	case after == nil:
		delete(d.entries, e.Key)
	default:
		d.entries[e.Key] = after
	}
	d.changes = append(d.changes, change{revision, since, before, after})
}

// reached notes that all is known up to a revision. d.mu is held.
func (d *Directory) reached(revision int64) {
	more := len(d.changes) > 0 && d.changes[len(d.changes)-1].revision > d.revision
	d.revision = revision
	if n := len(d.changes) - d.o.Keep; n > d.o.Keep {
		d.from = d.changes[n-1].revision
		d.changes = slices.Clone(d.changes[n:])
	}
	if more {
		close(d.changed)
		d.changed = make(chan struct{})
	}
}

// since returns the changes after a revision, up to another, and what is closed when there are more; not ok: they are not all known.
func (d *Directory) since(after int64) (list []change, revision int64, changed <-chan struct{}, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, _ := slices.BinarySearchFunc(d.changes, after+1, func(c change, r int64) int { return cmp.Compare(c.revision, r) })
	list = d.changes[i:len(d.changes):len(d.changes)]
	ok = after >= d.from && (len(list) == 0 || list[0].since >= after)
	return list, d.revision, d.changed, ok
}

// id names a revision of this control state.
func (d *Directory) id(revision int64) string { return fmt.Sprintf("%s.%d", d.incarnation, revision) }

// after returns the revision that an id names; none, which is before all, if that is not of this control state.
func (d *Directory) after(id string) int64 {
	incarnation, text, _ := strings.Cut(id, ".")
	revision, err := strconv.ParseInt(text, 10, 64)
	if err != nil || incarnation != d.incarnation {
		return none
	}
	return revision
}

// none is before all revisions.
const none = -1
