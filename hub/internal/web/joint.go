package web

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/access"
	"github.com/creelhq/creel/hub/internal/cluster"
	"github.com/creelhq/creel/hub/internal/peers"
)

// This file is operations that all hubs of a control state answer together. Each answers for itself when another hub asks it;
// when somebody else does, it asks the others on their behalf, and puts the answers together.

// fresh is how old what another hub has told may be in a live view: less than the views' events lie apart, so that however many
// look, a hub is asked once.
const fresh = atMostEvery * 9 / 10

// askingHub is under what the context of a request of another hub has the access.Principal.
type askingHub struct{}

// fromHub answers another hub: for itself, and nothing but joint operations. What the hub shows says on whose behalf it asks; over
// TLS it must show its certificate as well.
func (s *Server) fromHub(w http.ResponseWriter, r *http.Request, shown string) {
	p, err := s.hubOf(r, shown)
	if err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusProcessing) // so that the other waits: see peers
	s.forHubs.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), askingHub{}, p)))
}

// hubOf returns on whose behalf a hub asks.
func (s *Server) hubOf(r *http.Request, shown string) (access.Principal, error) {
	p, err := s.Access.FromHub(shown)
	switch {
	case err != nil:
		if s.certified(r.TLS, "") != nil {
			s.failed(r)
		}
		return p, err
	case s.Peers == nil || !s.Peers.Knows(p.Hub):
		return p, &api.Error{Code: "unauthorized", Message: "this hub knows of no hub " + p.Hub + ": have they the same control state?"}
	case r.TLS != nil && s.certified(r.TLS, p.Hub) != nil:
		return p, &api.Error{Code: "unauthorized", Message: "the connection does not show the certificate of hub " + p.Hub}
	}
	return p, nil
}

// certified checks that a connection shows the certificate of a hub, "" for any.
func (s *Server) certified(cs *tls.ConnectionState, hub string) error {
	if cs == nil || s.HubShown == nil {
		return &api.Error{Code: "unauthorized", Message: "the connection shows no certificate of a hub"}
	}
	return s.HubShown(cs, hub)
}

// others returns the hubs that are to be asked as well: none if this one is alone, or another asks.
func (s *Server) others(c *call) []cluster.Hub {
	if c.Hub != "" {
		return nil
	}
	return s.Peers.Others()
}

// as returns what to ask another hub on behalf of c.
func (c *call) as(path string, q any) peers.Request {
	return peers.Request{For: c.Principal, Path: api.Prefix + path, Query: api.EncodeQuery(q), Fresh: c.fresh}
}

// An own answer is that of one hub. hubs returns of which hubs agents are meant, as api.AgentQuery.Hub has it: it waits for what
// the others say.
type own[Q, R any] func(ctx context.Context, c *call, q Q, hubs func() []string) (R, error)

// together returns an operation that all hubs answer at a path, each for itself. join puts the answers together, this hub's first; of an
// operation about something that only others have, it is not among them.
func together[Q, R any](s *Server, path string, mine own[Q, R], join func(Q, []peers.Answer[R]) R) func(context.Context, *call, Q) (R, error) {
	return func(ctx context.Context, c *call, q Q) (R, error) {
		others := s.others(c)
		switch {
		case c.Hub != "":
			return mine(ctx, c, q, func() []string { return peers.OnlyOf(s.Peers.Hub()) })
		case len(others) == 0:
			return mine(ctx, c, q, func() []string { return nil })
		}
		var answers []peers.Answer[R]
		var absent []api.Absent
		asking, enough := context.WithCancel(ctx)
		defer enough()
		over := make(chan struct{})
		go func() {
			defer close(over)
			answers, absent = peers.Ask[R](asking, s.Peers, others, c.as(path, q))
		}()
		v, err := mine(ctx, c, q, func() []string {
			<-over
			return peers.NotOf(answers)
		})
		if err != nil && !notFound(err) {
			enough()
		}
		<-over
		switch {
		case err == nil:
			answers = append([]peers.Answer[R]{{Hub: s.Peers.Hub(), Value: v}}, answers...)
		case !notFound(err) || len(answers) == 0:
			return v, err
		}
		v = join(q, answers)
		any(&v).(interface{ Lacks([]api.Absent) }).Lacks(absent)
		return v, nil
	}
}

// plain is mine of an operation that is not about the agents of some hubs.
func plain[Q, R any](f func(context.Context, *call, Q) (R, error)) own[Q, R] {
	return func(ctx context.Context, c *call, q Q, _ func() []string) (R, error) { return f(ctx, c, q) }
}

// bare is join of an operation without a query.
func bare[R any](join func([]peers.Answer[R]) R) func(none, []peers.Answer[R]) R {
	return func(_ none, all []peers.Answer[R]) R { return join(all) }
}

// partial says in the header what an answer lacks.
func partial(h http.Header, v any) {
	j, ok := v.(interface{ Lacking() []api.Absent })
	if !ok {
		return
	}
	for _, a := range j.Lacking() {
		text, err := json.Marshal(a)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		h.Add(api.PartialHeader, string(text))
	}
}

func (s *Server) agents(ctx context.Context, c *call, q api.AgentQuery) (api.AgentList, error) {
	return together(s, "/agents", func(_ context.Context, c *call, q api.AgentQuery, hubs func() []string) (api.AgentList, error) {
		q.Hub = append(q.Hub, hubs()...)
		return s.Fleet.List(c.Within, q)
	}, peers.JoinAgents)(ctx, c, q)
}

