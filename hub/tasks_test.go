package hub_test

import (
	"context"
	"encoding/json"
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
	"github.com/creelhq/creel/plugins/otlp"
	"github.com/creelhq/creel/plugins/self"
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

// ownText is an agent that sends what it says of itself to the hub.
const ownText = `
agent: {drain: 1s, tasks: {capacity: 2}}
collectors: {self: {every: 50ms, metrics: false, traces: false, level: error}}
exporters: {otlp/hub: {endpoint: %q, protocol: http, tls: {insecure: true}, delivery: {batch: {max_wait: 10ms}}}}
pipelines: {own: {from: [self], to: [otlp/hub]}}
`

// TestOnce: a document is done once by an agent. Its round fails, and it is parked; it is retried, and done; run again, and cancelled
// while the round is under way; retried, and done; and another version of it goes on, and has a round when that is asked for.
// How each round went is a record with name, version and epoch, also if that is over by then.
func TestOnce(t *testing.T) {
	job := &worker{make(chan struct{}), make(chan error), make(chan struct{}, 1)}
	w := startHub(t, hub.Options{Plugins: []creel.Plugin{job.plugin(), debug.Plugin}})
	own := fmt.Appendf(nil, ownText, w.otlpHTTP())
	w.goes("agent", func(ctx context.Context) error {
		return agent.Run(ctx, agent.Options{
			Data: filepath.Join(w.dir, "agent"), Config: "agent.yaml", Text: own, Log: io.Discard, Hub: w.client.URL,
			Plugins: []creel.Plugin{job.plugin(), debug.Plugin, self.Plugin, otlp.Exporter}, Labels: map[string]string{"site": "far"},
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
	// of the last version its first round: what goes on is told now and then
	want := []string{"1 failed 1 no such host", "1 done 1 ", "1 cancelled 1 round cancelled: the terms of its document do not allow it any more", "1 done 1 ", "2 done 1 "}
	var rounds []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && len(rounds) < len(want); time.Sleep(20 * time.Millisecond) {
		rounds = w.rounds("job")
	}
	if got := strings.Join(rounds, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("how its rounds went is recorded as\n%s\nnot\n%s", got, strings.Join(want, "\n"))
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

	if d, err := w.client.Ledger(t.Context(), api.LedgerQuery{}); err != nil || d.Total.DeadLettered != 0 {
		t.Errorf("%d records are dead letters, %v", d.Total.DeadLettered, err)
	}

	for _, bad := range []string{"collectors: {generate: {}}", "exporters: {debug: {}}"} {
		if _, err := w.client.ApplyDocument(t.Context(), api.DocumentChange{Text: "document: bad\nplace: 1\nonce: true\n" + bad}); err == nil {
			t.Errorf("%s is done once", bad)
		}
	}
}

// rounds returns what records say of the rounds of a document, oldest first: its version, the outcome, which attempt it was, and why. Their
// epochs must grow.
func (w *world) rounds(document string) (list []string) {
	w.Helper()
	found, err := w.client.Logs(w.Context(), api.LogQuery{Filters: []string{"creel.document.name=" + document}, Order: "asc"})
	if err != nil {
		w.Fatal(err)
	}
	epoch := int64(0)
	for _, l := range found.Logs {
		var a struct {
			Component string  `json:"component"`
			Version   string  `json:"creel.document.version"`
			Epoch     int64   `json:"creel.document.epoch"`
			Outcome   string  `json:"outcome"`
			Attempt   int64   `json:"attempt"`
			Seconds   float64 `json:"seconds"`
			Error     string  `json:"error"`
		}
		if err := json.Unmarshal(l.Attributes, &a); err != nil || a.Component != "collectors.worker" || a.Epoch <= epoch || a.Seconds <= 0 {
			w.Fatalf("after epoch %d: %s, %v", epoch, l.Attributes, err)
		}
		epoch = a.Epoch
		list = append(list, fmt.Sprintf("%s %s %d %s", a.Version, a.Outcome, a.Attempt, a.Error))
	}
	return list
}
