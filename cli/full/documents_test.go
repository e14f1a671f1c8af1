package full

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/plugins/all"
	"github.com/creelhq/creel/report"
)

// counter is a hub's API that answers what is set, and notes what it is asked to change.
type counter struct {
	url string

	mu      sync.Mutex
	answers map[string]func(body []byte) any // an *api.Error is answered as such
	changes []string

	any func(r *http.Request) any // what else is answered; nil: nothing
}

func newCounter(t *testing.T) *counter {
	c := &counter{answers: make(map[string]func([]byte) any)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&body) // there may be none
		call := r.Method + " " + strings.TrimPrefix(r.URL.RequestURI(), api.Prefix)
		c.mu.Lock()
		answer := c.answers[call]
		if r.Method != http.MethodGet {
			c.changes = append(c.changes, call+" "+string(body))
		}
		c.mu.Unlock()
		var v any = &api.Error{Code: "not_found", Message: "there is no " + call}
		if answer != nil {
			v = answer(body)
		} else if c.any != nil {
			v = c.any(r)
		}
		switch v.(type) {
		case nil:
			w.WriteHeader(http.StatusNoContent)
			return
		case *api.Error:
			w.WriteHeader(http.StatusBadRequest)
		}
		_ = json.NewEncoder(w).Encode(v) // the client has gone
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *counter) set(call string, v any) { c.answer(call, func([]byte) any { return v }) }

func (c *counter) answer(call string, f func(body []byte) any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[call] = f
}

// asked returns what it was asked to change since it was called last.
func (c *counter) asked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.changes = nil }()
	return c.changes
}

