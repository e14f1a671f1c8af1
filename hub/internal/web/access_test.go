package web

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
)

// troubled is a control state in which the audit log cannot be written while it is ill.
type troubled struct {
	state.Store
	ill    atomic.Bool
	failed atomic.Int64
}

func (s *troubled) Put(ctx context.Context, key string, value []byte, leased bool, c state.Condition) (int64, error) {
	if s.ill.Load() && strings.HasPrefix(key, "audit/") {
		s.failed.Add(1)
		return 0, errors.New("the disk is full")
	}
	return s.Store.Put(ctx, key, value, leased, c)
}

// doorkeeper is a Gate that notes what is asked of it. Who is not in the fleet: id-stranger, who knocks, and id-revoked.
type doorkeeper room

func (d *doorkeeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, "identity "+r.URL.Path)
}

func (d *doorkeeper) Revoke(_ context.Context, by, agent, name, cause string) error {
	d.papers.note("revoke %s (%s) by %s: %s", agent, name, by, cause)
	return nil
}

func (d *doorkeeper) Admit(_ context.Context, by, agent, cause string) error {
	d.papers.note("admit %s by %s: %s", agent, by, cause)
	return nil
}

func (d *doorkeeper) Knocks() api.KnockList {
	return api.KnockList{Knocks: []api.Knock{{Agent: "id-stranger", Name: "strange", Reason: control.UnknownAuthority}, {Agent: "id-south", Reason: control.Cloned}}, Revoked: []api.Revocation{{Agent: "id-revoked"}}}
}

// alone is a Cluster of one hub.
type alone struct{}

func (alone) Cluster(context.Context) api.Cluster {
	return api.Cluster{Hub: "h", Leader: "h", Hubs: []api.ClusterHub{{ID: "h"}}, State: api.ControlState{Healthy: true}}
}

func (alone) Changed() <-chan struct{} { return nil }

func (alone) Drain(_ context.Context, id string, on bool) (api.ClusterHub, error) {
	return api.ClusterHub{ID: id, Draining: on}, nil
}

// members are Members that have nobody to remove.
type members struct{}

func (members) Joinable() error { return nil }

func (members) Remove(_ context.Context, _, id string) (string, bool, error) { return id, false, nil }

// notary is an Authority that notes what is asked of it.
type notary room

func (n *notary) Bundle() ([]byte, string) { return []byte("the bundle"), "" }

func (n *notary) Describe() api.Authority { return api.Authority{Phase: "steady"} }

func (n *notary) Change(_ context.Context, c api.AuthorityChange, behind int) error {
	n.papers.note("%s with %d behind", c.Step, behind)
	if !c.Force {
		return &api.Error{Code: "conflict", Message: "agents are behind"}
	}
	return nil
}

// dam counts failed logins in the fleet's notes.
type dam room

func (d *dam) Failed(from net.Addr) {
	d.papers.note("failed from %s", strings.Split(from.String(), ":")[0])
}

