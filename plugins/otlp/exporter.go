package otlp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	codec "github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/tlsconf"
	"github.com/creelhq/creel/trace"
)

// ExporterConfig is the exporter's options.
type ExporterConfig struct {
	Endpoint    string            `doc:"Where to send to: host:port, or a URL. Without TLS only if the URL begins with http:// or tls.insecure is set. hub: to the hubs that this agent knows, to the one that it is connected to if possible, with the agent's identity if it has one." optional:"true" example:"hub"`
	Endpoints   []string          `doc:"Instead of endpoint, several far sides any of which will do." optional:"true" example:"[a.example:4317, b.example:4317]"`
	Balance     string            `doc:"Which of several far sides gets a request. failover: the first one that works. round_robin: each in turn. rendezvous: by the agent's id, so that it is always the same as long as that works. One that fails is left for a growing time, and the request goes to another with the same name: should only the answer have been lost, both have it." default:"failover" enum:"failover|round_robin|rendezvous"`
	Protocol    string            `doc:"The transport." default:"grpc" enum:"grpc|http"`
	Encoding    string            `doc:"What requests over HTTP are written in." default:"proto" enum:"proto|json"`
	Compression string            `doc:"How requests are compressed." default:"gzip" enum:"none|gzip|zstd"`
	Headers     map[string]string `doc:"Headers that are added to each request." optional:"true" secret:"true" example:"{authorization: 'Bearer ${env:TOKEN}'}"`
	Propagate   []string          `doc:"How requests that belong to a trace of the agent's own say so: w3c: the headers traceparent and tracestate. b3: the header b3, as Zipkin has it." default:"w3c" enum:"w3c|b3"`
	TLS         tlsconf.Client    `doc:"Certificates."`
}

// hubEndpoint is the endpoint that means the agent's hubs.
const hubEndpoint = "hub"

// Validate checks the endpoints.
func (c ExporterConfig) Validate() error {
	switch {
	case c.Endpoint == "" && len(c.Endpoints) == 0:
		return config.FieldError("endpoint", errors.New("is required: host:port, a URL, or hub for the hubs of this agent"))
	case c.Endpoint != "" && len(c.Endpoints) > 0:
		return config.FieldError("endpoints", errors.New("excludes endpoint: name all there, or one only"))
	case c.Endpoint == hubEndpoint && c.TLS.Identity && c.authorized():
		return config.FieldError("headers", errAuthorized)
	}
	if c.Endpoint != hubEndpoint && len(c.Endpoints) == 0 {
		if err := c.checkEndpoint("endpoint"); err != nil {
			return err
		}
	}
	for i, one := range c.Endpoints {
		if err := c.at(one).checkEndpoint("endpoints"); err != nil {
			return err
		}
		if slices.Contains(c.Endpoints[:i], one) {
			return config.FieldError("endpoints", fmt.Errorf("names %s twice", one))
		}
	}
	if c.Encoding == "json" && c.Protocol == "grpc" {
		return config.FieldError("encoding", errors.New("json goes over HTTP only; set protocol: http"))
	}
	for key, value := range c.Headers { // which no request could carry, else
		unfit := func(r rune) bool { return r < ' ' || r > '~' }
		if key == "" || strings.ContainsFunc(key, func(r rune) bool { return unfit(r) || strings.ContainsRune(` "(),/:;<=>?@[\]{}`, r) }) {
			return config.FieldError("headers", fmt.Errorf("%q is no header's name", key))
		}
		if strings.ContainsFunc(value, unfit) { // it may be a secret
			return config.FieldError("headers", fmt.Errorf("the value of %s must be printable ASCII; is there a line break at its end?", key))
		}
	}
	return nil
}

var errAuthorized = errors.New("authorization contradicts tls.identity, which sends a token of its own; leave one of them out")

// checkEndpoint checks the one endpoint, which is in a field.
func (c ExporterConfig) checkEndpoint(field string) error {
	t, err := c.target()
	switch {
	case err != nil:
		return config.FieldError(field, err)
	case c.TLS.Identity && t.plain:
		return config.FieldError(field, errors.New("is to be reached without TLS, but tls.identity shows who this agent is over TLS only; write https://"))
	case c.TLS.Identity && c.authorized():
		return config.FieldError("headers", errAuthorized)
	}
	return nil
}

