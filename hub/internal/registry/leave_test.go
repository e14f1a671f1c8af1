package registry_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/registry"
)

// balancer says what a test wants.
type balancer struct {
	mu    sync.Mutex
	hubs  []control.HubAt
	leave string
}

func (b *balancer) Hubs() []control.HubAt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hubs
}

func (b *balancer) Leave(string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leave
}

func (b *balancer) set(leave string, hubs ...control.HubAt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leave, b.hubs = leave, hubs
}

// TestElsewhere: with its first lease an agent is told which hubs there are, and then only when there is something new; each time
// where to go.
func TestElsewhere(t *testing.T) {
	b := &balancer{}
	w := newWorld(t, registry.Options{Heartbeat: time.Minute, Balancer: b})
	c, _, err := websocket.DefaultDialer.DialContext(t.Context(), strings.Replace(w.server.URL, "http", "ws", 1)+control.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id := uuid.New()
	n := uint64(0)
	beat := func(hubs int, leave string) {
		t.Helper()
		n++
		m := &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: n, CustomMessage: (&control.Beat{Nonce: n}).Message()}
		data, err := proto.Marshal(m)
		if err == nil {
			err = c.WriteMessage(websocket.BinaryMessage, append([]byte{0}, data...))
		}
		if err != nil {
			t.Fatal(err)
		}
		for {
			_, data, err := c.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			answer := &protobufs.ServerToAgent{}
			if err := control.Decode(data, answer); err != nil {
				t.Fatal(err)
			}
			l, err := control.LeaseOf(answer.CustomMessage)
			if err != nil {
				t.Fatal(err)
			}
			if l == nil || l.Nonce != n {
				continue
			}
			if len(l.Hubs) != hubs || l.Leave != leave {
				t.Errorf("beat %d: %d hubs and leave %q, want %d and %q", n, len(l.Hubs), l.Leave, hubs, leave)
			}
			return
		}
	}
	one, two := control.HubAt{ID: "1", Agents: 100}, control.HubAt{ID: "2", Agents: 100}
	beat(0, "") // whose lease comes when the session is kept, maybe before the answer
	beat(0, "") // now all is answered
	b.set("", one, two)
	beat(2, "")
	beat(0, "")
	two.Agents = 120
	b.set("", one, two)
	beat(0, "")
	two.Agents = 200
	b.set("2", one, two)
	beat(2, "2")
	one.Draining = true
	b.set(control.AnyHub, one, two)
	beat(2, control.AnyHub)
	beat(0, control.AnyHub)
	b.set("", two)
	beat(1, "")
}
