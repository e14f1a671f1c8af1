package change

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/report"
)

// Start applies what the file says, with what the other sources have said last. Where that has failed before, what has
// proved good last takes its place. A source that is not known any more has nothing to say. The error is Build's or
// Apply's: nothing runs then, and it may be called again.
func (m *Manager[C]) Start(ctx context.Context, file Pieces, known func(source string) bool) error {
	m.attempt.Lock()
	defer m.attempt.Unlock()
	if err := m.load(); err != nil {
		return err
	}
	began := time.Now()
	m.mu.Lock()
	set := m.kept.Running.with(File, file)
	maps.DeleteFunc(set, func(name string, _ Pieces) bool { return name != File && !known(name) })
	for name, p := range set {
		m.want(name, "", p).tried = 1
	}
	set, why := m.withoutFailed(set)
	t := m.trial(set)
	m.mu.Unlock()

	r, err := m.apply(ctx, t, set)
	if err != nil && len(set) > 1 && m.kept.Good != nil && m.kept.Good.Hash() != set.Hash() {
		m.o.Log.Error("the configuration cannot be run; the last good one takes its place", "error", err)
		why = append(why, err.Error())
		good, e := m.apply(ctx, m.trial(m.kept.Good), m.kept.Good)
		if e == nil {
			r, err, set = good, nil, m.kept.Good
		}
	}
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.past.length == 0 || m.kept.Good != nil && m.kept.Good.Hash() == set.Hash() {
		m.good()
	} else { // there is no minute before that it could be compared with: only crashes count
		m.probation = &probation{until: began.Add(m.past.length), before: &window{}, after: &window{length: m.past.length}}
	}
	r.Time, r.Source, r.Hash, r.Took = began.UTC(), "start", set.Hash(), time.Since(began)
	for name, s := range m.sources {
		s.status = running
		if s.wanted.Hash() != set[name].Hash() {
			s.status, s.err, s.since = rolledBack, strings.Join(why, "; "), time.Now()
			r.Outcome, r.Error = report.RolledBack, s.err
		}
	}
	for name, o := range m.kept.Refused { // it is told again, and may be right by now
		if known(name) {
			m.want(name, o.Revision, o.Pieces)
			m.hurry()
		}
	}
	m.note(r)
	return nil
}

// load reads what an earlier process has kept, and counts its crash if it has crashed.
func (m *Manager[C]) load() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loaded {
		return nil
	}
	if err := m.o.Load(&m.kept); err != nil {
		return err
	}
	if m.kept.Format > format {
		return fmt.Errorf("read the kept configuration: it is of format %d, and this creel knows %d: run the newer creel, or remove it", m.kept.Format, format)
	}
	if m.kept.Crashes == nil {
		m.kept.Crashes = make(map[string]int)
	}
	m.loaded = true
	if t := m.kept.Trying; t != nil && !t.Clean {
		m.kept.Crashes[t.Hash]++
		if n := m.kept.Crashes[t.Hash]; n >= maxCrashes && m.kept.Good != nil && m.kept.Good[t.Source].Hash() != t.Hash {
			m.fail(t.Hash, fmt.Sprintf("the agent ended %d times without being stopped, before this had proved good", n))
		}
		m.save() // it may crash again before it comes to anything
	}
	return nil
}

// withoutFailed puts the last good pieces in the place of those that have failed, and says why. m.mu is held.
func (m *Manager[C]) withoutFailed(set Set) (Set, []string) {
	var why []string
	if m.kept.Good == nil {
		return set, nil
	}
	for _, name := range set.Sources() {
		hash := set[name].Hash()
		if m.kept.Good[name].Hash() == hash {
			continue
		}
		if reason := m.failed(hash); reason != "" {
			why = append(why, fmt.Sprintf("configuration of %s: %s", name, reason))
			set = set.with(name, m.kept.Good[name])
		}
	}
	return set, why
}

// trial returns what a crash shall be blamed on when a set is run from the start. m.mu is held, or nothing runs yet.
func (m *Manager[C]) trial(set Set) trial {
	if t := m.kept.Trying; t != nil && set[t.Source].Hash() == t.Hash {
		return trial{Source: t.Source, Hash: t.Hash}
	}
	return trial{Source: File, Hash: set[File].Hash()}
}

// Run makes the changes that are offered, and watches them, until ctx is done.
func (m *Manager[C]) Run(ctx context.Context) {
	timer := time.NewTimer(m.step())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
			m.tryAll(ctx)
		case <-timer.C:
			m.observe(ctx)
		}
		timer.Reset(m.step())
	}
}

// Stop notes that the process ends as it should, so that it does not count as a crash. Run must have returned.
func (m *Manager[C]) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept.Trying != nil {
		m.kept.Trying.Clean = true
		m.save()
	}
}

// tryAll makes all changes that are offered.
func (m *Manager[C]) tryAll(ctx context.Context) {
	m.attempt.Lock()
	defer m.attempt.Unlock()
	for ctx.Err() == nil {
		name := ""
		m.mu.Lock()
		for n, s := range m.sources {
			if s.tried < s.asked && (name == "" || n < name) {
				name = n
			}
		}
		m.mu.Unlock()
		if name == "" {
			return
		}
		m.try(ctx, name, name)
	}
}

