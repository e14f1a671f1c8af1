// Package generate is a collector that makes records up: to try a configuration out, to fill a screen, to measure. What
// it makes is the same for the same seed, but for the times.
package generate

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

//go:embed example.yaml
var example string

// Plugin is the collector generate.
var Plugin = creel.NewCollector("generate", "Makes records up, to try things out and to measure.", New).WithExample(example)

// Config is the collector's options.
type Config struct {
	Signal   string      `doc:"What to make." default:"logs" enum:"logs|metrics|traces"`
	Rate     float64     `doc:"Records per second; 0 is as many as are taken." default:"10" min:"0"`
	Count    int64       `doc:"Stop after so many records; 0 is never." default:"0" min:"0"`
	Batch    int         `doc:"Records in a batch at most." default:"100" min:"1" max:"10000"`
	Size     config.Size `doc:"Bytes of a log record's body." default:"100" max:"1MiB"`
	Services int         `doc:"From how many services the records come." default:"3" min:"1" max:"1000"`
	Series   int         `doc:"How many series a metric has for each service." default:"10" min:"1" max:"100000"`
	Seed     int64       `doc:"Another seed makes other records." default:"1"`
}

// New returns the collector.
func New(c Config, h creel.Host) (creel.Collector, error) {
	g := &generator{Config: c, host: h, random: rand.New(rand.NewPCG(uint64(c.Seed), 0)), start: time.Now()}
	g.make = map[string]func(*creel.Records, int64){"logs": g.log, "metrics": g.metric, "traces": g.span}[c.Signal]
	g.signal = map[string]creel.Signal{"logs": creel.Logs, "metrics": creel.Metrics, "traces": creel.Traces}[c.Signal]
	for i := range c.Services {
		attrs := append(h.Resource.Attrs[:len(h.Resource.Attrs):len(h.Resource.Attrs)], creel.Attr{Key: "service.name", Value: creel.String(fmt.Sprintf("service-%d", i))})
		g.origins = append(g.origins, &creel.Origin{Resource: creel.Resource{Attrs: attrs}, Scope: creel.Scope{Name: "github.com/creelhq/creel/plugins/generate"}})
	}
	return g, nil
}

type generator struct {
	Config
	host    creel.Host
	random  *rand.Rand
	origins []*creel.Origin
	signal  creel.Signal
	make    func(*creel.Records, int64) // appends record number n
	start   time.Time
	made    int64

	trace  creel.TraceID // that is being made
	parent creel.SpanID
	left   int // spans of it
}

// Collect sends records at the rate. What cannot be sent in time because the pipeline is full is not caught up with.
func (g *generator) Collect(ctx context.Context, out creel.Sink) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last, owed := time.Now(), float64(min(g.Batch, 1))
	for ctx.Err() == nil && (g.Count == 0 || g.made < g.Count) {
		n := g.Batch
		if g.Rate > 0 {
			now := time.Now()
			owed = min(owed+now.Sub(last).Seconds()*g.Rate, g.Rate+1)
			last = now
			if n = min(n, int(owed)); n == 0 {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-tick.C:
				}
				continue
			}
			owed -= float64(n)
		}
		if g.Count > 0 {
			n = int(min(int64(n), g.Count-g.made))
		}
		if err := out.Send(ctx, g.batch(n)); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (g *generator) batch(n int) *creel.Batch {
	r := g.host.Memory.NewRecords()
	for range n {
		g.make(r, g.made)
		g.made++
	}
	return creel.NewBatch(g.signal, r)
}

// attrs returns attributes that belong to r.
func attrs(r *creel.Records, list ...creel.Attr) creel.Attrs {
	a := r.Attrs.Make(len(list))
	copy(a, list)
	return a
}

var (
	words      = strings.Fields("request order payment cart user session cache index queue worker shard replica timeout retry commit lookup")
	operations = []string{"GET /cart", "POST /order", "GET /user/{id}", "SELECT orders", "publish order.created"}
)

func (g *generator) log(r *creel.Records, n int64) {
	now := time.Now().UnixNano()
	l := creel.Log{Origin: g.origins[int(n)%len(g.origins)], Time: now, Observed: now, Severity: creel.SeverityInfo}
	switch x := g.random.IntN(100); {
	case x < 2:
		l.Severity = creel.SeverityError
	case x < 8:
		l.Severity = creel.SeverityWarn
	case x < 20:
		l.Severity = creel.SeverityDebug
	}
	l.SeverityText = l.Severity.String()
	var body strings.Builder
	for body.Len() < int(g.Size) {
		body.WriteString(words[g.random.IntN(len(words))])
		body.WriteByte(' ')
	}
	l.Body = creel.String(body.String()[:g.Size])
	l.Attrs = attrs(r, creel.Attr{Key: "generate.sequence", Value: creel.Int(n)}, creel.Attr{Key: "user.id", Value: creel.Int(int64(g.random.IntN(1000)))})
	r.Logs = append(r.Logs, l)
}

var requests = &creel.Descriptor{Name: "generate.requests", Description: "Made-up requests.", Unit: "{request}", Kind: creel.Sum, Temporality: creel.Cumulative, Monotonic: true}

func (g *generator) metric(r *creel.Records, n int64) {
	series := n % int64(len(g.origins)*g.Series)
	m := creel.Metric{Origin: g.origins[series%int64(len(g.origins))], Desc: requests, Start: g.start.UnixNano(), Time: time.Now().UnixNano()}
	m.Value = creel.Int(int64(time.Since(g.start).Seconds() * float64(1+series%7)))
	m.Attrs = attrs(r, creel.Attr{Key: "series", Value: creel.Int(series / int64(len(g.origins)))})
	r.Metrics = append(r.Metrics, m)
}

// span makes traces of one to eight spans: a root, and calls to other services within it.
func (g *generator) span(r *creel.Records, n int64) {
	now := time.Now()
	s := creel.Span{Origin: g.origins[g.random.IntN(len(g.origins))], Kind: creel.SpanServer, Name: operations[g.random.IntN(len(operations))]}
	took := time.Duration(g.random.ExpFloat64() * float64(20*time.Millisecond))
	if g.left == 0 {
		g.left, g.parent = 1+g.random.IntN(8), creel.SpanID{}
		binary.BigEndian.PutUint64(g.trace[:8], g.random.Uint64()|1)
		binary.BigEndian.PutUint64(g.trace[8:], g.random.Uint64())
		took += 50 * time.Millisecond
	}
	g.left--
	binary.BigEndian.PutUint64(s.SpanID[:], g.random.Uint64()|1)
	s.TraceID, s.Parent = g.trace, g.parent
	s.Start, s.End = now.Add(-took).UnixNano(), now.UnixNano()
	if g.parent == (creel.SpanID{}) {
		g.parent = s.SpanID
	}
	if g.random.IntN(50) == 0 {
		s.Status = creel.Status{Code: creel.StatusError, Message: "made-up failure"}
	}
	s.Attrs = attrs(r, creel.Attr{Key: "generate.sequence", Value: creel.Int(n)})
	r.Spans = append(r.Spans, s)
}
