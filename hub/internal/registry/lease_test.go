package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/state"
)

// shuttable is a control state in which, while it is shut, it cannot be written where documents are.
type shuttable struct {
	state.Store
	shut atomic.Bool
}

func (s *shuttable) Put(ctx context.Context, key string, value []byte, leased bool, c state.Condition) (int64, error) {
	if s.shut.Load() && strings.HasPrefix(key, "placements/") {
		return 0, errors.New("it is shut")
	}
	return s.Store.Put(ctx, key, value, leased, c)
}

// TestLeaseOfExclusive: an agent that has an exclusive document, as far as the hub has heard, gets neither that nor a lease before the hub
// has made sure of it; then the document first.
func TestLeaseOfExclusive(t *testing.T) {
	store := &shuttable{Store: new(state.Memory).Open()}
	f := newFleet(t, store)
	id := uuid.Must(uuid.NewV7())
	f.apply("document: once\nplace: 1\noverlap: never\nexporters: {debug: {}}")
	if err := f.docs.Place(t.Context(), "once", documents.Owners{}, documents.Owners{Epoch: 5, Owners: []documents.Owner{{Agent: id.String(), Epoch: 5}}}); err != nil {
		t.Fatal(err)
	}
	store.shut.Store(true)

	ws := dial(t, f.server.URL)
	defer ws.Close()
	n, offered := uint64(0), (*control.Offer)(nil)
	beat := func() (leased bool) { // returns what the answer says
		t.Helper()
		n++
		m := &protobufs.AgentToServer{
			InstanceUid: id[:], SequenceNum: n, CustomMessage: (&control.Beat{Nonce: n, Uptime: float64(n)}).Message(),
			Capabilities: uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig),
		}
		if n == 1 {
			m.AgentDescription = &protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{attr("service.name", control.AgentType)}}
		}
		send(t, ws, m)
		for {
			_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, data, err := ws.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			answer := &protobufs.ServerToAgent{}
			if err := proto.Unmarshal(data[1:], answer); err != nil {
				t.Fatal(err)
			}
			if answer.RemoteConfig != nil {
				offered = control.OfferOf(answer.RemoteConfig)
			}
			if l, err := control.LeaseOf(answer.CustomMessage); err != nil {
				t.Fatal(err)
			} else if l != nil && (l.Nonce == n || l.Nonce == 0) {
				return l.Expires > 0
			}
		}
	}
	for range 3 {
		if beat() || offered != nil {
			t.Fatalf("it is leased, or offered %+v, though nobody knows whether it is another's", offered)
		}
	}
	store.shut.Store(false)
	for deadline := time.Now().Add(20 * time.Second); !beat(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it gets no lease")
		}
	}
	if offered == nil || len(offered.Documents) != 1 || offered.Documents[0].Name != "once" {
		t.Errorf("when it gets its lease it has been offered %+v", offered)
	}
	sure := func() (session int64) { // of which it was made sure
		t.Helper()
		e, err := store.Get(t.Context(), "placements/once")
		var o documents.Owners
		if err != nil || json.Unmarshal(e.Value, &o) != nil || o.Owners[0].Epoch != 5 || o.Owners[0].Session >= e.Revision {
			t.Fatalf("it is placed on %+v in revision %d, %v", o, e.Revision, err)
		}
		return o.Owners[0].Session
	}
	if sure() == 0 {
		t.Error("it is leased, and nobody has made sure that it still has the document")
	}
	s, err := store.Get(t.Context(), "sessions/"+id.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), s.Key, state.Always()); err != nil { // as if the hub had lost its lease
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); sure() <= s.Revision; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("in a new session, of which others may not have heard, nobody has made sure that it still has the document")
		}
	}
	if !beat() {
		t.Error("in a new session it is not leased")
	}
	if c := f.reg.Candidates(); len(c) != 1 || !c[0].Leased.After(time.Now()) {
		t.Errorf("for others it has no lease: %+v", c)
	}
}
