package hub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/debug"
)

// worker is a polled collector whose rounds a test follows: each tells that it has begun, and ends as the test says.
type worker struct {
	begun chan struct{}
	end   chan error
	given chan struct{} // up: its context was done
}

type workerOptions struct{}

func (w *worker) plugin() creel.Plugin {
	return creel.NewPolled("worker", "Does what a test says.", func(workerOptions, creel.Host) (creel.Collector, error) { return w, nil })
}

func (w *worker) Collect(ctx context.Context, out creel.Sink) error {
	select {
	case w.begun <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.end:
		if err == nil {
			err = out.Send(ctx, creel.NewLogs([]creel.Log{{Body: creel.String("done")}}))
		}
		return err
	case <-ctx.Done():
		w.given <- struct{}{}
		return ctx.Err()
	}
}

// TestOnce: a document is done once by an agent. Its round fails, and it is parked; it is retried, and done; run again, and cancelled
// while the round is under way; retried, and done; and another version of it goes on, and has a round when that is asked for.
func TestOnce(t *testing.T) {
	job := &worker{make(chan struct{}), make(chan error), make(chan struct{}, 1)}
	w := startHub(t, hub.Options{Plugins: []creel.Plugin{job.plugin(), debug.Plugin}})
	w.goes("agent", func(ctx context.Context) error {
		return agent.Run(ctx, agent.Options{
			Data: filepath.Join(w.dir, "agent"), Config: "agent.yaml", Text: []byte("agent: {drain: 1s, tasks: {capacity: 2}}"), Log: io.Discard, Hub: w.client.URL,
			Plugins: []creel.Plugin{job.plugin(), debug.Plugin}, Labels: map[string]string{"site": "far"},
		})
	})
	w.await("connected", func(d api.AgentDetail) bool { return d.Connection == api.Connected })

	const text = "document: job\nplace: 1\n%scollectors: {worker: {every: 1h}}\nexporters: {debug: {}}\npipelines: {p: {from: [worker], to: [debug]}}"
	apply := func(text string) {
		t.Helper()
		if _, err := w.client.ApplyDocument(t.Context(), api.DocumentChange{Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	status := func(want string) (d api.TaskDetail) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			var err error
			if d, err = w.client.Task(t.Context(), "job"); err != nil {
				t.Fatal(err)
			}
			if len(d.Tasks) == 1 && d.Tasks[0].Status == want {
				return d
			}
		}
		t.Fatalf("it is not %s but %+v", want, d)
		return d
	}
	happens := func(what string, c chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(20 * time.Second):
			d, err := w.client.Task(t.Context(), "job")
			t.Fatalf("%s: it does not happen; %+v, %v", what, d, err)
		}
	}
	ask := func(what string, f func(context.Context, string, api.Because) (api.TaskDetail, error)) {
		t.Helper()
		if _, err := f(t.Context(), "job", api.Because{Cause: "test"}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	apply(fmt.Sprintf(text, "once: true\n"))
	happens("a round begins", job.begun)
	job.end <- errors.New("no such host")
	if d := status("parked"); len(d.Failed) != 1 || !strings.Contains(d.Waits, "no such host") || d.Tasks[0].Agent != "" {
		t.Fatalf("after a round that failed: %+v", d)
	}

	ask("retry", w.client.RetryTask)
	happens("a round begins", job.begun)
	job.end <- nil
	first := status("done")
	if d := first; len(d.Failed) != 0 || d.Tasks[0].Agent == "" || d.Waits != "" {
		t.Fatalf("after a round that went well: %+v", d)
	}
	if _, err := w.client.CancelTask(t.Context(), "job", api.Because{}); err == nil {
		t.Error("what is done can be cancelled")
	}

	ask("run", w.client.RunTask)
	happens("a round begins", job.begun)
	if d := status("running"); d.Tasks[0].Epoch <= first.Tasks[0].Epoch {
		t.Errorf("run again it has epoch %d, before %d", d.Tasks[0].Epoch, first.Tasks[0].Epoch)
	}
	ask("cancel", w.client.CancelTask)
	happens("a round is given up", job.given)
	status("cancelled")
	ask("retry", w.client.RetryTask)
	happens("a round begins", job.begun)
	job.end <- nil
	d := status("done")
	var what []string
	for _, e := range d.History {
		what = append(what, e.What)
	}
	if got := strings.Join(what, " "); got != "done placed retried taken cancelled placed run done placed retried parked taken failed placed" {
		t.Errorf("newest first, its history is %s", got)
	}

	apply(fmt.Sprintf(text, ""))
	happens("a round begins", job.begun) // it is new there
	job.end <- nil
	status("running")
	ask("run", w.client.RunTask)
	happens("a round begins", job.begun)
	ask("cancel", w.client.CancelTask)
	happens("a round is given up", job.given)
	if d := status("running"); d.Once {
		t.Errorf("it goes on: %+v", d)
	}
	list, err := w.client.Audit(t.Context(), api.AuditQuery{})
	if err != nil {
		t.Fatal(err)
	}
	noted := 0
	for _, e := range list.Entries {
		if strings.HasSuffix(e.Action, "Task") {
			noted++
		}
	}
	if noted != 7 {
		t.Errorf("the audit log has %d entries of tasks, not 7", noted)
	}

	for _, bad := range []string{"collectors: {generate: {}}", "exporters: {debug: {}}"} {
		if _, err := w.client.ApplyDocument(t.Context(), api.DocumentChange{Text: "document: bad\nplace: 1\nonce: true\n" + bad}); err == nil {
			t.Errorf("%s is done once", bad)
		}
	}
}
