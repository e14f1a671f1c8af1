package full

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/plugins/all"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/spool"
)

// desk is an agent's admin endpoint that answers what is set.
type desk struct {
	dir string

	mu      sync.Mutex
	answers map[string]func() any
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "creel") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{dir: dir, answers: make(map[string]func() any)}
	l, err := net.Listen("unix", agent.AdminSocket(dir))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		answer := d.answers[r.URL.Path]
		d.mu.Unlock()
		if answer == nil {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(answer()) // the client has gone
	})}
	go server.Serve(l)
	t.Cleanup(func() {
		server.Close()
		os.RemoveAll(dir)
	})
	d.set("/healthz", report.Health{ID: "x", State: "running", Health: report.Healthy})
	d.set("/components", []report.Component{})
	d.set("/ledger", report.Ledger{})
	d.set("/deadletters", agent.LetterList{})
	d.set("/config", map[string]any{})
	return d
}

func (d *desk) set(path string, v any) { d.answer(path, func() any { return v }) }

func (d *desk) answer(path string, f func() any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers[path] = f
}

// examine returns what doctor says of the agent, and how much it finds wrong.
func (d *desk) examine(t *testing.T) (text string, wrong int) {
	t.Helper()
	var out strings.Builder
	p := cli.Program{Name: "creel", Plugins: all.Plugins(), More: Commands}
	if code := cli.Main(p, []string{"doctor", "--data", d.dir, "--hub", "http://127.0.0.1:1"}, &out, &out); code != cli.ExitNo {
		t.Errorf("doctor ends with exit code %d", code)
	}
	return out.String(), strings.Count(out.String(), "WRONG  ") - 1 // without the hub
}

