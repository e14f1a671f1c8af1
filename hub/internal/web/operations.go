package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/peers"
)

// An operation does what a request asks for, and returns what to answer.
type operation func(w http.ResponseWriter, r *http.Request, c *call) (any, error)

// What an operation returns that has no answer, or has given it.
type (
	none     struct{}
	answered struct{}
)

// operations are the operations of the API, by id.
func (s *Server) operations() map[string]operation {
	return map[string]operation{
		"getHub": ask(s.hub),
		"getCluster": ask(func(ctx context.Context, _ *call, _ none) (api.Cluster, error) {
			return s.Cluster.Cluster(ctx), nil
		}),
		"watchCluster": s.watch("watchCluster", "cluster", atMostEvery, s.clusterSoon, s.clusterNow),
		"drainHub":     tell(s.drainHub),
		"getDirectory": ask(func(_ context.Context, c *call, q api.DirectoryQuery) (api.Directory, error) {
			return s.Directory.List(c.Within, q)
		}),
		"watchDirectory":     s.watchDirectory,
		"listAgents":         ask(s.agents),
		"watchAgents":        s.watch("watchAgents", "agents", atMostEvery, s.fleetChanged, s.agentsNow),
		"getAgent":           ask(s.agent),
		"watchAgent":         s.watch("watchAgent", "agent", atMostEvery, s.fleetChanged, func(ctx context.Context, c *call) (any, error) { return s.agent(ctx, c, none{}) }),
		"orderAgent":         tell(s.order),
		"getLedger":          ask(s.ledger),
		"listConfigurations": ask(together(s, "/configurations", plain(s.configurations), bare(peers.JoinConfigurations))),
		"getConfiguration":   ask(s.configuration),
		"listDocuments": ask(func(_ context.Context, c *call, _ none) (api.DocumentList, error) {
			return s.Documents.List(c.Within), nil
		}),
		"applyDocument":      tell(s.applyDocument),
		"getDocument":        ask(s.document),
		"deleteDocument":     ask(s.deleteDocument),
		"getDocumentHistory": ask(s.history),
		"rollBackDocument":   tell(s.rollBack),
		"listTasks": ask(func(_ context.Context, c *call, _ none) (api.TaskList, error) {
			return s.Documents.Tasks(c.Within), nil
		}),
		"watchTasks":      s.watchTasks,
		"getTask":         ask(s.task),
		"runTask":         tell(s.taskChange(Tasks.Run)),
		"cancelTask":      tell(s.taskChange(Tasks.Cancel)),
		"retryTask":       tell(s.taskChange(Tasks.Retry)),
		"getSchema":       ask(func(context.Context, *call, none) (json.RawMessage, error) { return s.Schema, nil }),
		"searchLogs":      ask(s.logs),
		"tailLogs":        s.tailLogs,
		"countLogs":       ask(s.countLogs),
		"searchTraces":    ask(s.traces),
		"getTrace":        ask(s.trace),
		"listServices":    ask(s.services),
		"getMe":           ask(s.me),
		"listTokens":      ask(func(context.Context, *call, none) (api.AccessTokenList, error) { return s.Access.List(), nil }),
		"createToken":     tell(s.createToken),
		"deleteToken":     ask(s.deleteToken),
		"listKnocks":      ask(s.knocks),
		"revokeAgent":     tell(s.revoke),
		"admitAgent":      tell(s.admitAgent),
		"removeHub":       ask(s.removeHub),
		"listAudit":       ask(s.audit),
		"getAuthority":    ask(func(context.Context, *call, none) (api.Authority, error) { return s.authority() }),
		"changeAuthority": tell(s.changeAuthority),
		"login":           s.login,
	}
}

// ask is an operation with a query.
func ask[Q, R any](f func(context.Context, *call, Q) (R, error)) operation {
	return func(_ http.ResponseWriter, r *http.Request, c *call) (any, error) {
		var q Q
		if err := api.DecodeQuery(r.URL.Query(), &q, time.Now()); err != nil {
			return nil, err
		}
		return f(r.Context(), c, q)
	}
}

// tell is an operation with a body.
func tell[B, R any](f func(context.Context, *call, B) (R, error)) operation {
	return func(w http.ResponseWriter, r *http.Request, c *call) (any, error) {
		var body B
		if err := readBody(w, r, &body); err != nil {
			return nil, err
		}
		return ask(func(ctx context.Context, c *call, _ none) (R, error) { return f(ctx, c, body) })(w, r, c)
	}
}

// readBody reads a request's body into a pointer. A page of somebody else can make a browser send a form's types of content
// with its cookies, but not this one; see also Server.ServeHTTP.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &api.Error{Code: "bad_request", Message: fmt.Sprintf("the body must be JSON, with Content-Type: application/json, got %q", r.Header.Get("Content-Type"))}
	}
	return decode(w, r, maxBody, into)
}

