package otlp_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugins/otlp"
)

// An h2 is the server's end of an HTTP/2 connection that follows no rules: RFC 9113 by hand.
type h2 struct {
	net.Conn
	r *bufio.Reader
}

// Types and flags of frames.
const (
	frameData, frameHeaders, frameReset, frameSettings, frameGoAway, frameContinuation = 0, 1, 3, 4, 7, 9

	flagAck, flagEndStream, flagEndHeaders = 1, 1, 4
)

func (c *h2) write(kind, flags byte, stream uint32, payload []byte) error {
	head := append(make([]byte, 0, 9+len(payload)), byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	_, err := c.Write(append(binary.BigEndian.AppendUint32(head, stream), payload...))
	return err
}

// read returns the next frame.
func (c *h2) read() (kind, flags byte, stream uint32, err error) {
	var head [9]byte
	if _, err = io.ReadFull(c.r, head[:]); err == nil {
		_, err = c.r.Discard(int(head[0])<<16 | int(head[1])<<8 | int(head[2]))
	}
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]), err
}

// request reads until a request has come as a whole, and returns its stream.
func (c *h2) request() (uint32, error) {
	for {
		kind, flags, stream, err := c.read()
		switch {
		case err != nil:
			return 0, err
		case kind == frameSettings && flags&flagAck == 0:
			_ = c.write(frameSettings, flagAck, 0, nil)
		case kind == frameData && flags&flagEndStream != 0:
			return stream, nil
		}
	}
}

// flood writes a frame over and over until the client has had enough of the stream, or of the connection, and returns how
// many bytes that took.
func (c *h2) flood(kind, flags byte, stream uint32, payload []byte) (n int64) {
	enough := make(chan struct{})
	go func() {
		defer close(enough)
		for {
			if kind, _, of, err := c.read(); err != nil || kind == frameReset && of == stream {
				return
			}
		}
	}()
	for c.write(kind, flags, stream, payload) == nil {
		n += int64(len(payload))
		select {
		case <-enough:
			return n
		default:
		}
	}
	<-enough
	return n
}

// headers are header fields as HPACK has them, without an index or Huffman's code: the last two bytes of lengths are 7 bits.
func headers(fields ...string) (b []byte) {
	for i := 0; i < len(fields); i += 2 {
		b = append(append(b, 0, byte(len(fields[i]))), fields[i]...)
		b = append(append(b, byte(len(fields[i+1]))), fields[i+1]...)
	}
	return b
}

var (
	taken    = headers(":status", "200", "content-type", "application/grpc")
	trailers = func(status string) []byte { return headers("grpc-status", status, "grpc-message", "on purpose") }
)

// message is a gRPC message: its flag, its length, and what there is of it.
func message(flag byte, length uint32, text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flag}, length), text...)
}

// TestHostileGRPC is TestHostileHTTP for gRPC.
func TestHostileGRPC(t *testing.T) {
	var flooded atomic.Int64
	rst := func(code byte) func(*h2, uint32) {
		return func(c *h2, s uint32) { _ = c.write(frameReset, 0, s, []byte{0, 0, 0, code}) }
	}
	answer := func(s uint32, c *h2, frames ...[]byte) { // headers, a message, and trailers, which end it
		_ = c.write(frameHeaders, flagEndHeaders, s, frames[0])
		if len(frames) > 1 {
			_ = c.write(frameData, 0, s, frames[1])
		}
		if len(frames) > 2 {
			_ = c.write(frameHeaders, flagEndHeaders|flagEndStream, s, frames[2])
		}
	}
	goAway := func(c *h2, last uint32, code byte) {
		_ = c.write(frameGoAway, 0, 0, append(binary.BigEndian.AppendUint32(nil, last), 0, 0, 0, code))
	}
	for _, f := range []grpcFault{
		{"hangs", func(*h2, uint32) {}, "late"},
		{"hangs in its answer", func(c *h2, s uint32) { answer(s, c, taken) }, "late"},
		{"dies after it took the request", func(c *h2, _ uint32) { c.Close() }, "again"},
		{"resets after it took the request", func(c *h2, _ uint32) { reset(c.Conn) }, "again"},
		{"resets in its answer", func(c *h2, s uint32) { _ = c.write(frameHeaders, flagEndHeaders, s, taken); reset(c.Conn) }, "again"},
		{"RST_STREAM NO_ERROR", rst(0), "again"},
		{"RST_STREAM PROTOCOL_ERROR", rst(1), "again"},
		{"RST_STREAM INTERNAL_ERROR", rst(2), "again"},
		{"RST_STREAM CANCEL", rst(8), "again"},
		{"RST_STREAM ENHANCE_YOUR_CALM", rst(11), "throttled"},
		{"GOAWAY, and dies", func(c *h2, s uint32) { goAway(c, s, 0); c.Close() }, "again"},
		{"GOAWAY with an error, and dies", func(c *h2, s uint32) { goAway(c, s, 2); c.Close() }, "again"},
		{"sends garbage", func(c *h2, _ uint32) { fmt.Fprint(c, strings.Repeat("garbage\x00\xff", 100)) }, "again"},
		{"answers garbage", func(c *h2, s uint32) { answer(s, c, taken, message(0, 7, "garbage"), trailers("0")) }, "delivered"},
		{"answers in a code unknown", func(c *h2, s uint32) { answer(s, c, taken, message(1, 7, "garbage")) }, "again"},
		{"answers without end", func(c *h2, s uint32) {
			_ = c.write(frameHeaders, flagEndHeaders, s, taken)
			_ = c.write(frameData, 0, s, message(0, 500<<20, ""))
			flooded.Add(c.flood(frameData, 0, s, make([]byte, 16<<10)))
		}, "delivered"},
		{"sends headers without end", func(c *h2, s uint32) {
			_ = c.write(frameHeaders, 0, s, taken)
			flooded.Add(c.flood(frameContinuation, 0, s, headers("x-more", strings.Repeat("x", 100))))
		}, "again"},
		{"sends hints without end", func(c *h2, s uint32) {
			flooded.Add(c.flood(frameHeaders, flagEndHeaders, s, headers(":status", "103")))
		}, "late"},
		{"answers without a status", func(c *h2, s uint32) { answer(s, c, taken, nil, headers("x", "y")) }, "refused"},
		{"answers with a status that is none", func(c *h2, s uint32) { answer(s, c, taken, nil, headers("grpc-status", "x")) }, "again"},
		{"does not know the method", func(c *h2, s uint32) { answer(s, c, taken, nil, trailers("12")) }, "refused"},
		{"is a proxy without a server", func(c *h2, s uint32) {
			answer(s, c, headers(":status", "502", "content-type", "text/html"), []byte("<p>"), nil)
		}, "again"},
		{"is a web server", func(c *h2, s uint32) {
			answer(s, c, headers(":status", "404", "content-type", "text/html"), []byte("<p>"), nil)
		}, "again"},
	} {
		t.Run(f.name, func(t *testing.T) {
			f.test(t)
			if n := flooded.Swap(0); (n > 0) != strings.HasSuffix(f.name, "without end") || n > patience {
				t.Errorf("%d bytes were sent", n)
			}
		})
	}
}

