package registry_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/state"
)

// A twin is a process with an identity that another has as well.
type twin struct {
	t       *testing.T
	id      uuid.UUID
	started time.Time
	ws      *websocket.Conn
	n       uint64
}

// come connects, and says who it is.
func (p *twin) come(url string) {
	p.t.Helper()
	p.ws = dial(p.t, url)
	p.t.Cleanup(func() { p.ws.Close() })
	p.n = 0
}

// beat returns whether the answer is a lease, and the error if there is one instead.
func (p *twin) beat() (leased bool, refused string) {
	p.t.Helper()
	p.n++
	m := &protobufs.AgentToServer{InstanceUid: p.id[:], SequenceNum: p.n, CustomMessage: (&control.Beat{Nonce: p.n, Uptime: float64(p.n)}).Message()}
	if p.n == 1 {
		m.AgentDescription = &protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{attr("service.name", control.AgentType)}}
		m.Health = &protobufs.ComponentHealth{Healthy: true, StartTimeUnixNano: uint64(p.started.UnixNano())}
	}
	send(p.t, p.ws, m)
	for {
		_ = p.ws.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, data, err := p.ws.ReadMessage()
		if err != nil {
			p.t.Fatal(err)
		}
		answer := &protobufs.ServerToAgent{}
		if err := control.Decode(data, answer); err != nil {
			p.t.Fatal(err)
		}
		if e := answer.ErrorResponse; e != nil {
			return false, e.ErrorMessage
		}
		if l, err := control.LeaseOf(answer.CustomMessage); err != nil {
			p.t.Fatal(err)
		} else if l != nil && (l.Nonce == p.n || l.Nonce == 0) {
			return l.Expires > 0, ""
		}
	}
}

// untilLeased returns when it was leased.
func (p *twin) untilLeased() time.Time {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		leased, refused := p.beat()
		if leased {
			return time.Now()
		}
		if refused != "" || time.Now().After(deadline) {
			p.t.Fatalf("it gets no lease: %s", refused)
		}
	}
}

// TestTwins: of two processes with one identity, which has what no two may have, the second gets no lease while the first may have
// one. When the first comes back there are two for sure: the second is refused until the first has gone.
func TestTwins(t *testing.T) {
	f := newFleet(t, new(state.Memory).Open())
	id := uuid.Must(uuid.NewV7())
	f.apply("document: once\nplace: 1\noverlap: never\nexporters: {debug: {}}")
	if err := f.docs.Place(t.Context(), "once", documents.Owners{}, documents.Owners{Epoch: 5, Owners: []documents.Owner{{Agent: id.String(), Epoch: 5}}}); err != nil {
		t.Fatal(err)
	}
	first, second := &twin{t: t, id: id, started: time.Now().Add(-time.Minute)}, &twin{t: t, id: id, started: time.Now()}
	first.come(f.server.URL)
	first.untilLeased()
	ends := time.Now()
	if c := f.reg.Candidates(); len(c) == 1 {
		ends = c[0].Leased
	}
	second.come(f.server.URL)
	if at := second.untilLeased(); at.Before(ends) {
		t.Errorf("the second is leased %v before the first's lease is over", ends.Sub(at))
	}
	first.come(f.server.URL)
	if _, refused := first.beat(); refused != "" {
		t.Fatalf("the first is refused: %s", refused)
	}
	second.come(f.server.URL)
	if leased, refused := second.beat(); leased || !strings.Contains(refused, "join again") {
		t.Errorf("the second is leased: %v, refused: %s", leased, refused)
	}
	a, err := f.reg.Agent(expr.Selector{}, id.String())
	if err != nil || !slices.ContainsFunc(a.Timeline, func(e api.Event) bool { return e.Kind == "cloned" }) {
		t.Errorf("the timeline is %+v, %v", a.Timeline, err)
	}
	first.untilLeased()
	send(t, first.ws, &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: first.n + 1, AgentDisconnect: &protobufs.AgentDisconnect{}})
	f.await(id.String(), "gone", func(d api.AgentDetail) bool { return d.Connection == api.Disconnected })
	second.come(f.server.URL)
	second.untilLeased()
}
