package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent/identity"
	"github.com/creelhq/creel/control"
)

// hubsFile is the file in the state directory that keeps which hubs there are: when the agent is started again while the one that
// its configuration names is gone, it goes to another.
const hubsFile = "hubs.json"

// hubsRecord is what the file says.
type hubsRecord struct {
	Version int             `json:"version"`          // of this format: 1
	Of      []string        `json:"of"`               // Hub.sources, which have led to them
	Joined  string          `json:"joined,omitempty"` // the URL of the hub that the agent has joined, if they are that one and its like
	Hubs    []control.HubAt `json:"hubs"`
}

// knownHubs are the hubs that the agent knows. It is a creel.Hubs. Its methods may be called concurrently.
type knownHubs struct {
	agent  string
	of     []string
	joined string             // see hubsRecord
	who    *identity.Identity // nil: joined is empty
	file   string
	log    *slog.Logger
	write  chan struct{} // holds one when the file is to be written

	mu      sync.Mutex // guards what follows
	hubs    []control.HubAt
	list    []creel.Hub
	changed chan struct{}
}

// knownHubs returns what an earlier run has kept, if it is of the hubs that the configuration names; else only what the identity
// knows.
func (a *agent) knownHubs() *knownHubs {
	k := &knownHubs{
		agent: a.dir.id, of: a.own.Hub.sources(), file: filepath.Join(a.Data, hubsFile), log: a.hubLog(),
		write: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	var r hubsRecord
	text, err := os.ReadFile(k.file)
	if err == nil {
		if err = json.Unmarshal(text, &r); err != nil || r.Version != 1 {
			k.log.Warn("the list of hubs that was kept is of no use; a hub tells it again", "file", k.file, "error", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("the list of hubs that was kept cannot be read; a hub tells it again", "error", err)
	}
	lead := append(urlsOf(r.Hubs), r.Of...)
	if r.Version != 1 || a.Stay || !slices.ContainsFunc(k.of, func(of string) bool { return slices.Contains(r.Of, of) || isAmong(of, lead) }) {
		r = hubsRecord{}
	}
	if i := a.joined; i != nil {
		if at := i.Addresses(); a.own.Hub.TLS.Identity || isAmong(at.URL, k.of) || isAmong(at.URL, lead) && r.Version == 1 || r.Joined == at.URL {
			k.joined, k.who = at.URL, i
			if len(r.Hubs) == 0 {
				r.Hubs = []control.HubAt{{Addresses: at}}
			}
		}
	}
	k.take(r.Hubs, "")
	return k
}

// sources are the hubs that the configuration names, or the place where they are found.
func (h Hub) sources() []string {
	if h.Discover.Center != "" {
		return []string{h.Discover.Center + " " + h.Discover.Service}
	}
	return h.URL
}

// isAmong reports whether a hub is one of those at some URLs.
func isAmong(url string, urls []string) bool {
	return slices.ContainsFunc(urls, func(u string) bool { return sameHub(url, u) })
}

func urlsOf(hubs []control.HubAt) (urls []string) {
	for _, h := range hubs {
		if h.URL != "" {
			urls = append(urls, h.URL)
		}
	}
	return urls
}

// known returns the hubs.
func (k *knownHubs) known() []control.HubAt {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.hubs
}

// learn is told which hubs there are, and at which the agent is. If a hub tells of none, what is known stays.
func (k *knownHubs) learn(hubs []control.HubAt, at string) {
	before := k.known()
	if len(hubs) == 0 {
		hubs = before
	}
	k.take(hubs, at)
	if !slices.EqualFunc(before, k.known(), func(a, b control.HubAt) bool { return a.ID == b.ID && a.Addresses == b.Addresses }) {
		select {
		case k.write <- struct{}{}:
		default:
		}
	}
}

// take puts the hubs into the order in which this agent prefers them.
func (k *knownHubs) take(hubs []control.HubAt, at string) {
	hubs = slices.Clone(hubs)
	for i := range hubs {
		if h := &hubs[i]; k.who != nil && h.OTLPGRPC == "" && h.OTLPHTTP == "" && sameHub(h.URL, k.joined) {
			h.Addresses = k.who.Addresses() // it may not have known when it said so
		}
	}
	ids := make([]string, len(hubs))
	for i, h := range hubs {
		ids[i] = h.ID
	}
	order := creel.Rendezvous(k.agent, ids)
	rank := func(h control.HubAt) int {
		switch {
		case h.Draining:
			return len(hubs) + 1
		case h.ID == at:
			return -1
		}
		return slices.Index(order, h.ID)
	}
	sorted := slices.SortedStableFunc(slices.Values(hubs), func(a, b control.HubAt) int { return rank(a) - rank(b) })
	list := make([]creel.Hub, len(sorted))
	for i, h := range sorted {
		list[i] = creel.Hub{ID: h.ID, OTLPGRPC: h.OTLPGRPC, OTLPHTTP: h.OTLPHTTP, Secure: strings.HasPrefix(h.URL, "https:"), Leave: h.Draining}
	}
	if k.who != nil {
		k.who.Follow(urlsOf(sorted))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hubs = hubs
	if !slices.Equal(list, k.list) {
		k.list = list
		close(k.changed)
		k.changed = make(chan struct{})
	}
}

// Hubs returns the hubs, the one to be preferred first.
func (k *knownHubs) Hubs() ([]creel.Hub, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list, k.changed
}

// keep writes the file whenever there are other hubs, until ctx is done.
func (k *knownHubs) keep(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-k.write:
		}
		if err := WriteJSON(k.file, hubsRecord{Version: 1, Of: k.of, Joined: k.joined, Hubs: k.known()}); err != nil {
			k.log.Warn("which hubs there are is not kept", "error", err)
		}
	}
}
