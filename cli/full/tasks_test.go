package full

import (
	"testing"
	"time"

	"github.com/creelhq/creel/api"
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
