// Package prometheus collects metrics from targets that expose them as Prometheus does: in its text format or in OpenMetrics
// text. Targets are named in the options, in files, or by a URL, as Prometheus' own discovery has them.
//
// A round asks each target once, a few at a time; converter says what becomes of what they answer. Targets are trusted
// configuration: whoever may name one makes the agent ask there, whatever address it is.
package prometheus

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/tlsconf"
)

//go:embed example.yaml
var example string

// Plugin is the collector prometheus.
var Plugin = creel.NewPolled("prometheus", "Collects metrics from targets that expose them in Prometheus' text format or as OpenMetrics text.", New).WithExample(example)

// Config is the collector's options. Where Prometheus has the same, it has the same name.
type Config struct {
	Targets       []string       `doc:"What to scrape: host:port, or a URL. Targets are trusted: the agent asks wherever they are." optional:"true" example:"[localhost:9100, https://app.example/metrics]"`
	FileDiscovery []string       `doc:"Patterns of files, YAML or JSON, with lists of {targets, labels}, as file_sd_configs of Prometheus has them. Each round looks whether they have changed." optional:"true" example:"[/etc/creel/targets/*.yaml]"`
	HTTPDiscovery *HTTPDiscovery `doc:"A URL that answers with a JSON list of {targets, labels}, as http_sd_configs of Prometheus has it." optional:"true"`
	Shard         *Shard         `doc:"Scrape a share of the targets only, and let other agents scrape the others." optional:"true"`

	Scheme string              `doc:"How to reach targets whose address has no scheme." default:"http" enum:"http|https"`
	Path   string              `doc:"Path of targets whose address has none." default:"/metrics"`
	Params map[string][]string `doc:"Parameters of the URL." optional:"true" example:"{module: [http_2xx]}"`

	Job             string            `doc:"What targets are instances of: becomes service.name, unless a label job says otherwise. Left out, it is what follows the slash in the component's id, or prometheus." optional:"true" example:"node"`
	Labels          map[string]string `doc:"Attributes of each point. Labels of discovery go before them." optional:"true" example:"{site: north}"`
	HonorLabels     bool              `doc:"Where a target exposes a label that it also has here, take the exposed one; job and instance then say where the series comes from. Else the exposed one is called exported_." default:"false"`
	HonorTimestamps bool              `doc:"Take the times that targets give to samples. Series that have one are never marked as over." default:"true"`
	ProcessStart    bool              `doc:"Take process_start_time_seconds for when counters began, where the target does not say it by _created. Right only if all that it counts began with its process." default:"false"`

	TargetTimeout time.Duration `doc:"How long one target may take." default:"5s" min:"10ms"`
	Parallel      int           `doc:"How many targets are asked at the same time." default:"10" min:"1" max:"1000"`
	MaxSize       config.Size   `doc:"Bytes of an answer at most, after decompression; larger ones fail." default:"16MiB" min:"1KiB" max:"1GiB"`
	MaxSamples    int           `doc:"Samples that a target may expose; more fail." default:"200000" min:"1" max:"10000000"`

	BearerToken string            `doc:"Token that each request carries." optional:"true" secret:"true" example:"${env:TOKEN}"`
	Basic       *Basic            `doc:"User and password that each request carries." optional:"true"`
	Headers     map[string]string `doc:"Headers that are added to each request." optional:"true" secret:"true" example:"{x-scope-orgid: team}"`
	TLS         tlsconf.Client    `doc:"Certificates, for https."`
}

// HTTPDiscovery is where a list of targets is.
type HTTPDiscovery struct {
	URL     string            `doc:"Where the list is. It is trusted." example:"https://inventory.example/targets"`
	Every   time.Duration     `doc:"Time between two looks at least." default:"1m" min:"1s"`
	Headers map[string]string `doc:"Headers of the request." optional:"true" secret:"true"`
}

// Shard is a share of the targets.
type Shard struct {
	Of    int `doc:"How many shares there are." min:"1" max:"10000"`
	Index int `doc:"Which one this is, from 0." min:"0" max:"9999"`
}

// Basic is a user of HTTP's basic authentication.
type Basic struct {
	Username string `doc:"The user." optional:"true"`
	Password string `doc:"The password." optional:"true" secret:"true"`
}

