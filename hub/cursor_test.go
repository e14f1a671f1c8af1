package hub_test

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/debug"
)

// counted is collectors that count on from what they have saved, at whatever agent.
type counted struct {
	mu   sync.Mutex
	list []int
	at   []string // by whom
}

type counterOptions struct{}

type counting struct {
	c *counted
	h creel.Host
}

func (c *counted) plugin() creel.Plugin {
	p := creel.NewPolled("count", "Counts.", func(_ counterOptions, h creel.Host) (creel.Collector, error) { return &counting{c, h}, nil })
	p.Portable = true
	return p
}

func (x *counting) Collect(context.Context, creel.Sink) error {
	data, version, err := x.h.State.Load()
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(string(data)) // 0: nothing was saved
	x.c.mu.Lock()
	x.c.list, x.c.at = append(x.c.list, n+1), append(x.c.at, x.h.Sender.Agent)
	x.c.mu.Unlock()
	_, err = x.h.State.Save([]byte(strconv.Itoa(n+1)), version)
	return err
}

// last returns how far it has come, and who has counted that.
func (c *counted) last() (n int, at string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) == 0 {
		return 0, ""
	}
	return c.list[len(c.list)-1], c.at[len(c.at)-1]
}

// TestCursor: an agent that gets a document from another one that pauses goes on where that has ended, without a gap and with nothing twice;
// also one that has had it before, and whatever is said of overlaps.
func TestCursor(t *testing.T) {
	for _, overlap := range []string{"allow", "never"} {
		t.Run(overlap, func(t *testing.T) {
			t.Parallel()
			c := &counted{}
			w := startHub(t, hub.Options{Heartbeat: 2 * time.Second, Plugins: []creel.Plugin{c.plugin(), debug.Plugin}}) // who is lost has not said its last word
			for i := range 2 {
				w.goes("agent", func(ctx context.Context) error {
					return agent.Run(ctx, agent.Options{
						Data: filepath.Join(w.dir, fmt.Sprint("agent", i)), Config: "agent.yaml", Text: []byte("agent: {drain: 1s, probation: 0s}"), Log: io.Discard, Hub: w.client.URL,
						Plugins: []creel.Plugin{c.plugin(), debug.Plugin}, Labels: map[string]string{"site": "far"},
					})
				})
			}
			deadline := time.Now().Add(time.Minute)
			wait := func(what string, ok func() bool) {
				t.Helper()
				for ; !ok(); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						d, err := w.client.Task(t.Context(), "job")
						t.Fatalf("%s: not within a minute: %+v, %v", what, d, err)
					}
				}
			}
			wait("two agents are healthy", func() bool {
				list, err := w.client.Agents(t.Context(), api.AgentQuery{Label: "site=far", Status: "healthy"})
				return err == nil && list.Total == 2
			})
			_, err := w.client.ApplyDocument(t.Context(), api.DocumentChange{Text: "document: job\nselector: site == \"far\"\nplace: 1\noverlap: " + overlap + "\ncollectors: {count: {every: 10ms}}\nexporters: {debug: {}}\npipelines: {p: {from: [count], to: [debug]}}"})
			if err != nil {
				t.Fatal(err)
			}
			order := func(agent, do string) {
				t.Helper()
				if _, err := w.client.Order(t.Context(), agent, api.OrderRequest{Do: do, Cause: "test"}); err != nil {
					t.Fatal(err)
				}
			}
			owner := ""
			wait("it counts", func() bool { _, owner = c.last(); return owner != "" })
			for range 4 { // there and back, twice
				from, _ := c.last()
				wait("it counts on", func() bool { n, at := c.last(); return at == owner && n > from+20 })
				order(owner, "pause")
				next := ""
				wait("it counts elsewhere", func() bool { _, next = c.last(); return next != owner })
				order(owner, "resume")
				owner = next
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			for i, n := range c.list {
				if n != i+1 {
					t.Fatalf("%d was counted as number %d, at %s; before that %v, at %s", n, i+1, c.at[i], c.list[max(0, i-3):i], c.at[max(0, i-1)])
				}
			}
		})
	}
}
