package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
)

// papers are documents that note what is asked of them.
type papers struct {
	mu    sync.Mutex
	calls []string
	tasks []api.Task
}

func (p *papers) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, fmt.Sprintf(format, args...))
}

// asked returns what was asked since it was called last.
func (p *papers) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.calls = nil }()
	return p.calls
}

// who says who asks, and within what.
func who(by string, within expr.Selector) string {
	if within.IsZero() {
		return by
	}
	return by + " within " + within.String()
}

func (p *papers) List(expr.Selector) api.DocumentList {
	p.note("list")
	return api.DocumentList{Documents: []api.Document{}}
}

func (p *papers) Task(_ context.Context, _ expr.Selector, name string) (api.TaskDetail, error) {
	return api.TaskDetail{Document: name, Tasks: []api.Task{}}, nil
}
func (p *papers) Run(_ context.Context, _ string, _ expr.Selector, name, cause string) error {
	p.note("run %s: %s", name, cause)
	return nil
}
func (p *papers) Cancel(_ context.Context, _ string, _ expr.Selector, name, cause string) error {
	p.note("cancel %s: %s", name, cause)
	return nil
}
func (p *papers) Retry(_ context.Context, _ string, _ expr.Selector, name, cause string) error {
	p.note("retry %s: %s", name, cause)
	return nil
}

func (p *papers) Tasks(expr.Selector) api.TaskList {
	p.mu.Lock()
	defer p.mu.Unlock()
	return api.TaskList{Tasks: append([]api.Task{}, p.tasks...)}
}

func (p *papers) Get(_ context.Context, _ expr.Selector, name string, version int64) (api.DocumentDetail, error) {
	p.note("get %s %d", name, version)
	return api.DocumentDetail{Document: api.Document{Name: name}}, nil
}

func (p *papers) History(_ context.Context, _ expr.Selector, name string) (api.DocumentHistory, error) {
	p.note("history %s", name)
	return api.DocumentHistory{}, nil
}

func (p *papers) Apply(_ context.Context, by string, within expr.Selector, c api.DocumentChange) (api.DocumentApplied, error) {
	p.note("apply by %s: %d bytes", who(by, within), len(c.Text))
	switch c.Text {
	case "stale":
		return api.DocumentApplied{}, &api.Error{Code: "conflict", Message: "it is at version 3"}
	case "wrong":
		return api.DocumentApplied{}, &api.Error{Code: "bad_request", Message: "1 error", Problems: []api.Problem{{Line: 3, Column: 5, Path: "exporters.otlp", Message: "is wrong", Hint: "mend it"}}}
	}
	return api.DocumentApplied{Outcome: "created"}, nil
}

func (p *papers) Delete(_ context.Context, by string, within expr.Selector, name string, dryRun bool) error {
	p.note("delete %s by %s, dry %v", name, who(by, within), dryRun)
	return nil
}

func (p *papers) Rollback(_ context.Context, by string, within expr.Selector, name string, to int64) (api.DocumentApplied, error) {
	p.note("rollback %s by %s to %d", name, who(by, within), to)
	return api.DocumentApplied{}, nil
}

func (r *room) Order(_ context.Context, within expr.Selector, agent, do, by, cause string) (api.Order, error) {
	r.papers.note("order %s to %s by %s: %s", agent, do, who(by, within), cause)
	return api.Order{ID: "1", Do: do, By: by}, nil
}

// TestEveryOperation: what the API's description promises is there.
func TestEveryOperation(t *testing.T) {
	handlers := (&Server{}).operations()
	for _, o := range api.Operations() {
		if handlers[o.ID] == nil {
			t.Errorf("nobody answers %s", o.ID)
		}
		delete(handlers, o.ID)
	}
	if len(handlers) > 0 {
		t.Errorf("answers that are in no description: %v", handlers)
	}
}

// TestChanges: the client asks, the rooms behind the API hear it, and know by whom.
func TestChanges(t *testing.T) {
	server, r := serve(t)
	c := api.Client{URL: server.URL, Token: testToken}
	ctx := t.Context()
	for want, ask := range map[string]func() error{
		"list":                   func() error { _, err := c.Documents(ctx); return err },
		"get web 0":              func() error { _, err := c.Document(ctx, "web", api.DocumentQuery{}); return err },
		"get web 7":              func() error { _, err := c.Document(ctx, "web", api.DocumentQuery{Version: 7}); return err },
		"history we b":           func() error { _, err := c.DocumentHistory(ctx, "we b"); return err },
		"apply by root: 2 bytes": func() error { _, err := c.ApplyDocument(ctx, api.DocumentChange{Text: "{}"}); return err },
		"apply by root: 1048576 bytes": func() error {
			_, err := c.ApplyDocument(ctx, api.DocumentChange{Text: strings.Repeat("\n", api.MaxDocument)})
			return err
		},
		"delete web by root, dry false":  func() error { return c.DeleteDocument(ctx, "web", api.DocumentDeletion{}) },
		"delete web by root, dry true":   func() error { return c.DeleteDocument(ctx, "web", api.DocumentDeletion{DryRun: true}) },
		"rollback web by root to 3":      func() error { _, err := c.RollBackDocument(ctx, "web", api.Rollback{To: 3}); return err },
		"order a1 to pause by root: why": func() error { _, err := c.Order(ctx, "a1", api.OrderRequest{Do: "pause", Cause: "why"}); return err },
	} {
		if err := ask(); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if got := r.papers.asked(); !slices.Equal(got, []string{want}) {
			t.Errorf("heard %q, not %q", got, want)
		}
	}
	if text, err := c.Schema(ctx); err != nil || !strings.Contains(string(text), "creel document") {
		t.Errorf("schema: %s, %v", text, err)
	}
	cookie := signedIn(t, server)
	resp, body := request{method: "DELETE", path: api.Prefix + "/documents/web", cookie: cookie, origin: server.URL}.do(t, server)
	if got := r.papers.asked(); resp.StatusCode != http.StatusNoContent || body != "" || !slices.Equal(got, []string{"delete web by root, dry false"}) {
		t.Errorf("a browser: %s %q, heard %q", resp.Status, body, got)
	}
}