// token makes a token.
func (h *house) token(t *testing.T, r api.AccessTokenRequest) api.AccessTokenCreated {
	t.Helper()
	if r.Name == "" {
		r.Name = string(r.Role)
	}
	c, err := h.access.Create(t.Context(), "test", r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// entries is the audit log, oldest first.
func (h *house) entries(t *testing.T) (list []string) {
	t.Helper()
	l, err := h.log.List(t.Context(), api.AuditQuery{Limit: 1000})
	if err != nil || l.Broken != 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	for _, e := range slices.Backward(l.Entries) {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s/%s %s %s %s %s %s", e.Who, e.Role, e.Address, e.Action, e.Target, e.Outcome, e.Detail)))
	}
	return list
}

// somebody returns a request for an operation, with whatever it needs to be right.
func somebody(o api.Operation, token string) request {
	q := request{method: o.Method, path: api.Prefix + strings.NewReplacer("{id}", "id-north", "{name}", "web").Replace(o.Path), token: token}
	if o.Body != nil {
		q.content, q.body = "application/json", "{}"
	}
	return q
}

// TestRoles: each operation is for whom the API says and for nobody else, and who is refused hears which role it needs. What
// changes something is in the audit log in any case, and nothing else is.
func TestRoles(t *testing.T) {
	h := newHouse(t, nil)
	h.room.add("north")
	h.room.search = func(context.Context) error { return nil }
	roles := []api.Role{"", api.Ingest, api.Enrol, api.Member, api.Viewer, api.Operator, api.Admin}
	tokens := map[api.Role]string{}
	for _, r := range roles[1:] {
		tokens[r] = h.token(t, api.AccessTokenRequest{Role: r}).Text
	}
	bounded := h.token(t, api.AccessTokenRequest{Name: "nora", Role: api.Admin, Within: `host.name == "north"`}).Text
	noted, refused := 0, 0
	for _, o := range api.Operations() {
		if o.Role == "" || o.Stream || o.ID == "searchTraces" { // which has a bug here
			continue
		}
		check := func(who string, token string, want int, words ...string) {
			t.Helper()
			before := len(h.entries(t))
			resp, body := somebody(o, token).do(t, h.server)
			if got := resp.StatusCode == 401 || resp.StatusCode == 403; got != (want != 0) || want != 0 && resp.StatusCode != want {
				t.Errorf("%s by %s: %s: %s", o.ID, who, resp.Status, body)
			}
			for _, w := range words {
				if !strings.Contains(body, w) {
					t.Errorf("%s by %s: the answer does not say %q: %s", o.ID, who, w, body)
				}
			}
			after := h.entries(t)
			if want != 0 {
				refused++
			}
			// Of strangers some entries are gathered.
			if n := len(after) - before; n > 0 != changes(o) && (who == string(api.Operator) || who == string(api.Admin) || !changes(o)) {
				t.Errorf("%s by %s: %d entries in the audit log", o.ID, who, n)
			} else if n > 0 {
				noted++
				if last := after[len(after)-1]; !strings.Contains(last, " 127.0.0.1 "+o.ID+" ") || strings.Contains(last, " done") != (resp.StatusCode < 400) {
					t.Errorf("%s by %s: noted as %s", o.ID, who, last)
				}
			}
		}
		for _, r := range roles {
			switch {
			case r == "" || r == api.Enrol || r == api.Member: // which proves nothing but that one may join
				check("a stranger", tokens[r], 401, "creel token create")
			case !r.May(o.Role):
				check(string(r), tokens[r], 403, "needs the role "+string(o.Role), string(r)+" has the role "+string(r), "--role "+string(o.Role))
			default:
				check(string(r), tokens[r], 0)
			}
		}
		if o.Within {
			check("nora", bounded, 0)
		} else {
			check("nora", bounded, 403, "nora sees only")
		}
	}
	if noted < 20 || refused < 50 {
		t.Errorf("%d were refused, %d are noted: that is less than there should be", refused, noted)
	}
}

// TestBounded: who sees only some agents asks the rooms for no more than these.
func TestBounded(t *testing.T) {
	h := newHouse(t, nil)
	h.room.add("north")
	h.room.add("south")
	c := api.Client{URL: h.server.URL, Token: h.token(t, api.AccessTokenRequest{Name: "nora", Role: api.Operator, Within: `host.name == "north"`}).Text}
	ctx := t.Context()
	if me, err := c.Me(ctx); err != nil || me != (api.Me{Name: "nora", Role: api.Operator, Within: `host.name == "north"`}) {
		t.Errorf("she is %+v, %v", me, err)
	}
	if hub, err := c.Hub(ctx); err != nil || hub.Agents["healthy"] != 1 || hub.QuickLook.Bytes != 0 {
		t.Errorf("the hub is %+v, %v", hub, err)
	}
	if l, err := c.Agents(ctx, api.AgentQuery{}); err != nil || l.Total != 1 {
		t.Errorf("agents: %+v, %v", l, err)
	}
	if _, err := c.Agent(ctx, "id-south"); !notFound(err) {
		t.Errorf("another's: %v", err)
	}
	watched := errors.New("watched")
	if err := c.WatchAgents(ctx, api.AgentQuery{}, func(l api.AgentList) error {
		if l.Total != 1 {
			t.Errorf("watched: %+v", l)
		}
		return watched
	}); !errors.Is(err, watched) {
		t.Error(err)
	}
	h.papers.asked()
	_, applied := c.ApplyDocument(ctx, api.DocumentChange{Text: "{}"})
	_, rolled := c.RollBackDocument(ctx, "web", api.Rollback{})
	_, ordered := c.Order(ctx, "id-north", api.OrderRequest{Do: "pause"})
	for _, err := range []error{applied, rolled, ordered, c.DeleteDocument(ctx, "web", api.DocumentDeletion{})} {
		if err != nil {
			t.Error(err)
		}
	}
	const nora = `nora within host.name == "north"`
	if got := h.papers.asked(); !slices.Equal(got, []string{"apply by " + nora + ": 2 bytes", "rollback web by " + nora + " to 0", "order id-north to pause by " + nora + ": ", "delete web by " + nora + ", dry false"}) {
		t.Errorf("heard %q", got)
	}
}

// TestSessions: signing in changes a token for a cookie and a JWT, which are worth no more than it, and nothing once it is
// deleted: live views end as well. Failures are counted, and noted without the secret.
func TestSessions(t *testing.T) {
	h := newHouse(t, nil)
	ann := h.token(t, api.AccessTokenRequest{Name: "ann", Role: api.Viewer})
	login := func(token string) (*http.Response, string) {
		return request{method: "POST", path: api.Prefix + "/login", body: fmt.Sprintf(`{"token":%q}`, token)}.do(t, h.server)
	}
	resp, body := login(ann.Text)
	var answer api.LoginResponse
	if err := json.Unmarshal([]byte(body), &answer); err != nil || resp.StatusCode != 200 || len(resp.Cookies()) != 1 || answer.Seconds < 500 || strings.Contains(body, ann.Text) {
		t.Fatalf("%s: %s, %v", resp.Status, body, err)
	}
	cookie := resp.Cookies()[0]
	if cookie.Name != plainCookie || !cookie.HttpOnly || cookie.Secure || cookie.SameSite != http.SameSiteStrictMode || cookie.MaxAge < 3600 {
		t.Errorf("the cookie is %+v", cookie)
	}
	me := request{path: api.Prefix + "/me", cookie: cookie.Value}
	both := []request{me, {path: api.Prefix + "/me", token: answer.Token}}
	for _, q := range both {
		if resp, body := q.do(t, h.server); resp.StatusCode != 200 || !strings.Contains(body, `"name":"ann","role":"viewer"`) {
			t.Errorf("%+v: %s: %s", q, resp.Status, body)
		}
	}
	// Neither is a token, nor is each what the other is.
	for what, q := range map[string]request{
		"a cookie as a bearer token":  {path: me.path, token: cookie.Value},
		"a JWT as a cookie":           {path: me.path, cookie: answer.Token},
		"a wrong token, and a cookie": {path: me.path, token: "wrong", cookie: cookie.Value},
	} {
		if resp, body := q.do(t, h.server); resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %s: %s", what, resp.Status, body)
		}
	}
	h.papers.asked()
	ingest := h.token(t, api.AccessTokenRequest{Role: api.Ingest})
	for want, token := range map[int]string{401: answer.Token, 403: ingest.Text} {
		if resp, body := login(token); resp.StatusCode != want || len(resp.Cookies()) != 0 {
			t.Errorf("%d: %s: %s", want, resp.Status, body)
		}
	}
	forged := ann.Text[:len(ann.Text)-1] + "2" // of another secret
	if forged == ann.Text {
		forged = ann.Text[:len(ann.Text)-1] + "3"
	}
	if resp, _ := (request{path: "/signin?token=" + forged}).do(t, h.server); resp.StatusCode != 401 || len(resp.Cookies()) != 0 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("forged: %s, %v", resp.Status, resp.Header)
	}
	passed := httptest.NewRequest("GET", "http://localhost"+me.path, nil)
	passed.Header.Set("Authorization", "Bearer wrong")
	passed.Header.Set("X-Forwarded-For", "192.0.2.7")
	w := httptest.NewRecorder()
	if h.server.Config.Handler.ServeHTTP(w, passed); w.Code != 401 {
		t.Errorf("passed on by a proxy: %d", w.Code)
	}
	if got := h.papers.asked(); !slices.Equal(got, slices.Repeat([]string{"failed from 127.0.0.1"}, 3)) {
		t.Errorf("failures: %q", got)
	}
	log := h.entries(t)
	want := []string{"ann/viewer 127.0.0.1 signIn  done", "/ 127.0.0.1 signIn  unauthorized", "ingest/ingest 127.0.0.1 signIn  forbidden", "/ 127.0.0.1 signIn " + ann.ID + " unauthorized"}
	slices.Sort(log)
	slices.Sort(want)
	if !slices.Equal(log, want) {
		t.Errorf("noted: %q", log)
	}
	watching, ended := make(chan bool, 10), make(chan error, 1)
	go func() {
		ended <- (&api.Client{URL: h.server.URL, Token: answer.Token}).WatchAgents(t.Context(), api.AgentQuery{}, func(l api.AgentList) error {
			if watching <- true; l.Total > 0 {
				t.Error("the live view goes on")
			}
			return nil
		})
	}()
	<-watching
	if _, err := h.access.Delete(t.Context(), ann.ID); err != nil {
		t.Fatal(err)
	}
	h.room.add("north")
	for _, q := range both {
		if resp, body := q.do(t, h.server); resp.StatusCode != 401 {
			t.Errorf("after the token was deleted: %s: %s", resp.Status, body)
		}
	}
	if err := <-ended; !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("the live view ended with %v", err)
	}
	if resp, _ := (request{method: "POST", path: api.Prefix + "/logout"}).do(t, h.server); resp.StatusCode != 204 || len(resp.Cookies()) != 1 || resp.Cookies()[0].MaxAge >= 0 {
		t.Errorf("signing out: %s, %v", resp.Status, resp.Cookies())
	}
}

