package nacos

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/center/centertest"
)

const group = "DEFAULT_GROUP"

func TestChanges(t *testing.T) {
	n := centertest.NewNacos(t)
	n.Publish("b.yaml", group, "", "b: 1")
	r := watch(t, fmt.Sprintf("{address: %q, data_ids: [b.yaml, a.json]}", n.URL()), nil)
	r.Wants("b.yaml=b: 1")
	n.Publish("c.yaml", group, "", "not asked for")
	n.Publish("a.json", "OTHER", "", "not asked for")
	n.Publish("a.json", group, "", "{}")
	first := r.Wants("a.json={} b.yaml=b: 1").Revision
	n.Publish("b.yaml", group, "", "grün")
	if r.Wants("a.json={} b.yaml=grün").Revision == first {
		t.Error("the revision stays")
	}
	n.Remove("a.json", group, "")
	r.Wants("b.yaml=grün")
	n.Publish("b.yaml", group, "", "")
	r.Troubled("document b.yaml of the center is empty")
	n.Remove("b.yaml", group, "")
	r.Troubled("no document any more")
	n.Publish("b.yaml", group, "", "back")
	r.Wants("b.yaml=back")
	r.Well()
}

func TestNamespace(t *testing.T) {
	n := centertest.NewNacos(t)
	n.Publish("a", "g", "", "public")
	n.Publish("a", "g", "prod", "1")
	r := watch(t, fmt.Sprintf("{address: %q, data_ids: a, group: g, namespace: prod, allow_empty: true}", n.URL()), nil)
	if s := r.Wants("a=1"); s.Revision != "c4ca4238a0b923820dcc509a6f75849b" { // the MD5 of 1
		t.Errorf("the revision is %s", s.Revision)
	}
	n.Publish("a", "g", "prod", "2")
	r.Wants("a=2")
	n.Remove("a", "g", "prod")
	r.Wants("")
}

// TestLogin: a token is got anew when the server knows it no more, and before it ends.
func TestLogin(t *testing.T) {
	for _, old := range []bool{false, true} {
		n := centertest.NewNacos(t)
		n.Username, n.Password, n.NoV1Login = "creel", "p&ss", old
		n.Publish("a", group, "", "1")
		var s *source
		r := watch(t, fmt.Sprintf("{address: %q, data_ids: a, username: creel, password: 'p&ss'}", n.URL()), func(made *source) { s = made })
		r.Wants("a=1")
		n.ExpireTokens()
		n.Publish("a", group, "", "2")
		r.Wants("a=2")
		if n.Logins() != 2 {
			t.Errorf("%d logins, not one more after the token had ended", n.Logins())
		}
		if left := time.Until(s.renew); left > 5*time.Hour*9/10 || left < 4*time.Hour { // s rests in a long poll
			t.Errorf("the token is renewed in %v", left)
		}
	}
}

func TestTokenIsRenewedInTime(t *testing.T) {
	t.Parallel()
	n := centertest.NewNacos(t)
	n.Username, n.Password, n.TTL, n.Hold = "u", "p", time.Second, 20*time.Millisecond
	n.Publish("a", group, "", "1")
	r := watch(t, fmt.Sprintf("{address: %q, data_ids: a, username: u, password: p}", n.URL()), func(s *source) { s.pace.Every = time.Millisecond })
	r.Wants("a=1")
	r.Eventually("a second login", func() bool { return n.Logins() >= 2 })
	select {
	case err := <-r.Health:
		t.Errorf("the end of a token is trouble: %v", err)
	default:
	}
}

// TestNothingHappens: a long poll that is over answers 200 with nothing.
func TestNothingHappens(t *testing.T) {
	n := centertest.NewNacos(t)
	n.Hold = time.Millisecond
	n.Publish("a", group, "", "1")
	const every = 50 * time.Millisecond
	r := watch(t, fmt.Sprintf("{address: %q, data_ids: a}", n.URL()), func(s *source) { s.pace.Every = every })
	r.Wants("a=1")
	start := time.Now()
	r.Eventually("many long polls", func() bool { return n.Requests() >= 20 })
	if got, most := n.Requests(), 13+int(time.Since(start)/every); got > most {
		t.Errorf("%d requests in %v, at most %d are due", got, time.Since(start), most)
	}
	r.Silent()
	n.Publish("a", group, "", "2")
	r.Wants("a=2")
}

