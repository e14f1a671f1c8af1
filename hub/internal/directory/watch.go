package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/documents"
)

// ErrSlow is what Watch returns when it cannot tell any more what has changed: who watches was too slow, or this hub has missed
// something. Who comes back hears all anew.
var ErrSlow = errors.New("what has changed is not known any more: watch again")

// view is the entries that somebody sees.
type view struct {
	within expr.Selector
	q      api.DirectoryQuery
	labels map[string]string
}

// viewOf checks a query. The error is an *api.Error.
func viewOf(within expr.Selector, q api.DirectoryQuery) (view, error) {
	v := view{within: within, q: q, labels: make(map[string]string)}
	if kinds := []string{"", api.KindHub, api.KindAgent, api.KindService}; !slices.Contains(kinds, q.Kind) {
		return v, &api.Error{Code: "bad_request", Message: fmt.Sprintf("kind must be hub, agent or service, got %q", q.Kind)}
	}
	for _, pair := range strings.FieldsFunc(q.Label, func(c rune) bool { return c == ',' }) {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return v, &api.Error{Code: "bad_request", Message: fmt.Sprintf("label must be key=value, separated by commas, got %q", pair)}
		}
		v.labels[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return v, nil
}

// sees reports whether an entry is there and can be seen. Hubs have no labels: who sees only some agents sees none.
func (v view) sees(e *api.DirectoryEntry) bool {
	if e == nil || v.q.Kind != "" && e.Kind != v.q.Kind || v.q.Service != "" && e.Service != v.q.Service {
		return false
	}
	for key, value := range v.labels {
		if have, ok := e.Labels[key]; !ok || have != value {
			return false
		}
	}
	if v.within.IsZero() {
		return true
	}
	labels := maps.Clone(e.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	labels[documents.AgentLabel] = e.ID
	return e.Kind != api.KindHub && v.within.Match(labels)
}

// List returns who is there, of those whose labels meet a condition. The error is an *api.Error about q.
func (d *Directory) List(within expr.Selector, q api.DirectoryQuery) (api.Directory, error) {
	v, err := viewOf(within, q)
	if err != nil {
		return api.Directory{}, err
	}
	return d.list(v), nil
}

func (d *Directory) list(v view) api.Directory {
	d.mu.Lock()
	x := api.Directory{ID: d.id(d.revision), Revision: d.revision, Entries: []api.DirectoryEntry{}}
	for _, e := range d.entries {
		if v.sees(e) {
			x.Entries = append(x.Entries, *e)
		}
	}
	d.mu.Unlock()
	slices.SortFunc(x.Entries, func(a, b api.DirectoryEntry) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Service, b.Service), cmp.Compare(a.ID, b.ID))
	})
	return x
}

// events are the changes that a view sees: an entry that it does not see any more is gone for it.
func (d *Directory) events(v view, changes []change) (list []api.DirectoryEvent) {
	for _, c := range changes {
		switch {
		case v.sees(c.after):
			list = append(list, api.DirectoryEvent{Event: api.DirectoryPut, Revision: c.revision, Entry: c.after})
		case v.sees(c.before):
			list = append(list, api.DirectoryEvent{Event: api.DirectoryDelete, Revision: c.revision, Entry: c.before})
		}
	}
	for i := range list {
		if i+1 == len(list) || list[i+1].Revision != list[i].Revision {
			list[i].ID = d.id(list[i].Revision)
		}
	}
	return list
}

// Watch calls send with what has changed since q.After, or with all if that is not known, and then with what changes, until ctx is
// done or send fails. It waits for send: who is too slow is let go with ErrSlow. The entries must not be changed. Only those are told of
// whose labels meet a condition. Another error is an *api.Error about q.
func (d *Directory) Watch(ctx context.Context, within expr.Selector, q api.DirectoryWatch, send func([]api.DirectoryEvent) error) error {
	v, err := viewOf(within, q.DirectoryQuery)
	if err != nil {
		return err
	}
	still := time.NewTicker(d.o.Still)
	defer still.Stop()
	at, told := d.after(q.After), false
	for {
		changes, revision, changed, ok := d.since(at)
		var events []api.DirectoryEvent
		switch {
		case ok:
			events, at = d.events(v, changes), max(at, revision) // after may be ahead of this hub
		case told:
			return ErrSlow
		default:
			all := d.list(v)
			events, at = []api.DirectoryEvent{{Event: api.DirectoryAll, ID: all.ID, Revision: all.Revision, Entries: all.Entries}}, all.Revision
		}
		if !told && len(events) == 0 {
			events = d.nothing(at)
		}
		if len(events) > 0 {
			if err := send(events); err != nil {
				return err
			}
		}
		told = true
		for waiting := true; waiting; {
			select {
			case <-changed:
				waiting = false
			case <-still.C:
				if changes, revision, _, ok := d.since(at); ok && len(changes) == 0 {
					at = max(at, revision)
				}
				if err := send(d.nothing(at)); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-time.After(d.o.Batch): // more may follow
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nothing says that nothing has changed up to a revision.
func (d *Directory) nothing(at int64) []api.DirectoryEvent {
	return []api.DirectoryEvent{{Event: api.DirectoryAt, ID: d.id(at), Revision: at}}
}