// decode reads a request's body of a limited size, as JSON.
func decode(w http.ResponseWriter, r *http.Request, limit int64, into any) error {
	c := http.NewResponseController(w)
	if err := c.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more after the JSON value")
		}
	}
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return &api.Error{Code: "too_much", Message: fmt.Sprintf("the body is larger than %d bytes; a document's text may have %d", large.Limit, api.MaxDocument)}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &api.Error{Code: "timeout", Message: fmt.Sprintf("the body did not come within %v", bodyTimeout)}
	}
	if err != nil {
		return &api.Error{Code: "bad_request", Message: fmt.Sprintf("read the body: %v", err)}
	}
	return c.SetReadDeadline(time.Time{})
}

func (s *Server) configurations(context.Context, *call, none) (api.ConfigurationList, error) {
	return api.ConfigurationList{Configurations: s.Fleet.Configurations()}, nil
}

func (s *Server) configuration(ctx context.Context, c *call, _ none) (api.Configuration, error) {
	id := c.path("id")
	return together(s, "/configurations/"+url.PathEscape(id), plain(func(context.Context, *call, none) (api.Configuration, error) {
		d, ok := s.Fleet.Configuration(id)
		if !ok {
			return d, &api.Error{Code: "not_found", Message: fmt.Sprintf("no agent runs a configuration %q now", id)}
		}
		return d, nil
	}), bare(peers.JoinConfiguration))(ctx, c, none{})
}

func (s *Server) order(ctx context.Context, c *call, o api.OrderRequest) (api.Order, error) {
	c.detail = because(o.Do, o.Cause)
	return s.Fleet.Order(ctx, c.Within, c.path("id"), o.Do, c.Name, o.Cause)
}

func (s *Server) drainHub(ctx context.Context, c *call, d api.HubDrain) (api.ClusterHub, error) {
	c.detail = because(map[bool]string{true: "drain", false: "take back"}[d.Drain], d.Cause)
	return s.Cluster.Drain(ctx, c.path("id"), d.Drain)
}

// because joins what was done and why.
func because(what, cause string) string {
	if cause == "" {
		return what
	}
	return what + ": " + cause
}

func (s *Server) applyDocument(ctx context.Context, c *call, d api.DocumentChange) (api.DocumentApplied, error) {
	c.trial, c.detail = d.DryRun, d.Note
	a, err := s.Documents.Apply(ctx, c.Name, c.Within, d)
	if err == nil {
		c.target, c.detail = a.Document.Name, because(fmt.Sprintf("%s, version %d", a.Outcome, a.Document.Version), d.Note)
	}
	return a, err
}

func (s *Server) task(ctx context.Context, c *call, _ none) (api.TaskDetail, error) {
	return s.Documents.Task(ctx, c.Within, c.path("name"))
}

// taskChange is an operation that changes how a document is placed.
func (s *Server) taskChange(change func(t Tasks, ctx context.Context, by string, within expr.Selector, name, cause string) error) func(context.Context, *call, api.Because) (api.TaskDetail, error) {
	return func(ctx context.Context, c *call, b api.Because) (api.TaskDetail, error) {
		c.detail = b.Cause
		if err := change(s.Documents, ctx, c.Name, c.Within, c.path("name"), b.Cause); err != nil {
			return api.TaskDetail{}, err
		}
		return s.task(ctx, c, none{})
	}
}

func (s *Server) document(ctx context.Context, c *call, q api.DocumentQuery) (api.DocumentDetail, error) {
	return s.Documents.Get(ctx, c.Within, c.path("name"), q.Version)
}

func (s *Server) deleteDocument(ctx context.Context, c *call, q api.DocumentDeletion) (none, error) {
	c.trial = q.DryRun
	return none{}, s.Documents.Delete(ctx, c.Name, c.Within, c.path("name"), q.DryRun)
}

func (s *Server) history(ctx context.Context, c *call, _ none) (api.DocumentHistory, error) {
	return s.Documents.History(ctx, c.Within, c.path("name"))
}

func (s *Server) rollBack(ctx context.Context, c *call, b api.Rollback) (api.DocumentApplied, error) {
	a, err := s.Documents.Rollback(ctx, c.Name, c.Within, c.path("name"), b.To)
	if err == nil {
		c.detail = fmt.Sprintf("%s, version %d", because(a.Outcome, a.Document.Note), a.Document.Version)
	}
	return a, err
}

func (s *Server) agentsNow(ctx context.Context, c *call) (any, error) {
	var q api.AgentQuery
	if err := api.DecodeQuery(c.request.URL.Query(), &q, time.Now()); err != nil {
		return nil, err
	}
	return s.agents(ctx, c, q)
}

func (s *Server) prom(w http.ResponseWriter, r *http.Request, c *call) (any, error) {
	if len(s.others(c)) > 0 {
		r = r.WithContext(s.Peers.WithMetrics(r.Context(), c.Principal))
	}
	http.StripPrefix("/prom", s.Prom).ServeHTTP(w, r)
	return answered{}, nil
}
