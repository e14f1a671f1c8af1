package pipeline

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"

	"github.com/creelhq/creel"
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

// of returns the sockets as one component sees them.
func (s *sockets) of(component string) creel.Sockets { return socketsOf{s, component} }

type socketsOf struct {
	*sockets
	component string
}

// Listen binds address or takes it over.
func (s socketsOf) Listen(network, address string) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := network + " " + address
	sock := s.open[key]
	if sock != nil {
		for _, h := range sock.handles {
			if h.reload == s.reload || !s.leaving[h.component] {
				return nil, fmt.Errorf("listen on %s: %s does already", address, h.component)
			}
		}
	} else {
		l, err := net.Listen(network, address)
		if err != nil {
			return nil, ExplainListen(err, network, address)
		}
		sock = &socket{Listener: l, conns: make(chan net.Conn), failed: make(chan struct{}), closed: make(chan struct{})}
		go sock.accept()
		s.open[key] = sock
	}
	h := &handle{socket: sock, home: s.sockets, key: key, component: s.component, reload: s.reload, done: make(chan struct{})}
	sock.handles = append(sock.handles, h)
	return h, nil
}

// list returns the addresses that are listened on, sorted by component.
func (s *sockets) list() []report.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []report.Endpoint{}
	for _, sock := range s.open {
		h := sock.handles[len(sock.handles)-1] // the newest
		list = append(list, report.Endpoint{Component: h.component, Network: sock.Addr().Network(), Address: sock.Addr().String()})
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
