package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/proto"
)

// A Conn is one side of an OpAMP connection over WebSocket. Its methods may be called concurrently, Receive by one
// goroutine only.
type Conn struct {
	ws    *websocket.Conn
	done  chan struct{} // closed by Close
	over  sync.WaitGroup
	once  sync.Once
	alive func() // told of whatever comes in; may be nil

	mu       sync.Mutex
	unsent   []message     // the first is being written, if there is one, by a goroutine that ends when there is none: most of the time there is none
	patience time.Duration // how long the other side may be silent
	ping     *time.Timer   // nil: no pings
	closed   bool
	unread   bool   // of the last message: it was too large
	reason   string // why this side closed it
	err      error  // of the writer
}

const (
	writeTimeout = 10 * time.Second
	queued       = 16 // messages that may wait to be sent
)

// ErrSlow is what Send fails with when the other side does not take what it is sent. The connection is closed.
var ErrSlow = errors.New("the other side does not read what it is sent")

// Upgrade makes the server's side of a connection of an HTTP request. limit is in bytes per message; patience is how
// long the other side may be silent; alive, if not nil, is called with whatever arrives, pongs included. When it fails,
// the request has been answered.
func Upgrade(w http.ResponseWriter, r *http.Request, limit int64, patience time.Duration, alive func()) (*Conn, error) {
	up := websocket.Upgrader{
		HandshakeTimeout: writeTimeout, ReadBufferSize: 2 << 10, WriteBufferSize: 2 << 10, WriteBufferPool: &buffers,
		CheckOrigin: func(r *http.Request) bool { return r.Header.Get("Origin") == "" }, // web pages are no agents
	}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil, fmt.Errorf("upgrade to WebSocket: %w", err)
	}
	return newConn(ws, limit, patience, alive), nil
}

// buffers lends write buffers while a message is written: most connections are silent most of the time.
var buffers sync.Pool

func newConn(ws *websocket.Conn, limit int64, patience time.Duration, alive func()) *Conn {
	c := &Conn{ws: ws, done: make(chan struct{}), patience: patience, alive: alive}
	ws.SetReadLimit(limit)
	ws.SetPongHandler(func(string) error { return c.heard() })
	ping := ws.PingHandler()
	ws.SetPingHandler(func(data string) error {
		if err := c.heard(); err != nil {
			return err
		}
		return ping(data)
	})
	_ = c.heard() // a closed connection shows when it is read
	return c
}

// heard notes that the other side is alive.
func (c *Conn) heard() error {
	if c.alive != nil {
		c.alive()
	}
	c.mu.Lock()
	patience := c.patience
	c.mu.Unlock()
	return c.ws.SetReadDeadline(time.Now().Add(patience))
}

// SetPatience says how long the other side may be silent, from its next word on.
func (c *Conn) SetPatience(d time.Duration) {
	c.mu.Lock()
	c.patience = d
	c.mu.Unlock()
}

// A message is what is sent as one, in two parts.
type message struct{ own, shared []byte }

// Send puts m into the queue of what is to be sent. It does not block: when the queue is full, the connection is closed.
func (c *Conn) Send(m proto.Message) error { return c.SendShared(m, nil) }

// SendShared is Send for a message of which many get a part: shared is more fields of m, encoded. (Protobuf messages one
// behind the other are their merge.) It is not copied, and must not change any more.
func (c *Conn) SendShared(m proto.Message, shared []byte) error {
	// A WebSocket message is a header, a varint that is always 0 today, and the protobuf (OpAMP specification).
	data, err := proto.MarshalOptions{}.MarshalAppend([]byte{0}, m)
	if err != nil {
		return fmt.Errorf("encode OpAMP: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return net.ErrClosed
	case len(c.unsent) > queued:
		go c.Close(websocket.ClosePolicyViolation, ErrSlow.Error())
		return ErrSlow
	}
	c.unsent = append(c.unsent, message{data, shared})
	if len(c.unsent) == 1 {
		c.over.Go(c.write)
	}
	return nil
}

// KeepAlive asks the other side for a sign of life every so often, until the connection is closed. Only the first call
// counts.
func (c *Conn) KeepAlive(every time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ping != nil || c.closed {
		return
	}
	c.ping = time.AfterFunc(every, func() {
		_ = c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout)) // reading shows that it is over
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed {
			c.ping.Reset(every)
		}
	})
}

