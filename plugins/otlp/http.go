package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/creelhq/creel"
	codec "github.com/creelhq/creel/otlp"
)

const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json"
)

// serveHTTP serves on l until ctx is done.
func (c *collector) serveHTTP(ctx context.Context, l net.Listener, t *tls.Config, out creel.Sink) error {
	if t != nil {
		l = tls.NewListener(l, t)
	}
	s := &http.Server{
		Handler: c.handler(out), ConnContext: withGuest, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 3 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(c.host.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		soon, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		if s.Shutdown(soon) != nil {
			s.Close()
		}
	}()
	err := s.Serve(l)
	if ctx.Err() != nil {
		<-stopped
		return nil
	}
	return fmt.Errorf("serve HTTP: %w", err)
}

func (c *collector) handler(out creel.Sink) http.Handler {
	mux := http.NewServeMux()
	for signal, path := range paths {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				w.Header().Set("Allow", http.MethodPost)
				http.Error(w, "OTLP is sent by POST", http.StatusMethodNotAllowed)
				return
			}
			kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
			if err != nil || kind != typeProtobuf && kind != typeJSON {
				http.Error(w, "the content type must be "+typeProtobuf+" or "+typeJSON, http.StatusUnsupportedMediaType)
				return
			}
			c.post(w, r, out, signal, kind)
		})
	}
	return mux
}

// post answers one request.
func (c *collector) post(w http.ResponseWriter, r *http.Request, out creel.Sink, s creel.Signal, kind string) {
	parse := codec.Parse
	if kind == typeJSON {
		parse = codec.ParseJSON
	}
	ctx, span := c.follow(r.Context(), "http", s, func(header string) string { return traceHeader(r.Header, header) })
	defer span.End()
	g, shown := shownHTTP(r)
	in, err := c.authenticate(g, shown, s, r.Header.Get(canonicalSender))
	if err != nil {
		unread(w, r)
	}
	var body []byte
	if err == nil {
		body, err = c.read(r)
	}
	if err == nil {
		err = c.take(ctx, out, request{signal: s, body: body, parse: parse, id: r.Header.Get(canonicalBatchID), who: in})
	}
	if err == nil {
		c.requests.Inc()
		var answer []byte
		if kind == typeJSON {
			answer = codec.AppendResponseJSON(nil, s, codec.Result{})
		}
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(answer) // the client has gone
		return
	}
	c.refused.Inc()
	span.Fail(err)
	code, st := c.refusal(err)
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if st.Retry {
		w.Header().Set("Retry-After", strconv.FormatInt(seconds(st.RetryDelay), 10))
	}
	var answer []byte
	if kind == typeJSON {
		answer = codec.AppendStatusJSON(nil, st)
	} else {
		answer = codec.AppendStatus(nil, st)
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(code)
	_, _ = w.Write(answer) // the client has gone
}

// unread lets the answer go before the body has come. Over HTTP/1.1 the connection then ends, once what net/http wants of the body
// has come, which must be soon: it would wait for the body before the answer else, or, in full duplex, take what is left of a body
// that is late for the next request.
func unread(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(farewell)) // there is always one
	}
}

// traceHeader returns what trace.Extract asks for. It looks first under the names of headers that most requests lack, because
// to make them of key would allocate.
func traceHeader(h http.Header, key string) string {
	if h["Traceparent"] == nil && h["B3"] == nil && h["X-B3-Traceid"] == nil {
		return ""
	}
	return strings.Join(h.Values(key), ",")
}

// refusal returns what to answer to a request that ended in err.
func (c *collector) refusal(err error) (code int, st codec.Status) {
	bad, no, nobody, throttled := malformed{}, forbidden{}, unauthenticated{}, (*creel.Throttled)(nil)
	switch {
	case errors.As(err, &bad):
		return http.StatusBadRequest, codec.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
	case errors.As(err, &nobody):
		return http.StatusUnauthorized, codec.Status{Code: int32(codes.Unauthenticated), Message: err.Error()}
	case errors.As(err, &no):
		return http.StatusForbidden, codec.Status{Code: int32(codes.PermissionDenied), Message: err.Error()}
	case errors.Is(err, errTooLarge):
		text := fmt.Sprintf("%v: the limit is %v, compressed and decompressed", err, c.MaxRequestSize)
		return http.StatusRequestEntityTooLarge, codec.Status{Code: int32(codes.ResourceExhausted), Message: text}
	case errors.Is(err, errRatio):
		return http.StatusRequestEntityTooLarge, codec.Status{Code: int32(codes.ResourceExhausted), Message: err.Error()}
	case errors.Is(err, errEncoding):
		return http.StatusUnsupportedMediaType, codec.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
	}
	code = http.StatusServiceUnavailable
	if errors.Is(err, errNoRoom) || errors.As(err, &throttled) {
		code = http.StatusTooManyRequests
	}
	text, after := c.again(err)
	return code, codec.Status{Code: int32(codes.Unavailable), Message: text, Retry: true, RetryDelay: after}
}

var errEncoding = errors.New("the content encoding must be gzip, zstd or none")

// read returns the body, decompressed, in memory of its own.
func (c *collector) read(r *http.Request) ([]byte, error) {
	limit := int64(c.MaxRequestSize)
	if r.ContentLength > limit {
		return nil, errTooLarge
	}
	hint := r.ContentLength
	if hint < 0 { // not told
		hint = min(limit, 1<<20)
	}
	reserved := hint
	defer func() { c.reading.Add(-reserved) }()
	if all := c.reading.Add(reserved); all > int64(c.MaxRequestBytes) && all > reserved {
		return nil, errNoRoom
	}
	body := io.Reader(http.MaxBytesReader(nil, r.Body, limit))
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	default:
		z := compressors[encoding]
		if z == nil {
			return nil, errEncoding
		}
		d, err := z.Decompress(body)
		if err != nil {
			return nil, malformed{err}
		}
		body, hint = d, 4*hint
	}
	wire, err := readAll(body, hint, limit)
	over := (*http.MaxBytesError)(nil)
	switch {
	case err == nil:
		return wire, nil
	case errors.Is(err, errTooLarge) || errors.As(err, &over):
		return nil, errTooLarge
	case errors.Is(err, errRatio):
		return nil, errRatio
	}
	return nil, malformed{fmt.Errorf("read body: %w", err)}
}