// at returns the options with one endpoint.
func (c ExporterConfig) at(endpoint string) ExporterConfig {
	c.Endpoint, c.Endpoints = endpoint, nil
	return c
}

// target is where an endpoint leads.
type target struct {
	address string        // host:port
	path    string        // of the endpoint's URL, without a slash at the end
	plain   bool          // no TLS
	connect time.Duration // how long that may take
}

// How long it may take to connect: less where there is another to go to.
const (
	connectTimeout = 10 * time.Second
	connectQuickly = 2 * time.Second
)

func (c ExporterConfig) target() (target, error) {
	t := target{address: c.Endpoint, plain: c.TLS.Insecure, connect: connectTimeout}
	if strings.Contains(c.Endpoint, "://") {
		u, err := url.Parse(c.Endpoint)
		if err != nil {
			return t, fmt.Errorf("must be host:port, http://host:port or https://host:port: %w", errors.Unwrap(err)) // the URL may hold a password
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
			return t, errors.New("must be host:port, http://host:port or https://host:port")
		}
		t.address, t.path = u.Host, strings.TrimSuffix(u.Path, "/")
		t.plain = t.plain || u.Scheme == "http"
		if u.Port() == "" {
			t.address = net.JoinHostPort(u.Hostname(), map[string]string{"grpc": "4317", "http": "4318"}[c.Protocol])
		}
	}
	if t.path != "" && c.Protocol == "grpc" {
		return t, errors.New("must not have a path with protocol: grpc")
	}
	if _, _, err := net.SplitHostPort(t.address); err != nil {
		return t, fmt.Errorf("must be host:port or a URL: %w", err)
	}
	return t, nil
}

// propagate tells set the headers that say which span a request in ctx belongs to: none if that is none.
func (c ExporterConfig) propagate(ctx context.Context, set func(key, value string)) {
	span := trace.From(ctx)
	for _, format := range c.Propagate {
		switch format {
		case "w3c":
			span.Inject(set)
		case "b3":
			span.InjectB3(set)
		}
	}
}

// sender sends one request. It is the transport's part of the exporter.
type sender interface {
	// send returns what the far side answered. The error is what Export may return.
	send(ctx context.Context, s creel.Signal, batches []*creel.Batch) (codec.Result, error)
	Close() error
}

// maxWarnings bounds how many different warnings are logged: a far side may have a new one for each request.
const maxWarnings = 64

type exporter struct {
	ways   ways
	host   creel.Host
	warned *metric.Counter

	mu       sync.Mutex
	warnings map[string]bool // that are logged; at most maxWarnings
}

// NewExporter returns the exporter. It connects when it exports.
func NewExporter(c ExporterConfig, h creel.Host) (creel.Exporter, error) {
	sent := h.Metrics.Counter("creel.otlp.sent", "Bytes of requests, before compression.", "By")
	x := &exporter{host: h, warnings: make(map[string]bool), warned: h.Metrics.Counter("creel.otlp.warnings", "Answers that took a request with a warning.", "{response}")}
	x.ways = ways{
		balance: c.Balance, agent: h.Sender.Agent, log: h.Log, moved: h.Metrics.Counter("creel.otlp.moved", "Requests that went to another endpoint because one had failed.", "{request}"),
		open: func(endpoint string, quickly bool) (sender, error) { return open(c.at(endpoint), h, sent, quickly) },
	}
	switch {
	case len(c.Endpoints) > 0:
		return x, x.ways.fix(c.Endpoints)
	case c.Endpoint != hubEndpoint:
		return x, x.ways.fix([]string{c.Endpoint})
	case h.Hubs == nil:
		return nil, config.FieldError("endpoint", errors.New("is hub, but this agent has none; set agent.hub.url, or let creel join make it one of a hub's"))
	case c.TLS.Identity && h.Identity == nil:
		_, err := c.TLS.Config("", nil, nil) // which says what to do
		return nil, err
	}
	x.ways.hubs = &hubs{Hubs: h.Hubs, c: c, identity: h.Identity != nil}
	x.ways.open = func(endpoint string, quickly bool) (sender, error) {
		return open(x.ways.hubs.config(endpoint), h, sent, quickly)
	}
	return x, nil
}

