package test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/report"
)

// TestPlaced: a document that is to be on one of three agents is on one; when that is killed, stopped or told to pause, it is on
// another soon, with a higher epoch; the one that comes back lets it go.
func TestPlaced(t *testing.T) {
	ownProcess(t)
	t.Parallel() // it waits more than it works
	rounds := 1
	if *torture {
		rounds = 30
	}
	w, far := newWorld(t), newTally().started(t)
	w.startHub()
	agents := make(map[string]*mortal) // by id
	for i := range 3 {
		m := &mortal{t: t, config: w.write(fmt.Sprintf("a%d.yaml", i), fmt.Sprintf(`
agent: {labels: {site: north}, probation: 0s} # else what is killed twice within a minute is given up
exporters: {otlp: {endpoint: "http://%s", protocol: http, compression: none}}
`, far.address)), data: w.path(fmt.Sprintf("a%d", i))}
		m.start("--hub", w.client.URL)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the log of %s ends so:\n%s", filepath.Base(m.data), m.tail())
			}
		})
		var h report.Health
		eventually(t, "the agent runs", func() bool { return m.ask("/healthz", &h) == nil && h.State == "running" })
		agents[h.ID] = m
	}
	eventually(t, "all are healthy", func() bool {
		list, err := w.client.Agents(t.Context(), api.AgentQuery{Status: "healthy", Label: "site=north"})
		return err == nil && list.Total == len(agents)
	})
	_, err := w.client.ApplyDocument(t.Context(), api.DocumentChange{Text: `
document: task
selector: site == "north"
place: 1
collectors: {generate/task: {rate: 50}}
pipelines: {task: {from: [generate/task], to: [otlp]}}
`})
	if err != nil {
		t.Fatal(err)
	}
	has := func(m *mortal) (yes, answers bool) {
		var s agent.State
		if m.ask("/state", &s) != nil {
			return false, false
		}
		return slices.ContainsFunc(s.Configuration.Documents, func(d report.Document) bool { return d.Name == "task" && d.Status == "running" }), true
	}
	var now api.Task
	ask := func() bool {
		list, err := w.client.Tasks(t.Context())
		if err != nil || len(list.Tasks) != 1 {
			return false
		}
		now = list.Tasks[0]
		return now.Status == "running"
	}
	await := func(what string, before api.Task) time.Duration {
		began := time.Now()
		eventually(t, what, func() bool { return ask() && now.Epoch > before.Epoch && now.Agent != before.Agent })
		return time.Since(began).Round(time.Millisecond)
	}
	t.Logf("placed within %v", await("it is placed", now))
	took := make(map[string][]time.Duration)
	for range rounds {
		for _, how := range []string{"kill", "stop", "pause"} {
			eventually(t, "it runs", ask) // it may have moved, to be balanced
			owner, before := agents[now.Agent], now
			if owner == nil {
				t.Fatalf("it is placed on %+v", now)
			}
			var back func()
			switch how {
			case "kill":
				owner.kill()
				back = func() { owner.start("--hub", w.client.URL) }
			case "stop":
				if err := owner.Process.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				back = func() { _ = owner.Process.Signal(syscall.SIGCONT) }
			case "pause":
				order(t, w.client, before.Agent, "pause")
				back = func() { order(t, w.client, before.Agent, "resume") }
			}
			took[how] = append(took[how], await("another takes over after "+how, before))
			eventually(t, "the agent on which it is to be has it", func() bool {
				if !ask() {
					return false
				}
				yes, _ := has(agents[now.Agent])
				return yes
			})
			back()
			eventually(t, "who had it lets it go after "+how, func() bool {
				yes, answers := has(owner)
				return answers && (!yes || ask() && now.Agent == before.Agent)
			})
		}
	}
	for how, list := range took {
		slices.Sort(list)
		t.Logf("%s: another runs it after %v in the middle, %v at most", how, list[len(list)/2], list[len(list)-1])
	}
	if out, code := w.creel("get", "tasks"); code != 0 || !strings.Contains(out, "task") || !strings.Contains(out, now.Agent) {
		t.Errorf("creel get tasks: exit code %d:\n%s", code, out)
	}
}

func order(t *testing.T, client *api.Client, agent, do string) {
	t.Helper()
	if _, err := client.Order(context.Background(), agent, api.OrderRequest{Do: do, Cause: "test"}); err != nil {
		t.Fatal(err)
	}
}
