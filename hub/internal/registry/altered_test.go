package registry_test

import (
	"testing"
	"time"

	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/report"
)

// TestBeatsWithoutNews: who decides where documents are is not told of each heartbeat, but of all that may count.
func TestBeatsWithoutNews(t *testing.T) {
	f := newFleet(t, new(state.Memory).Open())
	p := f.peer("alpha", nil)
	f.peer("beta", nil)
	f.apply("document: d\nexporters: {debug: {}}")
	f.await(p.id, "running it", is("d running"))
	deadline := time.After(20 * time.Second)
	wait := func(what string, c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-deadline:
			t.Fatal(what)
		}
	}
	quiet := func() (altered <-chan struct{}) {
		t.Helper()
		for {
			altered = f.reg.Altered()
			for range 8 {
				wait("nobody is heard", f.reg.Changed())
			}
			select {
			case <-altered:
			default:
				return altered
			}
			select {
			case <-deadline:
				t.Fatal("heartbeats without news are told of")
			default:
			}
		}
	}
	for what, change := range map[string]func(){
		"a document that fails": func() {
			p.config.Documents = []report.Document{{Name: "d", Source: "hub", Version: "1", Status: report.Failure}}
		},
		"what a document costs": func() {
			p.config.Documents = []report.Document{{Name: "d", Source: "hub", Version: "1", Status: "running", Cost: 0.2}}
		},
		"a pause":      func() { p.life.State = "paused" },
		"labels":       func() { p.labels = map[string]string{"host.name": "alpha", "site": "north"} },
		"an ill agent": func() { p.remote.Error = "no space left" },
	} {
		altered := quiet()
		p.mu.Lock()
		change()
		p.mu.Unlock()
		p.client.Notify()
		wait(what+" is not told of", altered)
	}
	altered := quiet()
	p.stop()
	wait("an agent that goes is not told of", altered)
}
