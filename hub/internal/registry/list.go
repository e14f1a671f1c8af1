package registry

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/report"
)

// worst is the order of statuses in the list.
var worst = []string{string(api.Lost), report.Degraded, string(api.Disconnected), "unknown", report.Healthy}

// row returns the agent as the list shows it. a.mu is held.
func (a *agent) row() api.Agent {
	x := api.Agent{
		ID: a.ID, Name: a.Name, Type: a.Type, Version: a.Version, Labels: maps.Clone(a.Labels), Connection: a.Connection, Cause: a.Cause,
		State: a.stage(), Config: a.Config, Totals: a.ledger.Totals(), Hub: a.Hub, FirstSeen: a.FirstSeen, LastSeen: a.LastSeen,
	}
	x.Unexplained = a.run.unexplained()
	if a.r.o.Door != nil {
		if n, ok := a.r.o.Door.Counts(a.ID); ok {
			intake := api.Intake(n)
			x.Intake = &intake
		}
	}
	if x.Labels == nil {
		x.Labels = map[string]string{}
	}
	var cause string
	if x.Health, cause = a.verdict(); x.Cause == "" {
		x.Cause = cause
	}
	for _, c := range a.components {
		x.QueueBytes += c.Queued
		x.QueueLimit += c.Limit
	}
	x.Disk = disk(a.components)
	if span := a.span(); span > 0 {
		now, before := a.now.ledger.Totals(), a.past[0].ledger.Totals()
		x.In, x.Out = rate(now.In, before.In, span), rate(now.Out, before.Out, span)
	}
	return x
}

// span is the seconds that rates are over, 0 if there are none.
func (a *agent) span() float64 {
	if len(a.past) == 0 {
		return 0
	}
	return a.now.uptime - a.past[0].uptime
}

func rate(now, before int64, seconds float64) float64 { return float64(max(0, now-before)) / seconds }

// all returns the agents as they are now.
func (r *Registry) all() []*agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.agents))
}

// seen returns the agents whose labels meet a condition.
func (r *Registry) seen(within expr.Selector) []*agent {
	list := r.all()
	if within.IsZero() {
		return list
	}
	return slices.DeleteFunc(list, func(a *agent) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return !within.Match(a.selectable())
	})
}

// Counts returns how many agents there are of each status, of those whose labels meet a condition.
func (r *Registry) Counts(within expr.Selector) map[string]int {
	counts := make(map[string]int, len(worst))
	for _, s := range worst {
		counts[s] = 0
	}
	for _, a := range r.seen(within) {
		a.mu.Lock()
		h, _ := a.verdict()
		x := api.Agent{Connection: a.Connection, Health: h}
		a.mu.Unlock()
		counts[x.Status()]++
	}
	return counts
}

// List returns a page of the agents whose labels meet a condition, worst first. The error is an *api.Error about q.
func (r *Registry) List(within expr.Selector, q api.AgentQuery) (api.AgentList, error) {
	match, err := matcher(q)
	if err != nil {
		return api.AgentList{}, err
	}
	after, err := cursor(q.Cursor)
	if err != nil {
		return api.AgentList{}, err
	}
	list := api.AgentList{Agents: []api.Agent{}, Counts: make(map[string]int)}
	for _, s := range worst {
		list.Counts[s] = 0
	}
	var rows []api.Agent
	for _, a := range r.seen(within) {
		a.mu.Lock()
		if !of(a.Hub, q.Hub) {
			a.mu.Unlock()
			continue
		}
		x := a.row()
		a.mu.Unlock()
		list.Counts[x.Status()]++
		if match(&x) {
			list.Total++
			rows = append(rows, x)
		}
	}
	slices.SortFunc(rows, func(a, b api.Agent) int { return keyOf(&a).compare(keyOf(&b)) })
	limit := q.Limit
	if limit == 0 {
		limit = 100
	}
	if limit < 1 || limit > 1000 {
		return api.AgentList{}, &api.Error{Code: "bad_request", Message: fmt.Sprintf("limit must be 1 to 1000, got %d", q.Limit)}
	}
	for i := range rows {
		k := keyOf(&rows[i])
		if after != nil && k.compare(*after) <= 0 {
			continue
		}
		if len(list.Agents) == limit {
			list.Next = keyOf(&list.Agents[limit-1]).cursor()
			break
		}
		list.Agents = append(list.Agents, rows[i])
	}
	return list, nil
}

// key is what the list is sorted by.
type key struct {
	rank     int
	name, id string
}

// keyOf ranks by status and, within one, a full disk queue first, then one that fills. In how long is left out: it changes
// all the time, and rows would jump.
func keyOf(a *api.Agent) key {
	rank := 3*slices.Index(worst, a.Status()) + 2
	switch d := a.Disk; {
	case d == nil:
	case d.Full:
		rank -= 2
	case d.FullIn > 0:
		rank--
	}
	return key{rank, a.Name, a.ID}
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.rank, o.rank), cmp.Compare(k.name, o.name), cmp.Compare(k.id, o.id))
}

func (k key) cursor() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d\x00%s\x00%s", k.rank, k.name, k.id))
}

