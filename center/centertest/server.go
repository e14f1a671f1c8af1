// Package centertest has a Consul, a Nacos, a Eureka and a DNS server for tests: as much of them as a center uses, by the
// letter of their protocols, and the bad luck that one has with them. TestRegistry is what every Registry has to pass.
//
// They hold what tests put there, and know nothing of what it means.
package centertest

import (
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// server is an HTTP server on loopback that can be stopped, started again at its address, and made to fail.
type server struct {
	t       testing.TB
	handler http.Handler
	address string

	mu       sync.Mutex
	running  *http.Server
	faults   []http.HandlerFunc // for the next requests
	deaf     func(*http.Request) bool
	happened int
	requests int
}

const anyPort = "127.0.0.1:0"

func (s *server) begin(t testing.TB, handler http.Handler) {
	s.t, s.handler, s.address = t, handler, anyPort
	s.Start()
	t.Cleanup(s.Stop)
}

// URL is where the server is.
func (s *server) URL() string { return "http://" + s.address }

// Stop ends the server, and breaks its connections.
func (s *server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		_ = s.running.Close() // of a test
		s.running = nil
	}
}

// Start starts the server again, with what it had.
func (s *server) Start() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.address == anyPort {
		s.address = l.Addr().String()
	}
	s.running = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 10 * time.Second}
	go s.running.Serve(l)
}

// Fail has the next requests answered by faults, one each, in place of the server. Status, Text, Hang and Cut are some.
func (s *server) Fail(faults ...http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// Ignore has requests answered 503 that meet a condition; nil: none any more.
func (s *server) Ignore(is func(*http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = is
}

// Failed returns how many faults have happened: a test that waits for none has tested nothing.
func (s *server) Failed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.happened
}

// Requests returns how many requests there were, failed ones included.
func (s *server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	handle := s.handler.ServeHTTP
	if len(s.faults) > 0 {
		handle, s.faults = s.faults[0], s.faults[1:]
		s.happened++
	} else if s.deaf != nil && s.deaf(r) {
		handle = Status(http.StatusServiceUnavailable, "it is not heard")
		s.happened++
	}
	s.mu.Unlock()
	handle(w, r)
}

// Status answers with a status and a text.
func Status(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, code) }
}

// Text answers 200 with any text: another server's, say.
func Text(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
}

// Hang answers nothing until the client gives up.
func Hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // else it is not noticed that the client gives up
	<-r.Context().Done()
}

// Cut breaks the connection in the middle of the answer.
func Cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = w.Write([]byte("half"))
	_ = http.NewResponseController(w).Flush() // else the client sees no answer at all, and asks again by itself
	panic(http.ErrAbortHandler)
}
