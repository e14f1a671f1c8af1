package full

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
)

// TestTasks: where documents are that are to be on some agents, and why one is nowhere.
func TestTasks(t *testing.T) {
	c := newCounter(t)
	c.set("GET /tasks", api.TaskList{Tasks: []api.Task{}})
	c.run(t, 0, "there are no tasks: no document says on how many agents it is to be, such as place: 1\n", "get", "tasks")
	c.set("GET /tasks", api.TaskList{Tasks: []api.Task{
		{Document: "probe", Version: 3, Place: 2, Priority: 7, Agent: "id-1", Name: "edge-1", Epoch: 4, Since: time.Now().Add(-5*time.Minute - time.Second), Status: "running"},
		{Document: "probe", Version: 3, Place: 2, Priority: 7, Status: "unplaced", Error: "1 agents are selected"},
	}})
	c.run(t, 0, `
DOCUMENT  VERSION  PRIORITY  STATUS    AGENT   ID    EPOCH  SINCE  ERROR
probe     3        7         running   edge-1  id-1  4      5m
probe     3        7         unplaced                              1 agents are selected
`, "get", "tasks")
}

// TestTasksChanged: of what has changed only that is printed which is not as it was, and that a document has no tasks any more.
func TestTasksChanged(t *testing.T) {
	var out strings.Builder
	c := &commands{Commands: &cli.Commands{Out: &out}}
	change := c.tasksChanged(make(map[string][]api.Task))
	prints := func(want string, x api.TaskChange) {
		t.Helper()
		out.Reset()
		if err := change(x); err != nil {
			t.Fatal(err)
		}
		got := ""
		for line := range strings.Lines(out.String()) {
			got += line[len("15:04:05 "):]
		}
		if got != strings.TrimPrefix(want, "\n") {
			t.Errorf("it prints\n%s\nnot\n%s", got, want)
		}
	}
	on := func(document, agent string, epoch int64) api.Task {
		return api.Task{Document: document, Agent: agent, Name: "edge", Epoch: epoch, Status: "running"}
	}
	nowhere := api.Task{Document: "b", Status: "parked", Error: "it has failed\non three"}
	prints("+ a running edge x epoch 1\n+ b running edge x epoch 2\n+ b running edge y epoch 3\n", api.TaskChange{All: true, Tasks: []api.Task{on("a", "x", 1), on("b", "x", 2), on("b", "y", 3)}})
	prints("+ b parked: it has failed\n", api.TaskChange{Documents: []string{"b"}, Tasks: []api.Task{on("b", "x", 2), nowhere}})
	prints("- a\n", api.TaskChange{Documents: []string{"a"}})
	prints("+ c running edge z epoch 5\n- b\n", api.TaskChange{All: true, Tasks: []api.Task{on("c", "z", 5)}}) // it has come back
}

// detail is a document that is to be done once, with a task in each of some states.
func detail(states ...string) api.TaskDetail {
	t := api.TaskDetail{Document: "nightly", Version: 3, Selector: `site == "north"`, Place: len(states), Priority: 5, Cost: 1, Once: true}
	for i, s := range states {
		x := api.Task{Document: "nightly", Version: 3, Priority: 5, Status: s}
		if s == "running" || s == "done" {
			x.Agent, x.Name, x.Epoch, x.Since = fmt.Sprint("id-", i), fmt.Sprint("edge-", i), int64(4+i), time.Now().Add(-5*time.Minute-time.Second)
		}
		t.Tasks = append(t.Tasks, x)
	}
	return t
}

