package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/plugins/all"
	"github.com/creelhq/creel/report"
)

// desks is an agent's admin endpoint that gives each request, such as POST /-/pause?cause=x, the answer that stands for it:
// bytes as they are, a refusal, or anything else as JSON.
type desks map[string]any

type refusal struct {
	code int
	text string
}

// at opens the endpoint in a state directory, and returns what it is asked.
func (d desks) at(t *testing.T, data string) (asked *[]string) {
	t.Helper()
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", agent.AdminSocket(data))
	if err != nil {
		t.Fatal(err)
	}
	asked = new([]string)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := r.Method + " " + r.URL.RequestURI()
		*asked = append(*asked, request)
		switch answer := d[request].(type) {
		case nil:
			http.NotFound(w, r)
		case refusal:
			http.Error(w, answer.text, answer.code)
		case []byte:
			_, _ = w.Write(answer)
		default:
			_ = json.NewEncoder(w).Encode(answer)
		}
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return asked
}

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.Local)

func TestOrders(t *testing.T) {
	data := filepath.Join(shortDir(t), "data")
	expect(t, 3, "pause --data "+data, "is it running? --data names its state directory")
	held := report.Life{State: "paused", Since: noon, Holds: []report.Hold{
		{By: "operator", Cause: "ticket\x1b[2J", Since: noon}, {By: "requires.disk", Cause: "/var has 3MiB", Since: noon},
	}}
	still := held
	still.Holds = held.Holds[1:]
	asked := desks{
		"POST /-/pause?cause=ticket":  held,
		"POST /-/drain":               held,
		"POST /-/resume":              still,
		"POST /-/resume?cause=better": report.Life{State: "running", Since: noon},
		"POST /-/restart":             refusal{http.StatusConflict, "it stops already"},
		"POST /-/stop":                report.Life{State: "stopping", Since: noon},
	}.at(t, data)
	expect(t, 0, "pause --cause ticket --data "+data, `the agent is paused since 2026-11-26 12:00:00
  held by operator since 2026-11-26 12:00:00: ticket\x1b[2J; creel resume takes it back
  held by requires.disk since 2026-11-26 12:00:00: /var has 3MiB; it goes on by itself once that is right
`)
	expect(t, 0, "drain -o name --data "+data, "paused\n")
	expect(t, 1, "resume --data "+data, "requires.disk", "creel: the agent collects nothing yet: see why above")
	expect(t, 0, "resume --cause better --data "+data, "the agent is running since")
	expect(t, 1, "restart --data "+data, "creel: it stops already")
	expect(t, 0, "stop -o json --data "+data, `"state": "stopping"`)
	expect(t, 2, "stop now --data "+data, "unknown command")
	if want := 6; len(*asked) != want {
		t.Errorf("the agent was asked %d times, not %d: %q", len(*asked), want, *asked)
	}
}

func TestReload(t *testing.T) {
	data := filepath.Join(shortDir(t), "data")
	d := desks{}
	d.at(t, data)
	run := func(code int, line string, r any, texts ...string) {
		t.Helper()
		d["POST /-/reload"], d["POST /-/reload?force=1"] = r, nil
		if strings.Contains(line, "--force") {
			d["POST /-/reload"], d["POST /-/reload?force=1"] = nil, r
		}
		expect(t, code, "reload "+line+" --data "+data, texts...)
	}
	r := report.Receipt{
		Time: noon, Source: "request", Hash: "0123456789ab", Outcome: report.Applied, Took: 3234567, Still: 120 * time.Microsecond, InHand: 12,
		Change: report.Change{Keep: []string{"a", "b"}, Open: []string{"collectors.host"}, Reopen: []string{"exporters.otlp/hub"}}, Leaked: []string{"exporters.old"}, Trace: "4bf9",
	}
	run(0, "", r, `configuration 0123456789ab, asked for by request at 2026-11-26 12:00:00: applied in 3.23ms
  + collectors.host
  ~ exporters.otlp/hub
  1 opened, 1 reopened, 0 closed, 2 kept
  no pipeline stood still for more than 120µs; 12 records were in hand
  exporters.old did not close in time and was left behind; creel restart gets rid of it
  trace 4bf9
`)
	run(0, "--force -o name", r, "0123456789ab\n")
	run(0, "", report.Receipt{Hash: "0123456789ab", Outcome: report.Unchanged, Change: r.Change}, ": unchanged\n")
	run(1, "", report.Receipt{Hash: "0123456789ab", Outcome: report.Refused, Error: "open collectors.x: no\nand\x1b[2J"},
		"refused\n  open collectors.x: no\n  and\\x1b[2J\n  nothing has changed; correct", "the configuration does not run")
	run(1, "", report.Receipt{Outcome: report.RolledBack, Error: "drops"}, "rolled back\n  drops\n  the last good configuration runs again", "creel reload --force")
	run(1, "", refusal{http.StatusUnprocessableEntity, "c.yaml:1:1: no"}, "creel: c.yaml:1:1: no\n")
}