// write sends what waits.
func (c *Conn) write() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.unsent) > 0 && !c.closed {
		m := c.unsent[0]
		c.mu.Unlock()
		err := c.writeOne(m)
		c.mu.Lock()
		if err != nil {
			c.err = err // and nothing more is sent
			if !errors.Is(err, websocket.ErrCloseSent) {
				c.ws.Close() // so that Receive ends; after a close frame it ends anyway
			}
			return
		}
		c.unsent = slices.Delete(c.unsent, 0, 1)
	}
	c.unsent = nil
}

func (c *Conn) writeOne(m message) error {
	if err := c.ws.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if m.shared == nil {
		return c.ws.WriteMessage(websocket.BinaryMessage, m.own)
	}
	w, err := c.ws.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}
	for _, part := range [][]byte{m.own, m.shared} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return w.Close()
}

// A ProtocolError is a message that is no OpAMP.
type ProtocolError struct{ Reason string }

func (e *ProtocolError) Error() string { return e.Reason }

// Receive reads the next message into m. The error says why the connection is over; it must still be closed.
func (c *Conn) Receive(m proto.Message) error {
	kind, data, err := c.ws.ReadMessage()
	if err != nil {
		return c.explain(err)
	}
	if err := c.heard(); err != nil {
		return c.explain(err)
	}
	if kind != websocket.BinaryMessage {
		return &ProtocolError{"a text message: OpAMP is binary"}
	}
	return Decode(data, m)
}

// Decode reads a WebSocket message: a zero header and a protobuf.
func Decode(data []byte, m proto.Message) error {
	header, n := binary.Uvarint(data)
	if n <= 0 || header != 0 {
		return &ProtocolError{"an unknown header: a varint of 0 is expected in front of the message"}
	}
	if err := proto.Unmarshal(data[n:], m); err != nil {
		return &ProtocolError{fmt.Sprintf("no protobuf of OpAMP: %v", err)}
	}
	return nil
}

// explain says in words why the connection is over.
func (c *Conn) explain(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ce *websocket.CloseError
	var ne net.Error
	switch {
	case c.reason != "":
		return errors.New(c.reason)
	case c.err != nil:
		return fmt.Errorf("send: %w", c.err)
	case errors.Is(err, websocket.ErrReadLimit):
		c.unread = true
		return &ProtocolError{"a message over the limit"}
	case errors.As(err, &ce) && ce.Code == websocket.CloseAbnormalClosure:
		return errors.New("the connection broke")
	case errors.As(err, &ce):
		return &closedError{ce}
	case errors.As(err, &ne) && ne.Timeout():
		return fmt.Errorf("not a word for %v", c.patience)
	}
	return fmt.Errorf("the connection broke: %w", err)
}

// A closedError is that the other side has closed the connection.
type closedError struct{ *websocket.CloseError }

func (e *closedError) Error() string {
	text := e.Text
	if text == "" {
		text = fmt.Sprintf("code %d", e.Code)
	}
	return "closed by the other side: " + text
}

// goingAway reports whether the other side ends, or is started again.
func goingAway(err error) bool {
	var closed *closedError
	return errors.As(err, &closed) && closed.Code == websocket.CloseGoingAway
}

// Close tells the other side why, with a code of RFC 6455, and closes the connection. What waits to be sent is lost.
// Only the first call counts.
func (c *Conn) Close(code int, reason string) {
	c.once.Do(func() {
		c.mu.Lock()
		c.reason, c.closed = reason, true
		unread := c.unread
		if c.ping != nil {
			c.ping.Stop()
		}
		c.mu.Unlock()
		close(c.done)
		text := []byte(reason)
		text = bytes.ToValidUTF8(text[:min(len(text), 120)], nil) // a control frame holds 125 bytes
		message := websocket.FormatCloseMessage(code, string(text))
		_ = c.ws.WriteControl(websocket.CloseMessage, message, time.Now().Add(time.Second)) // it may be gone already
		if unread {
			linger(c.ws.NetConn())
		}
		c.ws.Close()
	})
	c.over.Wait()
}

// linger takes what the other side still sends, within bounds, until it has heard why this side closes. A connection that is
// closed with bytes unread is reset, and the reason lost with it (RFC 9112, section 9.6).
func linger(conn net.Conn) {
	const patience, limit = time.Second, 4 * MaxMessage
	if conn.SetReadDeadline(time.Now().Add(patience)) == nil {
		_, _ = io.CopyN(io.Discard, conn, limit) // it ends with whatever ends the connection
	}
}

// sending reports whether something waits to be sent, and can be.
func (c *Conn) sending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.unsent) > 0 && c.err == nil
}

// Flush waits until what is queued was sent, for at most d.
func (c *Conn) Flush(d time.Duration) {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for c.sending() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return
		case <-c.done:
			return
		}
	}
}
