package web

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
)

// TestWatchTasks: who watches hears of all tasks, then only of documents whose tasks have changed, also when these are gone, and
// begins anew when the hub has let go of it. What changes meanwhile comes together, and not more often than it should.
func TestWatchTasks(t *testing.T) {
	h := newHouse(t, nil)
	others := 0
	set := func(tasks ...api.Task) {
		h.papers.mu.Lock()
		h.papers.tasks = tasks
		h.papers.mu.Unlock()
		others++
		h.add(fmt.Sprintf("agent-%d", others)) // the fleet's change tells of it
	}
	on := func(document, agent string, epoch int64) api.Task {
		return api.Task{Document: document, Agent: agent, Epoch: epoch, Status: "running", Since: time.Unix(epoch, 0).UTC()}
	}
	heard, ended := make(chan string, 100), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		ended <- (&api.Client{URL: h.server.URL, Token: testToken}).WatchTasks(ctx, func(c api.TaskChange) error {
			text := fmt.Sprint(c.All, c.Documents)
			for _, x := range c.Tasks {
				text += fmt.Sprintf(" %s@%s %d", x.Document, x.Agent, x.Epoch)
			}
			heard <- text
			return nil
		})
	}()
	hears := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Fatalf("it hears %q, not %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("it does not hear %q", want)
		}
	}
	hears("true []")
	set(on("a", "x", 1), on("b", "x", 2), on("b", "y", 3))
	hears("false [a b] a@x 1 b@x 2 b@y 3")
	set(on("a", "x", 1), on("b", "x", 2), on("b", "z", 4))
	hears("false [b] b@x 2 b@z 4")
	set(on("a", "x", 1), on("b", "x", 2), on("b", "z", 4)) // nothing
	set(on("b", "x", 2), on("b", "z", 4))
	hears("false [a]")

	began := time.Now()
	for epoch := range int64(50) {
		set(on("b", "x", 10+epoch))
	}
	set(on("b", "x", 100))
	events := 0
	for last := ""; last != "false [b] b@x 100"; events++ {
		select {
		case last = <-heard:
		case <-time.After(20 * time.Second):
			t.Fatalf("it does not hear of the last, only %q", last)
		}
	}
	if most := 2 + int(time.Since(began)/tasksEvery); events > most {
		t.Errorf("it hears of 51 changes in %d events, more than %d", events, most)
	}
	h.server.CloseClientConnections()
	hears("true [b] b@x 100")
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