// run runs a command, and compares the exit code and what is printed, both outputs together.
func (c *counter) run(t *testing.T, code int, want string, args ...string) {
	t.Helper()
	var out strings.Builder
	p := cli.Program{Name: "creel", Plugins: all.Plugins(), More: Commands}
	got := cli.Main(p, append(args, "--hub", c.url, "--token", "x"), &out, &out)
	text := ""
	for line := range strings.Lines(out.String()) {
		text += strings.TrimRight(line, " \n") + "\n"
	}
	if want = strings.TrimPrefix(want, "\n"); got != code || text != want {
		t.Errorf("creel %s: exit code %d, not %d\n%s\nnot\n%s", strings.Join(args, " "), got, code, text, want)
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// applied answers a change by what its text says.
func applied(body []byte) any {
	var c api.DocumentChange
	if err := json.Unmarshal(body, &c); err != nil {
		return &api.Error{Code: "bad_request", Message: err.Error()}
	}
	_, rest, _ := strings.Cut(c.Text, "document: ")
	name, _, _ := strings.Cut(rest, "\n")
	a := api.DocumentApplied{Outcome: "changed", Document: api.Document{Name: name, Version: 2, Agents: api.DocumentAgents{Selected: 2}}, Selected: []string{"edge-1", "edge-2"}}
	a.Differences = []api.Difference{
		{Path: "agent.log.level", Kind: "changed", Old: "info", New: "debug"}, {Path: "collectors.host", Kind: "added", New: "{}"}, {Path: "collectors.self", Kind: "removed", Old: "{}"},
	}
	switch name {
	case "same":
		a.Outcome, a.Differences = "unchanged", []api.Difference{}
	case "bad":
		return &api.Error{Code: "bad_request", Message: "2 errors", Problems: []api.Problem{
			{Line: 2, Column: 3, Path: "exporters.otpl", Message: "there is no exporter otpl", Hint: `did you mean "otlp"?`}, {Message: "says \x1b[31mnothing"},
		}}
	}
	return a
}

// TestApply: several documents of a stream, one of them wrong, which does not keep the others.
func TestApply(t *testing.T) {
	c := newCounter(t)
	c.answer("PUT /documents", applied)
	file := write(t, "all.yaml", "# three documents\n---\ndocument: web\na: |\n  --- no mark\n--- # the next\ndocument: bad\nb: 1\n---\ndocument: same\n")
	c.run(t, 2, fmt.Sprintf(`
%[1]s:7:3: exporters.otpl: there is no exporter otpl; did you mean "otlp"?
%[1]s: says  [31mnothing
web changed: version 2, for 2 agents: edge-1, edge-2
  ~ agent.log.level: info → debug
  + collectors.host: {}
  - collectors.self: {}
same unchanged: version 2, for 2 agents: edge-1, edge-2
creel: 2 errors in %[1]s; the document was not written. creel explain PATH tells what can be written
`, file), "apply", "-f", file, "-v", "--note", "why", "-o", "table")
	want := []string{
		`PUT /documents {"text":"document: web\na: |\n  --- no mark\n","note":"why"}`, `PUT /documents {"text":"    # the next\ndocument: bad\nb: 1\n","note":"why"}`,
		`PUT /documents {"text":"document: same\n","note":"why"}`,
	}
	if got := c.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %q", got)
	}
	c.run(t, 1, `
web would be changed: version 2, for 2 agents: edge-1, edge-2
  ~ agent.log.level: info → debug
  + collectors.host: {}
  - collectors.self: {}
creel: 1 document would change
`, "diff", "document", "web", "-f", write(t, "web.yaml", "document: bad\n---\ndocument: web\n"))
	c.run(t, 5, "creel: there is no document wbe in "+file+"\n", "diff", "document", "wbe", "-f", file)
	if got := c.asked(); !slices.Equal(got, []string{`PUT /documents {"text":"document: web\n","dry_run":true}`}) {
		t.Errorf("diff asked %q", got)
	}
	c.run(t, 0, "same unchanged: version 2, for 2 agents: edge-1, edge-2\n", "diff", "documents", "-f", write(t, "same.yaml", "document: same\n"))
	c.run(t, 2, "creel: which documents? Say -f FILE, or -f - for standard input\n", "apply")
	c.run(t, 2, "creel: read documents: there is none in "+file+"x\n", "apply", "-f", func() string {
		_ = os.WriteFile(file+"x", []byte("# nothing\n---\n"), 0o600)
		return file + "x"
	}())
}

// TestApplyWaits: until the agents run it, one fails, or the time is over.
func TestApplyWaits(t *testing.T) {
	c := newCounter(t)
	c.answer("PUT /documents", applied)
	file := write(t, "web.yaml", "document: web\n")
	detail := func(version int64, n api.DocumentAgents, placed ...api.Placed) api.DocumentDetail {
		return api.DocumentDetail{Document: api.Document{Name: "web", Version: version, Agents: n}, Placed: placed}
	}
	const head = "web changed: version 2, for 2 agents: edge-1, edge-2\n"
	for _, end := range []struct {
		last api.DocumentDetail
		code int
		want string
	}{
		{detail(2, api.DocumentAgents{Selected: 2, Running: 2}), 0, "web version 2: 2 of 2 agents run it, 0 waiting, 0 failed\n"},
		{detail(2, api.DocumentAgents{Selected: 2, Running: 1, Failed: 1}, api.Placed{Name: "edge-1", Status: "running"}, api.Placed{Name: "edge-2", Status: "refused", Error: "no such port"}), 1,
			"web version 2: 1 of 2 agents run it, 0 waiting, 1 failed\ncreel: web was not run everywhere: edge-2: refused: no such port\n"},
		{detail(3, api.DocumentAgents{}), 1, "creel: wait for web: somebody has changed it since, to version 3\n"},
	} {
		asked := 0
		c.answer("GET /documents/web", func([]byte) any {
			if asked++; asked == 1 {
				return detail(2, api.DocumentAgents{Selected: 2, Running: 1, Waiting: 1})
			}
			return end.last
		})
		c.run(t, end.code, head+"web version 2: 1 of 2 agents run it, 1 waiting, 0 failed\n"+end.want, "apply", "-f", file, "--wait")
	}
	var out strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	defer cancel()
	c.answer("GET /documents/web", func([]byte) any {
		if asked++; asked == 2 {
			cancel()
		}
		return detail(2, api.DocumentAgents{Selected: 1, Waiting: 1}, api.Placed{Name: "edge-1", Status: "waiting"})
	})
	err := (&commands{Commands: &cli.Commands{Err: &out}}).awaitOne(ctx, &api.Client{URL: c.url}, "web", 2)
	if err == nil || err.Error() != "wait for web: the time is over: edge-1: waiting" || out.String() != "web version 2: 0 of 1 agent run it, 1 waiting, 0 failed\n" {
		t.Errorf("when the time is over: %v\n%s", err, out.String())
	}
}

// TestDocuments: what is there is shown, deleted, rolled back and edited.
func TestDocuments(t *testing.T) {
	c := newCounter(t)
	long := time.Now().Add(-3 * time.Hour)
	doc := api.Document{Name: "web", Version: 3, Selector: `site == "north"`, Place: "all", Hash: "abc", By: "token", Time: long, Agents: api.DocumentAgents{Selected: 2, Running: 1, Failed: 1}}
	c.set("GET /documents", api.DocumentList{Documents: []api.Document{doc, {Name: "all", Version: 1, By: "browser", Time: long}}})
	c.run(t, 0, `
NAME  VERSION  AGENTS  RUNNING  WAITING  FAILED  CHANGED  BY       SELECTOR
web   3        2       1        0        1       3h       token    site == "north"
all   1        0       0        0        0       3h       browser  (all)
`, "get", "document")
	doc.Text = "document: web\nagent: {log: {level: info}}"
	c.set("GET /documents/web", api.DocumentDetail{Document: doc, Placed: []api.Placed{{Agent: "a1", Name: "edge-1", Status: "running", Version: "3"}, {Agent: "a2", Name: "edge-2", Status: "refused", Version: "3", Error: "no\nroom"}}})
	c.set("GET /documents/web?version=1", api.DocumentDetail{Document: api.Document{Name: "web", Version: 1, Text: "document: web\n"}})
	c.run(t, 0, doc.Text+"\n", "get", "documents", "web")
	c.run(t, 0, "document: web\n", "get", "document", "web", "--version", "1")
	c.set("GET /documents/web/history", api.DocumentHistory{Versions: []api.Document{doc, {Version: 2, By: "browser", Time: long, Deleted: true}, {Version: 1, By: "token", Time: long, Hash: "def", Note: "first", Text: "document: web\n"}}})
	at := stamp(long)
	c.run(t, 0, strings.ReplaceAll(`
document  web
version   3
selector  site == "north"
place     all
hash      abc
agents    2: 1 running, 0 waiting, 1 failed

AGENT   ID  STATUS   VERSION  ERROR
edge-1  a1  running  3
edge-2  a2  refused  3        no

VERSION  CHANGED              BY       HASH  NOTE
3        TIME  token    abc
2        TIME  browser        deleted
1        TIME  token    def   first

document: web
agent: {log: {level: info}}
`, "TIME", at), "describe", "documents", "web")

	c.set("DELETE /documents/web", nil)
	c.set("DELETE /documents/web?dry_run=true", nil)
	c.run(t, 0, "web would be deleted: version 3, of 2 agents: edge-1, edge-2\n", "delete", "documents", "web", "--dry-run")
	c.run(t, 0, "web deleted: version 3, of 2 agents: edge-1, edge-2\n", "delete", "document", "web")
	c.run(t, 5, "creel: there is no GET /documents/wbe\n", "delete", "document", "wbe")
	c.set("POST /documents/web/rollback", api.DocumentApplied{Document: api.Document{Name: "web", Version: 4}, Outcome: "changed"})
	c.run(t, 0, "web changed: version 4, for no agent\n", "rollback", "document", "web", "--to", "1")
	want := []string{"DELETE /documents/web?dry_run=true ", "DELETE /documents/web ", `POST /documents/web/rollback {"to":1}`}
	if got := c.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %q", got)
	}
	c.answer("PUT /documents", applied)
	c.run(t, 1, `
web would be changed: version 2, for 2 agents: edge-1, edge-2
  ~ agent.log.level: info → debug
  + collectors.host: {}
  - collectors.self: {}
creel: 1 document would change
`, "diff", "document", "web")
	c.run(t, 5, "creel: document web has no such version that has a text\n", "diff", "document", "web", "--to", "2")
	if got := c.asked(); !slices.Equal(got, []string{`PUT /documents {"text":"document: web\n","dry_run":true}`}) {
		t.Errorf("the version before that has a text is not what was compared: %q", got)
	}
}