// Validate checks what can be checked without asking anybody.
func (c Config) Validate() error {
	for _, address := range c.Targets {
		if _, err := newTarget(&c, address, nil); err != nil {
			return config.FieldError("targets", fmt.Errorf("%q: %w", address, err))
		}
	}
	for _, pattern := range c.FileDiscovery {
		if _, err := filepath.Match(pattern, ""); err != nil || pattern == "" {
			return config.FieldError("file_discovery", fmt.Errorf("must be a file pattern such as /etc/creel/*.yaml, got %q", pattern))
		}
	}
	if h := c.HTTPDiscovery; h != nil {
		if u, err := url.Parse(h.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return config.FieldError("http_discovery.url", errors.New("must be a URL that begins with http:// or https://"))
		}
	}
	if c.Shard != nil && c.Shard.Index >= c.Shard.Of {
		return config.FieldError("shard.index", fmt.Errorf("must be less than shard.of, which is %d: shares are counted from 0", c.Shard.Of))
	}
	for key := range c.Headers {
		if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			return config.FieldError("headers", fmt.Errorf("%q is no header's name", key))
		}
	}
	switch {
	case c.BearerToken != "" && c.Basic != nil:
		return config.FieldError("basic", errors.New("contradicts bearer_token; leave one of them out"))
	case c.TLS.Insecure:
		return config.FieldError("tls.insecure", errors.New("has no meaning here; set scheme: http"))
	case c.TLS.Identity:
		return config.FieldError("tls.identity", errors.New("is between this agent and its hub, not for targets; set tls.cert_file and tls.key_file"))
	}
	return nil
}

// counts are the collector's own metrics.
type counts struct {
	unfit, repeated *metric.Counter
	targets, down   *metric.Gauge
}

type collector struct {
	options *Config
	host    creel.Host
	fetcher *fetcher
	counts  counts

	mu        sync.Mutex // guards what follows: a round is alone
	discovery discovery
	converter converter
	fixed     []group            // targets of the options
	targets   map[string]*target // by key
	order     []*target          // those of this round
	gone      []*target          // which it still has to say of that they are
	bad       map[string]bool    // addresses that were logged as wrong
	first     bool
}

// New returns a collector of which each Collect asks all targets once. A target that fails has up 0, and is named in the log
// when that begins and ends.
func New(c Config, h creel.Host) (creel.Collector, error) {
	if c.Job == "" {
		c.Job = "prometheus"
		if _, name, ok := strings.Cut(h.ID, "/"); ok {
			c.Job = name
		}
	}
	f, err := newFetcher(&c, h)
	if err != nil {
		return nil, err
	}
	p := &collector{
		options: &c, host: h, fetcher: f, targets: make(map[string]*target), bad: make(map[string]bool), fixed: []group{{Targets: c.Targets}}, first: true,
		counts: counts{
			unfit:    h.Metrics.Counter("creel.prometheus.unfit", "Samples, histograms and summaries that OpenTelemetry has no place for.", "{sample}"),
			repeated: h.Metrics.Counter("creel.prometheus.repeated", "Samples of series that the same scrape already had.", "{sample}"),
			targets:  h.Metrics.Gauge("creel.prometheus.targets", "Targets of the last round.", "{target}"),
			down:     h.Metrics.Gauge("creel.prometheus.targets.down", "Targets of the last round that failed.", "{target}"),
		},
	}
	p.discovery = discovery{options: &c, host: h, fetcher: f, files: make(map[string]*listFile), said: make(map[string]string)}
	p.converter = converter{
		options: &c, hasher: creel.NewHasher(), counts: p.counts, descs: make(map[descKey]*described), families: make(map[string]*family),
	}
	return p, nil
}

// Close closes the connections.
func (c *collector) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.targets {
		t.close()
	}
	c.fetcher.shared.CloseIdleConnections()
	return nil
}

func (t *target) close() {
	if t.own {
		t.client.CloseIdleConnections()
	}
}

// answer is what has come of asking a target.
type answer struct {
	target *target
	exposition
	outcome
}

