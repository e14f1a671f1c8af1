// Package life is an agent's life as a state machine: where it is, what may happen there, and what is to be done then.
//
// It knows nothing of pipelines: what is to be done it tells whoever made something happen. That a component does not work
// is a matter of its health, and no event here.
package life

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel/report"
)

// The states of an agent.
const (
	Initializing = "initializing" // it opens what it consists of
	Running      = "running"      // it collects
	Paused       = "paused"       // it collects nothing, and delivers what it has
	Stopping     = "stopping"     // it collects nothing more, and tries for a while to deliver what it has
	Stopped      = "stopped"      // its last state
)

// Event is what happens to an agent.
type Event string

// The events. Of the first three the agent is told by Fire, of the others by Hold and Release.
const (
	Ready Event = "ready" // all is open; counts as held if there is a hold
	Stop  Event = "stop"  // it shall end
	Ended Event = "ended" // it is over, whether it was asked for or not

	held    Event = "held"    // all is open, but there is a hold
	hold    Event = "hold"    // there is a first hold
	release Event = "release" // there is no hold any more
)

// Action is what is to be done about an event. To do it twice is as good as once.
type Action string

// The actions.
const (
	None    Action = ""
	Collect Action = "collect" // let collectors collect
	Pause   Action = "pause"   // let them collect nothing; who sends to the agent is told to try later
	Drain   Action = "drain"   // stop collecting for good, deliver for a while, and close
)

// next is what an event leads to. The zero next is for what cannot happen.
type next struct {
	state  string
	action Action
}

type step struct {
	state string
	event Event
}

// The machine's table has every event in every state. Two invariants bound it: while an agent runs there is no hold, and
// while it is paused there is one.
var table = map[step]next{
	{Initializing, Ready}:   {Running, Collect},
	{Initializing, held}:    {Paused, Pause},
	{Initializing, hold}:    {Initializing, None}, // it counts when all is open
	{Initializing, release}: {Initializing, None},
	{Initializing, Stop}:    {Stopping, Drain},
	{Initializing, Ended}:   {Stopped, None}, // it could not start

	{Running, Ready}:   {},
	{Running, held}:    {},
	{Running, hold}:    {Paused, Pause},
	{Running, release}: {},
	{Running, Stop}:    {Stopping, Drain},
	{Running, Ended}:   {Stopped, None},

	{Paused, Ready}:   {},
	{Paused, held}:    {},
	{Paused, hold}:    {},
	{Paused, release}: {Running, Collect},
	{Paused, Stop}:    {Stopping, Drain},
	{Paused, Ended}:   {Stopped, None},

	{Stopping, Ready}:   {Stopping, None}, // too late
	{Stopping, held}:    {Stopping, None},
	{Stopping, hold}:    {Stopping, None},
	{Stopping, release}: {Stopping, None},
	{Stopping, Stop}:    {Stopping, None}, // it is impatient who asks twice
	{Stopping, Ended}:   {Stopped, None},

	{Stopped, Ready}:   {},
	{Stopped, held}:    {},
	{Stopped, hold}:    {Stopped, None}, // guards may still be on their way
	{Stopped, release}: {Stopped, None},
	{Stopped, Stop}:    {},
	{Stopped, Ended}:   {},
}

var (
	states = []string{Initializing, Running, Paused, Stopping, Stopped}
	events = []Event{Ready, held, hold, release, Stop, Ended}
)

// A Machine is one agent's life. Its methods may be called concurrently.
//
// What the methods return is to be done by the caller. Who calls them from several goroutines does, one after the other,
// what Due returns instead: then what is done last is what belongs to the state.
type Machine struct {
	told   func(report.Transition)
	most   int        // transitions that are kept
	change sync.Mutex // is held by who changes the state, until that is told

	mu      sync.Mutex // guards what follows
	state   string
	since   time.Time
	due     Action
	holds   []report.Hold
	history []report.Transition
}

// New returns a Machine that is initializing, with holds that are there from the start. It remembers so many transitions,
// the last ones. told, if it is not nil, is called with each of them, in order, before the method that made it returns; it
// may ask the Machine, but not change it.
func New(history int, told func(report.Transition), holds ...report.Hold) *Machine {
	if told == nil {
		told = func(report.Transition) {}
	}
	return &Machine{told: told, most: history, state: Initializing, since: time.Now(), holds: slices.Clone(holds)}
}

