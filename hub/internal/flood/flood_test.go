package flood

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel/metric"
)

// clock is a time that stands still until it is moved.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(1_700_000_000, c.ns.Load()) }
func (c *clock) pass(d time.Duration) { c.ns.Add(int64(d)) }

// from is a connection from an address.
type from struct {
	net.Conn
	address net.Addr
	closed  atomic.Int32
}

func (c *from) RemoteAddr() net.Addr { return c.address }
func (c *from) Close() error         { c.closed.Add(1); return nil }

// queue is a listener of connections that a test makes.
type queue chan net.Conn

func (q queue) Accept() (net.Conn, error) {
	c, ok := <-q
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (q queue) Close() error   { close(q); return nil }
func (q queue) Addr() net.Addr { return &net.TCPAddr{} }

// single is a listener where one knocks at a time.
type single struct{ next net.Conn }

var errNobody = errors.New("nobody is there")

func (s *single) Accept() (net.Conn, error) {
	if c := s.next; c != nil {
		s.next = nil
		return c, nil
	}
	return nil, errNobody
}
func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return &net.TCPAddr{} }

func address(text string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(text), Port: 1} }

// door is a Guard with its listener.
type door struct {
	*testing.T
	*Guard
	clock clock
	q     *single
	l     net.Listener
	set   *metric.Set
}

func newDoor(t *testing.T, o Options) *door {
	d := &door{T: t, q: &single{}, set: metric.NewSet()}
	o.Now, o.Metrics = d.clock.now, d.set
	d.Guard = New(o)
	d.l = d.Listen(d.q)
	return d
}

// knock returns the connection that an address gets, or nil.
func (d *door) knock(text string) net.Conn {
	d.Helper()
	c := &from{address: address(text)}
	d.q.next = c
	got, err := d.l.Accept()
	if errors.Is(err, errNobody) != (c.closed.Load() == 1) || (err == nil) != (got != nil) {
		d.Fatalf("accepted %v, %v; closed %d times", got, err, c.closed.Load())
	}
	return got
}

// in counts how many of n connections an address gets.
func (d *door) in(text string, n int) (list []net.Conn) {
	d.Helper()
	for range n {
		if c := d.knock(text); c != nil {
			list = append(list, c)
		}
	}
	return list
}

func (d *door) expect(what string, got, want int) {
	d.Helper()
	if got != want {
		d.Errorf("%s: %d, want %d", what, got, want)
	}
}

// metric returns the value of a metric, of all its labels together.
func (d *door) metric(name, reason string) (sum int) {
	d.set.Gather(func(p metric.Point) {
		if p.Name == name && (reason == "" || p.Labels[0].Value == reason) {
			sum += int(p.Value)
		}
	})
	return sum
}

func closeAll(list []net.Conn) {
	for _, c := range list {
		c.Close()
	}
}

func TestBounds(t *testing.T) {
	d := newDoor(t, Options{MaxConns: 100, PerAddress: 10})
	a := d.in("192.0.2.1", 20)
	d.expect("of one address", len(a), 10)
	d.expect("of the same in IPv6's clothes", len(d.in("::ffff:192.0.2.1", 3)), 0)
	six := d.in("2001:db8:0:1::1", 6)
	d.expect("of a /64", len(six)+len(d.in("2001:db8:0:1:ffff::2", 6)), 10)
	d.expect("of its neighbour", len(d.in("2001:db8:0:2::1", 3)), 3)
	closeAll(a[:4])
	closeAll(a[:4]) // a second time
	d.expect("after some have gone", len(d.in("192.0.2.1", 20)), 4)
	d.expect("of loopback", len(d.in("127.0.0.1", 90)), 77)
	d.expect("of others when there is no room", len(d.in("192.0.2.9", 1)), 0)
	d.expect("connections", d.metric("creel.hub.connections", ""), 100)
	closeAll(six)
	d.expect("connections after some have gone", d.metric("creel.hub.connections", ""), 94)
	d.expect("refused", d.metric("creel.hub.connections.refused", "address"), 10+3+2+16)
	d.expect("refused because there was no room", d.metric("creel.hub.connections.refused", "all"), 13+1)
}

