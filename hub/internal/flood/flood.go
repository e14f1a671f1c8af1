// Package flood guards the addresses of a hub: how many connections there are, how many one address has, and that addresses
// whose logins fail too often are kept out before TLS costs anything. Connections that stand are left alone.
//
// It knows neither who logs in nor how.
package flood

import (
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel/metric"
)

// Options configure a Guard.
type Options struct {
	MaxConns   int // connections at once, of all listeners together; 0: 30 000
	PerAddress int // of one address (IPv6: of one /64) but loopback; 0: 5 000
	Failures   int // failed logins a minute of one address, and so many at once; 0: 60. Loopback may ten times as many
	Addresses  int // whose failures are remembered at most; 0: 32 768. Beyond, the one that failed longest ago is forgotten

	Log     *slog.Logger
	Metrics *metric.Set
	Now     func() time.Time // nil: time.Now
}

const (
	more      = 10               // by which loopback may fail more often: all of this machine is one address
	barred    = 10 * time.Second // that an address is kept out after it has failed too often
	suspected = time.Minute      // after that, for which each new connection of it counts as a failure
	between   = time.Minute      // two lines of the log, at least
)

// A Guard bounds connections. Its methods may be called concurrently, and take the same short time however many addresses
// there are.
//
// One address may have no more connections than are still free for others, whatever PerAddress says: so that few addresses
// cannot take all. Loopback, behind which a proxy may stand for everybody, may have nine tenths.
//
// A failed login costs an address a token; tokens come back steadily, and who has none is kept out for a while, and still a
// little longer when it goes on to fail on connections that stand. When it is let in again it is on probation: new connections
// cost tokens as well, so that it cannot open thousands before the first of them has failed.
type Guard struct {
	o        Options
	begun    time.Time // what times are reckoned from
	loopback int       // connections that it may have

	mu       sync.Mutex
	total    int // connections
	peers    map[netip.Addr]*peer
	failing  peer // a ring of those that have failed, the newest behind it
	failed   int  // how many are in the ring
	logged   int64
	unlogged int

	news      atomic.Pointer[news]
	connected *metric.Gauge
	refused   struct{ all, address, failures *metric.Counter }
	failures  *metric.Counter
}

// A peer is an address that has connections, or that has failed.
type peer struct {
	address netip.Addr
	conns   int

	// Of one that has failed: when all its tokens will have come back, and until when it is kept out or on probation, in ns
	// since Guard.begun.
	full, out, probation int64
	next, before         *peer // in Guard.failing; nil: it is not there
}

