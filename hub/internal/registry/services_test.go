package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
)

// TestServices: what an agent offers is there while the agent is, as it says, with the hub that it is at; moving to another hub it is
// never gone, and a hub that has lost its lease puts it again.
func TestServices(t *testing.T) {
	m, list := hubs(t, 2, registry.Options{Heartbeat: 100 * time.Millisecond})
	look := m.Open()
	defer look.Close()
	a := newTalker(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := make(chan string, 1000)
	go func() {
		_ = look.Watch(ctx, "services/", 0, func(e state.Entry) error {
			if e.Value == nil {
				changes <- "deleted " + e.Key
			}
			return nil
		})
	}()
	await := func(want ...string) {
		t.Helper()
		var have []string
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			entries, _, err := look.List(t.Context(), "services/")
			if err != nil {
				t.Fatal(err)
			}
			have = nil
			for _, e := range entries {
				var v struct {
					Hub, Address, Name string
					Labels             map[string]string
				}
				if err := json.Unmarshal(e.Value, &v); err != nil || !e.Leased || e.Key[strings.LastIndex(e.Key, "/")+1:] != a.id.String() || v.Labels["host.name"] != "alpha" {
					t.Fatalf("%s: %s, leased %v, %v", e.Key, e.Value, e.Leased, err)
				}
				have = append(have, fmt.Sprintf("%s %s at %s", e.Key[:strings.LastIndex(e.Key, "/")], v.Address, v.Hub))
			}
			if slices.Equal(have, want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("there are %q, not %q", have, want)
			}
		}
	}
	offer := func(list ...control.Service) {
		t.Helper()
		a.say(&protobufs.AgentToServer{}, &control.Beat{Services: append([]control.Service{}, list...)})
	}
	web, otlp := control.Service{Name: "web", Address: "a:80"}, control.Service{Name: "otlp", Address: "a:4317", Tags: []string{"x"}}
	a.to(list[0], "")
	offer(web, otlp, control.Service{Name: "../agents", Address: "a:1"}, control.Service{Name: "nowhere", Address: ":1"})
	await("services/otlp a:4317 at hub-1", "services/web a:80 at hub-1")
	web.Address = "a:81"
	offer(web)
	await("services/web a:81 at hub-1")
	a.say(&protobufs.AgentToServer{}, &control.Beat{}) // nothing new
	offer()
	await()
	offer(web, otlp)
	await("services/otlp a:4317 at hub-1", "services/web a:81 at hub-1")

	// To another hub, where it offers one of them only.
	for len(changes) > 0 {
		<-changes
	}
	a.to(list[1], "")
	offer(web)
	stop := a.goesOn()
	await("services/web a:81 at hub-2")
	if got := <-changes; got != "deleted services/otlp/"+a.id.String() || len(changes) > 0 {
		t.Errorf("%s, and %d more", got, len(changes))
	}

	store := list[1].store.(*leasing)
	store.lose(true)
	await()
	store.up()
	await("services/web a:81 at hub-2")
	stop()
	a.say(&protobufs.AgentToServer{AgentDisconnect: &protobufs.AgentDisconnect{}}, &control.Beat{})
	await()
}
