package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/control"
)

const hubURL = "https://127.0.0.1:4380"

// world is a test with a hub, within a bubble of time.
func world(t *testing.T, f func(t *testing.T, h *FakeHub)) {
	synctest.Test(t, func(t *testing.T) {
		h := NewFakeHub(t, nil)
		defer func() {
			h.Close()
			time.Sleep(time.Minute) // until all connections are over
			for _, odd := range h.odd {
				t.Error(odd)
			}
		}()
		f(t, h)
	})
}

// logged is a log of a test.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

func (l *logged) log() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func joinOptions(t testing.TB, h *FakeHub) JoinOptions {
	return JoinOptions{URL: hubURL, Token: h.Token(1), Dir: filepath.Join(t.TempDir(), "identity"), Agent: uuid.NewString(), Name: "host", dial: h.Dial}
}

// joined is an identity of a hub's.
func joined(t testing.TB, h *FakeHub) (*Identity, string) {
	t.Helper()
	o := joinOptions(t, h)
	i, err := Join(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return i, o.Dir
}

// background runs an identity until it is stopped.
func background(i *Identity) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { i.Run(ctx); close(done) }()
	return func() { cancel(); <-done }
}

func TestJoin(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		o := joinOptions(t, h)
		if _, err := Open(o.Dir, Options{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("before: %v", err)
		}
		i, err := Join(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if s := i.Status(); s.Generation != 1 || s.Error != "" || time.Until(s.Expires) != 24*time.Hour {
			t.Errorf("it is %+v", s)
		}
		if a := i.Addresses(); a.URL != hubURL || a.OTLPGRPC != "127.0.0.1:4380" || i.Agent() != o.Agent || i.Trusted() != h.Bundle() {
			t.Errorf("the hub is at %+v, the agent %s", a, i.Agent())
		}
		for path, want := range map[string]os.FileMode{o.Dir: 0o700, filepath.Join(o.Dir, fileName): 0o600} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want && runtime.GOOS != "windows" {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
		if text, _ := os.ReadFile(filepath.Join(o.Dir, fileName)); strings.Contains(string(text), o.Token) {
			t.Error("the token is kept")
		}
		if _, err := i.ServerTLS(); err == nil {
			t.Error("it is a server's")
		}

		// Again, at the same hub: it knows the agent by the certificate that it shows.
		o.Token = h.Token(1)
		if i, err = Join(t.Context(), o); err != nil || i.Status().Generation != 2 {
			t.Errorf("again: %v", err)
		}
		o.Dir = filepath.Join(t.TempDir(), "other")
		o.Token = h.Token(1)
		if _, err = Join(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another agent has this id") {
			t.Errorf("as somebody else: %v", err)
		}
	})
}

// TestJoinRefused: each error says what is wrong and what to do, and who is not the hub hears nothing.
func TestJoinRefused(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		other := newAuthority(t, "other", time.Now())
		right := h.shows
		f := func(what, want string, sent bool, change func(o *JoinOptions)) {
			t.Helper()
			h.Do(func() { h.shows = right; h.requests = map[string]int{} })
			o := joinOptions(t, h)
			change(&o)
			_, err := Join(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", what, err, want)
			}
			if n := h.count(control.EnrolPath); (n > 0) != sent {
				t.Errorf("%s: %d requests", what, n)
			}
		}
		show := func(c *tls.Certificate) func(*JoinOptions) {
			return func(*JoinOptions) { h.Do(func() { h.shows = c }) }
		}
		f("a spent token", "used as often as it may; make another", true, func(o *JoinOptions) { h.Do(func() { h.uses[o.Token] = 0 }) })
		f("an unknown token", "not known here", true, func(o *JoinOptions) { h.Do(func() { delete(h.uses, o.Token) }) })
		f("another hub", "somebody is in between", false, show(other.server(h.ID, time.Now(), time.Hour)))
		stolen := other.server(h.ID, time.Now(), time.Hour, "127.0.0.1")
		stolen.Certificate = append(stolen.Certificate, h.issuer.cert.Raw) // it is public
		f("in between, with the hub's authority", "does not lead to the authority", false, show(stolen))
		f("an expired hub", "set the clock", false, show(h.issuer.server(h.ID, time.Now().Add(-2*time.Hour), time.Hour)))
		f("another name", "not 127.0.0.1", false, show(h.issuer.server("", time.Now(), time.Hour, "10.0.0.1")))
		agent := h.issuer.server("", time.Now(), time.Hour)
		f("nobody's name", "certificate", false, show(agent))
		f("http", "is not https", false, func(o *JoinOptions) { o.URL = "http://hub.example:4380" })
		f("no URL", "must be a URL", false, func(o *JoinOptions) { o.URL = "hub" })
		f("no token", "creel token create", false, func(o *JoinOptions) { o.Token = "secret" })
		f("on loopback", ErrNothingToJoin.Error(), false, func(o *JoinOptions) { o.URL = "http://127.0.0.1:4380" })
		f("no fingerprint", "has no fingerprint", false, func(o *JoinOptions) { o.Token = o.Token[:strings.LastIndexByte(o.Token, '_')] })
		f("no hub there", "refused on purpose", false, func(o *JoinOptions) {
			o.dial = func(ctx context.Context, n, a string) (net.Conn, error) { return nil, errors.New("refused on purpose") }
		})
		f("no creel", "is it a creel hub", true, func(*JoinOptions) {
			h.Do(func() { h.refuse = func(string) *control.Refusal { return &control.Refusal{} } })
		})
		h.Do(func() { h.refuse = nil })
		f("what it tells to trust is not what it shows", "could not reach it", true, func(*JoinOptions) {
			h.Do(func() { h.issuer, h.bundle = other, []*authority{other} })
		})
	})
}