// TestShare: few addresses cannot take all connections.
func TestShare(t *testing.T) {
	d := newDoor(t, Options{MaxConns: 1000, PerAddress: 1000})
	for i, want := range []int{500, 250, 125} {
		d.expect(fmt.Sprint("greedy ", i), len(d.in(fmt.Sprint("192.0.2.", i), 600)), want)
	}
	for i := range 100 {
		d.expect("modest", len(d.in(fmt.Sprint("198.51.100.", i), 1)), 1)
	}
	d.expect("loopback", len(d.in("::1", 50)), 25)
}

func TestFailures(t *testing.T) {
	var log strings.Builder
	d := newDoor(t, Options{Failures: 60, Log: slog.New(slog.NewTextHandler(&log, nil))})
	bad, good := "192.0.2.1", "192.0.2.2"
	standing := d.in(bad, 2)
	for range 60 {
		d.Failed(address(bad))
	}
	d.expect("after as many as are allowed", len(d.in(bad, 1)), 1)
	d.Failed(address(bad))
	d.expect("after one more", len(d.in(bad, 50)), 0)
	d.expect("a neighbour", len(d.in(good, 50)), 50)
	if !d.Barred(address(bad)) || d.Barred(address(good)) || !d.Barred(remote(bad+":77")) {
		t.Error("who is barred is not told")
	}
	for _, c := range standing {
		if c.(*conn).Conn.(*from).closed.Load() != 0 {
			t.Error("a connection that stands was closed")
		}
	}
	d.clock.pass(barred - 1)
	d.expect("before its time", len(d.in(bad, 1)), 0)
	d.clock.pass(1)
	d.expect("afterwards, on probation", len(d.in(bad, 100)), 9)
	d.clock.pass(barred)
	d.expect("who cannot wait", len(d.in(bad, 100)), 9)
	d.clock.pass(barred + suspected + time.Minute)
	d.expect("after good conduct", len(d.in(bad, 100)), 100)
	d.expect("counted", d.metric("creel.hub.logins.failed", ""), 61)
	if n := strings.Count(log.String(), "fail too often"); n != 1 {
		t.Errorf("%d lines for one address in a minute: %s", n, log.String())
	}
}

// remote is an address as HTTP servers tell it.
type remote string

func (remote) Network() string  { return "tcp" }
func (r remote) String() string { return string(r) }

// TestEndlessFailures: however many logins of an address fail, on new connections or on one that stands, few new connections come
// in, and it is let in soon after it has stopped.
func TestEndlessFailures(t *testing.T) {
	d := newDoor(t, Options{Failures: 60})
	in := 0
	for range 5 * 60 * 20 { // five minutes
		d.clock.pass(50 * time.Millisecond)
		for _, c := range d.in("192.0.2.1", 3) {
			in++
			d.Failed(address("192.0.2.1"))
			c.Close()
		}
	}
	if in < 60 || in > 60+5*60 {
		t.Errorf("%d connections came in within five minutes", in)
	}
	for range 100_000 {
		d.Failed(address("192.0.2.1"))
	}
	d.clock.pass(barred)
	d.expect("after it has stopped", len(d.in("192.0.2.1", 5)), 5)
}

func TestLoopbackFailures(t *testing.T) {
	d := newDoor(t, Options{Failures: 60})
	for range 600 {
		d.Failed(address("127.0.0.1"))
	}
	d.expect("loopback, after as many as are allowed", len(d.in("127.0.0.1", 10)), 10)
	d.Failed(address("127.0.0.1"))
	d.expect("loopback, after one more", len(d.in("127.0.0.1", 10)), 0)
	d.Failed(&net.UnixAddr{Name: "x"})
	d.Failed(nil)
	d.Failed(remote("nonsense"))
	if d.Barred(nil) {
		t.Error("nobody is barred")
	}
}

