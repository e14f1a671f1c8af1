package otlp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
)

// pipes is a listener of pipes that come from addresses that the test names. They work with a test's time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4318} }

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

// connect returns the far end of a new connection from an address.
func (p *pipes) connect(from string) net.Conn {
	near, far := net.Pipe()
	p.conns <- pipeFrom{near, &net.TCPAddr{IP: net.ParseIP(from), Port: 1234}}
	return far
}

type pipeFrom struct {
	net.Conn
	from net.Addr
}

func (p pipeFrom) RemoteAddr() net.Addr { return p.from }

// over returns when the other end of c was closed.
func over(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	begin := time.Now()
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("read until the end: %v", err)
	}
	return time.Since(begin)
}

// TestDoor: no more connections than the limits say; who was let in keeps its place, a stranger makes room for a newer one, and
// goes when its time is over; what is on this machine does not count.
func TestDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		turned := metric.NewSet().Counter("turned", "", "")
		d := newDoor(p, 3, 2, turned)
		in := make(chan *guest, 100)
		go func() {
			for {
				c, err := d.Accept()
				if err != nil {
					close(in)
					return
				}
				in <- c.(*guest)
			}
		}()
		enter := func(from string) (*guest, net.Conn) {
			far := p.connect(from)
			synctest.Wait()
			select {
			case g := <-in:
				return g, far
			default:
				return nil, far
			}
		}
		state := func(open, strange int, n uint64) {
			t.Helper()
			synctest.Wait()
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.open != open || d.strange.Len() != strange || turned.Load() != n {
				t.Errorf("%d are open, of these %d strange, %d were turned away; want %d, %d, %d", d.open, d.strange.Len(), turned.Load(), open, strange, n)
			}
		}
		closed := func(far net.Conn) {
			t.Helper()
			if d := over(t, far); d != 0 {
				t.Errorf("closed after %v", d)
			}
		}
		a, _ := enter("192.0.2.1")
		a.welcome()
		a.welcome()
		b, bFar := enter("192.0.2.1")
		state(2, 1, 0)
		none, far := enter("192.0.2.1") // its address has two
		if none != nil {
			t.Error("there is a third from one address")
		}
		closed(far)
		state(2, 1, 1)
		c, _ := enter("2001:db8::1")
		c.welcome()
		e, eFar := enter("2001:db8::ffff") // of the same /64; the oldest stranger makes room
		state(3, 1, 2)
		closed(bFar)
		b.welcome() // too late
		b.Close()
		state(3, 1, 2)
		if none, far = enter("2001:db8::2"); none != nil {
			t.Error("there is a third from one network")
		}
		closed(far)
		for _, local := range []string{"127.0.0.1", "::1", "127.0.0.9", "127.0.0.1"} {
			if g, _ := enter(local); g == nil {
				t.Errorf("a connection from %s is turned away", local)
			} else {
				g.welcome()
				defer g.Close()
			}
		}
		state(3, 1, 3)
		e.welcome()
		if none, far = enter("198.51.100.1"); none != nil {
			t.Error("there are four, and nobody is a stranger")
		}
		closed(far)
		state(3, 0, 4)
		e.Close()
		e.Close()
		state(2, 0, 4)
		closed(eFar)
		f, fFar := enter("198.51.100.1")
		state(3, 1, 4)
		if d := over(t, fFar); d != strangers {
			t.Errorf("a stranger goes after %v", d)
		}
		state(2, 0, 5)
		f.welcome()
		time.Sleep(time.Hour)
		state(2, 0, 5)
		a.Close()
		c.Close()
		if state(0, 0, 5); len(d.from) != 0 {
			t.Errorf("afterwards it remembers %v", d.from)
		}
		p.Close()
		synctest.Wait()
	})
}

// nobody is an Admission that knows nobody.
type nobody struct{}

func (nobody) Authenticate(creel.Credentials, creel.Signal) (creel.Caller, error) {
	return creel.Caller{}, creel.ErrUnauthenticated
}
func (nobody) Admit(creel.Caller, creel.Sender, creel.Signal, int, int) error { return nil }
func (nobody) Took(creel.Sender, creel.ID, creel.Signal, int)                 {}

