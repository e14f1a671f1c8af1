package pipeline

import (
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
)

// keepBooks enters all that is entered of a batch of n records on its way through two processors to one exporter.
func keepBooks(st *stage, a *account, n int) {
	st.book.accepted.Add(int64(n))
	for range 2 {
		st.count(creel.Counts{})
	}
	st.book.passed.Add(int64(n))
	a.in.Add(int64(n))
	a.queued.Add(int64(n))
	a.delivered.Add(int64(n))
	a.dropped.add(Refused, 0)
	a.queued.Add(int64(-n))
}

// BenchmarkLedger is the part of BenchmarkPipeline that is the ledger's; BenchmarkLedgerShared has two collectors enter into the
// same books at the same time, and no work in between.
func BenchmarkLedger(b *testing.B) {
	st, a := &stage{book: &book{}}, &account{}
	for b.Loop() {
		keepBooks(st, a, 1000)
	}
}

func BenchmarkLedgerShared(b *testing.B) {
	st, a := &stage{book: &book{}}, &account{}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			keepBooks(st, a, 1000)
		}
	})
}

// BenchmarkAudit looks at the books of a hundred pipelines with two exporters once, as is done each second.
func BenchmarkAudit(b *testing.B) {
	e := New(Options{Metrics: metric.NewSet()})
	for i := range 100 {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26))
		e.books.account(name, "x")
		e.books.account(name, "y")
	}
	for b.Loop() {
		if !e.lookAtBooks(time.Now(), make(map[any]bool)) {
			b.Fatal("nothing moves, and it is not quiet")
		}
	}
}