// TestSecureCookie: over TLS the cookie is of this host alone, and one of another name is none; and pages without TLS are
// others than the hub's.
func TestSecureCookie(t *testing.T) {
	h := newHouse(t, nil)
	ask := func(method, path, origin string, cookies ...*http.Cookie) *http.Response {
		r := httptest.NewRequest(method, "https://localhost"+path, nil)
		r.TLS = &tls.ConnectionState{}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		h.server.Config.Handler.ServeHTTP(w, r)
		return w.Result()
	}
	got := ask("GET", "/signin?token="+testToken, "").Cookies()
	if len(got) != 1 || got[0].Name != "__Host-creel_session" || !got[0].Secure || got[0].Path != "/" || got[0].Domain != "" || !got[0].HttpOnly {
		t.Fatalf("the cookie is %+v", got)
	}
	const document = api.Prefix + "/documents/web"
	plain := &http.Cookie{Name: plainCookie, Value: got[0].Value}
	for what, c := range map[string]struct {
		resp *http.Response
		want int
	}{
		"reading":                   {ask("GET", document, "", got[0]), 200},
		"changing":                  {ask("DELETE", document, "https://localhost", got[0]), 204},
		"with a cookie without TLS": {ask("GET", document, "", plain), 401},
		"from a page without TLS":   {ask("DELETE", document, "http://localhost", got[0]), 403},
		"from nobody knows where":   {ask("DELETE", document, "", got[0]), 403},
	} {
		if c.resp.StatusCode != c.want {
			t.Errorf("%s: %s", what, c.resp.Status)
		}
	}
}

