package consul

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/center/centertest"
)

func TestKey(t *testing.T) {
	c := centertest.NewConsul(t)
	c.Put("web.yaml", "a: 1")
	r := watch(t, fmt.Sprintf("{address: %q, key: web.yaml}", c.URL()), nil)
	if s := r.Wants("web.yaml=a: 1"); s.Revision != "11" {
		t.Errorf("the revision is %s", s.Revision)
	}
	c.Put("web.yaml.old", "not asked for")
	c.Put("web.yaml", "a: 2")
	r.Wants("web.yaml=a: 2")
	c.Delete("web.yaml")
	r.Troubled("no document any more")
	c.Put("web.yaml", "")
	r.Troubled("document web.yaml of the center is empty")
	c.Put("web.yaml", "a: 3")
	r.Wants("web.yaml=a: 3")
	r.Well()
}

func TestPrefix(t *testing.T) {
	c := centertest.NewConsul(t)
	c.Token = "s3cret"
	c.Put("web/", "")
	c.Put("web/b.yaml", "b")
	c.Put("web/a b/ü.json", "{}")
	r := watch(t, fmt.Sprintf("{address: %q, prefix: web/, token: s3cret, datacenter: dc1, allow_empty: true}", c.URL()), nil)
	r.Wants("web/a b/ü.json={} web/b.yaml=b")
	c.Delete("web/b.yaml")
	r.Wants("web/a b/ü.json={}")
	c.Delete("web/a b/ü.json")
	r.Wants("")
	c.Put("web/c.yaml", "")
	r.Wants("web/c.yaml=")
}

// TestWhatIsNotThere: an answer 404 has an index, and a query with it blocks until the key is there.
func TestWhatIsNotThere(t *testing.T) {
	c := centertest.NewConsul(t)
	r := watch(t, fmt.Sprintf("{address: %q, key: web.yaml}", c.URL()), nil)
	r.Wants("")
	r.Eventually("a query that blocks", func() bool { return c.Requests() == 2 })
	c.Put("web.yaml", "a")
	r.Wants("web.yaml=a")
}

func TestIndexGoesBackwards(t *testing.T) {
	c := centertest.NewConsul(t)
	for i := range 20 {
		c.Put("k", fmt.Sprint(i))
	}
	r := watch(t, fmt.Sprintf("{address: %q, key: k}", c.URL()), nil)
	r.Wants("k=19")
	r.Eventually("a query that blocks", func() bool { return c.Requests() == 2 })
	c.Restore(5, map[string]string{"k": "old"})
	if s := r.Wants("k=old"); s.Revision != "5" {
		t.Errorf("the revision is %s", s.Revision)
	}
	c.Put("k", "new")
	r.Wants("k=new")
}

// TestIndexZero: Consul should never say 0, but has; a client that sends it back asks without a pause.
func TestIndexZero(t *testing.T) {
	c := centertest.NewConsul(t)
	asked := make(chan string, 10)
	c.Fail(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", "0")
		fmt.Fprint(w, `[{"Key":"k","Value":"YQ==","ModifyIndex":0}]`)
	}, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query().Get("index")
		centertest.Hang(w, r)
	})
	r := watch(t, fmt.Sprintf("{address: %q, key: k}", c.URL()), nil)
	r.Wants("k=a")
	if index := <-asked; index != "1" {
		t.Errorf("the next query has index %q", index)
	}
}

// TestSpuriousWakeups: that a query returns does not prove a change, and one that always does must not be asked as fast
// as it can.
func TestSpuriousWakeups(t *testing.T) {
	c := centertest.NewConsul(t)
	c.Put("k", "a")
	const every = 50 * time.Millisecond
	r := watch(t, fmt.Sprintf("{address: %q, key: k}", c.URL()), func(s *source) { s.pace.Every = every })
	r.Wants("k=a")
	start := time.Now()
	r.Eventually("many wakeups", func() bool { c.Wake(); return c.Requests() >= 20 })
	if n, most := c.Requests(), 12+int(time.Since(start)/every); n > most {
		t.Errorf("%d requests in %v, at most %d are due", n, time.Since(start), most)
	}
	r.Silent()
	c.Put("k", "b")
	r.Wants("k=b")
}

