package pipeline

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"

	"github.com/creelhq/creel/report"
)

// sockets are the listening sockets of all components. A component that is reopened with the same address, or takes an
// address over from one that is leaving, gets the same socket: not one connection is refused meanwhile.
type sockets struct {
	mu      sync.Mutex
	open    map[string]*socket // by network and address as configured
	leaving map[string]bool    // components that the reload under way closes or reopens
	reload  int                // number of the reload under way
}

// A socket is shared by the handles that were given out for it. Connections that arrive are accepted by one goroutine,
// and taken by whichever handle accepts.
type socket struct {
	net.Listener
	handles []*handle
	conns   chan net.Conn
	failed  chan struct{} // closed when accepting is over
	err     error
	closed  chan struct{}
}

func newSockets() *sockets { return &sockets{open: make(map[string]*socket)} }

// begin is called before a reload opens components.
func (s *sockets) begin(leaving map[string]bool) {
	s.mu.Lock()
	s.leaving = leaving
	s.reload++
	s.mu.Unlock()
}

// of returns the sockets as one instance of a component sees them, which the reload under way opens.
func (s *sockets) of(component string) *lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &lease{sockets: s, component: component, reload: s.reload}
}

// A lease is one instance's right to have sockets.
type lease struct {
	*sockets
	component string
	reload    int
	handles   []*handle // that were given out
	over      bool
}

// revoke takes all sockets from an instance that is left behind, or was opened in vain: nobody is to find the way to it.
func (l *lease) revoke() {
	l.mu.Lock()
	l.over = true
	handles := l.handles
	l.mu.Unlock()
	for _, h := range handles {
		h.Close()
	}
}

// Listen binds address or takes it over.
func (l *lease) Listen(network, address, protocol string) (net.Listener, error) {
	h, bind, err := l.hold(network, address, protocol)
	if err != nil || !bind {
		return h, err
	}
	bound, err := net.Listen(network, address) // which may take long, when address has a name
	if err != nil {
		h.Close()
		return nil, ExplainListen(err, network, address)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		bound.Close()
		return nil, l.late(address)
	}
	h.socket.Listener = bound
	go h.socket.accept()
	return h, nil
}

// hold returns a handle for address, and whether it is yet to be bound.
func (l *lease) hold(network, address, protocol string) (h *handle, bind bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil, false, l.late(address)
	}
	key := network + " " + address
	sock := l.open[key]
	if bind = sock == nil; bind {
		sock = &socket{conns: make(chan net.Conn), failed: make(chan struct{}), closed: make(chan struct{})}
		l.open[key] = sock
	}
	for _, h := range sock.handles {
		if h.reload == l.sockets.reload || !l.leaving[h.component] {
			return nil, false, fmt.Errorf("listen on %s: %s does already", address, h.component)
		}
	}
	h = &handle{socket: sock, home: l.sockets, key: key, component: l.component, protocol: protocol, reload: l.reload, done: make(chan struct{})}
	sock.handles = append(sock.handles, h)
	l.handles = append(l.handles, h)
	return h, bind, nil
}

func (l *lease) late(address string) error {
	return fmt.Errorf("listen on %s: %s was given up, because it took too long", address, l.component)
}

// list returns the addresses that are listened on, sorted by component.
func (s *sockets) list() []report.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []report.Endpoint{}
	for _, sock := range s.open {
		if sock.Listener == nil {
			continue // it is being bound
		}
		h := sock.handles[len(sock.handles)-1] // the newest
		list = append(list, report.Endpoint{Component: h.component, Protocol: h.protocol, Network: sock.Addr().Network(), Address: sock.Addr().String()})
	}
	slices.SortFunc(list, func(a, b report.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Component, b.Component), cmp.Compare(a.Address, b.Address))
	})
	return list
}

func (s *socket) accept() {
	defer close(s.failed)
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			s.err = err
			return
		}
		select {
		case s.conns <- c:
		case <-s.closed:
			c.Close()
		}
	}
}

// A handle is one component's hold on a socket.
type handle struct {
	*socket
	home      *sockets
	key       string
	component string
	protocol  string
	reload    int
	once      sync.Once
	done      chan struct{}
}

// Accept returns the next connection.
func (h *handle) Accept() (net.Conn, error) {
	select {
	case <-h.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	case <-h.failed:
		return nil, h.err
	}
}

// Close gives the socket back; the last one closes it.
func (h *handle) Close() error {
	err := net.ErrClosed
	h.once.Do(func() {
		close(h.done)
		err = h.home.drop(h)
	})
	return err
}

func (s *sockets) drop(h *handle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := h.handles[:0:0]
	for _, other := range h.handles {
		if other != h {
			rest = append(rest, other)
		}
	}
	h.socket.handles = rest
	if len(rest) > 0 {
		return nil
	}
	delete(s.open, h.key)
	close(h.socket.closed)
	if h.Listener == nil {
		return nil // not bound yet
	}
	return h.Listener.Close()
}

// ExplainListen says who holds a port that is taken.
func ExplainListen(err error, network, address string) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	if who := holder(network, address); who != "" {
		return fmt.Errorf("listen on %s: the port is taken by %s; stop it, or choose another port", address, who)
	}
	return fmt.Errorf("listen on %s: the port is taken; stop what holds it, or choose another port", address)
}