// TestOtherSites: what a browser says of where a request comes from is believed, even where there is no Origin.
func TestOtherSites(t *testing.T) {
	h := newHouse(t, nil)
	cookie := signedIn(t, h.server)
	for site, want := range map[string]int{"same-origin": 204, "none": 204, "same-site": 403, "cross-site": 403} {
		for _, credentials := range []func(*http.Request){
			func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+testToken) },
			func(r *http.Request) {
				r.AddCookie(&http.Cookie{Name: plainCookie, Value: cookie})
				r.Header.Set("Origin", h.server.URL)
			},
		} {
			r, err := http.NewRequestWithContext(t.Context(), "DELETE", h.server.URL+api.Prefix+"/documents/web", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Sec-Fetch-Site", site)
			credentials(r)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s: %s", site, resp.Status)
			}
		}
	}
}

// TestComingIn: the operations about tokens, agents that may not come in, and the authority.
func TestComingIn(t *testing.T) {
	h := newHouse(t, nil)
	h.room.add("north")
	h.room.add("south")
	c := api.Client{URL: h.server.URL, Token: testToken}
	ctx := t.Context()
	join, err := c.CreateToken(ctx, api.AccessTokenRequest{Name: "rack 7", Role: api.Enrol, Uses: 3})
	if err != nil || join.Join != "creel join "+join.Text || join.By != "root" {
		t.Errorf("%+v, %v", join, err)
	}
	person, err := c.CreateToken(ctx, api.AccessTokenRequest{Name: "ann", Role: api.Viewer, Within: `site == "north"`})
	if err != nil || person.Join != "" {
		t.Errorf("%+v, %v", person, err)
	}
	if l, err := c.Tokens(ctx); err != nil || len(l.Tokens) != 2 {
		t.Errorf("%+v, %v", l, err)
	}
	if err := c.DeleteToken(ctx, person.ID); err != nil {
		t.Error(err)
	}
	if l, err := c.Knocks(ctx); err != nil || len(l.Knocks) != 2 {
		t.Errorf("%+v, %v", l, err)
	}
	h.papers.asked()
	f := func(asked, want string) {
		t.Helper()
		err := c.Revoke(ctx, asked, api.Because{Cause: "why"})
		if got := strings.Join(h.papers.asked(), ", "); got != want || (err == nil) != (want != "") {
			t.Errorf("revoke %s: %q, %v", asked, got, err)
		}
	}
	f("id-north", "revoke id-north (north) by root: why")
	f("id-sout", "revoke id-south (south) by root: why")
	f("id-stranger", "revoke id-stranger (strange) by root: why")
	f("id-rev", "revoke id-revoked () by root: why")
	f("id-nobody", "")
	if err := c.Revoke(ctx, "id-north", api.Because{Cause: strings.Repeat("x", 1001)}); err == nil {
		t.Error("any cause will do")
	}
	if err := c.Admit(ctx, "id-stra", api.Because{}); err != nil || !slices.Equal(h.papers.asked(), []string{"admit id-stranger by root: "}) {
		t.Errorf("admit: %v", err)
	}
	if a, err := c.Authority(ctx); err != nil || a.Phase != "steady" || a.Confirmed != 7 || len(a.Behind) != 100 || !a.TLS.Own {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := c.ChangeAuthority(ctx, api.AuthorityChange{Step: "next"}); err == nil || !slices.Equal(h.papers.asked(), []string{"next with 200 behind"}) {
		t.Errorf("a step that leaves agents behind: %v", err)
	}
	if a, err := c.ChangeAuthority(ctx, api.AuthorityChange{Step: "next", Force: true}); err != nil || a.Confirmed != 7 {
		t.Errorf("%+v, %v", a, err)
	}
	l, err := c.Audit(ctx, api.AuditQuery{})
	if err != nil || len(l.Entries) == 0 || strings.Contains(fmt.Sprint(l), join.Text) {
		t.Errorf("%+v, %v", l, err)
	}
	want := []string{
		"createToken " + join.ID + " done rack 7, agent, for 3", "createToken " + person.ID + ` done ann, viewer, within site == "north"`, "deleteToken " + person.ID + ` done ann, viewer, within site == "north"`,
		"revokeAgent id-north done why", "revokeAgent id-south done why", "revokeAgent id-stranger done why", "revokeAgent id-revoked done why", "revokeAgent id-nobody not_found why",
	}
	log := h.entries(t)
	for i, w := range want {
		if got := strings.TrimPrefix(log[i], "root/admin 127.0.0.1 "); got != w {
			t.Errorf("noted: %q, not %q", got, w)
		}
	}
	for path, want := range map[string]string{keysPath: `"keys":[{`, control.EnrolPath: "identity " + control.EnrolPath} {
		if resp, body := (request{path: path}).do(t, h.server); resp.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %s: %s", path, resp.Status, body)
		}
	}
}

