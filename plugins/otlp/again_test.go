package otlp

import (
	"slices"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// TestCrowd: a single client that finds no room is back after a second; of a thousand that find none at once, no tenth of a
// second sees more than a few dozen again, but for those that need not wait longer than the shortest wait; when requests
// are taken again, waits are short again.
func TestCrowd(t *testing.T) {
	var c crowd
	if d := c.refused(); d != soonest {
		t.Errorf("the first is asked to wait %v", d)
	}
	const clients = 1000
	var waits []time.Duration
	for range clients {
		waits = append(waits, c.refused())
	}
	at := make(map[time.Duration]int)
	for _, d := range waits {
		if d < soonest || d > longest {
			t.Fatalf("asked to wait %v", d)
		}
		if d > soonest {
			at[d/(100*time.Millisecond)]++
		}
	}
	for d, n := range at {
		if n > clients/15 { // 22 is the mean
			t.Errorf("%d of %d come back within 100 ms, after %v", n, clients, 100*d*time.Millisecond)
		}
	}
	if n := clients - sum(at); n > clients/3 {
		t.Errorf("%d of %d come back after %v", n, clients, soonest)
	}
	if last := slices.Max(waits); last < longest-500*time.Millisecond {
		t.Errorf("the longest wait is %v", last)
	}
	for range clients {
		c.taken()
	}
	if d := c.refused(); d != soonest || c.n.Load() != 1 {
		t.Errorf("afterwards one is asked to wait %v", d)
	}
}

func sum(m map[time.Duration]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int64{0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Second: 90, -time.Second: 1} {
		if got := seconds(d); got != want {
			t.Errorf("%v is %d seconds", d, got)
		}
	}
}

// FuzzHop: whatever a header says, it is read without harm; what is believed is written so that the next reads the same.
func FuzzHop(f *testing.F) {
	f.Add("a;1;otlp/hub", "0123456789abcdef0123456789abcdef")
	f.Add("%3b;-1;;", "0123456789abcdef0123456789abcdeg")
	f.Fuzz(func(t *testing.T, sender, id string) {
		if s := parseSender(sender); s != (creel.Sender{}) {
			text := formatSender(s)
			for i := range len(text) {
				if text[i] < ' ' || text[i] > '~' {
					t.Fatalf("%q cannot stand in a header", text)
				}
			}
			again := parseSender(text)
			if len(text) <= longestSender && (again.Agent != s.Agent || again.Exporter != s.Exporter || !again.Started.Equal(s.Started)) {
				t.Errorf("%q is %+v, and then %+v", sender, s, again)
			}
		}
		if got := parseID(id); !got.IsZero() && parseID(formatID(got)) != got {
			t.Errorf("%q is %x", id, got)
		}
	})
}