// TestForgetting: however many addresses fail, the memory for them is bounded, and those that fail still are remembered.
func TestForgetting(t *testing.T) {
	d := newDoor(t, Options{Failures: 2, Addresses: 100})
	of := func(i int) string { return fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255) }
	held := d.in(of(0), 3)
	d.expect("held", len(held), 3)
	for i := range 50_000 {
		d.Failed(address(of(i)))
		d.Failed(address("192.0.2.1"))
	}
	d.expect("remembered", d.metric("creel.hub.logins.failing", ""), 100)
	d.expect("peers", len(d.peers), 101) // one has connections
	if !d.Barred(address("192.0.2.1")) {
		t.Error("who fails most was forgotten")
	}
	closeAll(held)
	d.expect("peers when connections are over", len(d.peers), 100)
	d.clock.pass(time.Hour)
	for range 60 {
		d.Failed(address("192.0.2.2"))
		d.clock.pass(time.Hour)
	}
	d.expect("remembered hours later", d.metric("creel.hub.logins.failing", ""), 1)
	d.expect("peers hours later", len(d.peers), 1)
	for p, n := d.failing.next, 0; p != &d.failing; p, n = p.next, n+1 {
		if n > 1 || p.next.before != p {
			t.Fatal("the ring is torn")
		}
	}
}

// TestRaces: whatever happens at once, the counts are exact at the end.
func TestRaces(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := New(Options{MaxConns: 50, PerAddress: 20, Failures: 1000, Addresses: 5})
	var wg sync.WaitGroup
	var refused, entered atomic.Int64
	for i := range 4 {
		q := make(queue, 10)
		l := g.Listen(q)
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for range 500 {
				q <- &from{address: address(fmt.Sprint("192.0.2.", random.IntN(10)))}
			}
			l.Close()
		})
		wg.Go(func() {
			held := []net.Conn{}
			for n := 0; ; n++ {
				c, err := l.Accept()
				if err != nil {
					break
				}
				entered.Add(1)
				if n%3 == 0 {
					g.Failed(c.RemoteAddr())
				}
				if held = append(held, c); len(held) > 20 {
					for _, c := range held[:10] {
						wg.Go(func() { c.Close(); c.Close() })
					}
					held = held[10:]
				}
			}
			closeAll(held)
		})
	}
	wg.Wait()
	refused.Store(int64(g.refused.all.Load() + g.refused.address.Load() + g.refused.failures.Load()))
	if refused.Load()+entered.Load() != 4*500 || refused.Load() == 0 {
		t.Errorf("%d were let in and %d refused", entered.Load(), refused.Load())
	}
	if g.total != 0 || g.connected.Load() != 0 || len(g.peers) != g.failed || g.failed > 5 {
		t.Errorf("at the end there are %d connections, %d peers, %d that failed", g.total, len(g.peers), g.failed)
	}
}

// TestServer: a real server behind it. Who fails gets no new connection, and closing ends Accept as servers want it.
func TestServer(t *testing.T) {
	g := New(Options{Failures: 1, Now: (&clock{}).now})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			g.Failed(remote(r.RemoteAddr))
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	s.Listener = g.Listen(s.Listener)
	s.StartTLS()
	client := s.Client()
	get := func(c *http.Client, path string) (int, error) {
		resp, err := c.Get(s.URL + path)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Body.Close()
	}
	for range 20 {
		if code, err := get(client, "/bad"); code != http.StatusUnauthorized {
			t.Fatalf("%d, %v", code, err)
		}
	}
	if code, err := get(client, "/good"); code != http.StatusOK {
		t.Errorf("the connection that stands: %d, %v", code, err)
	}
	fresh := &http.Client{Transport: client.Transport.(*http.Transport).Clone()}
	if code, err := get(fresh, "/good"); err == nil {
		t.Errorf("a new connection was let in: %d", code)
	}
	if g.refused.failures.Load() == 0 {
		t.Error("none was refused")
	}
	l := s.Listener
	s.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed one accepts: %v", err)
	}
	client.CloseIdleConnections()
	if n := g.connected.Load(); n != 0 {
		t.Errorf("%v connections are left", n)
	}
}