// TestDescribeTask: all that there is to say of a task, in tables; what others have written cannot write to the terminal.
func TestDescribeTask(t *testing.T) {
	c := newCounter(t)
	d := detail("running", "unplaced")
	d.Spread, d.Exclusive, d.Waits = "rack", true, "1 agent is selected"
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	d.Failed = []api.TaskFailure{{Agent: "id-7", Name: "edge-7", Version: 3, Error: "no \x1b[31mroute\nmore"}}
	d.History = []api.TaskEvent{{Time: at, What: "placed", Place: 1, From: "id-7", To: "id-0", Epoch: 4, Why: "edge-7 has failed"}, {Time: at, What: "run", Why: "by ann"}}
	c.set("GET /tasks/nightly", d)
	c.run(t, 0, `
document  nightly
version   3
selector  site == "north"
place     2
priority  5
cost      1
spread    rack
once      a task is done when a round of each of its collectors is
overlap   never
waits     1 agent is selected

DOCUMENT  VERSION  PRIORITY  STATUS    AGENT   ID    EPOCH  SINCE  ERROR
nightly   3        5         running   edge-0  id-0  4      5m
nightly   3        5         unplaced

FAILED ON  ID    VERSION  ERROR
edge-7     id-7  3        no  [31mroute

TIME                 WHAT    TASK  FROM  TO    EPOCH  WHY
2026-01-02 03:04:05  placed  1     id-7  id-0  4      edge-7 has failed
2026-01-02 03:04:05  run                              by ann
`, "describe", "task", "nightly")
	c.run(t, 0, "nightly\n", "describe", "task", "nightly", "-o", "name")
	c.set("GET /tasks/nightly", api.TaskDetail{Document: "nightly", Place: 1, Tasks: []api.Task{}})
	c.run(t, 0, `
cost: 0
document: nightly
exclusive: false
failed: null
history: null
once: false
parked: false
place: 1
priority: 0
tasks: []
version: 0
`, "describe", "task", "nightly", "-o", "yaml")
}

// TestTaskChanges: what is asked of a task is asked with its reason; what the hub refuses is told as it says it, with an exit code of its own.
func TestTaskChanges(t *testing.T) {
	c := newCounter(t)
	for _, do := range []string{"run", "cancel", "retry"} {
		call := "POST /tasks/nightly/" + do
		c.set(call, detail("done"))
		c.run(t, 0, "nightly\n", "task", do, "nightly", "--cause", "ticket 17", "-o", "name")
		if got := c.asked(); !slices.Equal(got, []string{call + ` {"cause":"ticket 17"}`}) {
			t.Errorf("asked %q", got)
		}
		for code, exit := range map[string]int{"not_found": 5, "forbidden": 4, "unauthorized": 4, "conflict": 1, "unavailable": 1, "bad_request": 2} {
			c.set(call, &api.Error{Code: code, Message: "it is so"})
			c.run(t, exit, "creel: it is so\n", "task", do, "nightly")
		}
		c.asked()
	}
	c.run(t, 2, "creel: accepts 1 arg(s), received 0; say: creel task cancel NAME [flags]\n", "task", "cancel")
	c.run(t, 2, "creel: which document? Say its NAME, or -f FILE with its text\n", "task", "run")
	c.run(t, 2, "creel: which document? Say its NAME, or -f FILE with its text\n", "task", "run", "nightly", "-f", "x.yaml")
	c.url = "http://127.0.0.1:1"
	away := "creel: hub not reached at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused; start one with creel up or creel hub, or name another with --hub or CREEL_HUB\n"
	for _, args := range [][]string{{"task", "run", "x"}, {"task", "cancel", "x"}, {"task", "retry", "x"}, {"task", "logs", "x"}, {"describe", "task", "x"}, {"get", "tasks"}, {"get", "hubs"}, {"get", "services"}} {
		c.run(t, 3, away, args...)
	}
}

