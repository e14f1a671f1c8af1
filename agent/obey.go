package agent

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/agent/change"
	"github.com/creelhq/creel/agent/life"
	"github.com/creelhq/creel/agent/requires"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/tlsconf"
)

// lifeFile is the file in the state directory that keeps what of the agent's life outlives the process.
const lifeFile = "life.json"

// transitions is how many of the last ones are kept.
const transitions = 50

// begin makes the state machine and the guards.
func (a *agent) begin() error {
	file := filepath.Join(a.Data, lifeFile)
	kept, err := life.Load(file)
	if err != nil {
		a.dir.setAside(file, err)
	}
	a.kept = kept
	a.life = life.New(transitions, func(t report.Transition) {
		a.log.Info("agent is "+t.To, "was", t.From, "event", t.Event, "cause", t.Cause)
		a.notify()
	}, kept.Holds()...)
	a.requires = requires.New(a.own.Requires, a.Data, a.listens, a.log)
	return nil
}

// startWhenReady starts with what the file says. Where that fails while something is missing that is required, it waits
// until it is there.
func (a *agent) startWhenReady(ctx context.Context, file change.Pieces) (begin []requires.Verdict, err error) {
	for {
		missing := false
		begin = a.requires.Check(ctx)
		for _, v := range begin {
			missing = missing || v.Err != nil
			a.required(v.Guard, v.Err)
		}
		a.engine.Pause(len(a.life.Life().Holds) > 0)
		err := a.changes.Start(ctx, file, a.hears)
		if err == nil {
			break
		}
		if !missing {
			return nil, err
		}
		if a.life.State() == life.Initializing {
			a.log.Warn("the agent cannot start while something is missing that agent.requires asks for; it waits", "error", err)
			_, _ = a.life.Fire(life.Ready, "") // it is held
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(a.own.Requires.Every):
		}
		if now, err := a.file(); err == nil {
			file = now
		}
	}
	if p, said := a.changes.Wanted(HubSource); said {
		a.terms.want(p)
	}
	_, _ = a.life.Fire(life.Ready, "") // it may have been held before
	a.started.Store(true)
	a.act()
	a.writeEndpoints()
	a.log.Info("agent runs", "id", a.dir.id, "version", a.Version, "config", a.Config, "data", a.Data, "state", a.life.State())
	return begin, nil
}

// listens tells whether the agent itself has an address, however it is written.
func (a *agent) listens(address string) bool {
	return slices.ContainsFunc(a.engine.Endpoints(), func(e report.Endpoint) bool { return sameAddress(e.Address, address) })
}

// sameAddress tells whether who listens at one address holds the other.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB {
		return a == b
	}
	plain := func(host string) string {
		switch ip := net.ParseIP(host); {
		case host == "" || ip != nil && ip.IsUnspecified():
			return ""
		case tlsconf.IsLoopback(host):
			return "localhost"
		}
		return host
	}
	hostA, hostB = plain(hostA), plain(hostB)
	return hostA == hostB || hostA == "" || hostB == ""
}

// required takes in what a guard says.
func (a *agent) required(guard string, err error) {
	party := "requires." + guard
	if err != nil {
		a.life.Hold(party, err.Error())
	} else {
		a.life.Release(party, "it is there again")
	}
	a.act()
}

// act does what the agent's state asks for.
func (a *agent) act() {
	a.acting.Lock()
	defer a.acting.Unlock()
	switch a.life.Due() {
	case life.Collect:
		a.engine.Pause(false)
		a.offer()
	case life.Pause:
		a.offer()
		a.engine.Pause(true)
	}
}

// ordered takes in what is asked for. It does not block: of several orders the last counts.
func (a *agent) ordered(o control.Order) {
	for {
		select {
		case a.orders <- o:
			return
		default:
		}
		select {
		case <-a.orders:
		default:
		}
	}
}

// order does what was asked for, but end: that is the caller's. What the hub has asked for is done once.
func (a *agent) order(o control.Order) (done bool) {
	a.mu.Lock()
	again := o.ID != "" && o.ID == a.kept.Order
	a.mu.Unlock()
	if again {
		return false
	}
	cause := o.Cause
	if o.By != "" {
		cause = strings.TrimSpace(cause + " (" + o.By + ")")
	}
	a.log.Info("order", "do", o.Do, "by", o.By, "cause", o.Cause)
	switch o.Do {
	case control.Pause, control.Drain:
		a.life.Hold(life.Operator, cause)
	case control.Resume:
		a.life.Release(life.Operator, cause)
	case control.Restart, control.Stop:
	default:
		a.log.Error("order ignored: this agent does not know how", "do", o.Do)
	}
	a.act()
	a.mu.Lock()
	a.kept.Hold = nil
	for _, h := range a.life.Life().Holds {
		if h.By == life.Operator {
			a.kept.Hold = &h
		}
	}
	if o.ID != "" {
		a.kept.Order = o.ID
	}
	kept := a.kept
	a.mu.Unlock()
	if err := kept.Save(func(v any) error { return WriteJSON(filepath.Join(a.Data, lifeFile), v) }); err != nil {
		a.log.Error("what was ordered is not kept: it is forgotten when the agent is started again", "error", err)
	}
	if o.Do == control.Drain {
		go a.flush()
	}
	a.notify()
	return true
}

// flush delivers what there is, while nothing more is collected.
func (a *agent) flush() {
	began := time.Now()
	if err := a.engine.Flush(a.serving); err != nil {
		a.log.Warn("not all was delivered", "error", err)
		return
	}
	a.log.Info("all is delivered", "took", time.Since(began).Round(time.Millisecond))
}
