package otlp_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel"
	codec "github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/plugins/otlp"
)

// outcome is what an export that ended in err means to the pipeline.
func outcome(err error) string {
	throttled, partial := (*creel.Throttled)(nil), (*creel.Partial)(nil)
	switch {
	case err == nil:
		return "delivered"
	case creel.IsPermanent(err):
		return "refused"
	case errors.As(err, &partial):
		return "partial"
	case errors.As(err, &throttled):
		return "throttled"
	case errors.Is(err, context.DeadlineExceeded):
		return "late"
	}
	return "again"
}

// listen calls serve with each connection to the address that it returns, until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over, stop := context.WithCancel(context.Background())
	t.Cleanup(func() { stop(); l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(over, func() { c.Close() })
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// flood writes text over and over until the other side has had enough, and returns how many bytes that took.
func flood(c net.Conn, text string) (n int64) {
	b := bytes.Repeat([]byte(text), max(1, 4096/len(text)))
	for {
		k, err := c.Write(b)
		n += int64(k)
		if err != nil {
			return n
		}
	}
}

// reset closes c with a RST.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// What floods may take: what is read, and what the kernel holds in between.
const patience = 64 << 20

// TestHostileHTTP: whatever a server does with a request, the export ends in time, in what it should mean, and the next
// one, to a server that is well again, succeeds.
func TestHostileHTTP(t *testing.T) {
	var trapped, flooded atomic.Int64
	trap := listen(t, func(net.Conn) { trapped.Add(1) })
	endless := func(head string) func(net.Conn) {
		return func(c net.Conn) {
			fmt.Fprint(c, head)
			flooded.Store(flood(c, strings.Repeat("x", 1000)+"\r\n"))
		}
	}
	answer := func(text string, then func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			fmt.Fprint(c, text)
			then(c)
		}
	}
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	over := func(c net.Conn) { c.Close() }
	const proto = "Content-Type: application/x-protobuf\r\n"
	for _, f := range []httpFault{
		{"hangs", hang, "late", false},
		{"hangs in its status", answer("HTTP/1.1 2", hang), "late", false},
		{"hangs in its headers", answer("HTTP/1.1 200 OK\r\n", hang), "late", false},
		{"hangs in its answer", answer("HTTP/1.1 200 OK\r\n"+proto+"Content-Length: 9\r\n\r\nx", hang), "delivered", false},
		{"hangs in its refusal", answer("HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nx", hang), "throttled", false},
		{"dies after it took the request", over, "again", false},
		{"resets after it took the request", reset, "again", false},
		{"resets in its headers", answer("HTTP/1.1 200 OK\r\nContent-", reset), "again", false},
		{"ends in its answer", answer("HTTP/1.1 200 OK\r\n"+proto+"Content-Length: 9\r\n\r\nx", over), "delivered", false},
		{"resets in its answer", answer("HTTP/1.1 200 OK\r\n"+proto+"Content-Length: 9\r\n\r\nx", reset), "delivered", false},
		{"sends garbage", answer("\x00\xff\x16garbage\r\n\r\n", over), "again", false},
		{"answers garbage", answer("HTTP/1.1 200 OK\r\n"+proto+"Content-Length: 7\r\n\r\ngarbage", over), "delivered", false},
		{"answers garbage chunks", answer("HTTP/1.1 200 OK\r\n"+proto+"Transfer-Encoding: chunked\r\n\r\ngarbage", over), "delivered", false},
		{"answers without end", endless("HTTP/1.1 200 OK\r\n" + proto + "\r\n"), "delivered", true},
		{"refuses without end", endless("HTTP/1.1 429 No\r\n\r\n"), "throttled", true},
		{"sends headers without end", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
			flooded.Store(flood(c, "X-More: "+strings.Repeat("x", 1000)+"\r\n"))
		}, "again", true},
		{"sends a header without end", endless("HTTP/1.1 200 OK\r\nX-Long: "), "again", true},
		{"sends hints without end", func(c net.Conn) { flooded.Store(flood(c, "HTTP/1.1 103 Early Hints\r\n\r\n")) }, "again", true},
		{"redirects", answer("HTTP/1.1 307 Away\r\nLocation: http://"+trap+"/v1/logs\r\nContent-Length: 0\r\n\r\n", over), "again", false}, // as a login page does; it is not followed
	} {
		t.Run(f.name, func(t *testing.T) {
			f.test(t)
			if n := flooded.Swap(0); (n > 0) != f.flood || n > patience {
				t.Errorf("%d bytes were sent", n)
			}
		})
	}
	if n := trapped.Load(); n > 0 {
		t.Errorf("%d times redirected", n)
	}
}

