package pipeline_test

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/spool"
)

// sinkOf returns how the exporter is.
func sinkOf(e *pipeline.Engine) report.Component {
	list := e.Components()
	return list[slices.IndexFunc(list, func(c report.Component) bool { return c.Component == "exporters.sink" })]
}

// TestBrokenAcks: the disk queue cannot write what was delivered. All is delivered all the same, who waits at level disk is
// told so, and health tells of it.
func TestBrokenAcks(t *testing.T) {
	w := newWorld(t)
	acks := filepath.Join(w.dir, "spool", "sink", "acks.tmp")
	if err := os.MkdirAll(filepath.Join(acks, "sub"), 0o700); err != nil { // where they are written anew
		t.Fatal(err)
	}
	e := w.engine()
	w.apply(e, one("gen", "", small+", spool: {min_free: 0}", "disk"))
	w.await("records arrive", func() bool { return len(w.arrived["sink"]) > 100 })
	w.await("they are said to be safe", func() bool { return w.safe > 100 })
	w.await("health tells of it", func() bool { c := sinkOf(e); return !c.Healthy && strings.Contains(c.Error, acks) })
	if err := os.Remove(filepath.Join(acks, "sub")); err != nil {
		t.Fatal(err)
	}
	w.await("it is healthy by itself", func() bool { return sinkOf(e).Healthy })
}

// TestDropOldestInHand: the disk queue gives up what is also in memory, on its way to a far side that does not answer. What is
// not delivered then counts as dropped, when it is nowhere any more.
func TestDropOldestInHand(t *testing.T) {
	for _, how := range []string{"drain", "without a disk queue"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			w.size = 100
			e := w.engine()
			gate := make(chan struct{})
			w.hung["sink"] = gate
			w.apply(e, one("gen", "", small+", spool: {min_free: 0, max_size: 1MiB, when_full: drop_oldest}", "process"))
			w.await("the oldest go", func() bool {
				s := e.Ledger().Spools[0]
				return s.Dropped["spool_full"] > 5000
			})
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			err := error(nil)
			if how == "drain" {
				err = e.Drain(ctx)
			} else {
				_, err = e.Apply(ctx, w.compile(one("manual", "", "", "delivered")))
			}
			close(gate)
			if err != nil {
				t.Fatal(err)
			}
			s := spoolOf(t, e)
			r, err := spool.Inspect(filepath.Join(w.dir, "spool", "sink"), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if int64(r.Waiting) != s.Waiting {
				t.Errorf("on the disk %d records wait, in the books %d: %+v", r.Waiting, s.Waiting, s)
			}
			for _, p := range e.Ledger().Pipelines {
				if p.Unexplained != 0 || p.Exporters[0].Unexplained != 0 {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

// TestTroubleEnds: when the disk is well again, health says so, although nothing comes any more.
func TestTroubleEnds(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.failing("sink", errAway)
	w.apply(e, one("gen", "", small+", spool: {min_free: 0, max_size: 1MiB}", "process"))
	w.await("it is full", func() bool { s := sinkOf(e).Spool; return s != nil && s.Error != "" })
	if s := sinkOf(e).Spool; !strings.Contains(s.Error, filepath.Join(w.dir, "spool", "sink")) || !strings.Contains(s.Error, "max_size") || !s.Full {
		t.Errorf("the cause is %q, full %v", s.Error, s.Full)
	}
	w.failing("sink", nil)
	text := one("manual", "", small+", spool: {min_free: 0, max_size: 1MiB}", "process")
	w.apply(e, text) // nothing comes any more
	w.await("all is delivered", func() bool { return e.Ledger().Spools[0].Waiting == 0 })
	w.await("it is healthy", func() bool { s := sinkOf(e); return s.Healthy && s.Spool.Error == "" && !s.Spool.Full })
}

// TestClockWasAhead: a disk queue was written while the clock was far ahead, and is read when it is right again. All arrives,
// and nothing is said to be from the future.
func TestClockWasAhead(t *testing.T) {
	w := newWorld(t)
	text := one("manual", "", "breaker: {enabled: true, open_for: 20ms, probes: 1}, spool: {min_free: 0}", "process")
	e := w.engine()
	w.failing("sink", errAway)
	w.apply(e, text)
	w.await("a batch is safe", func() bool { return w.safe == 4 })
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(w.dir, "spool", "sink", "*.seg"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	b, err := os.ReadFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint64(b[48:], uint64(time.Now().AddDate(10, 0, 0).UnixNano())) // when the segment was made
	binary.LittleEndian.PutUint32(b[12:], crc32.Update(crc32.Checksum(b[:12], table), table, b[16:64]))
	if err := os.WriteFile(list[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	f := w.engine()
	w.apply(f, text)
	s := sinkOf(f).Spool
	if s.Waiting != 4 || s.Oldest.IsZero() || s.Oldest.After(time.Now()) {
		t.Errorf("a disk queue from the future: %+v", s)
	}
	w.failing("sink", nil)
	w.await("all arrives", func() bool { return len(w.arrived["sink"]) >= 4 && f.Ledger().Spools[0].Waiting == 0 })
	for _, x := range []float64{s.InRate, s.OutRate, s.FullIn, s.EmptyIn} {
		if x < 0 {
			t.Errorf("%+v", s)
		}
	}
}
