package agent_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/control"
)

// landlord is a hub that offers what a test says, and leases for as long as it does.
type landlord struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	offer  *control.Offer
	silent bool                 // it hears, and says nothing
	told   control.RemoteStatus // the last
	offers int                  // that were made
}

// leaseTime is how long leases of a landlord are.
const leaseTime = 300 * time.Millisecond

func newLandlord(t *testing.T) *landlord {
	h := &landlord{t: t, offer: &control.Offer{}}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := control.Upgrade(w, r, control.MaxMessage, time.Minute, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(1000, "")
		for {
			m := &protobufs.AgentToServer{}
			if conn.Receive(m) != nil {
				return
			}
			if answer := h.hear(m); answer != nil {
				_ = conn.Send(answer) // the agent may have gone
			}
		}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *landlord) hear(m *protobufs.AgentToServer) *protobufs.ServerToAgent {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.RemoteConfigStatus != nil {
		h.told = control.RemoteStatusOf(m.RemoteConfigStatus)
	}
	beat, err := control.BeatOf(m.CustomMessage)
	if err != nil {
		h.t.Error(err)
	}
	if h.silent || beat == nil {
		return nil
	}
	answer := &protobufs.ServerToAgent{InstanceUid: m.InstanceUid, Capabilities: 1}
	answer.CustomMessage = (&control.Lease{Nonce: beat.Nonce, Hub: "landlord", Expires: leaseTime, Heartbeat: leaseTime / 6}).Message()
	if h.told.Hash != h.offer.Hash() {
		answer.RemoteConfig = h.offer.Message()
		h.offers++
	}
	return answer
}

func (h *landlord) say(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
}

// TestFence: an agent works on a document that only one may have while a hub says that it is the one, and not a moment longer: not
// after it was started again, nor if what takes the document away cannot be made to run.
func TestFence(t *testing.T) {
	var mu sync.Mutex
	opened, arrived := make(map[string]int), make(map[string][]string) // by collector; the resources
	plugins := []creel.Plugin{
		creel.NewCollector("stream", "Sends a record every few milliseconds.", func(_ struct{}, h creel.Host) (creel.Collector, error) {
			mu.Lock()
			opened[h.ID]++
			mu.Unlock()
			return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
				for tick := time.NewTicker(3 * time.Millisecond); ; {
					b := creel.NewLogs([]creel.Log{{Body: creel.String(h.ID)}})
					b.OnDone(func(error) {})
					if err := out.Send(ctx, b); err != nil {
						return err
					}
					select {
					case <-tick.C:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}), nil
		}),
		creel.NewExporter("sink", "Notes what comes.", func(struct{}, creel.Host) (creel.Exporter, error) {
			return creel.ExporterFunc(func(_ context.Context, bs []*creel.Batch) error {
				mu.Lock()
				defer mu.Unlock()
				for _, b := range bs {
					for _, l := range b.Logs() {
						resource := "none"
						if l.Origin != nil {
							resource = string(l.Origin.Resource.Attrs.Append(nil))
						}
						arrived[l.Body.Str()] = append(arrived[l.Body.Str()], resource)
					}
				}
				return nil
			}), nil
		}),
	}
	const own = "collectors: {stream/own: }\nexporters: {sink: }\npipelines: {own: {from: [stream/own], to: [sink]}}"
	const text = "collectors: {stream/placed: }\npipelines: {placed: {from: [stream/placed], to: [sink]}}"
	probes := func(epoch int64) control.OfferedDocument {
		return control.OfferedDocument{Name: "probes", Version: "3", Text: text, Tenure: control.Tenure{Epoch: epoch, Exclusive: true}}
	}
	h := newLandlord(t)
	h.offer = &control.Offer{Documents: []control.OfferedDocument{probes(7)}}
	o := agent.Options{Plugins: plugins, Hub: h.URL}
	r := start(t, own, o)
	o.Data = r.o.Data
	count := func(id string) int {
		mu.Lock()
		defer mu.Unlock()
		return len(arrived[id])
	}
	more := func(id string) {
		t.Helper()
		n := count(id) + 20
		await(t, func() bool { return count(id) >= n })
	}
	stamped := func(epoch string) { // from now on all are
		t.Helper()
		want := `{"creel.document.name":"probes","creel.document.version":"3","creel.document.epoch":` + epoch + `}`
		last := func() string {
			mu.Lock()
			defer mu.Unlock()
			list := arrived["stream/placed"]
			if len(list) == 0 {
				return ""
			}
			return list[len(list)-1]
		}
		await(t, func() bool { return last() == want })
		n := count("stream/placed")
		more("stream/placed")
		mu.Lock()
		defer mu.Unlock()
		for _, resource := range arrived["stream/placed"][n:] {
			if resource != want {
				t.Fatalf("after %s came %s", want, resource)
			}
		}
	}
	still := func(why string) {
		t.Helper()
		await(t, func() bool { _, body := r.request("GET", "/healthz"); return strings.Contains(body, why) })
		n := count("stream/placed")
		more("stream/own")
		if now := count("stream/placed"); now != n {
			t.Errorf("%d records came though %s", now-n, why)
		}
	}
	speak := func() { r.request("POST", "/-/reload") } // what comes of it is told at once, not with the next heartbeat
	speak()
	stamped("7")

	h.say(func() { h.silent = true })
	still("no hub confirms any more that this agent has document probes")
	h.say(func() { h.silent, h.offer = false, &control.Offer{Documents: []control.OfferedDocument{probes(8)}} })
	stamped("8")
	mu.Lock()
	if opened["stream/placed"] != 1 || opened["stream/own"] != 1 {
		t.Errorf("collectors were opened so often: %v", opened)
	}
	for _, resource := range arrived["stream/own"] {
		if resource != "none" {
			t.Fatalf("the resource of the agent's own is %s", resource)
		}
	}
	mu.Unlock()
	await(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.told.Hash == h.offer.Hash() && h.told.Status == control.Applied
	})

	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	var before int
	h.say(func() { h.silent, before = true, h.offers })
	r = start(t, own, o)
	still("no hub has confirmed yet that this agent has document probes")
	h.say(func() { h.silent = false })
	speak()
	stamped("8")
	h.say(func() {
		if h.offers != before {
			t.Error("the agent did not remember what it had, and was offered it again")
		}
		h.offer = &control.Offer{Documents: []control.OfferedDocument{{Name: "wrong", Version: "1", Text: "collectors: {nonsense: }"}}}
	})
	still("taken document probes away")

	// It is remembered that it was taken away, though what does that was refused.
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	r = start(t, own, o)
	await(t, func() bool {
		_, body := r.request("GET", "/healthz")
		return strings.Contains(body, `"connected": true`)
	})
	still("taken document probes away")
}
