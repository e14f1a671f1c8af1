package web

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/access"
	"github.com/creelhq/creel/hub/internal/audit"
	"github.com/creelhq/creel/hub/internal/directory"
	"github.com/creelhq/creel/hub/internal/state"
)

// room is a fleet and a store that answer what the tests say.
type room struct {
	mu      sync.Mutex
	changed chan struct{}
	agents  []api.Agent
	search  func(context.Context) error
	papers  papers
}

func (r *room) ServeHTTP(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "opamp") }

func (r *room) List(within expr.Selector, q api.AgentQuery) (api.AgentList, error) {
	if q.Status == "wrong" {
		return api.AgentList{}, &api.Error{Code: "bad_request", Message: "status is wrong"}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := api.AgentList{Agents: slices.DeleteFunc(slices.Clone(r.agents), func(a api.Agent) bool { return !within.Match(a.Labels) })}
	l.Total = len(l.Agents)
	return l, nil
}

func (r *room) Counts(within expr.Selector) map[string]int {
	l, err := r.List(within, api.AgentQuery{})
	if err != nil {
		panic(err)
	}
	return map[string]int{"healthy": l.Total}
}

func (r *room) Confirmed() (int, []string) { return 7, slices.Repeat([]string{"behind"}, 200) }

func (r *room) Agent(within expr.Selector, id string) (api.AgentDetail, error) {
	l, err := r.List(within, api.AgentQuery{})
	if err != nil {
		return api.AgentDetail{}, err
	}
	for _, a := range l.Agents {
		if strings.HasPrefix(a.ID, id) {
			return api.AgentDetail{Agent: a}, nil
		}
	}
	return api.AgentDetail{}, &api.Error{Code: "not_found", Message: "no agent " + id}
}

func (r *room) Configurations() []api.Configuration { return []api.Configuration{} }
func (r *room) Ledger(q api.LedgerQuery) (api.Ledger, error) {
	return api.Ledger{Agents: []api.AgentBooks{}, LeftOut: q.Limit}, nil
}

func (r *room) Configuration(string) (api.Configuration, bool) { return api.Configuration{}, false }

func (r *room) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// add adds an agent, and tells who watches.
func (r *room) add(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agents = append(r.agents, api.Agent{ID: "id-" + name, Name: name, Labels: map[string]string{"host.name": name}})
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *room) SearchLogs(ctx context.Context, _ api.LogQuery) (api.LogResult, error) {
	return api.LogResult{Logs: []api.Log{}}, r.search(ctx)
}

func (r *room) CountLogs(context.Context, api.LogQuery) (api.Histogram, error) {
	return api.Histogram{}, nil
}

func (r *room) TailLogs(ctx context.Context, q api.LogQuery, f func(api.Log) error) error {
	if q.Query == "wrong" {
		return &api.Error{Code: "bad_request", Message: "query is wrong"}
	}
	if err := f(api.Log{ID: "1", Body: json.RawMessage(`"hello"`)}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (r *room) SearchTraces(context.Context, api.TraceQuery) (api.TraceList, error) {
	panic("a bug in a handler")
}

func (r *room) Trace(context.Context, string) (api.Trace, error) { return api.Trace{}, nil }

func (r *room) Services(context.Context, api.Window) (api.ServiceList, error) {
	return api.ServiceList{}, nil
}

const testToken = "the-token"

// house is a Server, and what is behind it: the rooms of the test, real tokens and a real audit log.
type house struct {
	*room
	server *httptest.Server
	access *access.Access
	log    *audit.Log
	state  *troubled
}

// serve returns a Server with everything that there can be, and its fleet.
func serve(t *testing.T) (*httptest.Server, *room) {
	h := newHouse(t, nil)
	return h.server, h.room
}

func newHouse(t *testing.T, change func(*Options)) *house {
	t.Helper()
	r := &room{changed: make(chan struct{}), search: func(context.Context) error { return nil }}
	h := &house{room: r, state: &troubled{Store: new(state.Memory).Open()}}
	var err error
	if h.access, err = access.Open(t.Context(), access.Options{Store: h.state, Secret: new(state.Secret), Root: testToken}); err != nil {
		t.Fatal(err)
	}
	if h.log, err = audit.Open(t.Context(), audit.Options{Store: h.state, Hub: "h"}); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Hosts: []string{"hub.example"}, Version: "1", Log: slog.New(slog.DiscardHandler), Hub: func() api.Hub { return api.Hub{ID: "h", QuickLook: api.QuickLook{Bytes: 1}} },
		Fleet: r, Rows: r, Documents: &r.papers, Schema: []byte(`{"title":"creel document"}`),
		Prom:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "prom "+r.URL.Path) }),
		Pages:  fstest.MapFS{"index.html": {Data: []byte("<title>page</title>")}, "assets/a.js": {Data: []byte("script")}},
		Access: h.access, Audit: h.log, Gate: (*doorkeeper)(r), Authority: (*notary)(r), Members: members{}, Cluster: alone{}, Flood: (*dam)(r), Join: func(c api.AccessTokenCreated) string { return "creel join " + c.Text },
		Certificate: func() api.Certificate { return api.Certificate{Own: true} },
	}
	who, err := directory.Open(t.Context(), directory.Options{Store: h.state, Batch: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	o.Directory = who
	if change != nil {
		change(&o)
	}
	s := New(o)
	h.server = httptest.NewUnstartedServer(s)
	h.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	h.server.Start()
	t.Cleanup(func() {
		s.Close()
		h.server.Close()
		who.Close()
		h.log.Close()
		h.access.Close()
		if err := h.state.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

type request struct {
	method, path, host, origin, token, cookie, body, content string
}

func (q request) do(t *testing.T, server *httptest.Server) (*http.Response, string) {
	t.Helper()
	if q.method == "" {
		q.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), q.method, server.URL+q.path, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	if q.host != "" {
		req.Host = q.host
	}
	if q.origin != "" {
		req.Header.Set("Origin", q.origin)
	}
	if q.content != "" {
		req.Header.Set("Content-Type", q.content)
	}
	if q.token != "" {
		req.Header.Set("Authorization", "Bearer "+q.token)
	}
	if q.cookie != "" {
		req.AddCookie(&http.Cookie{Name: plainCookie, Value: q.cookie})
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// TestWhoMayAsk: by host, origin, token and cookie.
func TestWhoMayAsk(t *testing.T) {
	server, _ := serve(t)
	const hub = api.Prefix + "/hub"
	for name, c := range map[string]struct {
		request
		want int
	}{
		"with the token":                       {request{path: hub, token: testToken}, 200},
		"without":                              {request{path: hub}, 401},
		"with another":                         {request{path: hub, token: "another"}, 401},
		"with an empty one":                    {request{path: hub, token: " "}, 401},
		"with the token as a cookie":           {request{path: hub, cookie: testToken}, 401},
		"as localhost":                         {request{path: hub, token: testToken, host: "localhost:4380"}, 200},
		"as an address of loopback":            {request{path: hub, token: testToken, host: "[::1]:4380"}, 200},
		"by a name that was given":             {request{path: hub, token: testToken, host: "Hub.Example"}, 200},
		"by a name that was bound to it":       {request{path: hub, token: testToken, host: "evil.example:4380"}, 403},
		"by a name that only begins so":        {request{path: hub, token: testToken, host: "localhost.evil.example"}, 403},
		"by another machine's address":         {request{path: hub, token: testToken, host: "192.0.2.7"}, 403},
		"from its own page":                    {request{path: hub, token: testToken, host: "localhost:1", origin: "http://localhost:1"}, 200},
		"from another page":                    {request{path: hub, token: testToken, origin: "https://evil.example"}, 403},
		"from a sandboxed page":                {request{path: hub, token: testToken, origin: "null"}, 403},
		"from a page of another port":          {request{path: hub, token: testToken, host: "localhost:1", origin: "http://localhost:2"}, 403},
		"prom without the token":               {request{path: "/prom/api/v1/query"}, 401},
		"prom with it":                         {request{path: "/prom/api/v1/query", token: testToken}, 200},
		"a page, which anybody may see":        {request{path: "/fleet"}, 200},
		"a page under a strange name":          {request{path: "/fleet", host: "evil.example"}, 403},
		"agents under a strange name":          {request{path: "/v1/opamp", host: "evil.example"}, 403},
		"agents":                               {request{path: "/v1/opamp"}, 200},
		"the description":                      {request{path: api.Prefix + "/openapi.json"}, 200},
		"health":                               {request{path: "/healthz"}, 200},
		"what is not there":                    {request{path: "/api/creel/v1/nothing", token: testToken}, 404},
		"with a method that is not there":      {request{method: "DELETE", path: hub, token: testToken}, 404},
		"posting to a page":                    {request{method: "POST", path: "/fleet"}, 404},
		"signing in with the token":            {request{method: "POST", path: api.Prefix + "/login", body: `{"token":"the-token"}`}, 200},
		"signing in with another":              {request{method: "POST", path: api.Prefix + "/login", body: `{"token":"x"}`}, 401},
		"signing in with nonsense":             {request{method: "POST", path: api.Prefix + "/login", body: `x`}, 400},
		"signing in with much":                 {request{method: "POST", path: api.Prefix + "/login", body: `{"token":"` + strings.Repeat("x", 10_000) + `"}`}, 400},
		"signing in by another's page":         {request{method: "POST", path: api.Prefix + "/login", origin: "https://evil.example", body: `{"token":"the-token"}`}, 403},
		"a file outside of the pages":          {request{path: "/etc/passwd"}, 200}, // the entrance
		"an asset that is not there":           {request{path: "/assets/gone.js"}, 404},
		"a parameter that is not there":        {request{path: api.Prefix + "/agents?stauts=lost", token: testToken}, 400},
		"a parameter with a value that is not": {request{path: api.Prefix + "/agents?status=wrong", token: testToken}, 400},
		"an agent that is not there":           {request{path: api.Prefix + "/agents/x", token: testToken}, 404},
		"a live view that is wrong":            {request{path: api.Prefix + "/logs/tail?query=wrong", token: testToken}, 400},
	} {
		resp, body := c.do(t, server)
		if resp.StatusCode != c.want {
			t.Errorf("%s: %s: %s", name, resp.Status, body)
		}
		if strings.Contains(body, "root:") {
			t.Errorf("%s: got a file of the machine", name)
		}
		var e api.Error
		if c.want >= 400 && c.path != "/assets/gone.js" && (json.Unmarshal([]byte(body), &e) != nil || e.Message == "" || e.Code == "") {
			t.Errorf("%s: the answer is no error that explains itself: %s", name, body)
		}
	}
}

// TestSignIn: the link gives a cookie that no script sees, and the cookie lets in.
func TestSignIn(t *testing.T) {
	server, _ := serve(t)
	resp, _ := request{path: "/signin?token=" + testToken}.do(t, server)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/fleet" || len(resp.Cookies()) != 1 {
		t.Fatalf("got %s, %v", resp.Status, resp.Header)
	}
	c := resp.Cookies()[0]
	if !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteStrictMode || strings.Contains(c.Value, testToken) {
		t.Errorf("the cookie is %v", c)
	}
	secure, r := httptest.NewRecorder(), httptest.NewRequest("GET", "https://127.0.0.1/signin?token="+testToken, nil)
	server.Config.Handler.ServeHTTP(secure, r)
	if list := secure.Result().Cookies(); len(list) != 1 || !list[0].Secure {
		t.Errorf("over TLS: %s, %v", secure.Result().Status, list)
	}
	if resp, _ := (request{path: api.Prefix + "/hub", cookie: c.Value}).do(t, server); resp.StatusCode != 200 {
		t.Errorf("with the cookie: %s", resp.Status)
	}
	if resp, _ := (request{path: "/signin?token=x"}).do(t, server); resp.StatusCode != 401 || len(resp.Cookies()) != 0 {
		t.Errorf("with a wrong token: %s, %v", resp.Status, resp.Cookies())
	}
}

// TestHeaders: pages load nothing from outside, and what changes is not kept.
func TestHeaders(t *testing.T) {
	server, _ := serve(t)
	page, _ := request{path: "/explore/logs"}.do(t, server)
	asset, _ := request{path: "/assets/a.js"}.do(t, server)
	answer, _ := request{path: api.Prefix + "/hub", token: testToken}.do(t, server)
	if csp := page.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'; style-src 'self';") || !strings.Contains(csp, "frame-ancestors 'none'") {
		t.Errorf("policy %q", csp)
	}
	for want, have := range map[string]string{"no-cache": page.Header.Get("Cache-Control"), "public, max-age=31536000, immutable": asset.Header.Get("Cache-Control"), "no-store": answer.Header.Get("Cache-Control")} {
		if have != want {
			t.Errorf("Cache-Control is %q, not %q", have, want)
		}
	}
}

// TestWatch: an event at once, and one when something has changed; the end of the hub ends it.
func TestWatch(t *testing.T) {
	server, fleet := serve(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+api.Prefix+"/agents/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() (l api.AgentList) {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &l); err != nil {
					t.Fatal(err)
				}
				return l
			}
		}
		t.Fatalf("the stream has ended: %v", lines.Err())
		return l
	}
	if l := next(); l.Total != 0 {
		t.Errorf("the first event has %d agents", l.Total)
	}
	fleet.add("one")
	if l := next(); l.Total != 1 {
		t.Errorf("the next event has %d agents", l.Total)
	}
	server.Config.Handler.(*Server).Close()
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data") {
			t.Error("an event after the end")
		}
	}
}

// TestBusy: more than maxQueries at once wait, are told so when their time is over, and none is held up by who has gone.
func TestBusy(t *testing.T) {
	server, r := serve(t)
	working, release := make(chan struct{}, maxQueries), make(chan struct{})
	r.search = func(ctx context.Context) error {
		working <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var all sync.WaitGroup
	for range maxQueries {
		all.Go(func() {
			if resp, body := (request{path: api.Prefix + "/logs", token: testToken}).do(t, server); resp.StatusCode != 200 {
				t.Errorf("%s: %s", resp.Status, body)
			}
		})
	}
	for range maxQueries {
		<-working
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+api.Prefix+"/hub", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("one more was answered %s", resp.Status)
	}
	close(release)
	all.Wait()
	if resp, _ := (request{path: api.Prefix + "/hub", token: testToken}).do(t, server); resp.StatusCode != 200 {
		t.Errorf("afterwards: %s", resp.Status)
	}
}
