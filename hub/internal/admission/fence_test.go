package admission_test

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/admission"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/plugins/otlp"
)

// sink takes everything.
type sink struct{}

func (sink) Send(_ context.Context, b *creel.Batch) error { creel.Settle(b, nil); return nil }
func (sink) TrySend(b *creel.Batch) bool                  { creel.Settle(b, nil); return true }

// sockets notes the addresses that are listened on, by protocol.
type sockets struct {
	mu        sync.Mutex
	addresses map[string]string
}

func (s *sockets) Listen(network, _, protocol string) (net.Listener, error) {
	l, err := net.Listen(network, "127.0.0.1:0")
	if err == nil {
		s.mu.Lock()
		s.addresses[protocol] = l.Addr().String()
		s.mu.Unlock()
	}
	return l, err
}

func open[T any](t testing.TB, p creel.Plugin, options string, h creel.Host) T {
	t.Helper()
	n, err := config.Parse("test.yaml", []byte(options), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	checked, errs := p.Config.Check(n)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	c, err := p.Open(checked, h)
	if err != nil {
		t.Fatal(err)
	}
	return c.(T)
}

// receive serves a collector with an admission, and returns its addresses by protocol.
func receive(t testing.TB, a creel.Admission) map[string]string {
	t.Helper()
	s := &sockets{addresses: make(map[string]string)}
	c := open[creel.Collector](t, otlp.Collector, "{}", creel.Host{Admission: a, Sockets: s, Memory: &creel.Memory{}})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Collect(ctx, sink{}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s.addresses
}

// stamped is a batch of two resources, of which the second was collected for a document. An epoch of 0 is no stamp.
func stamped(document string, epoch int64) *creel.Batch {
	plain := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host.name", Value: creel.String("h")}}}}
	o := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: creel.DocumentName, Value: creel.String(document)}}}}
	if epoch != 0 {
		o.Resource.Attrs.Set(creel.DocumentEpoch, creel.Int(epoch))
	}
	return creel.NewLogs([]creel.Log{{Origin: plain, Body: creel.String("a")}, {Origin: o, Body: creel.String("b")}})
}

// TestFence: what was collected in an epoch that is over is refused for good, whoever sends it and however; what belongs to an epoch
// of now, or to a newer one than this hub has heard of, is taken, from others that pass it on as well.
func TestFence(t *testing.T) {
	store, set := new(state.Memory).Open(), metric.NewSet()
	d, err := documents.Open(t.Context(), documents.Options{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	apply := func(text string) {
		t.Helper()
		if _, err := d.Apply(t.Context(), "ann", expr.Selector{}, api.DocumentChange{Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"probe", "deleted", "all", "new"} {
		apply("document: " + name + "\nplace: 2\nexporters: {debug: {}}")
		if name == "new" {
			continue
		}
		value, err := json.Marshal(documents.Owners{Epoch: 107, Owners: []documents.Owner{
			{Agent: "ann", Epoch: 107, From: "old", FromEpoch: 103}, {Agent: "ben", Epoch: 105}, {From: "leaving", FromEpoch: 106},
		}, Past: []documents.Past{{Epoch: 101, Until: time.Now().Add(-time.Second)}, {Epoch: 102, Until: time.Now().Add(time.Hour)}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Put(t.Context(), "placements/"+name, value, false, state.Always()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Delete(t.Context(), "ann", expr.Selector{}, "deleted", false); err != nil {
		t.Fatal(err)
	}
	apply("document: all\nexporters: {debug: {}}")
	a := admission.New(admission.Options{Epochs: d, Metrics: set})
	for deadline := time.Now().Add(20 * time.Second); a.Fence(creel.Sender{}, "all", 1) == nil || a.Fence(creel.Sender{}, "deleted", 1) == nil; {
		if time.Now().After(deadline) {
			t.Fatal("the store does not hear where documents are")
		}
		time.Sleep(time.Millisecond)
	}
	refused := func() (n float64) {
		set.Gather(func(p metric.Point) {
			if p.Name == "creel.hub.intake.refused" && p.Labels[0].Value == "epoch" {
				n += p.Value
			}
		})
		return n
	}

	addresses := receive(t, a)
	for _, options := range []string{
		"{endpoint: 'http://" + addresses[creel.OTLPGRPC] + "'}",
		"{protocol: http, endpoint: 'http://" + addresses[creel.OTLPHTTP] + "'}",
		"{protocol: http, encoding: json, endpoint: 'http://" + addresses[creel.OTLPHTTP] + "'}",
	} {
		f := func(agent, document string, epoch int64, want string) {
			t.Helper()
			before := refused()
			h := creel.Host{Sender: creel.Sender{Agent: agent, Started: time.Unix(1, 0), Exporter: "otlp/hub"}}
			x := open[creel.Exporter](t, otlp.Exporter, options, h)
			defer x.(interface{ Close() error }).Close()
			err := x.Export(t.Context(), []*creel.Batch{stamped(document, epoch)})
			switch {
			case want == "" && err != nil:
				t.Errorf("%s: epoch %d of %s, of agent %s: %v", options, epoch, document, agent, err)
			case want != "" && (err == nil || !creel.IsPermanent(err) || !strings.Contains(err.Error(), want) || refused() != before+1):
				t.Errorf("%s: epoch %d of %s, of agent %s: %v, permanent %v, counted %v; want %q", options, epoch, document, agent, err, creel.IsPermanent(err), refused()-before, want)
			}
		}
		f("ann", "probe", 107, "")
		f("old", "probe", 103, "")     // it hands over
		f("leaving", "probe", 106, "") // it may have more to send
		f("relay", "probe", 105, "")
		f("", "probe", 105, "")
		f("ann", "probe", 105, "")    // it passes on
		f("handed", "probe", 102, "") // it had more on its way when its epoch ended
		f("handed", "probe", 101, "over, as it has come to epoch 107")
		f("ann", "probe", 108, "") // this hub has not heard of it
		f("ann", "probe", 0, "")
		f("ann", "unheard", 1, "")
		f("ann", "new", 1, "")
		f("ann", "probe", 104, "this agent has it again, in epoch 107")
		f("gone", "probe", 104, "over, as it has come to epoch 107")
		f("relay", "probe", 1, "over")
		f("", "probe", 1, "over")
		f("ann", "deleted", 107, "deleted, or on all")
		f("ann", "all", 107, "deleted, or on all")
	}
}