// httpFault is what a server does with the first request, and what the export is then to be.
type httpFault struct {
	name  string
	fault func(net.Conn)
	want  string
	flood bool
}

func (f httpFault) test(t *testing.T) {
	var faults atomic.Int64
	var well atomic.Bool
	names := make(chan string, 8)
	faulty := make(chan struct{})
	address := listen(t, func(c net.Conn) {
		for r := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			names <- req.Header.Get("creel-batch-id")
			if !well.Load() {
				faults.Add(1)
				f.fault(c)
				c.Close()
				close(faulty)
				return
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	x := open(t, otlp.Exporter, "{protocol: http, endpoint: 'http://"+address+"'}", creel.Host{}).(creel.Exporter)
	ctx := creel.WithRequest(t.Context(), creel.Request{ID: creel.ID{1, 2, 3}})
	soon, cancel := context.WithTimeout(ctx, patienceOf(f.name))
	defer cancel()
	err := x.Export(soon, batches()[:1])
	if got := outcome(err); got != f.want || soon.Err() != nil && !strings.HasPrefix(f.name, "hangs") {
		t.Errorf("%s (%v), want %s", got, err, f.want)
	}
	await(t, faulty)
	well.Store(true)
	for err = x.Export(ctx, batches()[:1]); outcome(err) == "again"; { // on the connection that has just been closed
		err = x.Export(ctx, batches()[:1])
	}
	if err != nil {
		t.Fatalf("afterwards: %v", err)
	}
	if n := faults.Load(); n != 1 {
		t.Errorf("it happened %d times", n)
	}
	if first, second := <-names, <-names; first != second || first != "01020300000000000000000000000000" {
		t.Errorf("the batch is called %q and then %q", first, second)
	}
}

// await fails if the fault does not happen.
func await(t *testing.T, faulty <-chan struct{}) {
	t.Helper()
	select {
	case <-faulty:
	case <-time.After(time.Minute):
		t.Fatal("it did not happen; is the machine too busy for the test's deadline?")
	}
}

// patienceOf is short for faults that only end with it, and long enough for the request to get there.
func patienceOf(fault string) time.Duration {
	switch {
	case fault == "hangs in its answer", fault == "hangs in its refusal": // what comes before that must come in time
		return 2 * time.Second
	case strings.HasPrefix(fault, "hangs"):
		return 300 * time.Millisecond
	}
	return time.Minute
}

// TestTalkativeFarSide: a server that has another long warning for each request is heard, but not for ever.
func TestTalkativeFarSide(t *testing.T) {
	var requests atomic.Int64
	address := listen(t, func(c net.Conn) {
		for r := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			answer := codec.AppendResponse(nil, codec.Result{Message: fmt.Sprint(requests.Add(1), strings.Repeat(" too old", 1<<12))})
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		}
	})
	var logged bytes.Buffer
	h := creel.Host{Log: slog.New(slog.NewTextHandler(&logged, nil))}
	x := open(t, otlp.Exporter, "{protocol: http, endpoint: 'http://"+address+"'}", h).(creel.Exporter)
	for range 100 {
		if err := x.Export(t.Context(), batches()[:1]); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(logged.String(), "with a warning"); n != 64 || requests.Load() != 100 || logged.Len() > 64*1000 {
		t.Errorf("%d warnings to %d requests were logged, in %d bytes", n, requests.Load(), logged.Len())
	}
}

// TestHostileHTTP2: streams that hang or break end in time, and the connection that they share with others is still good.
func TestHostileHTTP2(t *testing.T) {
	for name, fault := range map[string]http.HandlerFunc{
		"late":  func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"again": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"delivered": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var requests, connections atomic.Int64
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != 2 {
					t.Errorf("the request came over %s", r.Proto)
				}
				_, _ = io.Copy(io.Discard, r.Body)
				if requests.Add(1) == 1 {
					fault(w, r)
				}
			}))
			s.EnableHTTP2 = true
			s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					connections.Add(1)
				}
			}
			s.StartTLS()
			defer s.Close()
			x := open(t, otlp.Exporter, "{protocol: http, endpoint: '"+s.URL+"', tls: {insecure_skip_verify: true}}", creel.Host{}).(creel.Exporter)
			ctx, cancel := context.WithTimeout(t.Context(), patienceOf(map[bool]string{true: "hangs"}[name == "late"]))
			defer cancel()
			if err := x.Export(ctx, batches()[:1]); outcome(err) != name {
				t.Errorf("%s (%v), want %s", outcome(err), err, name)
			}
			if err := x.Export(t.Context(), batches()[:1]); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			if requests.Load() != 2 || connections.Load() != 1 {
				t.Errorf("%d requests over %d connections", requests.Load(), connections.Load())
			}
		})
	}
}
