package cli_test

import (
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/report"
)

var number = regexp.MustCompile(`-?\d+`)

// sumOf is what a cell says: a number, or reasons with numbers.
func sumOf(t *testing.T, cell string) (n int64) {
	t.Helper()
	for _, digits := range number.FindAllString(cell, -1) {
		one, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n += one
	}
	return n
}

// TestLinesAddUp: in each line of the ledger what came is what became of it, for any books that balance.
func TestLinesAddUp(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	some := func() int64 { return r.Int64N(1000) }
	reasons := func() map[string]int64 { // names of reasons have no digits
		m := map[string]int64{"refused": some(), "queue_full": some(), "spool_full": some()}
		for why := range m {
			if r.IntN(2) == 0 {
				delete(m, why)
			}
		}
		return m
	}
	total := func(m map[string]int64) (n int64) {
		for _, v := range m {
			n += v
		}
		return n
	}
	var l report.Ledger
	for i := range 5 {
		name := string(rune('a' + i))
		p := report.Pipeline{Pipeline: name, Created: some(), Filtered: some(), Absorbed: some(), Routed: some(), Held: some(), Passed: some(), Dropped: reasons(), Unexplained: some()}
		p.Accepted = p.Filtered + p.Absorbed + p.Routed + p.Held + p.Passed + total(p.Dropped) + p.Unexplained - p.Created
		for range 2 {
			x := report.Exporter{Exporter: "otlp/" + name, Delivered: some(), Spooled: some(), Queued: some(), DeadLettered: some(), Dropped: reasons(), Unexplained: some()}
			x.In = x.Delivered + x.Spooled + x.Queued + x.DeadLettered + total(x.Dropped) + x.Unexplained
			p.Exporters = append(p.Exporters, x)
		}
		l.Pipelines = append(l.Pipelines, p)
		s := report.SpoolAccount{Exporter: "otlp/" + name, Recovered: some(), Delivered: some(), Waiting: some(), DeadLettered: some(), Dropped: reasons(), Unexplained: some()}
		s.In = s.Delivered + s.Waiting + s.DeadLettered + total(s.Dropped) + s.Unexplained - s.Recovered
		l.Spools = append(l.Spools, s)
	}
	var out strings.Builder
	cli.LedgerTables(&out, l)
	comes := map[string]bool{"ACCEPTED": true, "CREATED": true, "IN": true, "RECOVERED": true}
	names := map[string]bool{"PIPELINE": true, "EXPORTER": true, "DISK QUEUE": true}
	lines := 0
	for _, table := range strings.Split(strings.TrimSpace(out.String()), "\n\n") {
		rows := strings.Split(table, "\n")
		head := strings.Split(rows[0], "\t")
		for _, row := range rows[1:] {
			lines++
			left := int64(0)
			for i, cell := range strings.Split(row, "\t") {
				switch {
				case names[head[i]]:
				case comes[head[i]]:
					left += sumOf(t, cell)
				default:
					left -= sumOf(t, cell)
				}
			}
			if left != 0 {
				t.Errorf("%d are left over:\n%s\n%s", left, rows[0], row)
			}
		}
	}
	if lines != 5+10+5 {
		t.Errorf("there are %d lines:\n%s", lines, out.String())
	}
}

func TestComponentTable(t *testing.T) {
	f := func(want string, c ...report.Component) {
		t.Helper()
		var out strings.Builder
		cli.ComponentTable(&out, c)
		if got := strings.ReplaceAll(strings.TrimSpace(out.String()), "\t", "|"); got != strings.TrimSpace(want) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	host := report.Component{Component: "collectors.host", Healthy: true}
	f(`
COMPONENT|HEALTH|BREAKER|QUEUE|ERROR
collectors.host|healthy|||
exporters.otlp/a|degraded|open|1KiB of 2MiB|no route\x1b[2J…`,
		host, report.Component{Component: "exporters.otlp/a", Breaker: "open", Queued: 1 << 10, Limit: 2 << 20, Error: "no route\x1b[2J\nmore"})
	oldest := time.Date(2026, 11, 26, 1, 2, 3, 0, time.Local)
	f(`
COMPONENT|HEALTH|BREAKER|QUEUE|ON DISK|WAITING|DISK QUEUE|ERROR
collectors.host|healthy||||||
exporters.otlp/a|healthy|closed|0B of 2MiB|1MiB of 1GiB|7 since 2026-11-26 01:02:03|fails, fills in 12m, replaying 5/s|disk queue: no space left`,
		host, report.Component{Component: "exporters.otlp/a", Healthy: true, Breaker: "closed", Limit: 2 << 20, Spool: &report.Spool{
			Bytes: 1 << 20, Limit: 1 << 30, Waiting: 7, Oldest: oldest, FullIn: 720, Replaying: true, OutRate: 5, Error: "no space left",
		}})
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1KiB", 1536: "1.5KiB", 1<<20 - 1: "1MiB", 3 << 30: "3GiB", 1<<63 - 1: "8EiB"} {
		if got := cli.Bytes(n); got != want {
			t.Errorf("%d bytes are %s, want %s", n, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for seconds, want := range map[float64]string{-1: "0s", 0: "0s", 59.9: "59s", 60: "1m", 3599: "59m", 3600: "1h", 47 * 3600: "47h", 48 * 3600: "2d", 1e300: "years"} {
		if got := cli.Span(seconds); got != want {
			t.Errorf("%g seconds are %s, want %s", seconds, got, want)
		}
	}
}
