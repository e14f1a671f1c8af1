package otlp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/plugins/otlp"
)

// farSide is a server of OTLP over either transport that notes the names of what it gets.
type farSide struct {
	plogotlp.UnimplementedGRPCServer
	address string
	stop    func()

	mu       sync.Mutex
	took     map[string]int
	throttle bool // answer 429 and when to come again
	dies     int  // when it has taken so many it takes one more and is gone, without an answer; 0: never
}

func (s *farSide) take(id string) (die bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took[id]++
	return s.dies > 0 && len(s.took) > s.dies
}

func (s *farSide) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.took)
}

// Export is for gRPC.
func (s *farSide) Export(ctx context.Context, _ plogotlp.ExportRequest) (plogotlp.ExportResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if s.take(strings.Join(md.Get("creel-batch-id"), "")) {
		go s.stop()
		<-ctx.Done()
		return plogotlp.NewExportResponse(), ctx.Err()
	}
	return plogotlp.NewExportResponse(), nil
}

// ServeHTTP is for HTTP.
func (s *farSide) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	throttle := s.throttle
	s.mu.Unlock()
	if throttle {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	if s.take(r.Header.Get("Creel-Batch-Id")) {
		s.stop()
		panic(http.ErrAbortHandler)
	}
}

func newFarSide(t *testing.T, protocol string) *farSide {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &farSide{address: l.Addr().String(), took: make(map[string]int)}
	var stop func()
	if protocol == "grpc" {
		server := grpc.NewServer()
		plogotlp.RegisterGRPCServer(server, s)
		go server.Serve(l)
		stop = server.Stop
	} else {
		server := &http.Server{Handler: s}
		go server.Serve(l)
		stop = func() { server.Close() }
	}
	s.stop = sync.OnceFunc(stop)
	t.Cleanup(s.stop)
	return s
}

// export sends one record by a name, once.
func export(x creel.Exporter, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ctx = creel.WithRequest(ctx, creel.Request{ID: creel.ID{byte(n >> 8), byte(n), 1}})
	b := creel.NewLogs([]creel.Log{{Body: creel.String(fmt.Sprint(n))}})
	defer creel.Settle(b, nil)
	return x.Export(ctx, []*creel.Batch{b})
}

// TestFailover: of two far sides the first is killed while several requests are under way; one has just taken a request that it
// does not answer any more. Nothing is lost, no attempt fails, and there twice is only what had no answer.
func TestFailover(t *testing.T) {
	const requests, senders = 200, 4
	for _, protocol := range []string{"grpc", "http"} {
		for _, balance := range []string{"failover", "round_robin"} {
			t.Run(protocol+" "+balance, func(t *testing.T) {
				a, b := newFarSide(t, protocol), newFarSide(t, protocol)
				a.dies = 50
				x := open(t, otlp.Exporter, fmt.Sprintf("{endpoints: ['http://%s', 'http://%s'], protocol: %s, balance: %s}", a.address, b.address, protocol, balance), creel.Host{}).(creel.Exporter)
				var wg sync.WaitGroup
				for s := range senders {
					wg.Go(func() {
						for n := s; n < requests; n += senders {
							if err := export(x, n); err != nil {
								t.Errorf("request %d: %v", n, err)
							}
						}
					})
				}
				wg.Wait()
				twice := 0
				for id := range b.took {
					if a.took[id] > 0 {
						twice++
					}
				}
				if all := a.count() + b.count() - twice; all != requests || a.count() <= a.dies || twice < 1 || twice > senders {
					t.Errorf("%d of %d requests have come, %d to the first, %d to both", all, requests, a.count(), twice)
				}
				for _, took := range []map[string]int{a.took, b.took} {
					for id, n := range took {
						if n > 1 {
							t.Errorf("%s came %d times to one far side", id, n)
						}
					}
				}
			})
		}
	}
}

// TestBalance: which far side gets what.
func TestBalance(t *testing.T) {
	sides := []*farSide{newFarSide(t, "http"), newFarSide(t, "http"), newFarSide(t, "http")}
	counts := func(balance, agent string) (n []int) {
		t.Helper()
		x := open(t, otlp.Exporter, fmt.Sprintf("{endpoints: ['http://%s', 'http://%s', 'http://%s'], protocol: http, balance: %s}", sides[0].address, sides[1].address, sides[2].address, balance),
			creel.Host{Sender: creel.Sender{Agent: agent}}).(creel.Exporter)
		for _, s := range sides {
			clear(s.took)
		}
		for n := range 12 {
			if err := export(x, n); err != nil {
				t.Error(err)
			}
		}
		for _, s := range sides {
			n = append(n, s.count())
		}
		return n
	}
	if n := counts("failover", "x"); !slices.Equal(n, []int{12, 0, 0}) {
		t.Errorf("failover: %v", n)
	}
	if n := counts("round_robin", "x"); !slices.Equal(n, []int{4, 4, 4}) {
		t.Errorf("round_robin: %v", n)
	}
	used := map[int]bool{}
	for i := range 20 {
		n := counts("rendezvous", fmt.Sprint("agent-", i))
		used[slices.Index(n, 12)] = true
	}
	if used[-1] || len(used) < 2 {
		t.Errorf("rendezvous: agents use %v", used)
	}

	sides[0].throttle = true
	x := open(t, otlp.Exporter, fmt.Sprintf("{endpoints: ['http://%s', 'http://%s'], protocol: http}", sides[0].address, sides[1].address), creel.Host{}).(creel.Exporter)
	clear(sides[1].took)
	var throttled *creel.Throttled
	if err := export(x, 1); !errors.As(err, &throttled) || sides[1].count() != 0 {
		t.Errorf("a far side that asks to wait is passed over at once: %v", err)
	}
	if err := export(x, 1); err != nil || sides[1].count() != 1 {
		t.Errorf("the next attempt does not go to the other: %v", err)
	}
	sides[1].stop()
	if err := export(x, 2); err == nil || creel.IsPermanent(err) {
		t.Errorf("with all away: %v", err)
	}
}