// preface is how a client begins HTTP/2 (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// TestSlowStrangers: whoever connects and does not get to the point loses the connection in time, whatever it does instead.
func TestSlowStrangers(t *testing.T) {
	slowly := func(text string, pause time.Duration) func(net.Conn) {
		return func(c net.Conn) {
			for i := 0; ; i = (i + 1) % len(text) {
				if _, err := io.WriteString(c, text[i:i+1]); err != nil {
					return
				}
				time.Sleep(pause)
			}
		}
	}
	cert := &tls.Config{Certificates: []tls.Certificate{{}}}
	for _, f := range []struct {
		name, server string
		tls          *tls.Config
		do           func(net.Conn)
		within       time.Duration
	}{
		{"silence", "http", nil, func(net.Conn) {}, 10 * time.Second},
		{"silence", "grpc", nil, func(net.Conn) {}, 10 * time.Second},
		{"no handshake", "http", cert, func(net.Conn) {}, 10 * time.Second},
		{"no handshake", "grpc", cert, func(net.Conn) {}, 10 * time.Second},
		{"slow handshake", "http", cert, slowly("\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03", time.Second), 10 * time.Second},
		{"slow handshake", "grpc", cert, slowly("\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03", time.Second), 10 * time.Second},
		{"slow headers", "http", nil, func(c net.Conn) {
			io.WriteString(c, "POST /v1/logs HTTP/1.1\r\nHost: x\r\n")
			slowly("X-Header: value\r\n", time.Second)(c)
		}, 10 * time.Second},
		{"slow preface", "grpc", nil, slowly(preface, time.Second), 10 * time.Second},
		{"refused again and again", "http", nil, func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, strangers},
		{"half a body", "http", nil, func(c net.Conn) {
			io.WriteString(c, "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 10\r\n\r\n01234")
		}, farewell},
		{"no call", "grpc", nil, func(c net.Conn) { io.WriteString(c, preface) }, strangers},
	} {
		t.Run(f.server+"/"+f.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				col := &collector{host: creel.Host{Admission: nobody{}}.Ready()}
				col.MaxRequestSize, col.MaxRequestBytes = 1<<20, 1<<20
				turned := col.host.Metrics.Counter("turned", "", "")
				col.requests, col.refused = turned, col.host.Metrics.Counter("refused", "", "")
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				serve := map[string]func(context.Context, net.Listener, *tls.Config, creel.Sink) error{"http": col.serveHTTP, "grpc": col.serveGRPC}[f.server]
				go func() { done <- serve(ctx, newDoor(p, 10, 10, turned), f.tls, nil) }()
				far := p.connect("192.0.2.7")
				did := make(chan struct{})
				go func() {
					defer close(did)
					f.do(far)
				}()
				if d := over(t, far); d > f.within {
					t.Errorf("the connection ends after %v, want %v", d, f.within)
				}
				far.Close()
				<-did
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestStrangersAreCheap: a connection that has not yet shown who it is holds little memory.
func TestStrangersAreCheap(t *testing.T) {
	const n, most = 50, 150 << 10
	for server, text := range map[string]string{"grpc": preface, "http": "POST /v1/logs HTTP/1.1\r\nHost: x\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			p := newPipes()
			col := &collector{host: creel.Host{Admission: nobody{}}.Ready()}
			col.turned = col.host.Metrics.Counter("turned", "", "")
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				done <- map[string]func(context.Context, net.Listener, *tls.Config, creel.Sink) error{"http": col.serveHTTP, "grpc": col.serveGRPC}[server](ctx, newDoor(p, n, n, col.turned), nil, nil)
			}()
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var ends []net.Conn
			for range n {
				c := p.connect("192.0.2.7")
				ends = append(ends, c)
				go io.Copy(io.Discard, c)
				if _, err := io.WriteString(c, text); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			runtime.GC()
			runtime.ReadMemStats(&after)
			if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; each > most || each < 1<<10 {
				t.Errorf("%s: a connection holds %d bytes", server, each)
			}
			for _, c := range ends {
				c.Close()
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRefusalComesFirst: over HTTP/1.1 a client hears why it is refused before it has sent its body, which is not taken for
// another request.
func TestRefusalComesFirst(t *testing.T) {
	for _, sent := range []int{0, 10, 100_000} {
		synctest.Test(t, func(t *testing.T) {
			p := newPipes()
			col := &collector{host: creel.Host{Admission: nobody{}}.Ready()}
			col.MaxRequestSize, col.MaxRequestBytes = 1<<20, 1<<20
			col.refused = col.host.Metrics.Counter("refused", "", "")
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- col.serveHTTP(ctx, newDoor(p, 10, 10, col.refused), nil, nil) }()
			c := p.connect("192.0.2.7")
			begin := time.Now()
			fmt.Fprint(c, "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") != "Bearer" || !strings.Contains(string(body), "not authenticated") || time.Since(begin) != 0 {
				t.Errorf("answered %s %v %q after %v, %v", resp.Status, resp.Header, body, time.Since(begin), err)
			}
			if _, err := io.WriteString(c, strings.Repeat("POST /v1/logs HTTP/1.1\r\n\r\n", 100_000)[:sent]); err != nil {
				t.Error(err)
			}
			if d := over(t, c); d > farewell {
				t.Errorf("the connection ends after %v", d)
			}
			if n := col.reading.Load(); n != 0 || col.refused.Load() != 1 {
				t.Errorf("%d bytes are being read, %d requests were refused", n, col.refused.Load())
			}
			c.Close()
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// known is an Admission that knows everybody as one agent.
type known struct{ nobody }

func (known) Authenticate(creel.Credentials, creel.Signal) (creel.Caller, error) {
	return creel.Caller{Agent: "a"}, nil
}

type steady struct{ creel.Identity }

func (steady) Token(context.Context) (string, error) { return "token", nil }

// TestCallersCostNothing: to ask who sends allocates nothing over HTTP, and over gRPC no more than grpc-go's copies of the two
// headers that were read before; the token that is sent allocates nothing while it is the same.
func TestCallersCostNothing(t *testing.T) {
	col := &collector{host: creel.Host{Admission: known{}}}
	g := &guest{Conn: pipeFrom{from: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}}}
	conn, _ := net.Pipe()
	g.Conn = pipeFrom{conn, g.Conn.RemoteAddr()}
	ctx := withGuest(t.Context(), g)
	r := (&http.Request{TLS: &tls.ConnectionState{}, Header: http.Header{"Authorization": {"Bearer x"}, "Creel-Sender": {"a;1;otlp"}}}).WithContext(ctx)
	if n := testing.AllocsPerRun(100, func() {
		g, shown := shownHTTP(r)
		if w, err := col.authenticate(g, shown, creel.Logs, r.Header.Get(canonicalSender)); err != nil || w.from.Exporter != "otlp" || shown.Remote == nil {
			t.Fatal(w, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations over HTTP", n)
	}
	ctx = peer.NewContext(t.Context(), &peer.Peer{Addr: g.RemoteAddr(), LocalAddr: g.LocalAddr(), AuthInfo: &link{guest: g, tls: r.TLS}})
	i := &tap.Info{FullMethodName: methods[creel.Logs], Header: metadata.MD{"authorization": {"Bearer x"}, headerSender: {"a;1;otlp"}, headerBatchID: {"x"}}}
	if n := testing.AllocsPerRun(100, func() {
		ctx, err := col.knock(ctx, i)
		in, _ := ctx.Value(callKey{}).(*call)
		if err != nil || in.who.caller.Agent != "a" || in.said(headerBatchID) != "x" {
			t.Fatal(in, err)
		}
	}); n > 2 {
		t.Errorf("%v allocations over gRPC", n)
	}
	b := &bearer{identity: steady{}}
	if n := testing.AllocsPerRun(100, func() {
		if h, err := b.header(ctx); err != nil || h[0] != "Bearer token" {
			t.Fatal(h, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations to send a token", n)
	}
}

// TestIdentify: what was proven counts.
func TestIdentify(t *testing.T) {
	said := func(agent string) creel.Sender { return creel.Sender{Agent: agent, Exporter: "otlp"} }
	for _, c := range []struct {
		caller     creel.Caller
		said, want creel.Sender
		ok         bool
	}{
		{creel.Caller{}, said("a"), said("a"), true},
		{creel.Caller{}, creel.Sender{}, creel.Sender{}, true},
		{creel.Caller{Agent: "a"}, said("a"), said("a"), true},
		{creel.Caller{Agent: "a"}, creel.Sender{}, creel.Sender{Agent: "a"}, true},
		{creel.Caller{Agent: "a"}, said("b"), creel.Sender{}, false},
		{creel.Caller{Token: "t"}, said("b"), creel.Sender{}, true},
		{creel.Caller{Agent: "a", Token: "t"}, said("b"), creel.Sender{}, false},
	} {
		got, err := identify(c.caller, c.said)
		if got != c.want || (err == nil) != c.ok || creel.IsPermanent(err) || errors.Is(err, creel.ErrUnauthenticated) {
			t.Errorf("%+v says %+v: %+v, %v", c.caller, c.said, got, err)
		}
	}
}