func cursor(text string) (*key, error) {
	if text == "" {
		return nil, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	parts := strings.Split(string(data), "\x00")
	var k key
	if err == nil && len(parts) == 3 {
		if _, err = fmt.Sscan(parts[0], &k.rank); err == nil {
			k.name, k.id = parts[1], parts[2]
			return &k, nil
		}
	}
	return nil, &api.Error{Code: "bad_request", Message: "cursor must be what the page before gave as next"}
}

// matcher returns whether an agent is meant.
func matcher(q api.AgentQuery) (func(*api.Agent) bool, error) {
	if q.Status != "" && !slices.Contains(worst, q.Status) {
		return nil, &api.Error{Code: "bad_request", Message: fmt.Sprintf("status must be one of %s, got %q", strings.Join(worst, ", "), q.Status)}
	}
	labels := make(map[string]string)
	for _, pair := range strings.FieldsFunc(q.Label, func(c rune) bool { return c == ',' }) {
		k, v, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, &api.Error{Code: "bad_request", Message: fmt.Sprintf("label must be key=value, separated by commas, got %q", pair)}
		}
		labels[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	words := strings.Fields(strings.ToLower(q.Search))
	return func(a *api.Agent) bool {
		if q.Status != "" && a.Status() != q.Status || q.Config != "" && a.Config != q.Config {
			return false
		}
		for k, v := range labels {
			if have, ok := a.Labels[k]; !ok || have != v {
				return false
			}
		}
		if len(words) == 0 {
			return true
		}
		text := strings.ToLower(strings.Join([]string{a.Name, a.ID, a.Type, a.Version, a.Cause}, "\n"))
		for k, v := range a.Labels {
			text += "\n" + strings.ToLower(k+"="+v)
		}
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	}, nil
}

// Agent returns all about one agent: that with an id, or the only one whose id begins so or that is called so. Those whose
// labels do not meet a condition are not there. The error is an *api.Error.
func (r *Registry) Agent(within expr.Selector, id string) (api.AgentDetail, error) {
	a, err := r.find(within, id)
	if err != nil {
		return api.AgentDetail{}, err
	}
	return a.detail(r.Heartbeat().Seconds()), nil
}

// find returns the one agent that is meant.
func (r *Registry) find(within expr.Selector, id string) (*agent, error) {
	var found, called []*agent
	for _, a := range r.seen(within) {
		if a.ID == id { // which never changes
			return a, nil
		}
		if len(id) >= 4 && strings.HasPrefix(a.ID, id) {
			found = append(found, a)
		}
		a.mu.Lock()
		if a.Name == id && id != "" {
			called = append(called, a)
		}
		a.mu.Unlock()
	}
	what := "have ids that begin with"
	if len(found) == 0 {
		found, what = called, "are called"
	}
	switch len(found) {
	case 0:
		return nil, &api.Error{Code: "not_found", Message: fmt.Sprintf("there is no agent %q; creel get agents lists them", id)}
	case 1:
		return found[0], nil
	}
	return nil, &api.Error{Code: "not_found", Message: fmt.Sprintf("%d agents %s %q: give more of an id", len(found), what, id)}
}

func (a *agent) detail(heartbeat float64) api.AgentDetail {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := api.AgentDetail{
		Agent: a.row(), Started: a.Started, Heartbeat: heartbeat, Components: a.components, Routes: []api.Flow{}, Ledger: a.ledger,
		Hops: a.run.list(), Effective: a.effective, Timeline: slices.Clone(a.Timeline), Intended: a.intended(),
	}
	if a.Type != control.AgentType {
		d.Heartbeat = max(heartbeat, foreignHeartbeat.Seconds())
	}
	if d.Components == nil {
		d.Components = []report.Component{}
	}
	if d.Ledger.Pipelines == nil {
		d.Ledger.Pipelines = []report.Pipeline{}
	}
	slices.Reverse(d.Timeline)
	for _, route := range a.routes {
		d.Routes = append(d.Routes, a.flow(route))
	}
	return d
}

// flow adds the rates to a pipeline.
func (a *agent) flow(route report.Route) api.Flow {
	f := api.Flow{Route: route, FromRates: make(map[string]float64), ToRates: make(map[string]float64)}
	span := a.span()
	if span <= 0 {
		return f
	}
	now, before := sums(&a.now), sums(&a.past[0])
	f.In = rate(now[route.Pipeline], before[route.Pipeline], span)
	for _, id := range route.From {
		k := "collectors." + id
		f.FromRates[id] = rate(now[k], before[k], span)
	}
	for _, id := range route.To {
		k := route.Pipeline + "\x00" + id
		f.ToRates[id] = rate(now[k], before[k], span)
	}
	return f
}

// sums are what a sample has counted: by pipeline, by pipeline and exporter, by collector's path.
func sums(s *sample) map[string]int64 {
	m := make(map[string]int64)
	for _, p := range s.ledger.Pipelines {
		m[p.Pipeline] = p.Accepted
		for _, x := range p.Exporters {
			m[p.Pipeline+"\x00"+x.Exporter] = x.Delivered
		}
	}
	for _, c := range s.components {
		m[c.Component] = c.Records
	}
	return m
}