// agentHubs is what an agent knows.
type agentHubs struct {
	mu      sync.Mutex
	list    []creel.Hub
	changed chan struct{}
}

func (h *agentHubs) Hubs() ([]creel.Hub, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.list, h.changed
}

func (h *agentHubs) set(list ...creel.Hub) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = list
	close(h.changed)
	h.changed = make(chan struct{})
}

// TestHubs: endpoint: hub follows what the agent knows, and leaves a hub that is drained.
func TestHubs(t *testing.T) {
	for _, protocol := range []string{"grpc", "http"} {
		a, b := newFarSide(t, protocol), newFarSide(t, protocol)
		hubA := creel.Hub{ID: "a", OTLPGRPC: a.address, OTLPHTTP: a.address}
		hubB := creel.Hub{ID: "b", OTLPGRPC: b.address, OTLPHTTP: b.address}
		known := &agentHubs{changed: make(chan struct{})}
		x := open(t, otlp.Exporter, "{endpoint: hub, protocol: "+protocol+"}", creel.Host{Hubs: known}).(creel.Exporter)
		n := 0
		goes := func(to *farSide, why string) {
			t.Helper()
			n++
			before := to.count()
			if err := export(x, n); err != nil || to.count() != before+1 {
				t.Errorf("%s, %s: %v, and it is not there", protocol, why, err)
			}
		}
		if err := export(x, n); err == nil || creel.IsPermanent(err) || !strings.Contains(err.Error(), "no hub is known") {
			t.Errorf("without a hub: %v", err)
		}
		known.set(hubA)
		goes(a, "one hub is known")
		known.set(hubB, hubA)
		goes(b, "the agent has moved")
		hubB.Leave = true
		known.set(hubB, hubA)
		goes(a, "its hub is drained")
		a.stop()
		goes(b, "the other is gone")
		known.set(hubA, creel.Hub{ID: "c", Secure: true})
		if err := export(x, n); err == nil || creel.IsPermanent(err) {
			t.Errorf("only a hub is left that is gone: %v", err)
		}
		known.set()
		if err := export(x, n); err == nil || !strings.Contains(err.Error(), "no hub is known") {
			t.Errorf("no hub is left: %v", err)
		}
		b.stop()
	}
}

// TestEndpoints: what endpoints there may be.
func TestEndpoints(t *testing.T) {
	for options, want := range map[string]string{
		"{}":                                    "is required",
		"endpoint: hub":                         "",
		"endpoints: 'a:1'":                      "",
		"endpoints: ['a:1', 'http://b:2']":      "",
		"{endpoint: 'a:1', endpoints: ['b:1']}": "excludes endpoint",
		"endpoints: ['a:1', hub]":               "must be host:port",
		"endpoints: ['a:1', 'a:1']":             "names a:1 twice",
		"{endpoint: hub, tls: {identity: true}, headers: {authorization: x}}": "contradicts tls.identity",
		"{endpoints: ['a:1', 'http://b:1'], tls: {identity: true}}":           "over TLS only",
	} {
		n, err := config.Parse("test.yaml", []byte(options), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if _, errs := otlp.Exporter.Config.Check(n); (len(errs) == 0) != (want == "") || len(errs) > 0 && !strings.Contains(errs.Error(), want) {
			t.Errorf("%s: %v, want %q", options, errs, want)
		}
	}
}

// TestHubIdentity: towards the agent's hubs its identity is shown without anything said; over TLS alone.
func TestHubIdentity(t *testing.T) {
	me := newIdentity(t)
	out := &sink{settle: takeAll}
	address, _ := serveOn(t, "{grpc: {tls: {identity: true}}, http: {tls: {identity: true}}}", creel.Host{Identity: me}, out)
	known := &agentHubs{changed: make(chan struct{})}
	known.set(creel.Hub{ID: "a", OTLPGRPC: address, Secure: true})
	x := open(t, otlp.Exporter, "endpoint: hub", creel.Host{Identity: me, Hubs: known}).(creel.Exporter)
	if err := export(x, 1); err != nil {
		t.Error(err)
	}
	known.set(creel.Hub{ID: "a", OTLPGRPC: address})
	x = open(t, otlp.Exporter, "{endpoint: hub, tls: {identity: true}}", creel.Host{Identity: me, Hubs: known}).(creel.Exporter)
	if err := export(x, 1); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("a hub without TLS is sent to: %v", err)
	}
}