func TestWaitIsOver(t *testing.T) {
	c := centertest.NewConsul(t)
	c.Put("k", "a")
	r := watch(t, fmt.Sprintf("{address: %q, key: k}", c.URL()), func(s *source) { s.wait = time.Millisecond })
	r.Wants("k=a")
	r.Eventually("three queries without a change", func() bool { return c.Requests() > 3 })
	r.Silent()
}

func TestTrouble(t *testing.T) {
	f := func(name string, fault http.HandlerFunc, want string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // there is a pause after each trouble
			c := centertest.NewConsul(t)
			c.Put("k", "a")
			r := watch(t, fmt.Sprintf("{address: %q, key: k}", c.URL()), nil)
			r.Wants("k=a")
			r.Eventually("a query that blocks", func() bool { return c.Requests() == 2 })
			c.Fail(fault)
			c.Wake()
			r.Troubled(want)
			r.Well()
			r.Silent()
			if c.Failed() != 1 {
				t.Errorf("%d faults happened", c.Failed())
			}
			c.Put("k", "b")
			r.Wants("k=b")
		})
	}
	f("status", centertest.Status(500, "No cluster leader"), `it answers 500 Internal Server Error: "No cluster leader"`)
	f("page", centertest.Text("<html>welcome</html>"), "has no X-Consul-Index")
	f("proxy", centertest.Status(404, "not found"), "has no X-Consul-Index")
	f("cut", centertest.Cut, "unexpected EOF")
	f("half", garbage(`[{"Key":"k","Value":"YQ=`), "unexpected end of JSON input")
	f("value", garbage(`[{"Key":"k","Value":"?"}]`), "illegal base64")
	f("key", garbage(`[{"Key":"other","Value":"YQ=="}]`), `"other", which was not asked for`)
	f("large", garbage(`[{"Key":"k","Value":"`+strings.Repeat("YWFh", 1<<19)+`"}]`), "at most 1048576 are taken")
	f("redirect", redirect, "it leads to http://127.0.0.1:1, and redirects are not followed")
}

// TestAway: a Consul that is away changes nothing, and one that hangs is noticed.
func TestAway(t *testing.T) {
	c := centertest.NewConsul(t)
	c.Put("k", "a")
	r := watch(t, fmt.Sprintf("{address: %q, key: k}", c.URL()), func(s *source) { s.wait, s.patience = time.Millisecond, 50*time.Millisecond })
	r.Wants("k=a")
	c.Fail(centertest.Hang)
	r.Troubled("no answer in 5")
	r.Well()
	c.Stop()
	r.Troubled("connection refused")
	c.Start()
	r.Well()
	r.Silent()
	c.Put("k", "b")
	r.Wants("k=b")
}

func redirect(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "http://127.0.0.1:1/?token=secret", http.StatusFound)
}

func garbage(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", "1000")
		fmt.Fprint(w, text)
	}
}

func TestToken(t *testing.T) {
	c := centertest.NewConsul(t)
	c.Token = "right"
	r := watch(t, fmt.Sprintf("{address: %q, key: k, token: wrong}", c.URL()), nil)
	r.Troubled("Permission denied")
	r.Silent()
}

func TestOptions(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		centertest.Refuses(t, Center, yaml, want)
	}
	f("{}", "give either key or prefix")
	f("{key: a, prefix: b}", "give either key or prefix")
	f("{key: /a}", "do not begin with a slash")
	f("{key: a/}", "give it as prefix")
	f("{key: a, address: 'consul:8500'}", "must begin with http://")
	f("{key: a, address: 'http://u:p@consul'}", "must not hold a user")
}