func TestStatus(t *testing.T) {
	data := filepath.Join(shortDir(t), "data")
	d := desks{
		"GET /healthz":    report.Health{ID: "a1", Version: "v1", State: "paused", Health: report.Healthy, Started: noon, Reload: report.Receipt{Error: "old news", Time: noon}},
		"GET /components": []report.Component{}, "GET /ledger": report.Ledger{},
	}
	d.at(t, data)
	expect(t, 0, "status --data "+data, "agent a1, version v1, paused and healthy since 2026-11-26 12:00:00\nlast reload refused at 2026-11-26 12:00:00:\n  old news\n")
	d["GET /state"] = map[string]any{
		"life": report.Life{
			State: "paused", Since: noon.Add(time.Hour), Holds: []report.Hold{{By: "operator", Since: noon}},
			History: []report.Transition{{Time: noon, From: "initializing", To: "running", Event: "ready"}, {Time: noon.Add(time.Hour), From: "running", To: "paused", Event: "hold", Cause: "operator"}},
		},
		"configuration": report.Configuration{
			Hash: "aaaaaaaaaaaa", Good: "eeeeeeeeeeee", Wanted: "bbbbbbbbbbbb", Error: "c.yaml:1:1: this\nc.yaml:2:2: that", Probation: time.Now().Add(time.Hour),
			Documents: []report.Document{{Name: "nginx", Source: "hub", Version: "3", Hash: "cccccccccccc", Status: "rolled_back", Error: "it drops"}, {Name: "creel.yaml", Source: "file", Hash: "dddddddddddd", Status: "running"}},
			Receipts:  []report.Receipt{{Time: noon, Source: "start", Hash: "aaaaaaaaaaaa", Outcome: report.Applied}, {Time: noon, Source: "hub", Hash: "bbbbbbbbbbbb", Outcome: report.RolledBack, Error: "it drops"}},
			Failed:    []report.Failed{{Hash: "bbbbbbbbbbbb", Time: noon, Reason: "it drops"}},
		},
	}
	out := expect(t, 0, "status --data "+data, `paused since 2026-11-26 13:00:00
  held by operator since 2026-11-26 12:00:00; creel resume takes it back
configuration aaaaaaaaaaaa runs
configuration bbbbbbbbbbbb is wanted, and does not run:
  c.yaml:1:1: this
  c.yaml:2:2: that
on probation for 59m more: if what has changed does worse than before, the last good configuration comes back

configuration bbbbbbbbbbbb, asked for by hub at 2026-11-26 12:00:00: rolled back
  it drops
  the last good configuration runs again; correct this one, or try it again as it is: creel reload --force

`, `SOURCE  DOCUMENT    VERSION  HASH          STATUS       ERROR
file    creel.yaml           dddddddddddd  running      
hub     nginx       3        cccccccccccc  rolled back  it drops
`, "bbbbbbbbbbbb  2026-11-26 12:00:00  it drops\n\nWhat has failed is not tried again by itself: correct it, or say creel reload --force.\n")
	if strings.Contains(out, "old news") || strings.Contains(out, "by start") || strings.Contains(out, "TRANSITION") {
		t.Errorf("what is past is in\n%s", out)
	}
	expect(t, 0, "status -o wide --data "+data, "by start at", "2026-11-26 13:00:00  running       paused   hold   operator\n")
	expect(t, 0, "status -o json --data "+data, `"probation_until":`, `"holds": [`)
}