// TestEdit: what comes out of the editor is written, on the version that went in; what was not changed is not.
func TestEdit(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("no shell")
	}
	c := newCounter(t)
	c.set("GET /documents/web", api.DocumentDetail{Document: api.Document{Name: "web", Version: 3, Text: "document: web\n"}})
	c.answer("PUT /documents", applied)
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("VISUAL", "true")
	c.run(t, 0, "nothing was changed\n", "edit", "document", "web")
	t.Setenv("VISUAL", write(t, "editor", "#!/bin/sh\necho 'document: same' >\"$2\"\n")+" -x")
	if err := os.Chmod(strings.TrimSuffix(os.Getenv("VISUAL"), " -x"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.run(t, 0, "same unchanged: version 2, for 2 agents: edge-1, edge-2\n", "edit", "document", "web", "--note", "why")
	if got := c.asked(); !slices.Equal(got, []string{`PUT /documents {"text":"document: same\n","version":3,"note":"why"}`}) {
		t.Errorf("asked %q", got)
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestOrders: an agent is asked by its id, whatever it was called, and is waited for.
func TestOrders(t *testing.T) {
	c := newCounter(t)
	asked := 0
	agent := func([]byte) any {
		asked++
		d := api.AgentDetail{Agent: api.Agent{ID: "a1", Name: "edge-1", Connection: api.Lost, State: "paused"}}
		d.Intended.Order = &api.Order{ID: "7", Do: "pause", Done: asked > 2}
		return d
	}
	c.answer("GET /agents/edge-1", agent)
	c.answer("GET /agents/a1", agent)
	c.set("POST /agents/a1/orders", api.Order{ID: "7", Do: "pause"})
	c.run(t, 0, "edge-1 is asked to pause; it is lost, and hears of it when it is connected again\nedge-1 did, and is paused\n", "pause", "edge-1", "--cause", "why", "--wait")
	if got := c.asked(); asked != 3 || !slices.Equal(got, []string{`POST /agents/a1/orders {"do":"pause","cause":"why"}`}) {
		t.Errorf("asked %q, and %d times how it is", got, asked)
	}
	c.set("POST /agents/a1/orders", api.Order{ID: "8", Do: "stop"})
	c.run(t, 2, "creel: which agent? Say its id or its host's name; --wait and --hub are for one of the fleet\n", "stop")
	c.run(t, 1, "edge-1 is asked to stop; it is lost, and hears of it when it is connected again\ncreel: wait for edge-1 to stop: it was asked to pause since\n", "stop", "a1", "--wait=10s")
}

// TestDescribeLife: an agent's state and changes are told.
func TestDescribeLife(t *testing.T) {
	c := newCounter(t)
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.Local)
	d := api.AgentDetail{Agent: api.Agent{ID: "a1", Name: "edge-1", Connection: api.Connected, Health: "healthy", State: "paused"}}
	d.Intended = api.Intended{
		Documents: []api.Placed{{Name: "web", Status: "refused", Version: "3", Error: "no port"}},
		Conflict:  "collectors.host is in web and in all",
		Order:     &api.Order{Do: "pause", By: "token", Time: at, Cause: "why", Done: true},
		Life: report.Life{
			State: "paused", Since: at, Holds: []report.Hold{{By: "operator", Cause: "why", Since: at}},
			History: []report.Transition{{Time: at, From: "initializing", To: "running", Event: "ready"}, {Time: at, From: "running", To: "paused", Event: "hold", Cause: "why"}},
		},
		Configuration: report.Configuration{
			Hash: "aaa", Wanted: "bbb", Error: "port 1 is taken\nby x", Documents: []report.Document{{Name: "creel.yaml", Source: "file", Hash: "ccc", Status: "running"}},
			Failed: []report.Failed{{Hash: "bbb", Time: at, Reason: "port 1 is taken"}},
			Receipts: []report.Receipt{
				{Time: at, Source: "start", Hash: "aaa", Outcome: report.Applied, Change: report.Change{Open: []string{"x", "y"}}, Took: 3 * time.Millisecond},
				{Time: at, Source: "hub", Hash: "bbb", Outcome: report.Refused, Error: "port 1 is taken", Leaked: []string{"exporters.otlp"}, InHand: 12},
			},
		},
	}
	c.set("GET /agents/a1", d)
	c.set("GET /agents?limit=1000", api.AgentList{Total: 1, Agents: []api.Agent{d.Agent}})
	var out strings.Builder
	if code := cli.Main(cli.Program{Name: "creel", Plugins: all.Plugins(), More: Commands}, []string{"describe", "agent", "a1", "--hub", c.url}, &out, &out); code != 0 {
		t.Errorf("exit code %d", code)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"status healthy, paused", "state paused since 2026-11-01 12:00:00", "held by operator since 2026-11-01 12:00:00: why", "last order pause, by token at 2026-11-01 12:00:00: done: why",
		"wanted bbb, runs aaa: port 1 is taken", "conflict collectors.host is in web and in all", "web refused 3 no port", "creel.yaml file ccc running", "FAILED WHEN REASON bbb 2026",
		"hub bbb refused 0 0 0 0 0s 0s 12 port 1 is taken did not close in time and was left behind: exporters.otlp 2026-11-01 12:00:00 start aaa applied 0 2 0 0 3ms 0s 0",
		"running paused hold why 2026-11-01 12:00:00 initializing running ready",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
}
