//go:build !race

package file_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugins/file"
)

// counter is a sink that counts, and cancels when it has seen enough.
type counter struct {
	lines, batches, enough int
	stop                   context.CancelFunc
}

func (c *counter) Send(context.Context, *creel.Batch) error { panic("BUG: there is room") }

func (c *counter) TrySend(b *creel.Batch) bool {
	c.lines += b.Len()
	c.batches++
	creel.Settle(b, nil)
	if c.lines >= c.enough {
		c.stop()
	}
	return true
}

func collect(t testing.TB, m *creel.Memory, path string, lines int) *counter {
	c, err := file.Plugin.Open([]byte(`{"include":["`+path+`"],"start_at":"beginning"}`), creel.Host{Memory: m})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k := &counter{enough: lines, stop: cancel}
	if err := c.(creel.Collector).Collect(ctx, k); err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	if err := c.(interface{ Close() error }).Close(); err != nil {
		t.Fatal(err)
	}
	if k.lines != lines {
		t.Fatalf("%d lines, not %d", k.lines, lines)
	}
	return k
}

func manyLines(t testing.TB, lines int) string {
	path := filepath.Join(t.TempDir(), "big.log")
	line := strings.Repeat("x", 219) + "\n"
	if err := os.WriteFile(path, []byte(strings.Repeat(line, lines)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLinesDoNotAllocate: reading costs allocations for each read of 256 KiB, not for each line.
func TestLinesDoNotAllocate(t *testing.T) {
	const lines = 50_000
	path := manyLines(t, lines)
	var m creel.Memory
	batches := 0
	n := testing.AllocsPerRun(3, func() { batches = collect(t, &m, path, lines).batches })
	if per := n / lines; per > 0.05 {
		t.Errorf("%.0f allocations for %d lines in %d batches: %.3f a line", n, lines, batches, per)
	}
}

// BenchmarkCollect reads lines of 220 bytes; BenchmarkLimit only reads the same file and finds the ends of its lines.
func BenchmarkCollect(b *testing.B) {
	const lines = 200_000
	path := manyLines(b, lines)
	var m creel.Memory
	b.SetBytes(lines * 220)
	for b.Loop() {
		collect(b, &m, path, lines)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/lines, "ns/line")
}

func BenchmarkLimit(b *testing.B) {
	const lines = 200_000
	path := manyLines(b, lines)
	b.SetBytes(lines * 220)
	for b.Loop() {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		found := 0
		for off := int64(0); ; {
			buf := make([]byte, 256<<10)
			n, err := f.ReadAt(buf, off)
			off += int64(n)
			for rest := buf[:n]; ; {
				i := bytes.IndexByte(rest, '\n')
				if i < 0 {
					break
				}
				found++
				rest = rest[i+1:]
			}
			if err != nil {
				break
			}
		}
		f.Close()
		if found != lines {
			b.Fatal(found)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/lines, "ns/line")
}