// TestAuditLogIsAway: a change that cannot be noted is not answered as done, and nobody signs in; looking goes on.
func TestAuditLogIsAway(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Backup = func(context.Context, io.Writer) error { panic("nobody may have it") } })
	c := api.Client{URL: h.server.URL, Token: testToken}
	h.state.ill.Store(true)
	var e *api.Error
	if err := c.DeleteDocument(t.Context(), "web", api.DocumentDeletion{}); !errors.As(err, &e) || e.Code != "unavailable" || !strings.Contains(e.Message, "it was done") {
		t.Errorf("a change: %v", err)
	}
	if got := h.papers.asked(); !slices.Equal(got, []string{"delete web by root, dry false"}) {
		t.Errorf("heard %q", got)
	}
	for _, q := range []request{{path: "/signin?token=" + testToken}, {path: api.Prefix + "/backup", token: testToken}} {
		if resp, body := q.do(t, h.server); resp.StatusCode != 503 || len(resp.Cookies()) != 0 {
			t.Errorf("%s: %s: %s", q.path, resp.Status, body)
		}
	}
	if err := c.DeleteDocument(t.Context(), "web", api.DocumentDeletion{DryRun: true}); err != nil {
		t.Errorf("a trial: %v", err)
	}
	if _, err := c.Documents(t.Context()); err != nil {
		t.Errorf("looking: %v", err)
	}
	if h.state.failed.Load() != 3 {
		t.Errorf("the log could not be written %d times", h.state.failed.Load())
	}
}