// TestJoinOther: an agent goes to another hub when it is told so twice.
func TestJoinOther(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		i, dir := joined(t, h)
		second := NewFakeHub(t, nil)
		defer second.Close()
		o := joinOptions(t, second)
		o.Dir, o.Agent = dir, i.Agent()
		if _, err := Join(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--again") || second.count(control.EnrolPath) != 0 {
			t.Errorf("goes to another hub: %v", err)
		}
		if i, err := Open(dir, Options{}); err != nil || i.Trusted() != h.Bundle() {
			t.Errorf("it does not stay: %v", err)
		}
		o.Again = true
		if i, err := Join(t.Context(), o); err != nil || i.Trusted() != second.Bundle() || i.Status().Generation != 1 {
			t.Errorf("it does not go: %v", err)
		}
	})
}

// TestOwnCertificate: a hub that brings a certificate of its own is known by its host's name.
func TestOwnCertificate(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		web := newAuthority(t, "web", time.Now())
		h.Do(func() {
			h.shows = web.server("", time.Now(), 90*24*time.Hour, "127.0.0.1")
			h.bundle = append(h.bundle, web)
		})
		o := joinOptions(t, h)
		token, _ := control.ParseToken(o.Token)
		token.Fingerprint = web.print()
		o.Token = token.String()
		h.Do(func() { h.uses[o.Token] = 1 })
		i, err := Join(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := i.renew(t.Context()); err != nil {
			t.Error(err)
		}
		h.Do(func() { h.shows = web.server("", time.Now(), 90*24*time.Hour, "127.0.0.2") })
		if err := i.renew(t.Context()); err == nil || !strings.Contains(err.Error(), "not 127.0.0.1") {
			t.Errorf("under another name: %v", err)
		}
	})
}

// TestCopies: what others may have read, or could change, is not used, and the error says what to do.
func TestCopies(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing there")
	}
	world(t, func(t *testing.T, h *FakeHub) {
		_, dir := joined(t, h)
		file := filepath.Join(dir, fileName)
		f := func(what, want string) {
			t.Helper()
			_, err := Open(dir, Options{})
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", what, err, want)
			}
		}
		f("as it was made", "")
		os.Chmod(dir, 0o750)
		f("a wide directory", "mode 0750), so that the key in it may be known to them; if it was only copied carelessly, chmod 0700")
		os.Chmod(dir, 0o700)
		os.Chmod(file, 0o644)
		f("a wide file", "chmod 0600")
		os.Chmod(file, 0o600)
		if os.Geteuid() == 0 {
			os.Chown(file, 65534, -1)
			f("somebody else's", "belongs to user 65534")
			os.Chown(file, 0, -1)
		}
		f("mended", "")
		os.Rename(file, file+".away")
		os.Symlink(file+".away", file)
		f("a link", "no regular file")
		os.Remove(file)
		text, _ := os.ReadFile(file + ".away")
		for n := range len(text) - 2 { // without the last brace, which is all that may be missed
			if n%97 == 0 {
				os.WriteFile(file, text[:n], 0o600)
				f(fmt.Sprintf("the first %d bytes", n), "creel join")
			}
		}
		os.WriteFile(file, bytes.Replace(text, []byte(`"version": 1`), []byte(`"version": 2`), 1), 0o600)
		f("of another version", "version 2")
		os.Remove(file)
		link := dir + ".link"
		os.Symlink(dir, link)
		if _, err := Open(link, Options{}); err == nil || !strings.Contains(err.Error(), "no directory") {
			t.Errorf("a linked directory: %v", err)
		}
	})
}

// TestDamaged: a damaged identity is replaced when that is asked for, and is kept beside.
func TestDamaged(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		o := joinOptions(t, h)
		o.Token = h.Token(2)
		if _, err := Join(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(o.Dir, fileName), []byte("{"), 0o600)
		o.Agent = uuid.NewString()
		if _, err := Join(t.Context(), o); !errors.Is(err, errDamaged) {
			t.Errorf("it is overwritten: %v", err)
		}
		o.Again = true
		if _, err := Join(t.Context(), o); err != nil {
			t.Error(err)
		}
		if kept, _ := filepath.Glob(filepath.Join(o.Dir, "*.damaged-*")); len(kept) != 1 {
			t.Errorf("kept are %v", kept)
		}
	})
}

// TestSystem: where the hub says that it may, a certificate of the system's authorities counts as well, but not as a hub's own name.
func TestSystem(t *testing.T) {
	now := time.Now()
	own, web, other := newAuthority(t, "own", now), newAuthority(t, "web", now), newAuthority(t, "other", now)
	c := &credentials{roots: own.pool()}
	trusts := func(c *credentials, shown *tls.Certificate) bool {
		list := []*x509.Certificate{shown.Leaf}
		return c.verifyHub(list, now.Add(time.Minute)) == nil
	}
	id := uuid.NewString()
	hub, site, forged, strange := own.server(id, now, time.Hour), web.server("", now, time.Hour, "hub.example"), web.server(id, now, time.Hour), other.server("", now, time.Hour, "hub.example")
	if !trusts(c, hub) || trusts(c, site) {
		t.Error("without the system's authorities, only the hub's own counts")
	}
	c.system = web.pool()
	if !trusts(c, hub) || !trusts(c, site) {
		t.Error("with the system's authorities, both count")
	}
	if trusts(c, forged) {
		t.Error("an authority of the system makes itself a hub")
	}
	if trusts(c, strange) {
		t.Error("an authority of nobody's counts")
	}
}