// step is the time between two observations.
func (m *Manager[C]) step() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.past.length == 0 {
		return time.Second
	}
	return max(m.past.length/samples, time.Millisecond)
}

// observe looks at how things go. When they go worse than before the change, the change is undone.
func (m *Manager[C]) observe(ctx context.Context) {
	v := m.o.Vitals()
	now := time.Now()
	m.mu.Lock()
	p := m.probation
	if p == nil {
		m.past.add(now, v)
		m.mu.Unlock()
		return
	}
	p.after.add(now, v)
	why := p.worse(now)
	if why == "" && now.After(p.until) && len(p.after.list) >= fewest {
		m.past = p.after
		m.good()
		m.save()
		m.o.Log.Info("configuration has proved good", "configuration", m.kept.Running.Hash())
		m.mu.Unlock()
		m.o.Told()
		return
	}
	m.mu.Unlock()
	if why != "" {
		m.undo(ctx, p, why)
	}
}

// undo brings back what has proved good last.
func (m *Manager[C]) undo(ctx context.Context, p *probation, why string) {
	m.attempt.Lock()
	defer m.attempt.Unlock()
	began := time.Now()
	m.mu.Lock()
	if m.probation != p { // a newer change came first
		m.mu.Unlock()
		return
	}
	m.probation = nil
	m.past = &window{length: m.past.length}
	bad, good := m.kept.Running, m.kept.Good
	if good == nil || good.Hash() == bad.Hash() {
		m.o.Log.Warn("the configuration does worse than before, and there is none to go back to", "reason", why)
		m.good()
		m.save()
		m.mu.Unlock()
		return
	}
	for _, name := range changedSources(bad, good) {
		m.fail(bad[name].Hash(), why)
	}
	m.mu.Unlock()

	r := report.Receipt{}
	c, err := m.o.Build(good)
	if err == nil {
		r, err = m.o.Apply(ctx, c)
	}
	r.Time, r.Source, r.Hash, r.Outcome, r.Error, r.Took = began.UTC(), "probation", bad.Hash(), report.RolledBack, why, time.Since(began)
	m.mu.Lock()
	if err != nil {
		r.Outcome = report.Refused
		r.Error = fmt.Sprintf("%s; but the last good configuration cannot be run any more: %v", why, err)
	} else {
		for _, name := range changedSources(bad, good) {
			if s := m.sources[name]; s != nil && s.wanted.Hash() == bad[name].Hash() {
				s.status, s.err, s.since = rolledBack, why, time.Now()
				m.refuse(name, true, offer{s.revision, s.wanted})
			}
		}
		m.kept.Running, m.kept.Trying = good, nil
	}
	m.note(r)
	m.mu.Unlock()
	m.o.Told()
}

// changedSources returns the names of the sources whose pieces are not the same.
func changedSources(a, b Set) []string {
	var names []string
	both := maps.Clone(a)
	maps.Copy(both, b)
	for _, name := range both.Sources() {
		if a[name].Hash() != b[name].Hash() {
			names = append(names, name)
		}
	}
	return names
}

// Report tells what runs, what was asked for, and how the last changes went.
func (m *Manager[C]) Report() report.Configuration {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := report.Configuration{Hash: m.kept.Running.Hash(), Receipts: slices.Clone(m.kept.Receipts), Failed: slices.Clone(m.kept.Failed)}
	if m.kept.Good != nil {
		c.Good = m.kept.Good.Hash()
	}
	if m.probation != nil {
		c.Probation = m.probation.until.UTC()
	}
	wanted := maps.Clone(m.kept.Running)
	for name, s := range m.sources {
		wanted = wanted.with(name, s.wanted)
	}
	if h := wanted.Hash(); h != c.Hash {
		c.Wanted = h
	}
	for _, name := range wanted.Sources() {
		s := m.sources[name]
		if s.err != "" && c.Error == "" {
			c.Error, c.Since = s.err, s.since.UTC()
		}
		for _, d := range s.wanted {
			one := report.Document{Name: d.Name, Source: name, Version: d.Version, Hash: Pieces{d}.Hash(), Status: s.status, Error: s.err}
			if m.runs(name, one) {
				one.Status, one.Error = running, ""
			}
			c.Documents = append(c.Documents, one)
		}
	}
	return c
}

// runs tells whether a document is among those that run, whatever became of others of its source. m.mu is held.
func (m *Manager[C]) runs(source string, d report.Document) bool {
	return slices.ContainsFunc(m.kept.Running[source], func(r Document) bool { return r.Name == d.Name && Pieces{r}.Hash() == d.Hash })
}

// Status returns what has become of what a source has offered last: its revision, waiting, running, refused or
// rolled_back, and why.
func (m *Manager[C]) Status(name string) (revision, status, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sources[name]; s != nil {
		return s.revision, s.status, s.err
	}
	return "", "", ""
}

// Wanted returns what a source has said last, whatever became of it; false if it has said nothing.
func (m *Manager[C]) Wanted(name string) (Pieces, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sources[name]; s != nil {
		return s.wanted, true
	}
	return nil, false
}

// Running returns what runs of each source.
func (m *Manager[C]) Running() Set {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.kept.Running)
}