// TestTaskRunFile: a document that is to be done once is written, done again if it was before, and waited for.
func TestTaskRunFile(t *testing.T) {
	c := newCounter(t)
	once := write(t, "once.yaml", "document: nightly\nplace: 1\nonce: true\n")
	outcome := "created"
	c.answer("PUT /documents", func([]byte) any {
		return api.DocumentApplied{Outcome: outcome, Document: api.Document{Name: "nightly", Version: 3}, Warnings: []string{"it is odd"}}
	})
	states := []api.TaskDetail{detail("unplaced"), detail("running"), detail("done")}
	c.answer("GET /tasks/nightly", func([]byte) any {
		d := states[0]
		states = states[min(1, len(states)-1):]
		return d
	})
	c.run(t, 0, "warning: it is odd\nnightly\n", "task", "run", "-f", once, "--wait=10s", "-o", "name")
	if got := c.asked(); len(got) != 1 {
		t.Errorf("asked %q", got)
	}
	outcome = "unchanged"
	c.set("POST /tasks/nightly/run", detail("unplaced"))
	c.run(t, 0, "warning: it is odd\nnightly\n", "task", "run", "-f", once, "-o", "name")
	if got := c.asked(); len(got) != 2 || !strings.HasPrefix(got[1], "POST /tasks/nightly/run") {
		t.Errorf("asked %q", got)
	}
	outcome, states = "created", []api.TaskDetail{detail("cancelled")}
	c.run(t, 1, "warning: it is odd\nnightly\ncreel: document nightly was not done: it was cancelled\n", "task", "run", "-f", once, "--wait", "-o", "name")
	parked := detail("parked", "done")
	parked.Parked, parked.Waits = true, "failed on 3 agents"
	states = []api.TaskDetail{parked}
	c.run(t, 1, "warning: it is odd\nnightly\ncreel: document nightly is parked: failed on 3 agents\n", "task", "run", "-f", once, "--wait", "-o", "name")
	states = []api.TaskDetail{detail("running", "done")}
	c.run(t, 1, "warning: it is odd\nnightly\ncreel: document nightly: 1 of 2 tasks are done after 10ms; it goes on\n", "task", "run", "-f", once, "--wait=10ms", "-o", "name")

	c.asked()
	always := write(t, "always.yaml", "document: nightly\nplace: 1\n")
	c.run(t, 2, "creel: "+always+" does not say once: true and place: 1, or on how many agents it is to be done: creel apply has agents run what goes on\n", "task", "run", "-f", always)
	two := write(t, "two.yaml", "document: a\n---\ndocument: b\n")
	c.run(t, 2, "creel: "+two+" has 2 documents: give one\n", "task", "run", "-f", two)
	if got := c.asked(); len(got) > 0 {
		t.Errorf("asked %q", got)
	}
}

// TestApplyWaitsForTasks: a document that is to be on some agents is waited for until it is on them.
func TestApplyWaitsForTasks(t *testing.T) {
	c := newCounter(t)
	file := write(t, "d.yaml", "document: nightly\n")
	c.set("PUT /documents", api.DocumentApplied{Outcome: "created", Document: api.Document{Name: "nightly", Version: 3}})
	c.set("GET /documents/nightly", api.DocumentDetail{Document: api.Document{Name: "nightly", Version: 3, Place: "2"}})
	states := []api.TaskDetail{detail("unplaced", "unplaced"), detail("running", "unplaced"), detail("running", "done")}
	c.answer("GET /tasks/nightly", func([]byte) any {
		d := states[0]
		states = states[min(1, len(states)-1):]
		return d
	})
	const head, wait = "nightly created: version 3, for no agent\n", "--wait=10s"
	c.run(t, 0, head+"nightly version 3: 0 of 2 tasks run or are done\nnightly version 3: 1 of 2 tasks run or are done\nnightly version 3: 2 of 2 tasks run or are done\n", "apply", "-f", file, wait)
	parked := detail("parked", "running")
	parked.Waits = "failed on 3 agents"
	states = []api.TaskDetail{parked}
	c.run(t, 1, head+"nightly version 3: 1 of 2 tasks run or are done\ncreel: nightly does not run everywhere: failed on 3 agents; creel describe task nightly tells more\n", "apply", "-f", file, wait)
	few := detail("unplaced")
	few.Waits = "no agent is selected"
	states = []api.TaskDetail{few}
	c.run(t, 1, head+"nightly version 3: 0 of 1 task run or are done\ncreel: wait for nightly: the time is over: no agent is selected\n", "apply", "-f", file, "--wait=300ms")
}