func signedIn(t *testing.T, server *httptest.Server) string {
	t.Helper()
	resp, _ := request{path: "/signin?token=" + testToken}.do(t, server)
	if len(resp.Cookies()) != 1 {
		t.Fatalf("sign in: %s", resp.Status)
	}
	return resp.Cookies()[0].Value
}

// TestRefusedChanges: what is refused reaches nobody, or comes back with its reasons.
func TestRefusedChanges(t *testing.T) {
	server, r := serve(t)
	cookie := signedIn(t, server)
	const documents, orders = api.Prefix + "/documents", api.Prefix + "/agents/a1/orders"
	const kind = "application/json"
	for name, c := range map[string]struct {
		request
		want int
		code string
	}{
		"by nobody":                      {request{method: "PUT", path: documents, content: kind, body: `{"text":"x"}`}, 401, "unauthorized"},
		"by another's page":              {request{method: "POST", path: orders, cookie: cookie, origin: "https://evil.example", content: "text/plain", body: `{"do":"stop"}`}, 403, "forbidden"},
		"by another's page as JSON":      {request{method: "POST", path: orders, cookie: cookie, origin: "https://evil.example", content: kind, body: `{"do":"stop"}`}, 403, "forbidden"},
		"by a page of another port":      {request{method: "POST", path: orders, cookie: cookie, host: "localhost:1", origin: "http://localhost:2", content: kind, body: `{"do":"stop"}`}, 403, "forbidden"},
		"without an origin":              {request{method: "POST", path: orders, cookie: cookie, content: kind, body: `{"do":"stop"}`}, 403, "forbidden"},
		"by a form":                      {request{method: "POST", path: orders, cookie: cookie, host: "localhost:1", origin: "http://localhost:1", content: "text/plain", body: `{"do":"stop"}`}, 400, "bad_request"},
		"by a form that is encoded":      {request{method: "POST", path: orders, cookie: cookie, host: "localhost:1", origin: "http://localhost:1", content: "application/x-www-form-urlencoded", body: "do=stop"}, 400, "bad_request"},
		"of no type":                     {request{method: "POST", path: orders, token: testToken, body: `{"do":"stop"}`}, 400, "bad_request"},
		"asking whether it may":          {request{method: "OPTIONS", path: orders, cookie: cookie, origin: "https://evil.example"}, 403, "forbidden"},
		"deleting from another's page":   {request{method: "DELETE", path: documents + "/web", cookie: cookie, origin: "https://evil.example"}, 403, "forbidden"},
		"nonsense":                       {request{method: "PUT", path: documents, token: testToken, content: kind, body: `x`}, 400, "bad_request"},
		"nothing":                        {request{method: "PUT", path: documents, token: testToken, content: kind}, 400, "bad_request"},
		"a field that is not there":      {request{method: "PUT", path: documents, token: testToken, content: kind, body: `{"txet":"x"}`}, 400, "bad_request"},
		"two":                            {request{method: "PUT", path: documents, token: testToken, content: kind, body: `{"text":"x"}{"text":"y"}`}, 400, "bad_request"},
		"a body that is too long":        {request{method: "PUT", path: documents, token: testToken, content: kind, body: `{"text":"` + strings.Repeat("x", maxBody) + `"}`}, 422, "too_much"},
		"a parameter that is not there":  {request{method: "DELETE", path: documents + "/web?dryrun=true", token: testToken}, 400, "bad_request"},
		"a method that is not there":     {request{method: "PATCH", path: documents, token: testToken, content: kind, body: `{}`}, 404, "not_found"},
		"a version that is not a number": {request{path: documents + "/web?version=x", token: testToken}, 400, "bad_request"},
	} {
		resp, body := c.do(t, server)
		var e api.Error
		if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != c.want || e.Code != c.code || e.Message == "" {
			t.Errorf("%s: %s: %s", name, resp.Status, body)
		}
		if got := r.papers.asked(); len(got) > 0 {
			t.Errorf("%s: heard %q", name, got)
		}
	}
	for text, want := range map[string]int{"stale": 409, "wrong": 400} {
		resp, body := request{method: "PUT", path: documents, token: testToken, content: "application/json; charset=utf-8", body: `{"text":"` + text + `"}`}.do(t, server)
		if resp.StatusCode != want {
			t.Errorf("%s: %s: %s", text, resp.Status, body)
		}
		if text == "wrong" && !strings.Contains(body, `"problems":[{"line":3,"column":5,"path":"exporters.otlp","message":"is wrong","hint":"mend it"}]`) {
			t.Errorf("problems are not told: %s", body)
		}
	}
}
