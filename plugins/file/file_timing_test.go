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

// collect reads a file of which so many records come. options are JSON, each behind a comma.
func collect(t testing.TB, m *creel.Memory, path string, lines int, options string) *counter {
	c, err := file.Plugin.Open([]byte(`{"include":["`+path+`"],"start_at":"beginning"`+options+`}`), creel.Host{Memory: m})
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
	return repeated(t, strings.Repeat("x", 219)+"\n", lines)
}

func repeated(t testing.TB, text string, n int) string {
	path := filepath.Join(t.TempDir(), "big.log")
	if err := os.WriteFile(path, bytes.Repeat([]byte(text), n), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// formats are what makes one record of 206 bytes in each, and the options that it takes.
var formats = func() []struct{ name, text, options string } {
	body := strings.Repeat("x", 206)
	const at = "2024-01-01T00:00:00.123456789Z"
	wide := func(s string) string { return strings.Join(strings.Split(s, ""), "\x00") + "\x00" }
	return []struct{ name, text, options string }{
		{"plain", body + "\n", ""},
		{"cri", at + " stdout F " + body + "\n", `,"format":"cri"`},
		{"cri in two parts", at + " stdout P " + body[:103] + "\n" + at + " stdout F " + body[103:] + "\n", `,"format":"cri"`},
		{"docker", `{"log":"` + body + `\n","stream":"stdout","time":"` + at + "\"}\n", `,"format":"docker"`},
		{"docker with escapes", `{"log":"\"` + body[2:] + `\"\n","stream":"stdout","time":"` + at + "\"}\n", `,"format":"docker"`},
		{"multi-line of three", "A" + body[:67] + "\n" + body[:68] + "\n" + body[:68] + "\n", `,"multiline":{"line_start_pattern":"^A","timeout":"10ms"}`},
		{"utf-16", wide(body + "\n"), `,"encoding":"utf-16le"`},
		{"gbk", "\xd6\xd0" + body[2:] + "\n", `,"encoding":"gbk"`},
	}
}()

// TestFormatsDoNotAllocate: nor does it for each record, in the formats that take more than finding the ends of lines.
func TestFormatsDoNotAllocate(t *testing.T) {
	const records = 20_000
	for _, f := range formats {
		path := repeated(t, f.text, records)
		var m creel.Memory
		n := testing.AllocsPerRun(3, func() { collect(t, &m, path, records, f.options) })
		if per := n / records; per > 0.05 {
			t.Errorf("%s: %.3f allocations a record", f.name, per)
		}
	}
}

func BenchmarkFormats(b *testing.B) {
	const records = 100_000
	for _, f := range formats {
		b.Run(f.name, func(b *testing.B) {
			path := repeated(b, f.text, records)
			var m creel.Memory
			b.SetBytes(int64(records * len(f.text)))
			for b.Loop() {
				collect(b, &m, path, records, f.options)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
		})
	}
}

// TestLinesDoNotAllocate: reading costs allocations for each read of 256 KiB, not for each line.
func TestLinesDoNotAllocate(t *testing.T) {
	const lines = 50_000
	path := manyLines(t, lines)
	var m creel.Memory
	batches := 0
	n := testing.AllocsPerRun(3, func() { batches = collect(t, &m, path, lines, "").batches })
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
		collect(b, &m, path, lines, "")
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