// Fire tells that an event has happened, which is Ready, Stop or Ended. One that cannot happen in the present state is
// ignored, and the error says so.
func (m *Machine) Fire(event Event, cause string) (Action, error) {
	m.change.Lock()
	defer m.change.Unlock()
	if event != Ready && event != Stop && event != Ended {
		return None, fmt.Errorf("ignore event %s: it is none that is fired", event)
	}
	m.mu.Lock()
	if event == Ready && len(m.holds) > 0 {
		event = held
		var causes []string
		for _, h := range m.holds {
			causes = append(causes, by(h.By, h.Cause))
		}
		cause = strings.Join(causes, "; ")
	}
	m.mu.Unlock()
	return m.fire(event, cause)
}

func by(party, cause string) string { return strings.TrimSuffix(party+": "+cause, ": ") }

// Hold tells that a party wants nothing to be collected, and why. Until it releases, nothing is, but while the agent is
// initializing. One that holds already gives another cause.
func (m *Machine) Hold(party, cause string) Action {
	m.change.Lock()
	defer m.change.Unlock()
	m.mu.Lock()
	i := m.find(party)
	if i >= 0 {
		m.holds[i].Cause = cause
	} else {
		m.holds = append(m.holds, report.Hold{By: party, Cause: cause, Since: time.Now()})
	}
	first := i < 0 && len(m.holds) == 1
	m.mu.Unlock()
	if !first {
		return None
	}
	return m.must(hold, by(party, cause))
}

// Release takes a party's hold back, if it has one.
func (m *Machine) Release(party, cause string) Action {
	m.change.Lock()
	defer m.change.Unlock()
	m.mu.Lock()
	i := m.find(party)
	if i >= 0 {
		m.holds = slices.Delete(m.holds, i, i+1)
	}
	last := i >= 0 && len(m.holds) == 0
	m.mu.Unlock()
	if !last {
		return None
	}
	return m.must(release, by(party, cause))
}

func (m *Machine) find(party string) int {
	return slices.IndexFunc(m.holds, func(h report.Hold) bool { return h.By == party })
}

// must fires an event that is possible in every state in which it is fired.
func (m *Machine) must(event Event, cause string) Action {
	action, err := m.fire(event, cause)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return action
}

// fire looks into the table. The caller has locked change.
func (m *Machine) fire(event Event, cause string) (Action, error) {
	from := m.state // nobody else changes it
	to := table[step{from, event}]
	switch to.state {
	case "":
		return None, fmt.Errorf("ignore event %s: it cannot happen when the agent is %s", event, from)
	case from:
		return None, nil
	}
	t := report.Transition{Time: time.Now(), From: from, To: to.state, Event: string(event), Cause: cause}
	m.mu.Lock()
	m.state, m.since, m.due = to.state, t.Time, to.action
	m.history = append(m.history, t)
	if len(m.history) > m.most {
		m.history = slices.Clone(m.history[len(m.history)-m.most:])
	}
	m.mu.Unlock()
	m.told(t)
	return to.action, nil
}

// State returns the present state.
func (m *Machine) State() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// Due returns what the last change of state asks for.
func (m *Machine) Due() Action {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.due
}

// Life returns a copy of all that is known; holds are in the order in which they began.
func (m *Machine) Life() report.Life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return report.Life{State: m.state, Since: m.since, Holds: slices.Clone(m.holds), History: slices.Clone(m.history)}
}

// Markdown returns the table of states and events for the documentation. What cannot happen is empty.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| state |")
	for _, e := range events {
		fmt.Fprintf(&b, " %s |", e)
	}
	b.WriteString("\n|" + strings.Repeat("---|", len(events)+1) + "\n")
	for _, s := range states {
		fmt.Fprintf(&b, "| **%s** |", s)
		for _, e := range events {
			switch to := table[step{s, e}]; to.state {
			case "":
				b.WriteString(" |")
			case s:
				b.WriteString(" stays |")
			default:
				fmt.Fprintf(&b, " %s: %s |", to.state, cmp.Or(to.action, "nothing to do"))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
