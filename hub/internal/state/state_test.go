package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// each runs a test against every kind of Store; open gives another Store on the same state.
func each(t *testing.T, test func(t *testing.T, open func() Store)) {
	closing := func(t *testing.T, s Store) Store {
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	t.Run("memory", func(t *testing.T) {
		m := &Memory{}
		test(t, func() Store { return closing(t, m.Open()) })
	})
	t.Run("outside", func(t *testing.T) {
		client := outside(t)
		test(t, func() Store {
			s, err := Dial(t.Context(), DialOptions{Endpoints: []string{client}})
			if err != nil {
				t.Fatal(err)
			}
			return closing(t, s)
		})
	})
	t.Run("embedded", func(t *testing.T) {
		s, err := Embedded(t.Context(), EmbeddedOptions{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		closing(t, s)
		test(t, func() Store { return closing(t, newEtcd(s.(*embedded).client, s.(*embedded).leases, func() {})) })
	})
}

// outside starts an etcd with a client port, and returns its URL.
func outside(t *testing.T) string {
	t.Helper()
	client, peer := free(t), free(t)
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{client}, []url.URL{client}, []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.TickMs, c.ElectionMs = 50, 500
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(quiet())
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return client.String()
}

// free returns an address below the ports that systems give to whoever connects: one of those could be taken until it is used.
func free(t *testing.T) url.URL {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return url.URL{Scheme: "http", Host: l.Addr().String()}
	}
}

func TestEntries(t *testing.T) {
	each(t, func(t *testing.T, open func() Store) {
		s, ctx := open(), t.Context()
		if _, err := s.Get(ctx, "a/1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("what is not there is %v", err)
		}
		first, err := s.Put(ctx, "a/1", []byte("one"), false, Unchanged(0))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(ctx, "a/1", []byte("again"), false, Unchanged(0)); !errors.Is(err, ErrConflict) {
			t.Errorf("what is there can be made: %v", err)
		}
		second, err := s.Put(ctx, "a/1", nil, false, Unchanged(first))
		if err != nil || second <= first {
			t.Fatalf("revision %d after %d: %v", second, first, err)
		}
		if _, err := s.Put(ctx, "a/2", []byte("two"), false, Always()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(ctx, "b/1", []byte("b"), false, Always()); err != nil {
			t.Fatal(err)
		}
		list, _, err := s.List(ctx, "a/")
		if err != nil || len(list) != 2 || list[0].Key != "a/1" || len(list[0].Value) != 0 || list[0].Revision != second || string(list[1].Value) != "two" {
			t.Errorf("the list is %+v, %v", list, err)
		}
		if err := s.Delete(ctx, "a/1", Unchanged(first)); !errors.Is(err, ErrConflict) {
			t.Errorf("what was changed can be deleted: %v", err)
		}
		if err := s.Delete(ctx, "a/1", Unchanged(second)); err != nil {
			t.Error(err)
		}
		if err := s.Delete(ctx, "a/1", Always()); err != nil {
			t.Errorf("what is not there cannot be deleted: %v", err)
		}
	})
}

// TestCompareAndSwap has many count at once: no count is lost.
func TestCompareAndSwap(t *testing.T) {
	each(t, func(t *testing.T, open func() Store) {
		const workers, rounds = 8, 15
		var wg sync.WaitGroup
		for range workers {
			s := open()
			wg.Go(func() {
				for done := 0; done < rounds; {
					e, err := s.Get(t.Context(), "count")
					if err != nil && !errors.Is(err, ErrNotFound) {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(string(e.Value)) // nothing is 0
					_, err = s.Put(t.Context(), "count", []byte(strconv.Itoa(n+1)), false, Unchanged(e.Revision))
					switch {
					case err == nil:
						done++
					case !errors.Is(err, ErrConflict):
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if e, err := open().Get(t.Context(), "count"); err != nil || string(e.Value) != strconv.Itoa(workers*rounds) {
			t.Errorf("counted %s, %v", e.Value, err)
		}
	})
}

// TestFollow lists, and then watches a random writer: the follower ends with what the writer has.
func TestFollow(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	each(t, func(t *testing.T, open func() Store) {
		random := rand.New(rand.NewPCG(seed, 0))
		s, model := open(), make(map[string]string)
		write := func(n int) {
			for range n {
				key := fmt.Sprintf("f/%d", random.IntN(20))
				if random.IntN(4) == 0 {
					if err := s.Delete(t.Context(), key, Always()); err != nil {
						t.Fatal(err)
					}
					delete(model, key)
					continue
				}
				value := strconv.Itoa(random.IntN(1000))
				if _, err := s.Put(t.Context(), key, []byte(value), false, Always()); err != nil {
					t.Fatal(err)
				}
				model[key] = value
			}
		}
		write(50)
		list, revision, err := s.List(t.Context(), "f/")
		if err != nil {
			t.Fatal(err)
		}
		follower := make(map[string]string)
		for _, e := range list {
			follower[e.Key] = string(e.Value)
		}
		ended := make(chan error, 1)
		stop := errors.New("stop")
		other := open()
		go func() {
			last := revision
			ended <- other.Watch(t.Context(), "f/", revision, func(e Entry) error {
				if e.Revision <= last {
					t.Errorf("revision %d after %d", e.Revision, last)
				}
				last = e.Revision
				if e.Value == nil {
					delete(follower, e.Key)
				} else {
					follower[e.Key] = string(e.Value)
				}
				if e.Key == "f/end" {
					return stop
				}
				return nil
			})
		}()
		write(200)
		if _, err := s.Put(t.Context(), "f/end", nil, false, Always()); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, stop) {
			t.Fatal(err)
		}
		model["f/end"] = ""
		if !maps.Equal(model, follower) {
			t.Errorf("the follower has %v, want %v", follower, model)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ended <- s.Watch(ctx, "f/", revision, func(Entry) error { return nil }) }()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a watch that is cancelled ends with %v", err)
		}
	})
}

// TestFollowAfterCompaction: who has missed changes that are not known any more is told of everything, and then of changes.
func TestFollowAfterCompaction(t *testing.T) {
	each(t, func(t *testing.T, open func() Store) {
		s := open()
		var last int64
		for i := range history + 2 {
			if _, ok := s.(*etcd); ok && i == 20 {
				break
			}
			var err error
			if last, err = s.Put(t.Context(), "f/"+strconv.Itoa(i%10), []byte(strconv.Itoa(i)), false, Always()); err != nil {
				t.Fatal(err)
			}
		}
		if e, ok := s.(*etcd); ok {
			if _, err := e.client.Compact(t.Context(), last); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		told, listed := make(chan Entry, 100), make(chan int, 10)
		wg.Go(func() {
			Follow(ctx, s, "f/", 1, slog.New(slog.DiscardHandler), func(list []Entry, revision int64) {
				if revision < last {
					t.Errorf("everything as of revision %d, before %d", revision, last)
				}
				listed <- len(list)
			}, func(e Entry) { told <- e })
		})
		if n := <-listed; n != 10 {
			t.Errorf("%d entries are everything", n)
		}
		if _, err := s.Put(t.Context(), "f/new", []byte("x"), false, Always()); err != nil {
			t.Fatal(err)
		}
		if e := <-told; e.Key != "f/new" {
			t.Errorf("told of %+v", e)
		}
		cancel()
		wg.Wait()
		if len(told)+len(listed) != 0 {
			t.Errorf("%d changes and %d lists more", len(told), len(listed))
		}
	})
}

func TestLease(t *testing.T) {
	each(t, func(t *testing.T, open func() Store) {
		hub, other := open(), open()
		if _, err := hub.Put(t.Context(), "sessions/1", []byte("x"), true, Always()); err != nil {
			t.Fatal(err)
		}
		if _, err := hub.Put(t.Context(), "agents/1", []byte("x"), false, Always()); err != nil {
			t.Fatal(err)
		}
		list, revision, err := other.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Leased != strings.HasPrefix(e.Key, "sessions/") {
				t.Errorf("%s is leased: %v", e.Key, e.Leased)
			}
		}
		gone := errors.New("gone")
		ended := make(chan error, 1)
		go func() {
			ended <- other.Watch(t.Context(), "sessions/", revision, func(e Entry) error {
				if e.Value != nil {
					return nil
				}
				return gone
			})
		}()
		lease := hub.Lease()
		if e, ok := hub.(*etcd); ok { // the cluster takes the lease away
			if _, err := e.client.Revoke(t.Context(), lease.id); err != nil {
				t.Fatal(err)
			}
		} else if err := hub.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, gone) {
			t.Fatal(err)
		}
		if _, err := other.Get(t.Context(), "agents/1"); err != nil {
			t.Errorf("what was not leased is gone: %v", err)
		}
		if e, ok := hub.(*etcd); ok {
			if _, err := e.Put(t.Context(), "sessions/2", nil, true, Always()); err == nil {
				t.Error("a lost lease can be used")
			}
			if _, err := e.Put(t.Context(), "sessions/2", nil, true, Always()); err != nil {
				t.Errorf("there is no other lease: %v", err)
			}
			if hub.Lease() == lease || !hub.Lease().Held() {
				t.Error("the other lease is lost as well")
			}
		}
		select {
		case <-lease.Lost():
		case <-time.After(30 * time.Second):
			t.Error("the loss is not told")
		}
		if lease.Held() {
			t.Error("it is held after it was lost")
		}
	})
}

func TestEmbeddedStartsAgain(t *testing.T) {
	dir := t.TempDir()
	var before int64
	for i := range 3 {
		began := time.Now()
		s, err := Embedded(t.Context(), EmbeddedOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("started in %v", time.Since(began))
		if e, err := s.Get(t.Context(), "kept"); i > 0 && (err != nil || string(e.Value) != strconv.Itoa(i-1)) {
			t.Errorf("start %d finds %s, %v", i, e.Value, err)
		}
		revision, err := s.Put(t.Context(), "kept", []byte(strconv.Itoa(i)), false, Always())
		if err != nil || revision <= before {
			t.Errorf("revision %d after %d: %v", revision, before, err)
		}
		before = revision
		if _, err := Embedded(t.Context(), EmbeddedOptions{Dir: dir, Timeout: time.Second}); err == nil {
			t.Error("two on one directory")
		}
		began = time.Now()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("closing takes %v", d)
		}
	}
}

// TestDamage spoils each file of an etcd's directory: opening says so, or works, and never ends the process.
func TestDamage(t *testing.T) {
	whole := t.TempDir()
	s, err := Embedded(t.Context(), EmbeddedOptions{Dir: whole})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if _, err := s.Put(t.Context(), fmt.Sprintf("k/%d", i), bytes.Repeat([]byte("v"), 500), false, Always()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	spoil := map[string]func(data []byte) []byte{
		"garbage":   func([]byte) []byte { return []byte("garbage") },
		"empty":     func([]byte) []byte { return nil },
		"truncated": func(data []byte) []byte { return data[:len(data)/3] },
		"bits": func(data []byte) []byte {
			for i := 100; i < len(data); i += 500 {
				data[i] ^= 0x55
			}
			return data
		},
	}
	refused := 0
	for name, f := range spoil {
		for _, pattern := range []string{"member/snap/db", "member/wal/*.wal"} {
			if name == "bits" && strings.HasSuffix(pattern, "db") {
				continue // bbolt has no checksums: not every flip can be seen
			}
			dir := filepath.Join(t.TempDir(), "etcd")
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("no file %s", pattern)
			}
			data, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(files[0], f(data), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Embedded(t.Context(), EmbeddedOptions{Dir: dir, Timeout: 5 * time.Second})
			if err == nil {
				s.Close()
				continue
			}
			refused++
			if !strings.Contains(err.Error(), "move the directory away") || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s %s: %v", name, pattern, err)
			}
		}
	}
	if refused < 5 {
		t.Errorf("only %d of 7 kinds of damage were seen", refused)
	}
}
