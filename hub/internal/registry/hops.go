package registry

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/admission"
	"github.com/creelhq/creel/report"
)

// Door is what was let in at the hub, and taken: *admission.Admission. Its methods may be called concurrently.
type Door interface {
	Counts(agent string) (admission.Counts, bool)
	Streams(agent string, started time.Time) []admission.Stream
	Restart(agent string, started time.Time, exporter string)
}

// A run is one life of an agent, as far as this hub has seen it: what its exporters say that they have delivered is
// compared with what the hub took of each.
//
// The hub has taken a record before the agent knows it, and a report is older than what the hub knows when it comes. So
// what an agent calls delivered is never more than what the hub took, if both are counted from the same moment on. They
// are if this process of the hub has been there since the run began: nobody has heard of the run before, it began later by
// the clocks, and its first report does not tell more than the hub took; or if that tells of nothing yet. Else (the hub was
// started again, the exporter's options have changed, so that it may have sent elsewhere before) the comparison begins a
// patience after the hub has taken the first records, and all that was taken until then counts as if it could have been
// answered later: a loss of no more than that may be missed, but there is no false alarm.
type run struct {
	started   time.Time
	late      map[string]bool // exporters whose beginning this hub has not seen
	hops      map[string]*hop // by exporter's id
	effective string          // the configuration that options are of
	options   map[string]json.RawMessage
}

// A hop is the way from one exporter to this hub.
type hop struct {
	api.Hop
	stream  time.Time // Since of the count that it was made for
	settled bool      // Sent and Taken can be compared
	base    int64     // what the agent had delivered when the comparison began
	slack   int64     // of what was taken, what was surely delivered before that

	wrong  time.Time // since when something is unexplained; zero: nothing is
	took   int64     // what had come then, or later
	quiet  time.Time // since when no more has come
	sent   int64     // what was delivered by the first report half a patience after that
	marked bool      // that report has come
	told   bool      // what is unexplained has been so for a patience
}

// delivered returns what each exporter has delivered by the agent's word.
func delivered(l *report.Ledger) map[string]int64 {
	m := make(map[string]int64)
	for _, p := range l.Pipelines {
		for _, x := range p.Exporters {
			m[x.Exporter] += x.Delivered
		}
	}
	for _, s := range l.Spools {
		m[s.Exporter] += s.Delivered
	}
	return m
}

// newRun returns a run with its first report. fresh: this hub has been there since it began.
func newRun(started time.Time, fresh bool, l *report.Ledger, taken []admission.Stream) *run {
	r := &run{started: started, late: make(map[string]bool), hops: make(map[string]*hop), options: make(map[string]json.RawMessage)}
	for exporter, n := range delivered(l) {
		i := slices.IndexFunc(taken, func(s admission.Stream) bool { return s.Exporter == exporter })
		r.late[exporter] = n > 0 && (!fresh || i < 0 || n > taken[i].Taken)
	}
	return r
}

// configured takes in the effective configuration, and returns the exporters whose count must begin anew.
func (r *run) configured(effective string) (changed []string) {
	if effective == r.effective {
		return nil
	}
	r.effective = effective
	var all map[string]json.RawMessage
	if json.Unmarshal([]byte(effective), &all) != nil {
		return nil // a foreign agent's
	}
	for path, options := range all {
		exporter, ok := strings.CutPrefix(path, "exporters.")
		if !ok {
			continue
		}
		if before, ok := r.options[path]; ok && string(before) != string(options) {
			changed = append(changed, exporter)
			r.anew(exporter)
		}
		r.options[path] = options
	}
	return changed
}

// anew forgets a hop: what was sent until now may have gone elsewhere.
func (r *run) anew(exporter string) {
	r.late[exporter] = true
	delete(r.hops, exporter)
}

// compare takes in a report, and what the hub has taken by now. It returns the exporters whose count must begin anew.
func (r *run) compare(now time.Time, patience time.Duration, l *report.Ledger, taken []admission.Stream) (elsewhere []string) {
	sums := delivered(l)
	for _, s := range taken {
		h := r.hops[s.Exporter]
		if h != nil && h.stream != s.Since { // the hub had forgotten it
			r.anew(s.Exporter)
			h = nil
		}
		if h == nil {
			h = &hop{Hop: api.Hop{Exporter: s.Exporter, Since: s.Since, Settling: true}, stream: s.Since, settled: !r.late[s.Exporter]}
			r.hops[s.Exporter] = h
		}
		sum := sums[s.Exporter]
		if !h.settled && now.Sub(s.Since) >= patience {
			h.settled, h.base, h.slack, h.Since = true, sum, s.Taken, now.UTC()
		}
		h.Repeats, h.Taken = s.Repeats, s.Taken
		if !h.settled {
			continue
		}
		under := s.Taken - (sum - h.base) // under way, and what was taken before the comparison began
		h.slack = max(0, min(h.slack, under))
		h.Settling, h.Sent, h.Taken, h.Unexplained = false, sum-h.base, s.Taken-h.slack, max(0, -under)
		if h.judge(now, patience, sum, s.Taken+s.Repeats) {
			elsewhere = append(elsewhere, s.Exporter)
			r.anew(s.Exporter)
		}
	}
	return elsewhere
}

