package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
)

// creelBinary builds the real program, once.
var creelBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "creel-bin")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "creel")
	out, err := exec.Command("go", "build", "-o", bin, "github.com/creelhq/creel/cmd/creel").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build creel: %w: %s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	if config := os.Getenv(etcdProcess); config != "" {
		serveEtcd(config) // and nothing else: this is a process of a test
	}
	code := m.Run()
	if bin, err := creelBinary(); err == nil {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// sink is an OTLP/HTTP server that can be taken away and brought back. It answers when it has noted the lines, whatever they
// are: a tally counts numbered ones.
type sink struct {
	address string
	server  *http.Server

	mu    sync.Mutex
	lines map[string]int
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	b, err := otlp.Parse(creel.Logs, body, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	for _, l := range b.Logs() {
		s.lines[strings.Clone(l.Body.Str())]++
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (s *sink) open() error {
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		return err
	}
	s.address = l.Addr().String()
	s.server = &http.Server{Handler: s}
	go s.server.Serve(l)
	return nil
}
