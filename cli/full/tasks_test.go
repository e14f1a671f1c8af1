package full

import (
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