// packed is a .tar.gz with two files.
func packed(t *testing.T) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for name, text := range map[string]string{"state.json": "{}", "log.txt": strings.Repeat("line\n", 1000)} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBundle(t *testing.T) {
	dir := shortDir(t)
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "out", "b.tar.gz")
	expect(t, 3, "bundle -o "+file+" --data "+data, "is it running?")
	whole := packed(t)
	d := desks{"GET /bundle": whole}
	d.at(t, data)
	expect(t, 1, "bundle -o "+file+" --data "+data, "write bundle", "no such file")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	expect(t, 0, "bundle -o "+file+" --data "+data, file+"\n", "        2B  state.json\n", "    4.9KiB  log.txt\n", "2 files, 4.9KiB\n")
	got, err := os.ReadFile(file)
	if info, e := os.Stat(file); err != nil || e != nil || !bytes.Equal(got, whole) || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has %d bytes, not %d, or others may read it: %v, %v", len(got), len(whole), err, e)
	}
	if code, out, _ := creelRun("bundle", "-o", "-", "--data", data); code != 0 || out != string(whole) {
		t.Errorf("exit code %d, %d bytes on standard output, not %d", code, len(out), len(whole))
	}
	// What breaks off, at whichever place, is told, and leaves what was there.
	for _, n := range []int{0, 5, len(whole) / 2, len(whole) - 9, len(whole) - 1} {
		d["GET /bundle"] = whole[:n]
		expect(t, 1, "bundle -o "+file+" --data "+data, "read bundle from the agent: ")
	}
	d["GET /bundle"] = refusal{http.StatusServiceUnavailable, "another one is being made"}
	expect(t, 1, "bundle -o "+file+" --data "+data, "creel: another one is being made")
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, whole) {
		t.Errorf("the file is not what it was: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "out", "*")); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "out", ".creel*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestMoreCommands: subcommands of a name that is there are added to it, and another command takes its place.
func TestMoreCommands(t *testing.T) {
	var said []string
	say := func(what string) func(*cobra.Command, []string) error {
		return func(*cobra.Command, []string) error {
			said = append(said, what)
			return nil
		}
	}
	p := cli.Program{Name: "creel", Plugins: all.Plugins(), More: func(*cli.Commands) []*cobra.Command {
		diff := &cobra.Command{Use: "diff", RunE: say("parent")}
		diff.AddCommand(&cobra.Command{Use: "documents", RunE: say("documents")})
		return []*cobra.Command{diff, {Use: "pause [AGENT]", RunE: say("pause")}}
	}}
	for line, code := range map[string]int{"diff documents": 0, "pause edge-1": 0, "diff nowhere.yaml nowhere.yaml": 2} {
		if got := cli.Main(p, strings.Fields(line), io.Discard, io.Discard); got != code {
			t.Errorf("%s: exit code %d, want %d", line, got, code)
		}
	}
	if slices.Sort(said); !slices.Equal(said, []string{"documents", "pause"}) {
		t.Errorf("ran %q", said)
	}
}

// TestDiffRunning compares a file with an agent that runs the same, and then something else.
func TestDiffRunning(t *testing.T) {
	dir := shortDir(t)
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "c.yaml")
	const text = `
collectors: {host: , self: }
processors: {sample: }
exporters: {otlp: {endpoint: "http://127.0.0.1:1", headers: {a: "hunter2 $${x"}}}
pipelines: {p: {from: [host, self], through: [sample], to: [otlp]}}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (code int, out, err string) {
		var stdout, stderr bytes.Buffer
		code = cli.Main(cli.Program{Name: "creel", Plugins: all.Plugins()}, append(args, "-c", file, "--data", data), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	code, effective, errs := run("config", "-o", "json")
	if code != 0 || strings.Contains(effective, "hunter2") {
		t.Fatalf("config: exit code %d\n%s%s", code, effective, errs)
	}
	var running map[string]json.RawMessage
	if err := json.Unmarshal([]byte(effective), &running); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run("diff"); code != 3 {
		t.Errorf("without an agent: exit code %d\n%s", code, errs)
	}
	d := desks{"GET /config": running}
	d.at(t, data)
	if code, out, errs := run("diff"); code != 0 || out != "" {
		t.Errorf("the same: exit code %d\n%s%s", code, out, errs)
	}
	delete(running, "agent") // the last release's does not tell
	delete(running, "collectors.self")
	running["collectors.old"] = json.RawMessage(`{"enabled":"true"}`)
	running["pipelines.q"] = json.RawMessage(`{"from":[],"through":null,"to":["otlp"]}`)
	running["collectors.host"] = json.RawMessage(strings.Replace(string(running["collectors.host"]), `"10s"`, `"30s"`, 1))
	code, out, errs := run("diff")
	for _, want := range []string{
		"- collectors.old", "+ collectors.self", "~ collectors.host.every  30s → 10s", "- pipelines.q",
		"a reload:\n  + collectors.self\n  ~ collectors.host\n  - collectors.old\n  1 opened, 1 reopened, 1 closed, 2 kept\n",
	} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("exit code %d, want 1 and %q in\n%s%s", code, want, out, errs)
		}
	}
}

// TestLifeOfAnAgent has an agent do all that it can be asked for, and looks at what it says.
func TestLifeOfAnAgent(t *testing.T) {
	dir := shortDir(t)
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "c.yaml")
	write := func(rate string) {
		text := "collectors: {generate: {rate: " + rate + "}}\nexporters: {null: }\npipelines: {p: {from: [generate], to: [null]}}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := cli.Program{Name: "creel", Plugins: all.Plugins()}
	run := func(code int, line string, texts ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		got := cli.Main(program, append(strings.Fields(line), "--data", data), &stdout, &stderr)
		out := stdout.String() + stderr.String()
		if got != code && code >= 0 {
			t.Errorf("creel %s: exit code %d, want %d\n%s", line, got, code, out)
		}
		for _, want := range texts {
			if !strings.Contains(out, want) {
				t.Errorf("creel %s: %q is not in\n%s", line, want, out)
			}
		}
		return out
	}
	write("100")
	ended := make(chan string, 1)
	go func() {
		var log bytes.Buffer
		code := cli.Main(program, []string{"agent", "-c", file, "--data", data}, &log, &log)
		ended <- fmt.Sprintf("exit code %d\n%s", code, log.String())
	}()
	starts := func(n int) { // waits until the agent has started so often
		t.Helper()
		for strings.Count(run(-1, "status -o wide"), "asked for by start at") < n {
			select {
			case why := <-ended:
				t.Fatalf("the agent ended: %s", why)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	starts(1)
	run(0, "diff -c "+file)
	run(0, "pause --cause maintenance", "the agent is paused since", ": maintenance; creel resume takes it back")
	run(0, "status", "paused and healthy", "held by operator since")
	run(0, "resume", "the agent is running since")
	write("200")
	run(1, "diff -c "+file, "~ collectors.generate.rate  100 → 200", "  ~ collectors.generate\n  0 opened, 1 reopened, 0 closed, 1 kept\n")
	run(0, "reload", ": applied in ", "  ~ collectors.generate\n")
	run(0, "reload", ": unchanged in ")
	run(0, "config --origin", "\ncollectors.generate.rate ", file+":1:25\n")
	run(0, "config", "rate: 200")
	write("much")
	run(1, "reload", "collectors.generate.rate: must be a number, got much")
	run(1, "status", "running and degraded", ": refused in ", "nothing has changed; correct the configuration")
	write("300")
	run(0, "drain", "the agent is paused since")
	run(0, "restart", "the agent was asked to restart")
	starts(2)
	run(0, "status", "paused and healthy") // it remembers
	run(0, "stop", "the agent was asked to stop")
	if how := <-ended; !strings.HasPrefix(how, "exit code 0\n") {
		t.Errorf("the agent ended: %s", how)
	}
}
