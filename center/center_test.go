package center

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel/config"
)

// snap makes a Snapshot of "name=text name=text".
func snap(docs string) Snapshot {
	var s Snapshot
	for _, d := range strings.Fields(docs) {
		name, text, _ := strings.Cut(d, "=")
		s.Documents = append(s.Documents, Document{name, []byte(text)})
	}
	return s
}

func TestGuard(t *testing.T) {
	f := func(allow bool, say, want string) {
		t.Helper()
		var got []string
		g := Guard(Common{AllowEmpty: allow}, func(s Snapshot) { got = append(got, s.Revision) }, func(err error) {
			switch {
			case err == nil:
				got = append(got, "well")
			case strings.Contains(err.Error(), "no document any more, and had "), strings.Contains(err.Error(), "is empty, and had "):
				got = append(got, "refused")
			default:
				t.Error(err)
			}
		})
		for i, docs := range strings.Split(say, " | ") {
			s := snap(docs)
			s.Revision = fmt.Sprint(i)
			g(s)
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("%s: %q, not %q", say, g, want)
		}
	}
	f(false, "a=1 | a=1 | a=2", "0 2")
	f(false, " | ", "0")
	f(false, "a= | a= | a=1", "0 2")
	f(false, "a=1 |  |  | a=1 | a=2", "0 refused refused well 4")
	f(false, "a=1 | a= | a=2", "0 refused well 2")
	f(false, "a=1 b=1 | a=1 b= | a=1", "0 refused well 2")
	f(false, "a=1 | a=1 b=", "0 1")
	f(true, "a=1 |  | a=1 | a=", "0 1 2 3")
}

// script is a Source that does as it is told.
type script struct {
	Host
	do func(h Host, f func(Snapshot))
}

func (s script) Watch(_ context.Context, f func(Snapshot)) { s.do(s.Host, f) }

// TestOpen: what keeps a center from working comes before what it is refused for, and does not hide it when it is over.
func TestOpen(t *testing.T) {
	type options struct {
		Key string `doc:"A key."`
	}
	away := errors.New("away")
	var got []string
	c := New("test", "A test.", func(o options, h Host) (Source, error) {
		return script{h, func(h Host, f func(Snapshot)) {
			f(snap(o.Key))
			f(Snapshot{})
			h.Health(away)
			h.Health(nil)
			f(snap("a=2"))
		}}, nil
	}, nil)
	root, err := config.Parse("test", []byte("{allow_empty: false, key: a=1}"), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	cfg, errs := Schema(c).Check(root)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	s, err := Open(c, cfg, Host{Health: func(err error) {
		switch {
		case err == nil:
			got = append(got, "well")
		case errors.Is(err, away):
			got = append(got, "away")
		default:
			got = append(got, "refused")
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Watch(t.Context(), func(s Snapshot) { got = append(got, string(s.Documents[0].Text)) })
	if g, want := strings.Join(got, " "), "1 refused away refused well 2"; g != want {
		t.Errorf("%q, not %q", g, want)
	}
}

// TestKeep: pauses grow, whatever was said for a moment between; each kind of trouble is logged once.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		told := 0
		ctx, cancel := context.WithCancel(t.Context())
		h := Host{Log: slog.New(slog.NewTextHandler(&log, nil)), Health: func(error) { told++ }}
		start := time.Now()
		calls, late := 0, time.Duration(0)
		Keep(ctx, h, func(worked func()) error {
			calls++
			switch {
			case calls == 200:
				worked()
				time.Sleep(time.Minute)
				late = time.Since(start)
				return errors.New("gone")
			case calls == 201:
				if pause := time.Since(start) - late; pause > firstPause {
					t.Errorf("a center that had worked was left alone for %v", pause)
				}
				late = time.Since(start)
				return &Later{After: time.Hour, Err: errors.New("busy")}
			case calls == 202:
				if pause := time.Since(start) - late; pause < maxLater || pause > maxLater+maxPause {
					t.Errorf("a center that asked for an hour was left alone for %v", pause)
				}
				cancel()
			case calls%2 == 0:
				worked()
			}
			return fmt.Errorf("call %d: %w", calls, errors.New("refused"))
		})
		if mean := late / 200; mean < maxPause/4 || mean > maxPause*3/4 {
			t.Errorf("the pause is %v on average, not half of %v", mean, maxPause)
		}
		if told < 300 {
			t.Errorf("Health was told %d times", told)
		}
		// All that are refused: again after a minute in which it had worked.
		if n := strings.Count(log.String(), "refused"); n > int(time.Since(start)/forget) {
			t.Errorf("%d times in the log, in %v", n, time.Since(start))
		}
		if n := strings.Count(log.String(), "gone") + strings.Count(log.String(), "busy"); n != 2 {
			t.Errorf("%d other troubles in the log, not 2", n)
		}
	})
}

func TestTroubleIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	tr := Trouble{Host: Host{Log: slog.New(slog.NewTextHandler(&log, nil)), Health: func(error) {}}}
	for i := range 100 {
		tr.Tell(fmt.Errorf("call %d: %w", i, errors.New("refused")))
		tr.Tell(fmt.Errorf("call %d: %w", i, errors.New("unknown host")))
		if i%10 == 0 {
			tr.Over()
		}
	}
	for i := range 100 {
		tr.Tell(fmt.Errorf("always another %d", i))
	}
	if warned, well := strings.Count(log.String(), "level=WARN"), strings.Count(log.String(), "works again"); warned != maxTold || well != 1 {
		t.Errorf("%d lines of trouble, %d of its end", warned, well)
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pace{Every: time.Second, Burst: 3}
		start := time.Now()
		for range 14 { // the first, a burst of 3, and 10
			if err := p.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("14 rounds took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if p.Wait(ctx) == nil {
			t.Error("it waits for nobody")
		}
	})
}

func TestBound(t *testing.T) {
	f := func(n, size int, want string) {
		t.Helper()
		docs := make([]Document, n)
		for i := range docs {
			docs[i] = Document{fmt.Sprint(i), make([]byte, size)}
		}
		if got := fmt.Sprint(Bound(docs)); !strings.Contains(got, want) {
			t.Errorf("%d documents of %d bytes: %s", n, size, got)
		}
	}
	f(MaxDocuments, 1, "<nil>")
	f(MaxDocuments+1, 0, "there are 1001 documents")
	f(1, MaxDocument, "<nil>")
	f(1, MaxDocument+1, "document 0 has 1048577 bytes")
	f(10, MaxDocument, "the documents have 10485770 bytes together")
}
