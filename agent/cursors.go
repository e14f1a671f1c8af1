package agent

import (
	"cmp"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/control"
)

// This file is how a placed document goes on where it is next: what its collectors have saved is told to the hub, and whoever gets the
// document is given it before they open.

// left is how long what was saved of a document is told that the agent has no more: the hub that hears that it has let go hears with it
// how far it has come.
const left = 10 * time.Minute

// cursors are what collectors of placed documents have saved last.
type cursors struct {
	mu sync.Mutex
	of map[string]saved // by collectors' paths
}

type saved struct {
	control.Cursor
	at time.Time
}

// note takes in what a collector has saved.
func (c *cursors) note(x control.Cursor) (fits bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fits = len(x.Data) <= control.MaxCursor; !fits {
		delete(c.of, x.Component)
		return false
	}
	if c.of == nil {
		c.of = make(map[string]saved)
	}
	if x.Epoch == 0 { // it closes: the document is not the agent's any more
		x.Epoch = c.of[x.Component].Epoch
	}
	c.of[x.Component] = saved{x, time.Now()}
	return true
}

// list returns all, by path, of documents that the agent has, or has had a while ago.
func (c *cursors) list(has func(document string) bool) (list []control.Cursor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for path, x := range c.of {
		if time.Since(x.at) > left && !has(x.Document) {
			delete(c.of, path)
			continue
		}
		list = append(list, x.Cursor)
	}
	slices.SortFunc(list, func(a, b control.Cursor) int { return cmp.Compare(a.Component, b.Component) })
	return list
}

// saved returns what the hub is to be told.
func (a *agent) saved() []control.Cursor {
	return a.cursors.list(func(document string) bool { return a.terms.tenure(document).Epoch > 0 })
}

// stateOf returns the state of a component. document is that of which it is a collector whose state is portable, "" if it is of none.
func (a *agent) stateOf(component, document string) creel.State {
	s := a.dir.component(component)
	t := a.terms.tenure(document)
	if t.Epoch == 0 {
		return s
	}
	if err := a.dir.hand(component, t.Epoch, control.DecodeCursors(t.Cursor)[component]); err != nil {
		a.log.Error("how far another agent has come with a collector cannot be kept: it goes on from where this agent was", "component", component, "document", document, "error", err)
	}
	h := &handedState{State: s, a: a, component: component, document: document}
	if data, _, err := s.Load(); err == nil && len(data) > 0 {
		h.note(data)
	}
	return h
}

// A handedState is that of a placed document's collector.
type handedState struct {
	creel.State
	a                   *agent
	component, document string
	large               sync.Once
}

// Save is that of the agent's own state, and has the hub told.
func (h *handedState) Save(data []byte, version uint64) (uint64, error) {
	version, err := h.State.Save(data, version)
	if err == nil {
		h.note(data)
	}
	return version, err
}

func (h *handedState) note(data []byte) {
	x := control.Cursor{Document: h.document, Epoch: h.a.terms.tenure(h.document).Epoch, Component: h.component, Data: slices.Clone(data)}
	if !h.a.cursors.note(x) {
		h.large.Do(func() {
			h.a.log.Warn("what a collector has saved is too large to be handed over: another agent that gets the document begins anew", "component", h.component, "document", h.document, "bytes", len(data), "limit", control.MaxCursor)
		})
	}
}

// hand gives a component what another agent has saved of it, once in an epoch; nil: nobody has. What was saved here before is older:
// the document was elsewhere since.
func (d *stateDir) hand(component string, epoch int64, data []byte) error {
	file := filepath.Join(d.path, "state", ".epoch-"+url.PathEscape(component))
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if before, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && before == epoch {
		return nil
	}
	for s := d.component(component); data != nil; {
		_, version, err := s.Load()
		if err == nil {
			_, err = s.Save(data, version)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, creel.ErrStale) {
			return err
		}
	}
	return WriteFile(file, []byte(strconv.FormatInt(epoch, 10)+"\n"))
}