// TestBackup: for an admin who sees all, and noted; one that breaks cannot be taken for a whole one.
func TestBackup(t *testing.T) {
	var fails atomic.Int64
	h := newHouse(t, func(o *Options) {
		o.Backup = func(_ context.Context, w io.Writer) error {
			if fails.Load() == 2 {
				return errors.New("the disk cannot be read")
			}
			if _, err := io.WriteString(w, strings.Repeat("backup", 10_000)); err != nil || fails.Load() == 0 {
				return err
			}
			return errors.New("the disk cannot be read")
		}
	})
	const path = api.Prefix + "/backup"
	for _, r := range []api.AccessTokenRequest{{Role: api.Operator}, {Role: api.Admin, Within: `site == "north"`}} {
		if resp, body := (request{path: path, token: h.token(t, r).Text}).do(t, h.server); resp.StatusCode != 403 {
			t.Errorf("%s: %s: %s", r.Role, resp.Status, body)
		}
	}
	if resp, body := (request{path: path, token: testToken}).do(t, h.server); resp.StatusCode != 200 || len(body) != 60_000 || resp.Header.Get("Content-Type") != "application/x-tar" {
		t.Errorf("%s, %d bytes", resp.Status, len(body))
	}
	if log := h.entries(t); !slices.Equal(log, []string{"operator/operator 127.0.0.1 backup  forbidden", "admin/admin 127.0.0.1 backup  forbidden", "root/admin 127.0.0.1 backup  done"}) {
		t.Errorf("noted: %q", log)
	}
	fails.Store(1)
	r, err := http.NewRequestWithContext(t.Context(), "GET", h.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testToken)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("a broken backup ends like a whole one")
	}
	fails.Store(2)
	if resp, body := (request{path: path, token: testToken}).do(t, h.server); resp.StatusCode != 500 || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: %s", resp.Status, body)
	}
}
