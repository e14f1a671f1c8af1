package api

import (
	"context"
	"time"
)

// The values of DirectoryEntry.Kind.
const (
	KindHub     = "hub"
	KindAgent   = "agent"
	KindService = "service"
)

// DirectoryEntry is somebody who is there: a hub, an agent that is connected to one, or a service that an agent offers. Kind, Service
// and ID together tell it from all others.
type DirectoryEntry struct {
	Kind     string            `json:"kind" doc:"hub, agent or service."`
	Service  string            `json:"service,omitempty" doc:"Of a service, its name."`
	ID       string            `json:"id" doc:"Of the hub, or of the agent, which may offer several services."`
	Name     string            `json:"name,omitempty" doc:"Of the host, or what a foreign agent calls itself."`
	Address  string            `json:"address,omitempty" doc:"Of a service: host:port."`
	URL      string            `json:"url,omitempty" doc:"Of a hub; none if others cannot reach it."`
	Labels   map[string]string `json:"labels,omitempty" doc:"Of the agent."`
	Tags     []string          `json:"tags,omitempty" doc:"Of a service: words that others choose by."`
	Meta     map[string]string `json:"meta,omitempty" doc:"Of a service: what else others are to know."`
	Weight   int               `json:"weight,omitempty" doc:"Of a service: its share of what there is to do, against the others'."`
	Hub      string            `json:"hub,omitempty" doc:"The id of the hub that the agent is connected to."`
	Since    time.Time         `json:"since" doc:"When the hub was started, the agent has connected, or the service was offered first by that connection."`
	Revision int64             `json:"revision" doc:"Of the control state, when this entry changed last. All hubs give the same."`
}

// Directory is who is there as of a revision.
type Directory struct {
	ID       string           `json:"id" doc:"What to watch after, at any hub, to hear of all that changes from here."`
	Revision int64            `json:"revision" doc:"Of the control state."`
	Entries  []DirectoryEntry `json:"entries" doc:"By kind, service and id."`
}

// DirectoryQuery says which entries are meant.
type DirectoryQuery struct {
	Kind    string `query:"kind" doc:"Only hub, agent or service."`
	Service string `query:"service" doc:"Only services of this name."`
	Label   string `query:"label" doc:"Only agents with all these labels, and their services: key=value, separated by commas."`
}

// DirectoryWatch says what to watch, and from where.
type DirectoryWatch struct {
	DirectoryQuery
	After string `query:"after" doc:"The id of the last event that was seen, of whichever hub. The header Last-Event-ID counts before it."`
}

// The values of DirectoryEvent.Event.
const (
	DirectoryAll    = "all"    // forget what was known: these are all entries
	DirectoryPut    = "put"    // an entry is new, or another
	DirectoryDelete = "delete" // an entry is gone
	DirectoryAt     = "at"     // nothing has changed up to here
)

// DirectoryEvent is a change of the directory.
type DirectoryEvent struct {
	Event    string           `json:"event" doc:"The same as the event's: all, put, delete, or at, which says that nothing has changed up to there."`
	ID       string           `json:"id,omitempty" doc:"The same as the event's: what to watch after. None if another event of the same revision follows."`
	Revision int64            `json:"revision" doc:"Of the control state."`
	Entries  []DirectoryEntry `json:"entries,omitzero" doc:"Of all: what there is, by kind, service and id."`
	Entry    *DirectoryEntry  `json:"entry,omitempty" doc:"Of put: as it is now. Of delete: as it was last."`
}

// Directory returns who is there.
func (c *Client) Directory(ctx context.Context, q DirectoryQuery) (Directory, error) {
	return get[Directory](ctx, c, "/directory", q)
}

// directorySilence is that of a hub that says every 15 seconds that it is there: then it is asked anew.
const directorySilence = 45 * time.Second

// WatchDirectory calls f with who is there and then with every change, until ctx is done, f fails, or a hub says that who asks may
// not. When the hub goes away it asks it again, or the next of c.Others, and goes on where it was; those of them that do not know the
// token are passed over. after is the ID of an event that was seen before, "" to begin with a DirectoryAll; that also comes when what has changed since is not known any more.
func (c *Client) WatchDirectory(ctx context.Context, q DirectoryQuery, after string, f func(DirectoryEvent) error) error {
	return c.goOn(ctx, func(hub *Client, note func(error) error) error {
		return hub.watchDirectory(ctx, DirectoryWatch{q, after}, func(e DirectoryEvent) error {
			var err error
			if e.Event != DirectoryAt {
				err = f(e)
			}
			if err == nil && e.ID != "" {
				after = e.ID
			}
			return note(err)
		})
	})
}

// watchDirectory watches as long as the hub says anything.
func (c *Client) watchDirectory(ctx context.Context, q DirectoryWatch, f func(DirectoryEvent) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silent := time.AfterFunc(directorySilence, cancel)
	defer silent.Stop()
	return watch(ctx, c, "/directory/watch", q, func(e DirectoryEvent) error {
		silent.Stop() // f may take its time
		defer silent.Reset(directorySilence)
		return f(e)
	})
}