// open makes what sends to the one endpoint of c.
func open(c ExporterConfig, h creel.Host, sent *metric.Counter, quickly bool) (sender, error) {
	t, err := c.target()
	if err != nil {
		return nil, err
	}
	if quickly {
		t.connect = connectQuickly
	}
	var secure *tls.Config
	if !t.plain {
		host, _, err := net.SplitHostPort(t.address)
		if err == nil {
			secure, err = c.TLS.Config(host, h.Identity, h.Log)
		}
		if err != nil {
			return nil, err
		}
	}
	from, token := formatSender(h.Sender), newBearer(c, h)
	if c.Protocol == "http" {
		return newHTTPSender(c, t, secure, token, from, sent), nil
	}
	return newGRPCSender(c, t, secure, token, from, sent)
}

// Close closes the connections.
func (x *exporter) Close() error { return x.ways.close() }

// Export sends one request, to another endpoint if one fails.
func (x *exporter) Export(ctx context.Context, batches []*creel.Batch) error {
	var failed []*way
	var last error
	for {
		w, err := x.ways.pick(failed)
		if w == nil {
			return cmp.Or(last, err)
		}
		began := time.Now()
		result, err := w.send(ctx, batches[0].Signal(), batches)
		another := x.ways.done(ctx, w, began, err)
		switch {
		case err != nil && !another:
			return err
		case err != nil:
			failed, last = append(failed, w), err
			continue
		case result.Rejected > 0:
			return &creel.Partial{Rejected: int(result.Rejected), Reason: brief(result.Message)}
		case result.Message != "":
			x.warn(ctx, brief(result.Message))
		}
		return nil
	}
}

// warn counts a warning, and logs it if it is new.
func (x *exporter) warn(ctx context.Context, text string) {
	x.warned.Inc()
	x.mu.Lock()
	known := x.warnings[text] || len(x.warnings) == maxWarnings
	if !known {
		x.warnings[text] = true
	}
	x.mu.Unlock()
	if !known {
		x.host.Log.WarnContext(ctx, "the far side took a request with a warning", "warning", text)
	}
}

// brief returns the beginning of what a far side says, which may be megabytes.
func brief(text string) string {
	const enough = 500
	if len(text) <= enough {
		return text
	}
	return strings.ToValidUTF8(text[:enough], "") + "…"
}

// unreadable is the result when the far side took a request, but said more, which err is about.
func unreadable(err error) codec.Result {
	return codec.Result{Message: "its answer cannot be read: " + err.Error()}
}

// explain adds what to do next to errors that users meet often.
func (c ExporterConfig) explain(err error, endpoint string, plain bool) error {
	hint := ""
	text := err.Error()
	switch {
	case c.TLS.Identity && tlsconf.Hint(err, "", "") != "": // the options that it names are not to be set
		hint = "; nothing is lost, it is tried again: that is not the hub which this agent belongs to, or it has forgotten its authority, or one of both clocks is wrong; if the hub was set up anew, creel join makes this agent one of its again"
	case strings.Contains(text, "connection refused"):
		hint = "; is the receiver running?"
	case strings.Contains(text, "first record does not look like a TLS handshake"), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		hint = "; it talks without TLS: set tls.insecure: true if that is meant"
	case tlsconf.Hint(err, "", "") != "":
		hint = tlsconf.Hint(err, "tls.ca_file", "tls.cert_file and tls.key_file")
	case plain && strings.Contains(text, "EOF"), plain && strings.Contains(text, "malformed HTTP response"), plain && strings.Contains(text, "error reading server preface"):
		hint = "; does it want TLS, or the other of gRPC and HTTP?"
	}
	return fmt.Errorf("send to %s: %w%s", endpoint, err, hint)
}