// Collect does one round. It fails only if ctx is done.
func (c *collector) Collect(ctx context.Context, out creel.Sink) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.discovery.look(ctx, time.Now()); err != nil {
		return err
	}
	if c.discovery.changed || c.first {
		c.arrange()
		c.discovery.changed, c.first = false, false
	}
	for len(c.gone) > 0 {
		t := c.gone[0]
		if err := out.Send(ctx, c.converter.farewell(c.host.Memory, t, time.Now())); err != nil {
			return err
		}
		c.gone = c.gone[1:]
	}
	c.converter.round++
	down := 0
	err := c.ask(ctx, func(a *answer) error {
		t := a.target
		b := c.converter.convert(c.host.Memory, t, a.text, a.open, &a.outcome)
		t.size = max(len(a.text), t.size/2)
		c.note(t, a.err)
		if a.err != nil {
			down++
		}
		if err := out.Send(ctx, b); err != nil {
			return err
		}
		t.sent(a.outcome)
		return nil
	})
	if err != nil {
		return err
	}
	c.counts.targets.Set(float64(len(c.order)))
	c.counts.down.Set(float64(down))
	if c.converter.round%64 == 0 {
		c.converter.forget()
	}
	return nil
}

// ask asks the targets, some at a time, and hands over each answer in the caller's goroutine. Those who ask wait for the network,
// and need no slot of the scheduler's for that.
func (c *collector) ask(ctx context.Context, take func(*answer) error) error {
	ctx, cancel := context.WithCancel(ctx)
	todo, answers := make(chan *target), make(chan *answer)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for range min(c.options.Parallel, len(c.order)) {
		asking.Go(func() {
			for t := range todo {
				a := &answer{target: t}
				a.start = time.Now()
				a.exposition, a.err = c.fetcher.scrape(ctx, t)
				a.took = time.Since(a.start)
				select {
				case answers <- a:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	asking.Go(func() {
		defer close(todo)
		for _, t := range c.order {
			select {
			case todo <- t:
			case <-ctx.Done():
				return
			}
		}
	})
	for range c.order {
		var a *answer
		err := creel.Blocking(ctx, func() error {
			select {
			case a = <-answers:
				return ctx.Err() // what failed because the round is over has not failed
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err == nil {
			err = take(a)
		}
		if err == nil {
			err = creel.Yield(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// arrange finds out which targets there are now. Those that were there keep what is remembered of them.
func (c *collector) arrange() {
	c.order = c.order[:0]
	for _, t := range c.targets {
		t.current = false
	}
	bad := make(map[string]bool)
	for _, g := range append(slices.Clone(c.fixed), c.discovery.groups()...) {
		for _, address := range g.Targets {
			if err := c.add(address, g.Labels); err != nil {
				if bad[address] = true; !c.bad[address] {
					c.host.Log.Warn("cannot use target; the rest goes on", "target", address, "error", err)
				}
			}
		}
	}
	c.bad = bad
	for _, key := range slices.Sorted(maps.Keys(c.targets)) {
		if t := c.targets[key]; !t.current {
			delete(c.targets, key)
			t.close()
			c.gone = append(c.gone, t)
		}
	}
}

func (c *collector) add(address string, labels map[string]string) error {
	t, err := newTarget(c.options, address, labels)
	if err != nil {
		return err
	}
	if s := c.options.Shard; s != nil && owner(t.url.Host, s.Of) != s.Index {
		return nil
	}
	if known := c.targets[t.key]; known != nil {
		t = known
	} else if t.client, t.own, err = c.fetcher.clientOf(t.url); err != nil {
		return err
	}
	if !t.current { // named twice
		t.current = true
		c.targets[t.key] = t
		c.order = append(c.order, t)
	}
	return nil
}

// note logs that a target fails, or does not any more. The same one may fail in ever new words: they are not told.
func (c *collector) note(t *target, err error) {
	doing := ""
	if err != nil {
		doing, _, _ = strings.Cut(err.Error(), ":")
		if strings.HasPrefix(doing, "read line") {
			doing = "read line"
		}
	}
	switch {
	case doing == t.failing:
		return
	case err != nil:
		c.host.Log.Warn("cannot scrape target", "target", t.url.Host+t.url.Path, "error", err)
	default:
		c.host.Log.Info("scraping target again", "target", t.url.Host+t.url.Path)
	}
	t.failing = doing
}
