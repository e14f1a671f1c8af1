package full

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
)

// demoAgent is a simulated agent: it reports over the real protocol what it makes up, until ctx is done. Now and then
// it is degraded, or goes away for a while.
func demoAgent(ctx context.Context, url string, number int) {
	random := rand.New(rand.NewPCG(uint64(number), 1)) // each time the same fleet
	d := &demo{
		id: uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "creel demo agent %d", number)).String(), started: time.Now(),
		speed: random.Float64() * random.Float64() * 20_000,
		labels: map[string]string{
			"host.name": fmt.Sprintf("demo-%s-%03d", []string{"web", "db", "edge", "batch"}[number%4], number), "os.type": "linux", "demo": "true",
			"site": []string{"north", "south", "east", "west"}[random.IntN(4)], "rack": fmt.Sprintf("r%d", random.IntN(12)),
		},
	}
	for ctx.Err() == nil {
		life, end := context.WithTimeout(ctx, time.Duration(2+random.IntN(20))*time.Minute)
		c, err := control.NewClient(control.ClientOptions{URLs: []string{url}, Agent: d.agent()})
		if err != nil {
			panic("BUG: " + err.Error()) // the URL is the hub's own
		}
		c.Run(life)
		end()
		if sleep(ctx, time.Duration(10+random.IntN(60))*time.Second) != nil {
			return
		}
	}
}

// demo is what a simulated agent pretends.
type demo struct {
	id      string
	labels  map[string]string
	started time.Time
	speed   float64 // records per second

	mu    sync.Mutex
	last  time.Time
	total int64
	ill   bool
}

func (d *demo) agent() control.Agent {
	return control.Agent{
		ID: d.id, Version: cli.Version(), Labels: func() map[string]string { return d.labels }, Health: d.health, Components: d.components,
		Routes: func() []report.Route {
			return []report.Route{{Pipeline: "logs", From: []string{"file/app"}, Through: []string{"sample"}, To: []string{"otlp/hub"}}}
		},
		Ledger: func() report.Ledger {
			n := d.count()
			return report.Ledger{Pipelines: []report.Pipeline{{
				Pipeline: "logs", Accepted: n, Filtered: n / 10, Passed: n - n/10,
				Exporters: []report.Exporter{{Exporter: "otlp/hub", In: n - n/10, Delivered: n - n/10}},
			}}}
		},
		Effective: func() []byte {
			return []byte(`{"collectors.file/app": {"include": ["/var/log/app/*.log"]}, "exporters.otlp/hub": {"endpoint": "hub.example:4317"}}`)
		},
	}
}

// count lets time pass: records come at about the agent's speed, and every twentieth minute or so it falls ill.
func (d *demo) count() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if !d.last.IsZero() {
		d.total += int64(now.Sub(d.last).Seconds() * d.speed * (0.8 + 0.4*rand.Float64()))
	}
	if rand.IntN(1200) == 0 || d.ill && rand.IntN(60) == 0 {
		d.ill = !d.ill
	}
	d.last = now
	return d.total
}

func (d *demo) health() report.Health {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := report.Health{ID: d.id, State: "running", Health: report.Healthy, Started: d.started}
	if d.ill {
		h.Health = report.Degraded
	}
	return h
}

func (d *demo) components() []report.Component {
	n := d.count()
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []report.Component{
		{Component: "collectors.file/app", Plugin: "file", Healthy: true, Records: n},
		{Component: "exporters.otlp/hub", Plugin: "otlp", Healthy: !d.ill, Limit: 16 << 20},
	}
	if d.ill {
		list[1].Error, list[1].Queued = "connect to hub.example:4317: connection refused", 4<<20
	}
	return list
}
