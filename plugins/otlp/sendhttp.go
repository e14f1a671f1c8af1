package otlp

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	codec "github.com/creelhq/creel/otlp"
)

// maxAnswer bounds what is read of an answer: OTLP asks for 4 MiB at most. maxHead bounds its headers.
const (
	maxAnswer = 4 << 20
	maxHead   = 256 << 10
)

type httpSender struct {
	ExporterConfig
	base              string
	plain             bool
	token             *bearer
	client            http.Client
	leave             atomic.Bool // the next request is to be the last one of its connection
	sent              *metric.Counter
	header            http.Header // that each request has
	kind              string      // content type
	zip               *compressor
	payloads, buffers sync.Pool
}

func newHTTPSender(c ExporterConfig, t target, secure *tls.Config, token *bearer, from string, sent *metric.Counter) *httpSender {
	scheme := "https://"
	if t.plain {
		scheme = "http://"
	}
	s := &httpSender{ExporterConfig: c, base: scheme + t.address + t.path, plain: t.plain, token: token, sent: sent, kind: typeProtobuf, zip: compressors[c.Compression]}
	if c.Encoding == "json" {
		s.kind = typeJSON
	}
	s.header = http.Header{"Content-Type": {s.kind}, "User-Agent": {"creel"}}
	if s.zip != nil {
		s.header.Set("Content-Encoding", s.zip.name)
	}
	if from != "" {
		s.header.Set(canonicalSender, from)
	}
	for k, v := range c.Headers {
		s.header.Set(k, v)
	}
	dialer := &net.Dialer{Timeout: t.connect, KeepAlive: 30 * time.Second}
	s.client = http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: secure.Clone(), // an identity's may be others' too: net/http changes it
			TLSHandshakeTimeout: t.connect,
			ForceAttemptHTTP2:   true, MaxIdleConnsPerHost: 256, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
			WriteBufferSize: ioBuffer, ReadBufferSize: 16 << 10, MaxResponseHeaderBytes: maxHead,
			HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 20 * time.Second}, // else a dead connection is used on and on
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// Close closes the connections.
func (s *httpSender) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// encode returns the batches as a body, for one user.
func (s *httpSender) encode(batches []*creel.Batch) (*payload, error) {
	p, _ := s.payloads.Get().(*payload)
	if p == nil {
		p = &payload{home: &s.payloads}
	}
	p.users.Store(1)
	if s.kind == typeJSON {
		p.text = codec.AppendJSON(p.text[:0], batches...)
		p.one(p.text)
	} else {
		p.message.encode(&s.buffers, batches)
		p.body, p.size = append(p.body[:0], p.parts...), p.message.size
	}
	s.sent.Add(uint64(p.size))
	if s.zip == nil {
		return p, nil
	}
	p.zipped = p.zipped[:0]
	w, err := s.zip.Compress(&p.zipped)
	for _, part := range p.body {
		if err == nil {
			_, err = w.Write(part)
		}
	}
	if err == nil {
		err = w.Close()
	}
	p.one(p.zipped)
	return p, err
}

func (s *httpSender) send(ctx context.Context, signal creel.Signal, batches []*creel.Batch) (codec.Result, error) {
	authorization, err := s.token.header(ctx)
	if err != nil {
		return codec.Result{}, err
	}
	p, err := s.encode(batches)
	defer p.drop()
	if err != nil {
		return codec.Result{}, creel.Permanent(fmt.Errorf("compress request: %w", err))
	}
	endpoint := s.base + paths[signal]
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, p.open())
	if err != nil {
		return codec.Result{}, creel.Permanent(err)
	}
	req.ContentLength, req.Close = int64(p.size), s.leave.Swap(false)
	req.GetBody = func() (io.ReadCloser, error) { return p.open(), nil } // for a connection that was closed while idle
	maps.Copy(req.Header, s.header)
	if authorization != nil {
		req.Header["Authorization"] = authorization
	}
	if id := creel.RequestOf(ctx).ID; !id.IsZero() {
		req.Header.Set(canonicalBatchID, formatID(id))
	}
	s.propagate(ctx, req.Header.Set)
	resp, err := s.client.Do(req)
	if err != nil {
		return codec.Result{}, s.explain(unwrapURL(err), endpoint, s.plain)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("it is longer than %v", config.Size(maxAnswer))
	}
	if resp.StatusCode/100 == 2 {
		return s.result(signal, resp, answer, err), nil
	}
	if resp.StatusCode == http.StatusUnauthorized && s.token.stale(authorization) {
		s.leave.Store(true)
	}
	return codec.Result{}, s.refusal(endpoint, resp, answer)
}

// unwrapURL takes off the layer that repeats the URL.
func unwrapURL(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return err
}

// result reads the answer to a request that was taken, which the status has said. What cannot be read, because of err
// already or because it is no answer, counts as full success: the records are safe, and sent again they would be there
// twice.
func (s *httpSender) result(signal creel.Signal, resp *http.Response, answer []byte, err error) codec.Result {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // no type: no answer to read
	var r codec.Result
	switch {
	case err != nil || len(answer) == 0:
	case kind == typeJSON:
		r, err = codec.ParseResponseJSON(signal, answer)
	case kind == typeProtobuf:
		r, err = codec.ParseResponse(answer)
	}
	if err != nil {
		return unreadable(err)
	}
	return r
}

// refusal makes an error of an answer: OTLP says which are worth another try. Missing rights can be given later, so they
// are too. A redirect, and 511, is what a login page answers that stands between here and the far side, which has not seen
// the records: they are worth another try whatever the far side will say. Servers that are overloaded say so with 429 and
// 503, and when to come back if they know.
func (s *httpSender) refusal(endpoint string, resp *http.Response, answer []byte) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // no type: plain text
	message := strings.TrimSpace(string(answer[:min(len(answer), 1000)]))
	var st codec.Status
	var err error
	switch kind {
	case typeJSON:
		st, err = codec.ParseStatusJSON(answer)
	case typeProtobuf:
		st, err = codec.ParseStatus(answer)
	}
	if err == nil && st.Message != "" {
		message = st.Message
	}
	refused := fmt.Errorf("send to %s: answered %s: %q", endpoint, brief(resp.Status), brief(message))
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		after, ok := retryAfter(resp.Header.Get("Retry-After"), time.Now())
		if ok || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
			return &creel.Throttled{Err: refused, After: after}
		}
		return refused
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w%s", refused, s.remedy())
	case http.StatusProxyAuthRequired, http.StatusNetworkAuthenticationRequired:
		return refused
	}
	if resp.StatusCode/100 == 3 {
		return fmt.Errorf("%w; %s", refused, elsewhere(resp))
	}
	return creel.Permanent(refused)
}

// elsewhere says what to do about a redirect. Of where it leads it tells no more than the host: the rest may hold secrets.
func elsewhere(resp *http.Response) string {
	to, err := resp.Location()
	if err != nil || to.Host == "" {
		return "is that a receiver of OTLP?"
	}
	return fmt.Sprintf("it leads to %s: if that is the receiver, make it the endpoint; if it is a login page, log in, or go round the proxy (NO_PROXY)", brief(to.Scheme+"://"+to.Host))
}

// retryAfter reads the header Retry-After: seconds or a date (RFC 9110, 10.2.3).
func retryAfter(header string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now)), true
	}
	return 0, false
}
