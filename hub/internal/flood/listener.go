package flood

import (
	"net"
	"sync"
)

// Listen returns a listener that accepts what l does but for connections that are too many: those it closes at once, with a
// reset, and goes on. It must lie before TLS. Closing it leaves its connections alone.
func (g *Guard) Listen(l net.Listener) net.Listener { return &listener{l, g} }

type listener struct {
	net.Listener
	g *Guard
}

// Accept returns the next connection that is let in. Its errors are those of the listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a, known := addressOf(c.RemoteAddr())
		tcp, _ := c.(*net.TCPConn)
		if because := l.g.admit(a, known); because != nil {
			because.Inc()
			if tcp != nil {
				_ = tcp.SetLinger(0) // else each would be kept by the kernel for a minute
			}
			_ = c.Close()
			continue
		}
		leave := sync.OnceFunc(func() { l.g.left(a, known) })
		if tcp != nil {
			return &tcpConn{tcp, leave}, nil
		}
		return &conn{c, leave}, nil
	}
}

// conn is any connection.
type conn struct {
	net.Conn
	leave func()
}

// Close closes the connection. It counts once.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// tcpConn keeps all that a TCP connection can do: servers close one direction alone so that their answer is read.
type tcpConn struct {
	*net.TCPConn
	leave func()
}

// Close closes the connection. It counts once.
func (c *tcpConn) Close() error {
	defer c.leave()
	return c.TCPConn.Close()
}