// grpcFault is what a server does with the first request, and what the export is then to be.
type grpcFault struct {
	name  string
	fault func(c *h2, stream uint32)
	want  string
}

func (f grpcFault) test(t *testing.T) {
	var faults, healthy atomic.Int64
	var well atomic.Bool
	faulty := make(chan struct{})
	address := listen(t, func(conn net.Conn) {
		c := &h2{conn, bufio.NewReader(conn)}
		if _, err := c.r.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil || c.write(frameSettings, 0, 0, nil) != nil {
			return
		}
		for {
			stream, err := c.request()
			if err != nil {
				return
			}
			if !well.Load() {
				faults.Add(1)
				f.fault(c, stream)
				close(faulty)
				continue
			}
			healthy.Add(1)
			_ = c.write(frameHeaders, flagEndHeaders, stream, taken)
			_ = c.write(frameData, 0, stream, message(0, 0, ""))
			_ = c.write(frameHeaders, flagEndHeaders|flagEndStream, stream, trailers("0"))
		}
	})
	x := open(t, otlp.Exporter, "{compression: none, endpoint: 'http://"+address+"'}", creel.Host{}).(creel.Exporter)
	ctx, cancel := context.WithTimeout(t.Context(), patienceOf(map[bool]string{true: "hangs"}[f.want == "late"]))
	defer cancel()
	err := x.Export(ctx, batches()[:1])
	if got := outcome(err); got != f.want && !(f.want == "late" && got == "again" && ctx.Err() != nil) {
		t.Errorf("%s (%v), want %s", got, err, f.want)
	}
	await(t, faulty)
	well.Store(true)
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for err := error(nil); healthy.Load() == 0 && ctx.Err() == nil; { // it may take the connection a moment to be made again
		if err = x.Export(ctx, batches()[:1]); (err == nil) != (healthy.Load() > 0) || creel.IsPermanent(err) {
			t.Fatalf("afterwards: %v", err)
		}
	}
	if n := faults.Load(); n != 1 {
		t.Errorf("it happened %d times", n)
	}
}

// mortal is an OTLP server whose connections break when it has taken a request, as often as deaths says.
type mortal struct {
	plogotlp.UnimplementedGRPCServer
	deaths atomic.Int64
	kill   func()
	names  chan string
}

func (m *mortal) Export(ctx context.Context, _ plogotlp.ExportRequest) (plogotlp.ExportResponse, error) {
	m.names <- strings.Join(metadata.ValueFromIncomingContext(ctx, "creel-batch-id"), ",")
	if m.deaths.Add(-1) >= 0 {
		m.kill()
	}
	return plogotlp.NewExportResponse(), nil
}

type trackedListener struct {
	net.Listener
	last atomic.Pointer[net.TCPConn]
}

func (l *trackedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.last.Store(c.(*net.TCPConn))
	}
	return c, err
}

// TestSameNameAgain: a server that dies between taking a request and answering it sees the same name when the request comes
// again.
func TestSameNameAgain(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &trackedListener{Listener: inner}
	m := &mortal{kill: func() { reset(l.last.Load()) }, names: make(chan string, 8)}
	m.deaths.Store(3)
	s := grpc.NewServer()
	plogotlp.RegisterGRPCServer(s, m)
	go s.Serve(l)
	defer s.Stop()
	x := open(t, otlp.Exporter, "{endpoint: 'http://"+inner.Addr().String()+"'}", creel.Host{}).(creel.Exporter)
	ctx := creel.WithRequest(t.Context(), creel.Request{ID: creel.ID{15: 7}})
	for attempt := range 4 {
		err := x.Export(ctx, batches()[:1])
		if want := map[bool]string{true: "again", false: "delivered"}[attempt < 3]; outcome(err) != want {
			t.Fatalf("attempt %d: %v", attempt, err)
		}
		if got := <-m.names; got != "00000000000000000000000000000007" {
			t.Errorf("attempt %d: the batch is called %q", attempt, got)
		}
	}
	if len(m.names) > 0 {
		t.Errorf("it was sent %d times more", len(m.names))
	}
}