// spoolOf makes a disk queue with some records, which nobody has open.
func (d *desk) spoolOf(t *testing.T, exporter string, records int) {
	t.Helper()
	q, err := spool.Open(filepath.Join(d.dir, "spool", url.PathEscape(exporter)), spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if records > 0 {
		if _, err := q.Append(context.Background(), spool.Item{ID: spool.ID{1}, Codec: 1, Records: records, Payload: []byte("x")}, spool.Synced); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDoctorOnDelivery: each thing that can be wrong with what waits is found, with what to do; and nothing else is.
func TestDoctorOnDelivery(t *testing.T) {
	d := newDesk(t)
	f := func(wrong int, texts ...string) {
		t.Helper()
		said, n := d.examine(t)
		if n != wrong {
			t.Errorf("%d things are wrong, want %d:\n%s", n, wrong, said)
		}
		for _, text := range texts {
			if !strings.Contains(said, text) {
				t.Errorf("without %q:\n%s", text, said)
			}
		}
	}
	disk := func(s report.Spool) {
		d.set("/components", []report.Component{{Component: "exporters.otlp/a", Healthy: true, Spool: &s}, {Component: "exporters.null", Healthy: true}})
	}
	f(0, "ok     agent x is running and healthy")
	disk(report.Spool{Bytes: 1 << 20, Limit: 1 << 30})
	f(0, "ok     disk queue of exporters.otlp/a: nothing waits (1MiB of 1GiB, 0 records wait)")
	disk(report.Spool{Bytes: 1 << 20, Limit: 1 << 30, Waiting: 7, Replaying: true, OutRate: 5, EmptyIn: 180})
	f(0, "replaying 5/s, 3m left")
	disk(report.Spool{Bytes: 1 << 20, Limit: 1 << 30, Waiting: 7, FullIn: 720})
	f(1, "WRONG  the disk queue of exporters.otlp/a fills in 12m", "delivery.spool.max_size of exporters.otlp/a")
	disk(report.Spool{Bytes: 1 << 30, Limit: 1 << 30, Waiting: 7, Full: true, Error: "the file system has 3MiB left"})
	f(1, "WRONG  the disk queue of exporters.otlp/a is full (1GiB of 1GiB, 7 records wait): the file system has 3MiB left", "when_full")
	disk(report.Spool{Bytes: 1 << 20, Limit: 1 << 30, Error: "write segment: no space left on device"})
	f(1, "fails: write segment: no space left on device")
	d.set("/components", []report.Component{})

	d.set("/deadletters", agent.LetterList{Total: 3, Records: 40})
	f(1, "3 dead letters wait: the far side has refused their 40 records", "creel deadletter ls --data "+d.dir)
	d.set("/deadletters", agent.LetterList{})

	books := func(n int64) report.Ledger {
		return report.Ledger{
			Pipelines: []report.Pipeline{{Pipeline: "p", Unexplained: n, Exporters: []report.Exporter{{Exporter: "otlp/a", Unexplained: 2 * n}}}},
			Spools:    []report.SpoolAccount{{Exporter: "otlp/a", Unexplained: -n}},
		}
	}
	d.set("/ledger", books(21))
	f(3, "21 records in pipeline p are unexplained", "42 records of pipeline p at exporter otlp/a", "-21 records in the disk queue of otlp/a")
	asked := int64(0)
	d.answer("/ledger", func() any { asked++; return books(asked) }) // one request after the other
	f(0)
	if asked < 2 {
		t.Errorf("the ledger was asked for %d times", asked)
	}
	d.set("/ledger", report.Ledger{})

	d.spoolOf(t, "otlp/a", 5)
	d.spoolOf(t, "otlp/gone", 9)
	d.spoolOf(t, "otlp/empty", 0)
	options := func(spool any) map[string]any { return map[string]any{"delivery": map[string]any{"spool": spool}} }
	d.set("/config", map[string]any{"exporters.otlp/a": options(map[string]any{"max_size": "1GiB"}), "exporters.otlp/empty": options(nil), "pipelines.p": map[string]any{}})
	f(1, "no exporter has the disk queue of otlp/gone, where 9 records wait", "creel spool export '"+filepath.Join(d.dir, "spool", "otlp%2Fgone")+"' -O FILE",
		"note   no exporter has the disk queue of otlp/empty, and nothing waits in it")
	d.set("/config", map[string]any{"exporters.otlp/a": options(nil)})
	f(2, "otlp/a, where 5 records wait")

	d.answer("/config", nil)
	f(1, "the agent does not tell /config")
}

// TestDoctorOnHubs: of hubs that share a control state the one that is away is found, and of documents the one that was given up.
func TestDoctorOnHubs(t *testing.T) {
	c := newCounter(t)
	f := func(x api.ControlState, tasks []api.Task, want string) {
		t.Helper()
		c.set("GET /hub", api.Hub{ID: "h-1", Started: time.Now()})
		c.set("GET /cluster", api.Cluster{Hubs: make([]api.ClusterHub, 3), State: x})
		c.set("GET /tasks", api.TaskList{Tasks: tasks})
		var out strings.Builder
		cli.Main(cli.Program{Name: "creel", More: Commands}, []string{"doctor", "--data", t.TempDir(), "--hub", c.url, "--token", "x"}, &out, &out)
		for _, text := range strings.Split(want, "|") {
			if !strings.Contains(out.String(), text) {
				t.Errorf("without %q:\n%s", text, out.String())
			}
		}
		if want == "" && strings.Count(out.String(), "WRONG") != 1 { // the state directory of a test
			t.Errorf("something else is wrong:\n%s", out.String())
		}
	}
	here, away := api.StateMember{Name: "h-1", Self: true, Healthy: true}, api.StateMember{Name: "h-2", Peer: "https://b:2380"}
	well := api.ControlState{Healthy: true, Embedded: true, Members: []api.StateMember{here}}
	f(well, []api.Task{{Document: "a", Status: "running"}, {Document: "b", Status: "unplaced"}}, "")
	f(well, nil, "ok     control state: 3 hubs share it")
	f(well, []api.Task{{Document: "a", Status: "parked", Error: "no route"}, {Document: "a", Status: "parked"}}, "WRONG  document a is on no agent: no route|creel describe task a")
	f(api.ControlState{Healthy: true, Embedded: true, Members: []api.StateMember{here, away}}, nil, "WRONG  hub h-2, which keeps the control state with others, does not answer at https://b:2380|creel delete hub h-2|2 things are wrong")
	f(api.ControlState{Embedded: true, Error: "1 of the 3 members", Members: []api.StateMember{here, away}}, nil, "WRONG  the control state does not answer as it should: 1 of the 3 members|creel get hubs")
}