// agent asks the hub that an agent is connected to: this one knows no more of it than the control state.
func (s *Server) agent(ctx context.Context, c *call, _ none) (api.AgentDetail, error) {
	d, err := s.Fleet.Agent(c.Within, c.path("id"))
	others := s.others(c)
	if len(others) == 0 || err != nil && !notFound(err) {
		return d, err
	}
	id := d.ID
	if err != nil { // it may have come there a moment ago
		id = c.path("id")
	} else {
		others = only(others, d.Hub)
	}
	answers, absent := peers.Ask[api.AgentDetail](ctx, s.Peers, others, c.as("/agents/"+url.PathEscape(id), nil))
	if len(answers) == 1 {
		return answers[0].Value, nil
	}
	d.Lacks(absent)
	return d, err
}

// only returns the hub with an id, if it is among others.
func only(list []cluster.Hub, id string) []cluster.Hub {
	for _, h := range list {
		if h.ID == id {
			return []cluster.Hub{h}
		}
	}
	return nil
}

func (s *Server) ledger(ctx context.Context, c *call, q api.LedgerQuery) (api.Ledger, error) {
	return together(s, "/ledger", func(_ context.Context, _ *call, q api.LedgerQuery, hubs func() []string) (api.Ledger, error) {
		q.Hub = append(q.Hub, hubs()...)
		return s.Fleet.Ledger(q)
	}, peers.JoinLedgers)(ctx, c, q)
}

func (s *Server) hub(ctx context.Context, c *call, _ none) (api.Hub, error) {
	return together(s, "/hub", func(_ context.Context, c *call, _ none, hubs func() []string) (api.Hub, error) {
		h := s.Hub()
		if !c.Within.IsZero() {
			h.QuickLook = api.QuickLook{}
		}
		of := hubs()
		if of == nil {
			h.Agents = s.Fleet.Counts(c.Within)
			return h, nil
		}
		l, err := s.Fleet.List(c.Within, api.AgentQuery{Limit: 1, Hub: of})
		h.Agents = l.Counts
		return h, err
	}, func(_ none, all []peers.Answer[api.Hub]) api.Hub { return s.Peers.JoinHubs(c.Within, all) })(ctx, c, none{})
}

func (s *Server) logs(ctx context.Context, c *call, q api.LogQuery) (api.LogResult, error) {
	q.Window = peers.Pinned(q.Window, time.Now())
	return together(s, "/logs", plain(func(ctx context.Context, _ *call, q api.LogQuery) (api.LogResult, error) {
		q, err := peers.LogsOf(q, s.Peers.Hub())
		if err != nil {
			return api.LogResult{}, err
		}
		return s.Rows.SearchLogs(ctx, q)
	}), peers.JoinLogs)(ctx, c, q)
}

func (s *Server) countLogs(ctx context.Context, c *call, q api.LogQuery) (api.Histogram, error) {
	q.Window = peers.Pinned(q.Window, time.Now())
	return together(s, "/logs/histogram", plain(func(ctx context.Context, _ *call, q api.LogQuery) (api.Histogram, error) {
		return s.Rows.CountLogs(ctx, q)
	}), peers.JoinHistograms)(ctx, c, q)
}

// traces asks twice when there are other hubs: which traces have a span that matches, and then for those, of which each hub may
// have other spans, that need not match.
func (s *Server) traces(ctx context.Context, c *call, q api.TraceQuery) (api.TraceList, error) {
	search := plain(func(ctx context.Context, _ *call, q api.TraceQuery) (api.TraceList, error) {
		return s.Rows.SearchTraces(ctx, q)
	})
	q.Window = peers.Pinned(q.Window, time.Now())
	if len(s.others(c)) == 0 || len(q.IDs) > 0 {
		return together(s, "/traces", search, peers.JoinTraces)(ctx, c, q)
	}
	var ids []string
	found, err := together(s, "/traces", search, func(q api.TraceQuery, all []peers.Answer[api.TraceList]) api.TraceList {
		ids = peers.NewestTraces(q, all)
		return peers.JoinTraces(q, all)
	})(ctx, c, q)
	if err != nil || len(ids) == 0 {
		return found, err
	}
	whole, err := together(s, "/traces", search, peers.JoinTraces)(ctx, c, api.TraceQuery{IDs: ids})
	if whole.Partial == "" {
		whole.Partial = found.Partial
	}
	if len(whole.Absent) < len(found.Absent) {
		whole.Absent = found.Absent
	}
	return whole, err
}

func (s *Server) trace(ctx context.Context, c *call, _ none) (api.Trace, error) {
	return together(s, "/traces/"+url.PathEscape(c.path("id")), plain(func(ctx context.Context, c *call, _ none) (api.Trace, error) {
		return s.Rows.Trace(ctx, c.path("id"))
	}), bare(peers.JoinTrace))(ctx, c, none{})
}

func (s *Server) services(ctx context.Context, c *call, w api.Window) (api.ServiceList, error) {
	return together(s, "/services", plain(func(ctx context.Context, _ *call, w api.Window) (api.ServiceList, error) {
		return s.Rows.Services(ctx, w)
	}), peers.JoinServices)(ctx, c, peers.Pinned(w, time.Now()))
}
