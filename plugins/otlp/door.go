package otlp

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel/metric"
)

// strangers is how long a connection may take until a request of it is let in: its handshake, headers, and who sends.
const strangers = 30 * time.Second

// A door is a listener that bounds the connections from other machines, before anything is read of them: all that there are,
// and those from one address. When there are too many, the one that has been a stranger for longest makes room, and when
// none is, the new one is turned away. Who stays a stranger is, after a while, too. From this machine all are let in.
type door struct {
	net.Listener
	all, each int
	within    time.Duration
	turned    *metric.Counter
	verifies  bool // the handshake lets in nobody without a certificate of an authority that was named

	mu      sync.Mutex
	open    int
	from    map[netip.Prefix]int
	strange list.List // of *guest, the oldest first
}

// newDoor returns a door that lets in so many connections. turned counts those that it does not, or not any more.
func newDoor(l net.Listener, all, each int, turned *metric.Counter) *door {
	return &door{Listener: l, all: all, each: each, within: strangers, turned: turned, from: make(map[netip.Prefix]int)}
}

// Accept returns a *guest.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g := &guest{Conn: c, door: d, from: origin(c.RemoteAddr()), verified: d.verifies}
		if !g.from.IsValid() || d.enter(g) {
			return g, nil
		}
		d.turned.Inc()
		c.Close() // its error is of no use
	}
}

// enter lets g in, and reports whether it did.
func (d *door) enter(g *guest) bool {
	d.mu.Lock()
	var oldest *guest
	if d.from[g.from] >= d.each {
		d.mu.Unlock()
		return false
	}
	if d.open >= d.all {
		if d.strange.Len() == 0 {
			d.mu.Unlock()
			return false
		}
		oldest = d.strange.Front().Value.(*guest)
		d.forget(oldest)
	}
	d.open++
	d.from[g.from]++
	g.place = d.strange.PushBack(g)
	g.patience = time.AfterFunc(d.within, func() {
		d.mu.Lock()
		strange := g.place != nil
		if strange {
			d.forget(g)
		}
		d.mu.Unlock()
		if strange {
			d.expel(g)
		}
	})
	d.mu.Unlock()
	if oldest != nil {
		d.expel(oldest)
	}
	return true
}

func (d *door) expel(g *guest) {
	d.turned.Inc()
	g.Close() // its error is of no use
}

// forget takes g out of all counts. d is locked.
func (d *door) forget(g *guest) {
	if g.gone {
		return
	}
	g.gone = true
	d.greet(g)
	d.open--
	if d.from[g.from]--; d.from[g.from] == 0 {
		delete(d.from, g.from)
	}
}

// greet makes g no stranger any more. d is locked.
func (d *door) greet(g *guest) {
	if g.place != nil {
		g.patience.Stop()
		d.strange.Remove(g.place)
		g.place = nil
	}
}

// origin returns what connections from one place have in common: an IPv4 address, or a network of IPv6, of which a host has as
// many addresses as it likes. It is not valid for what is on this machine.
func origin(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil || ip.IsLoopback() {
		return netip.Prefix{}
	}
	return p
}

// A guest is a connection that a door has let in.
type guest struct {
	net.Conn
	door  *door
	from  netip.Prefix // not valid: it is not counted
	known atomic.Bool

	verified bool // see door.verifies

	// door.mu guards these.
	place    *list.Element // among the strangers; nil: it is none
	patience *time.Timer
	gone     bool
}

// welcome says that a request of g was let in. It costs nothing but the first time. A nil guest is nobody.
func (g *guest) welcome() {
	if g == nil || g.known.Load() || g.known.Swap(true) || !g.from.IsValid() {
		return
	}
	g.door.mu.Lock()
	g.door.greet(g)
	g.door.mu.Unlock()
}

// Close may be called more than once.
func (g *guest) Close() error {
	if g.from.IsValid() {
		g.door.mu.Lock()
		g.door.forget(g)
		g.door.mu.Unlock()
	}
	return g.Conn.Close()
}

// CloseWrite lets net/http say that it has said all, so that a client hears an answer that comes before its request has ended.
func (g *guest) CloseWrite() error {
	if c, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