// TestTaskLogs: the records of a document, oldest first; that there are none is told, and that there is no such document.
func TestTaskLogs(t *testing.T) {
	server := func(logs []api.Log, task any) *counter {
		c := newCounter(t)
		c.set("GET /tasks/nightly", task)
		c.any = func(r *http.Request) any {
			if r.URL.Path != api.Prefix+"/logs" || r.URL.Query().Get("filter") != "creel.document.name=nightly" || r.URL.Query().Get("order") != "desc" {
				return nil
			}
			return api.LogResult{Logs: logs}
		}
		return c
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.Local)
	one := func(second int, body string) api.Log {
		return api.Log{Time: at.Add(time.Duration(second) * time.Second), Severity: "INFO", Body: json.RawMessage(body),
			Resource: json.RawMessage(`{"creel.agent.id":"id-1","creel.document.epoch":4}`)}
	}
	c := server([]api.Log{one(1, `{"a":1}`), one(0, `"hello"`)}, nil)
	c.run(t, 0, "2026-01-02 03:04:05.006 INFO  id-1 epoch 4  hello\n2026-01-02 03:04:06.006 INFO  id-1 epoch 4  {\"a\":1}\n", "task", "logs", "nightly")
	c = server(nil, detail("running"))
	c.run(t, 0, "the hub has no log records of document nightly from that time: its collectors send none, or not to here; creel describe task nightly shows what it does\n", "task", "logs", "nightly")
	c = server(nil, &api.Error{Code: "not_found", Message: "there is no document nightly"})
	c.run(t, 5, "creel: there is no document nightly\n", "task", "logs", "nightly")
}

// TestHubs: the hubs, and the members of etcd: what is not known is not shown as nothing.
func TestHubs(t *testing.T) {
	c := newCounter(t)
	ago := time.Now().Add(-5*time.Minute - time.Second)
	x := api.Cluster{Hub: "h-1", Leader: "h-2", Hubs: []api.ClusterHub{
		{ID: "h-1", Name: "a", Version: "v1", Started: ago, URL: "https://a:4380", Agents: 7}, {ID: "h-2", Name: "b", Version: "v1", Started: ago, Agents: 9, Draining: true},
	}, State: api.ControlState{Healthy: true, Members: []api.StateMember{
		{Name: "h-1", Peer: "https://a:2380", Self: true, Healthy: true, Size: 4096}, {Name: "h-2", Peer: "https://b:2380", Leader: true, Healthy: true}, {Name: "h-3", Peer: "https://c:2380"},
	}}}
	c.set("GET /cluster", x)
	c.run(t, 0, `
NAME  ID   ROLE             AGENTS  STARTED  VERSION  URL
a     h-1  answers          7       5m       v1       https://a:4380
b     h-2  leads, draining  9       5m       v1

ETCD MEMBER  STATE            SIZE     PEER
h-1          follows          4KiB     https://a:2380
h-2          leads            unknown  https://b:2380
h-3          does not answer  unknown  https://c:2380
`, "get", "hubs")
	x.Hubs, x.Leader, x.State.Healthy, x.State.Error, x.State.Members = x.Hubs[:1], "", false, "1 of the 3 members answer", x.State.Members[:1]
	x.State.Members[0].Healthy = false
	c.set("GET /cluster", x)
	c.run(t, 0, `
NAME  ID   ROLE     AGENTS  STARTED  VERSION  URL
a     h-1  answers  7       5m       v1       https://a:4380

The control state does not answer as it should: 1 of the 3 members answer
ETCD MEMBER  STATE          SIZE  PEER
h-1          has no leader  4KiB  https://a:2380
`, "get", "hubs")
}
