package file

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

// rig is a collector without its goroutine: it takes a step when it is told to, at a time that it is told.
type rig struct {
	t       testing.TB
	c       *collector
	now     time.Time
	records []string // body, and what else is remarkable
	full    bool     // the sink has no room; a step ends when it finds out
	refuse  error    // how batches are settled
	logged  strings.Builder
	onBatch func(b *creel.Batch)
}

// newRig returns a rig of a collector whose disk queue had taken something, if that is given.
func newRig(t testing.TB, s creel.State, options string, taken ...func(source uint64) []creel.Range) *rig {
	t.Helper()
	n, err := config.Parse("t.yaml", []byte("{start_at: beginning, "+options+"}"), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	canonical, errs := Plugin.Config.Check(n)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	r := &rig{t: t, now: time.Now()}
	h := creel.Host{State: s, Log: slog.New(slog.NewTextHandler(&r.logged, nil))}
	if len(taken) > 0 {
		h.Taken = taken[0]
	}
	c, err := Plugin.Open(canonical, h)
	if err != nil {
		t.Fatal(err)
	}
	r.c = c.(*collector)
	r.c.load()
	t.Cleanup(func() { r.c.Close() })
	return r
}

func (r *rig) Send(ctx context.Context, b *creel.Batch) error { return context.Canceled }

func (r *rig) TrySend(b *creel.Batch) bool {
	if r.full {
		return false
	}
	if r.onBatch != nil {
		r.onBatch(b)
	}
	r.records = append(r.records, describe(b)...)
	creel.Settle(b, r.refuse)
	return true
}

// describe returns the records of b as text.
func describe(b *creel.Batch) (records []string) {
	for _, l := range b.Logs() {
		text := strings.Clone(l.Body.String())
		if l.Body.Kind() == creel.ValueBytes {
			text = fmt.Sprintf("bytes %q", l.Body.Bytes())
		}
		for _, a := range l.Attrs {
			text += fmt.Sprintf(" [%s %v]", strings.Clone(a.Key), a.Value)
		}
		if l.Time != 0 {
			text += " @" + time.Unix(0, l.Time).UTC().Format(time.RFC3339Nano)
		}
		records = append(records, text)
	}
	return records
}

// step lets d pass, and then everything be read.
func (r *rig) step(d time.Duration) {
	r.t.Helper()
	r.now = r.now.Add(d)
	r.c.polled = time.Time{}
	r.c.poll(r.now)
	for more := true; more; {
		var err error
		if more, err = r.c.round(context.Background(), r, r.now); err != nil && !r.full {
			r.t.Fatal(err)
		} else if err != nil {
			return
		}
		more = saveIfUrgent(r.c) || more
	}
}

// saveIfUrgent saves as the saver does. It reports whether there was need.
func saveIfUrgent(c *collector) bool {
	select {
	case <-c.urgent:
		_ = c.save()
		return true
	default:
		return false
	}
}

// take returns what has arrived since it was last called.
func (r *rig) take() []string {
	got := r.records
	r.records = nil
	return got
}

func (r *rig) want(want ...string) {
	r.t.Helper()
	if got := r.take(); !slices.Equal(got, want) {
		r.t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (r *rig) restart(s creel.State, options string) *rig {
	r.t.Helper()
	if err := r.c.Close(); err != nil {
		r.t.Fatal(err)
	}
	next := newRig(r.t, s, options)
	next.now = r.now
	return next
}

func write(t testing.TB, path string, text []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// read returns what comes of a file that is written in pieces, between which everything is read.
func read(t testing.TB, options string, pieces ...[]byte) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.log")
	write(t, path, nil)
	r := newRig(t, nil, options+", include: ["+path+"]")
	for _, p := range pieces {
		write(t, path, p)
		r.step(0)
	}
	r.step(time.Hour) // what is open is sent
	got := r.take()
	if tail := r.c.tails[0]; tail.acked.committed != tail.pos {
		t.Fatalf("everything was acknowledged, but the position is %d, not %d", tail.acked.committed, tail.pos)
	}
	if err := r.c.Close(); err != nil {
		t.Fatal(err)
	}
	return got
}
