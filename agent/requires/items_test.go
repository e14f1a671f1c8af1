package requires

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// says fails unless a verdict is an error that begins and continues so, or fine if nothing is wanted.
func says(t *testing.T, err error, parts ...string) {
	t.Helper()
	if len(parts) == 0 {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if err == nil {
		t.Errorf("nothing is missing, not %q", parts)
		return
	}
	at := err.Error()
	for _, p := range parts {
		_, rest, ok := strings.Cut(at, p)
		if !ok {
			t.Errorf("it says %v, not %q", err, parts)
			return
		}
		at = rest
	}
}

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	file, logs := filepath.Join(dir, "a.conf"), filepath.Join(dir, "*.log")
	write := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	says(t, path(file), file+" does not exist; create or mount it")
	says(t, path(logs), "nothing matches "+logs+"; create it")
	write("a.conf")
	write("b.log")
	says(t, path(file))
	says(t, path(logs))
	says(t, path(dir))
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "a.log")); err != nil {
		t.Skip(err) // not everybody may
	}
	says(t, path(logs)) // one is enough
	if err := os.Remove(filepath.Join(dir, "b.log")); err != nil {
		t.Fatal(err)
	}
	says(t, path(logs), filepath.Join(dir, "a.log")+" does not exist")
	odd := filepath.Join(dir, "[1")
	write("[1")
	says(t, path(odd)) // it is its own name first
}

// listen returns a listener on loopback. Its port is none that connections are given by the system, so that nobody else
// gets it when it is closed.
func listen(t *testing.T) net.Listener {
	t.Helper()
	for range 100 {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 20000+rand.IntN(10000))); err == nil {
			t.Cleanup(func() { l.Close() })
			return l
		}
	}
	t.Fatal("there is no free port")
	return nil
}

// TestPorts: a port of another is missing, one's own or a free one is not.
func TestPorts(t *testing.T) {
	l := listen(t)
	a := l.Addr().String()
	_, port, _ := net.SplitHostPort(a)
	own := false
	g := New(Config{Timeout: time.Minute, Ports: []string{a, ":" + port, "0.0.0.0:" + port, "localhost:" + port}}, "", func(string) bool { return own }, silence)
	v := g.Check(t.Context())
	says(t, v[0].Err, a+" is in use by another process", "; :"+port+" is in use", "; 0.0.0.0:"+port+" is in use", "; localhost:"+port+" is in use")
	own = true
	says(t, g.Check(t.Context())[0].Err)
	own = false
	l.Close()
	says(t, g.Check(t.Context())[0].Err)
	says(t, g.port(t.Context(), "192.0.2.1:"+port), "the agent cannot listen at 192.0.2.1:"+port+": ")
}

// TestPortIsNotTaken: while a port is checked all the time, the agent can listen there, and nobody connects to the check.
func TestPortIsNotTaken(t *testing.T) {
	l := listen(t)
	a := l.Addr().String()
	l.Close()
	g := New(Config{}, "", nil, silence)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		free := 0
		for ctx.Err() == nil {
			if g.port(context.Background(), a) == nil {
				free++
			}
		}
		done <- free
	}()
	for i := range 300 {
		if c, err := net.Dial("tcp", a); err == nil {
			t.Errorf("try %d: somebody listens", i)
			c.Close()
		}
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Errorf("try %d: %v", i, err)
			continue
		}
		l.Close()
	}
	cancel()
	if free := <-done; free < 10 {
		t.Errorf("the port was found to be free %d times", free)
	}
}

// TestEndpoints: who takes no connection is told of, and nobody else.
func TestEndpoints(t *testing.T) {
	up, down := listen(t), listen(t)
	down.Close()
	g := New(Config{Timeout: time.Minute, Endpoints: []string{up.Addr().String(), down.Addr().String()}}, "", nil, silence)
	v := g.Check(t.Context())
	says(t, v[0].Err, down.Addr().String()+" takes no connection: ", "refused; start it")
	if strings.Contains(v[0].Err.Error(), up.Addr().String()) {
		t.Error("who is there is missing")
	}
	g.Set(Config{Timeout: time.Minute, Endpoints: []string{up.Addr().String()}})
	says(t, g.Check(t.Context())[0].Err)
}

// TestRun: what appears and disappears is told while Run runs.
func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "there")
	g := New(Config{Timeout: time.Minute, Every: 10 * time.Millisecond, Paths: []string{file}, Disk: 1}, filepath.Dir(file), nil, silence)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told, done := make(chan error, 100), make(chan struct{})
	go func() {
		defer close(done)
		g.Run(ctx, func(guard string, err error) {
			if guard != "paths" {
				t.Errorf("%s: %v", guard, err)
			}
			told <- err
		})
	}()
	for range 3 {
		says(t, <-told, file+" does not exist")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		says(t, <-told)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	<-done
}