// judge notes for how long something is unexplained. It returns true if that is because records go elsewhere: for a patience
// nothing at all has come, and the exporter has gone on to deliver, longer than answers can have been under way.
func (h *hop) judge(now time.Time, patience time.Duration, sent, took int64) (elsewhere bool) {
	if h.Unexplained == 0 {
		h.wrong, h.told = time.Time{}, false
		return false
	}
	first := h.wrong.IsZero()
	if first {
		h.wrong = now
	}
	if first || took != h.took {
		h.quiet, h.took, h.marked = now, took, false
	}
	if !h.marked {
		h.sent, h.marked = sent, now.Sub(h.quiet) >= patience/2
	}
	going := sent > h.sent
	h.told = !going && now.Sub(h.wrong) >= patience
	return going && now.Sub(h.quiet) >= patience
}

// cause says what has been unexplained for long, "" if nothing has.
func (r *run) cause() string {
	if r == nil {
		return ""
	}
	for _, exporter := range slices.Sorted(maps.Keys(r.hops)) {
		if h := r.hops[exporter]; h.told {
			return fmt.Sprintf("exporters.%s: %d records that it calls delivered have not come to this hub: since %s it has sent %d, and the hub has taken %d",
				exporter, h.Unexplained, h.Since.Format(time.RFC3339), h.Sent, h.Taken)
		}
	}
	return ""
}

// list returns the hops by exporter.
func (r *run) list() []api.Hop {
	list := []api.Hop{}
	if r != nil {
		for _, exporter := range slices.Sorted(maps.Keys(r.hops)) {
			list = append(list, r.hops[exporter].Hop)
		}
	}
	return list
}

func (r *run) unexplained() (n int64) {
	if r != nil {
		for _, h := range r.hops {
			n += h.Unexplained
		}
	}
	return n
}

// follow compares the agent's books with what the hub took. a.mu is held.
func (a *agent) follow() {
	door := a.r.o.Door
	if door == nil || a.r.o.Shared || a.Started.IsZero() {
		return
	}
	if a.run == nil || !a.run.started.Equal(a.Started) {
		fresh := !a.Started.Equal(a.before) && a.Started.After(a.r.opened)
		a.run = newRun(a.Started, fresh, &a.ledger, door.Streams(a.ID, a.Started))
	}
	anew := func(exporters []string) {
		for _, x := range exporters {
			door.Restart(a.ID, a.Started, x)
		}
	}
	anew(a.run.configured(a.effective))
	anew(a.run.compare(time.Now(), a.r.o.Patience, &a.ledger, door.Streams(a.ID, a.Started)))
}

// Ledger returns the books of the fleet. The error is an *api.Error about q.
func (r *Registry) Ledger(q api.LedgerQuery) (api.Ledger, error) {
	limit := cmp.Or(q.Limit, 1000)
	if limit < 1 || limit > 10_000 {
		return api.Ledger{}, &api.Error{Code: "bad_request", Message: fmt.Sprintf("limit must be 1 to 10000, got %d", q.Limit)}
	}
	l := api.Ledger{Agents: []api.AgentBooks{}, Total: api.Books{Dropped: map[string]int64{}}}
	for _, a := range r.all() {
		a.mu.Lock()
		if len(a.ledger.Pipelines) > 0 && of(a.Hub, q.Hub) {
			b := api.AgentBooks{ID: a.ID, Name: a.Name}
			hops := a.run.list()
			b.Add(a.ledger, hops)
			l.Total.Add(a.ledger, hops)
			l.Agents = append(l.Agents, b)
		}
		a.mu.Unlock()
	}
	slices.SortFunc(l.Agents, CompareBooks)
	if n := len(l.Agents); n > limit {
		l.Agents, l.LeftOut = l.Agents[:limit], n-limit
	}
	return l, nil
}