func TestTrouble(t *testing.T) {
	f := func(name, want string, faults ...http.HandlerFunc) {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // there is a pause after each trouble
			n := centertest.NewNacos(t)
			n.Hold = 20 * time.Millisecond
			n.Publish("a", group, "", "1")
			r := watch(t, fmt.Sprintf("{address: %q, data_ids: a}", n.URL()), func(s *source) { s.patience, s.hold = 100*time.Millisecond, 0 })
			r.Wants("a=1")
			n.Fail(faults...)
			r.Troubled(want)
			r.Well()
			r.Silent()
			if n.Failed() != len(faults) {
				t.Errorf("%d faults happened", n.Failed())
			}
			n.Publish("a", group, "", "2")
			r.Wants("a=2")
		})
	}
	told := centertest.Text("a%02DEFAULT_GROUP%01")
	f("status", `listen to Nacos: it answers 503 Service Unavailable: "server is DOWN now"`, centertest.Status(503, "server is DOWN now"))
	f("page", "was not asked for; is that Nacos?", centertest.Text("<html>welcome</html>"))
	f("other", `"b\x02DEFAULT_GROUP" was not asked for`, centertest.Text("b%02DEFAULT_GROUP%01"))
	f("escape", `invalid URL escape "%0"`, centertest.Text("a%02DEFAULT_GROUP%0"))
	f("cut", "unexpected EOF", centertest.Cut)
	f("hang", "no answer in 100ms", centertest.Hang)
	f("login", "set username and password", centertest.Status(403, "user not found!"))
	f("get", "get a from Nacos: it answers 500", told, centertest.Status(500, "caused: null"))
	f("proxy", "is address right", told, centertest.Status(404, "no such page"))
	f("large", "the answer has more than 1048576 bytes", told, centertest.Text(strings.Repeat("a", 1<<20+1)))
}

func TestAway(t *testing.T) {
	n := centertest.NewNacos(t)
	n.Publish("a", group, "", "1")
	r := watch(t, fmt.Sprintf("{address: %q, data_ids: a}", n.URL()), nil)
	r.Wants("a=1")
	n.Stop()
	r.Troubled("connection refused")
	n.Start()
	r.Well()
	r.Silent()
	n.Publish("a", group, "", "2")
	r.Wants("a=2")
}

func TestPasswordIsWrong(t *testing.T) {
	n := centertest.NewNacos(t)
	n.Username, n.Password = "u", "right"
	r := watch(t, fmt.Sprintf("{address: %q, data_ids: a, username: u, password: wrong}", n.URL()), nil)
	r.Troubled(`log in to Nacos: it answers 403 Forbidden: "unknown user!"; check username`)
	r.Silent()
}

// TestSecretsStayOutOfErrors: the token is in addresses.
func TestSecretsStayOutOfErrors(t *testing.T) {
	n := centertest.NewNacos(t)
	n.Username, n.Password = "u", "p"
	r := watch(t, fmt.Sprintf("{address: %q, data_ids: a, username: u, password: p}", n.URL()), nil)
	r.Wants("")
	n.Stop()
	select {
	case err := <-r.Health:
		if text := err.Error(); strings.Contains(text, "token") || !strings.Contains(text, n.URL()) {
			t.Errorf("Health is told %q", text)
		}
	case <-time.After(centertest.Soon):
		t.Error("Health is told nothing")
	}
}

func TestOptions(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		centertest.Refuses(t, Center, yaml, want)
	}
	f("{}", "data_ids")
	f("{data_ids: []}", "between 1 and 1000")
	f("{data_ids: [a, b, a]}", "a is there twice")
	f("{data_ids: [a b]}", "cannot be a data ID")
	f("{data_ids: a, group: a/b}", "group")
	f("{data_ids: a, namespace: a b}", "namespace")
	f("{data_ids: a, username: u}", "go together")
	f("{data_ids: a, address: 'nacos:8848'}", "must begin with http://")
}