// New returns a Guard.
func New(o Options) *Guard {
	if o.MaxConns == 0 {
		o.MaxConns = 30_000
	}
	if o.PerAddress == 0 {
		o.PerAddress = 5000
	}
	if o.Failures == 0 {
		o.Failures = 60
	}
	if o.Addresses == 0 {
		o.Addresses = 32_768
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Guard{o: o, begun: o.Now(), loopback: max(1, o.MaxConns-o.MaxConns/10), peers: make(map[netip.Addr]*peer), logged: math.MinInt64}
	g.failing.next, g.failing.before = &g.failing, &g.failing
	g.meter()
	return g
}

func (g *Guard) meter() {
	g.connected = g.o.Metrics.Gauge("creel.hub.connections", "Connections to the hub's addresses.", "{connection}")
	because := func(reason string) *metric.Counter {
		return g.o.Metrics.Sub(metric.Label{Name: "reason", Value: reason}).Counter("creel.hub.connections.refused", "Connections that were closed at once: there were too many (all), too many from the address (address), or its logins failed too often (failures).", "{connection}")
	}
	g.refused.all, g.refused.address, g.refused.failures = because("all"), because("address"), because("failures")
	g.failures = g.o.Metrics.Counter("creel.hub.logins.failed", "Requests that showed nothing, or nothing that is worth anything, to say who sent them.", "{request}")
	g.o.Metrics.GaugeFunc("creel.hub.logins.failing", "Addresses whose failed logins are remembered.", "{address}", func() float64 {
		g.mu.Lock()
		defer g.mu.Unlock()
		return float64(g.failed)
	})
}

// now is the time since the beginning.
func (g *Guard) now() int64 { return int64(g.o.Now().Sub(g.begun)) }

// rate returns how long an address waits for a token, and how long for all that it may have.
func (g *Guard) rate(a netip.Addr) (one, all int64) {
	n := int64(g.o.Failures)
	if a.IsLoopback() {
		n *= more
	}
	one = int64(time.Minute) / n
	return one, one * n
}

// Failed says that a login from an address has failed. It is not to be called for what a proxy has passed on: that would keep
// out all who come through it.
func (g *Guard) Failed(addr net.Addr) {
	g.failures.Inc()
	a, ok := addressOf(addr)
	if !ok {
		return
	}
	now := g.now()
	defer g.tell()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(now)
	p := g.peers[a]
	if p == nil {
		p = &peer{address: a}
		g.peers[a] = p
	}
	g.remember(p)
	g.spend(p, now)
}

// spend takes a token of p, and keeps it out if it had none.
func (g *Guard) spend(p *peer, now int64) {
	one, all := g.rate(p.address)
	p.full = min(max(p.full, now)+one, now+all+one)
	if p.full-now <= all {
		return
	}
	switch {
	case p.out > now:
	case g.logged == math.MinInt64 || now-g.logged >= int64(between):
		g.logged = now
		g.news.Store(&news{p.address, g.unlogged})
		g.unlogged = 0
	default:
		g.unlogged++
	}
	p.out = now + int64(barred)
	p.probation = p.out + int64(suspected)
}

// news is what is to be logged.
type news struct {
	address netip.Addr
	others  int // that were not told of
}

// tell logs that an address is kept out, if that is news. Who holds the lock must not wait for a log.
func (g *Guard) tell() {
	if n := g.news.Load(); n != nil && g.news.CompareAndSwap(n, nil) {
		g.o.Log.Warn("logins from an address fail too often; it gets no new connections for a while", "address", n.address, "for", barred, "others_since_last_told", n.others)
	}
}

// Barred reports whether new connections of an address are refused for failed logins: then requests on those that stand need
// no look at what they show either.
func (g *Guard) Barred(addr net.Addr) bool {
	a, ok := addressOf(addr)
	if !ok {
		return false
	}
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[a]
	return p != nil && p.out > now
}

// admit counts a new connection, or returns why there is none.
func (g *Guard) admit(a netip.Addr, known bool) (because *metric.Counter) {
	now := g.now()
	defer g.tell()
	g.mu.Lock()
	defer g.mu.Unlock()
	free := g.o.MaxConns - g.total
	if free <= 0 {
		return g.refused.all
	}
	if known {
		p := g.peers[a]
		conns := 0
		if p != nil {
			conns = p.conns
			if p.out > now {
				return g.refused.failures
			}
		}
		limit := min(g.o.PerAddress, free)
		if a.IsLoopback() {
			limit = g.loopback
		}
		if conns >= limit {
			return g.refused.address
		}
		if p == nil {
			p = &peer{address: a}
			g.peers[a] = p
		} else if p.probation > now {
			if g.spend(p, now); p.out > now {
				return g.refused.failures
			}
		}
		p.conns++
	}
	g.total++
	g.connected.Set(float64(g.total))
	return nil
}

// left counts a connection that is over.
func (g *Guard) left(a netip.Addr, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	g.connected.Set(float64(g.total))
	if known {
		p := g.peers[a]
		p.conns--
		g.drop(p)
	}
}

// remember puts p before all others that have failed.
func (g *Guard) remember(p *peer) {
	if p.next != nil {
		g.unlink(p)
	}
	p.before, p.next = &g.failing, g.failing.next
	p.before.next, p.next.before = p, p
	g.failed++
	if g.failed > g.o.Addresses {
		g.pardon(g.failing.before)
	}
}

func (g *Guard) unlink(p *peer) {
	p.before.next, p.next.before = p.next, p.before
	p.next, p.before = nil, nil
	g.failed--
}

// forget pardons those whose failures are long over, two at most: more than come.
func (g *Guard) forget(now int64) {
	for range 2 {
		if p := g.failing.before; p != &g.failing && p.full <= now && p.probation <= now {
			g.pardon(p)
		}
	}
}

// pardon forgets the failures of p.
func (g *Guard) pardon(p *peer) {
	g.unlink(p)
	p.full, p.out, p.probation = 0, 0, 0
	g.drop(p)
}

// drop forgets p if there is nothing to know of it.
func (g *Guard) drop(p *peer) {
	if p.conns == 0 && p.next == nil {
		delete(g.peers, p.address)
	}
}

// addressOf returns what counts as one address: of IPv6 the first 64 bits, which one host can have all of. A socket of this
// machine has none.
func addressOf(addr net.Addr) (netip.Addr, bool) {
	var a netip.Addr
	switch addr := addr.(type) {
	case nil:
		return a, false
	case *net.TCPAddr:
		a = addr.AddrPort().Addr()
	case *net.UnixAddr:
		return a, false
	default:
		text, err := netip.ParseAddrPort(addr.String())
		if err != nil {
			return a, false
		}
		a = text.Addr()
	}
	a = a.Unmap().WithZone("")
	if a.Is6() && !a.IsLoopback() {
		p, err := a.Prefix(64)
		if err != nil {
			return a, false
		}
		a = p.Addr()
	}
	return a, a.IsValid()
}
