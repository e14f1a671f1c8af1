package registry

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
)

// This file is what agents offer to others: services/<name>/<agent>, under the lease of the agent's hub. An entry says of which
// session it is, and is written over only by that of a later one, so that a hub that is late ends nothing that another has begun.

const (
	servicesPrefix = "services/"
	maxServices    = 64      // of an agent
	maxService     = 8 << 10 // bytes of an entry

	// handover is how long an agent's services stay here that has gone to another hub, which is to write them over meanwhile.
	handover = time.Second
)

// service is what is kept of one.
type service struct {
	control.Service
	Host    string            `json:"name"` // the agent's name
	Labels  map[string]string `json:"labels"`
	Hub     string            `json:"hub"`
	Since   time.Time         `json:"since"`
	Session int64             `json:"session"` // its revision
}

// written is an entry as this hub has written it.
type written struct {
	text     string // of the service, without Since and Session
	since    time.Time
	revision int64
	under    *state.Lease // on which the entry hangs
}

// serves takes in what an agent offers. a.mu is held.
func (a *agent) serves(list []control.Service) {
	a.services = nil
	for _, s := range list {
		err := center.Instance{Service: s.Name, ID: a.ID, Address: s.Address, Tags: s.Tags, Meta: s.Meta, Weight: s.Weight}.Check()
		switch {
		case err == nil && len(encodeJSON(s)) > maxService:
			err = errors.New("it is too large")
		case err == nil && len(a.services) == maxServices:
			err = errors.New("the agent offers too many")
		}
		if err != nil {
			a.r.o.Log.Warn("a service that an agent offers is left out", "agent", a.ID, "name", a.Name, "error", err)
			continue
		}
		a.services = append(a.services, s)
	}
	a.saveServices()
}

// saveServices has it written what the agent offers. a.mu is held.
func (a *agent) saveServices() {
	a.owed.services = true
	a.r.keeper.add(a)
}

// handOver has what the agent offers taken away here soon, if the hub to which it has gone has not. a.mu is held.
func (a *agent) handOver() {
	time.AfterFunc(handover, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.saveServices()
	})
}

// keepServices makes what the agent offers be there, if the agent is here and that is written, and nothing else that this hub has
// written of it. a.written is only used here, and so by one goroutine at a time.
func (a *agent) keepServices(ctx context.Context) error {
	a.mu.Lock()
	due := a.owed.services
	here := a.here()
	if !due || a.held && !here { // it is looked at again when its session is written
		a.mu.Unlock()
		return nil
	}
	a.owed.services = false
	session, want := a.session.revision, make(map[string]service)
	if here {
		for _, s := range a.services {
			want[s.Name] = service{Service: s, Host: a.Name, Labels: a.Labels, Hub: a.r.o.Hub}
		}
	}
	a.mu.Unlock()
	var errs []error
	for name, w := range a.written {
		if _, ok := want[name]; !ok {
			errs = append(errs, a.withdraw(ctx, name, w))
		}
	}
	for name, s := range want {
		errs = append(errs, a.offered(ctx, name, s, session))
	}
	err := errors.Join(errs...)
	if err != nil {
		a.mu.Lock()
		a.owed.services = true
		a.mu.Unlock()
	}
	return err
}

// withdraw deletes an entry, unless it is not this hub's any more.
func (a *agent) withdraw(ctx context.Context, name string, w written) error {
	err := a.r.o.Store.Delete(ctx, a.serviceKey(name), state.Unchanged(w.revision))
	if err == nil || errors.Is(err, state.ErrConflict) {
		delete(a.written, name)
		return nil
	}
	return err
}

// offered writes an entry, unless it is as it should be, or of a later session.
func (a *agent) offered(ctx context.Context, name string, s service, session int64) error {
	text, w := string(encodeJSON(s)), a.written[name]
	if w.text == text {
		select {
		case <-w.under.Lost():
		default:
			return nil
		}
	}
	key, store := a.serviceKey(name), a.r.o.Store
	s.Session, s.Since = session, w.since
	if s.Since.IsZero() {
		s.Since = time.Now().UTC()
	}
	for range attempts {
		before, err := store.Get(ctx, key)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		var there service
		if err == nil && json.Unmarshal(before.Value, &there) == nil && there.Session > session {
			return nil // the agent is elsewhere, as will be heard
		}
		lease := store.Lease()
		revision, err := store.Put(ctx, key, encodeJSON(s), true, state.Unchanged(before.Revision))
		if err == nil {
			if a.written == nil {
				a.written = make(map[string]written)
			}
			a.written[name] = written{text, s.Since, revision, lease}
			return nil
		}
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
	return state.ErrConflict
}

func (a *agent) serviceKey(name string) string { return servicesPrefix + name + "/" + a.ID }
