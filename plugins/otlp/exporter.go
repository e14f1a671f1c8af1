package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	codec "github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/tlsconf"
	"github.com/creelhq/creel/trace"
)

// ExporterConfig is the exporter's options.
type ExporterConfig struct {
	Endpoint    string            `doc:"Where to send to: host:port, or a URL. Without TLS only if the URL begins with http:// or tls.insecure is set." example:"hub.example:4317"`
	Protocol    string            `doc:"The transport." default:"grpc" enum:"grpc|http"`
	Encoding    string            `doc:"What requests over HTTP are written in." default:"proto" enum:"proto|json"`
	Compression string            `doc:"How requests are compressed." default:"gzip" enum:"none|gzip|zstd"`
	Headers     map[string]string `doc:"Headers that are added to each request." optional:"true" secret:"true" example:"{authorization: 'Bearer ${env:TOKEN}'}"`
	Propagate   []string          `doc:"How requests that belong to a trace of the agent's own say so: w3c: the headers traceparent and tracestate. b3: the header b3, as Zipkin has it." default:"w3c" enum:"w3c|b3"`
	TLS         tlsconf.Client    `doc:"Certificates."`
}

// Validate checks the endpoint.
func (c ExporterConfig) Validate() error {
	t, err := c.target()
	switch {
	case err != nil:
		return config.FieldError("endpoint", err)
	case c.TLS.Identity && t.plain:
		return config.FieldError("endpoint", errors.New("is to be reached without TLS, but tls.identity shows who this agent is over TLS only; write https://"))
	case c.TLS.Identity && c.authorized():
		return config.FieldError("headers", errors.New("authorization contradicts tls.identity, which sends a token of its own; leave one of them out"))
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

// target is where an endpoint leads.
type target struct {
	address string // host:port
	path    string // of the endpoint's URL, without a slash at the end
	plain   bool   // no TLS
}

func (c ExporterConfig) target() (target, error) {
	t := target{address: c.Endpoint, plain: c.TLS.Insecure}
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
	sender
	host   creel.Host
	warned *metric.Counter

	mu       sync.Mutex
	warnings map[string]bool // that are logged; at most maxWarnings
}

// NewExporter returns the exporter. It connects when it exports.
func NewExporter(c ExporterConfig, h creel.Host) (creel.Exporter, error) {
	t, err := c.target()
	if err != nil {
		return nil, err
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
	sent := h.Metrics.Counter("creel.otlp.sent", "Bytes of requests, before compression.", "By")
	x := &exporter{host: h, warnings: make(map[string]bool), warned: h.Metrics.Counter("creel.otlp.warnings", "Answers that took a request with a warning.", "{response}")}
	from, token := formatSender(h.Sender), newBearer(c, h)
	if c.Protocol == "http" {
		x.sender = newHTTPSender(c, t, secure, token, from, sent)
	} else {
		x.sender, err = newGRPCSender(c, t, secure, token, from, sent)
	}
	return x, err
}

// Export sends one request.
func (x *exporter) Export(ctx context.Context, batches []*creel.Batch) error {
	result, err := x.send(ctx, batches[0].Signal(), batches)
	switch {
	case err != nil:
		return err
	case result.Rejected > 0:
		return &creel.Partial{Rejected: int(result.Rejected), Reason: brief(result.Message)}
	case result.Message != "":
		x.warn(ctx, brief(result.Message))
	}
	return nil
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
