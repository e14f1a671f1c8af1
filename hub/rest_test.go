package hub_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/report"
)

// TestNothingIsWrittenAtRest: while nothing changes a hub writes nothing into etcd, with one agent and with many, however often they are
// heard and whatever they count.
func TestNothingIsWrittenAtRest(t *testing.T) {
	if testing.Short() {
		t.Skip("the short form is for the race detector, with which so many agents do not keep such a heartbeat")
	}
	etcd := startEtcd(t)
	outside, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	revision := func() int64 {
		t.Helper()
		resp, err := outside.Get(t.Context(), "none")
		if err != nil {
			t.Fatal(err)
		}
		return resp.Header.Revision
	}
	w := startHub(t, hub.Options{Etcd: []string{etcd}})
	var agents sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer agents.Wait()
	defer cancel()
	var beats atomic.Int64
	join := func() {
		id, started := uuid.NewString(), time.Now()
		c, err := control.NewClient(control.ClientOptions{URLs: []string{w.client.URL}, Agent: control.Agent{
			ID: id, Leased: func(time.Time) { beats.Add(1) },
			Labels: func() map[string]string { return map[string]string{"host.name": id} },
			Health: func() report.Health {
				return report.Health{ID: id, State: "running", Health: report.Healthy, Started: started}
			},
			Components: func() []report.Component { return nil },
			Routes:     func() []report.Route { return nil },
			Effective:  func() []byte { return nil },
			Ledger: func() report.Ledger {
				n := int64(time.Since(started))
				return report.Ledger{Pipelines: []report.Pipeline{{Pipeline: "logs", Accepted: n, Passed: n}}}
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		agents.Go(func() { c.Run(ctx) })
	}
	there := 1 // the hub's own
	for _, n := range []int{1, 99} {
		for range n {
			join()
		}
		there += n
		deadline := time.Now().Add(30 * time.Second)
		for h := (api.Hub{}); h.Agents["healthy"] != there; time.Sleep(20 * time.Millisecond) {
			if h, err = w.client.Hub(t.Context()); err != nil || time.Now().After(deadline) {
				t.Fatalf("%d agents are not there: %v, %v", there, h.Agents, err)
			}
		}
		for try := 1; ; try++ { // what comes with their joining may still be written
			before, from := revision(), beats.Load()
			for beats.Load() < from+20*int64(there-1) {
				time.Sleep(10 * time.Millisecond)
			}
			now := revision()
			if now == before {
				break
			}
			if try == 5 {
				resp, err := outside.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithMinModRev(before+1), clientv3.WithKeysOnly())
				keys := fmt.Sprint(err)
				if err == nil {
					for _, kv := range resp.Kvs {
						keys += " " + string(kv.Key)
					}
				}
				t.Fatalf("in 20 heartbeats of %d agents %d revisions were written: %s", there, now-before, keys)
			}
		}
	}
}
