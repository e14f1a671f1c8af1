package leader

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel/hub/internal/state"
)

// TestOneLeads: several stand; one leads, and when it goes, is cut off from the store, or its entry is deleted, another one does
// within its own term.
func TestOneLeads(t *testing.T) {
	memory := &state.Memory{}
	type reign struct {
		hub  int
		term context.Context
	}
	const hubs = 4
	elected, let := make(chan reign), make(chan struct{})
	var leading atomic.Int32
	var torn atomic.Bool // somebody leads and cannot know that it does not any more
	stores, stops := make([]state.Store, hubs), make([]context.CancelFunc, hubs)
	done := make(chan int, hubs)
	for i := range hubs {
		stores[i] = memory.Open()
		ctx, cancel := context.WithCancel(t.Context())
		stops[i] = cancel
		go func() {
			Candidate{Hub: fmt.Sprint(i), Store: stores[i], Log: slog.New(slog.DiscardHandler)}.Run(ctx, func(term context.Context) {
				if leading.Add(1) != 1 && !torn.Load() {
					t.Error("two lead")
				}
				elected <- reign{i, term}
				<-term.Done()
				leading.Add(-1)
				let <- struct{}{}
			})
			done <- i
		}()
	}
	watcher := memory.Open()
	gone := make(map[int]bool)
	now := <-elected
	for _, how := range []string{"deleted", "goes", "cut off"} {
		if t, err := Current(t.Context(), watcher); err != nil || t.Hub != fmt.Sprint(now.hub) {
			panic(fmt.Sprintf("%s leads, not %d: %v", t.Hub, now.hub, err))
		}
		torn.Store(how != "goes")
		switch how {
		case "deleted":
			if err := watcher.Delete(t.Context(), key, state.Always()); err != nil {
				t.Fatal(err)
			}
		case "goes":
			gone[now.hub] = true
			stops[now.hub]()
		case "cut off":
			gone[now.hub] = true
			stores[now.hub].Close()
		}
		<-let
		next := <-elected
		if gone[next.hub] {
			t.Fatalf("%d leads, which is gone", next.hub)
		}
		if next.term.Err() != nil {
			t.Errorf("%s: the next term is over at once", how)
		}
		now = next
	}
	for _, stop := range stops {
		stop()
	}
	<-let
	for range hubs {
		<-done
	}
	if term, err := Current(t.Context(), watcher); err != nil || term.Hub != "" {
		t.Errorf("%+v leads after all have gone: %v", term, err)
	}
}

// TestKilled: a hub that was killed while it led leads again when it is started again, without waiting for its lease to end.
func TestKilled(t *testing.T) {
	memory := &state.Memory{}
	killed := memory.Open() // it is never closed: its lease goes on
	if _, err := killed.Put(t.Context(), key, []byte(`{"hub":"a"}`), true, state.Unchanged(0)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	elected, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		Candidate{Hub: "a", Store: memory.Open(), Log: slog.New(slog.DiscardHandler)}.Run(ctx, func(term context.Context) {
			close(elected)
			<-term.Done()
		})
	}()
	<-elected
	stop()
	<-ended
}

// TestSilent: a hub that leads and falls silent does not lead any more soon, though its lease goes on; one that is slow once, or that was
// never heard while it led, leads until its lease ends.
func TestSilent(t *testing.T) {
	for name, c := range map[string]struct {
		answers []bool
		deposed time.Duration // 0: never
	}{
		"killed":        {[]bool{true, true, false}, 4 * askEvery},
		"slow":          {[]bool{true, false, true, false, true}, 0},
		"never reached": {[]bool{false}, 0},
		"healed":        {[]bool{false, false, true, false}, 5 * askEvery},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := &state.Memory{}
				silent, other := memory.Open(), memory.Open()
				defer silent.Close()
				defer other.Close()
				if _, err := silent.Put(t.Context(), key, []byte(`{"hub":"silent"}`), true, state.Unchanged(0)); err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				began, asked, elected := time.Now(), 0, time.Duration(0)
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					Candidate{Hub: "other", Store: other, Log: slog.New(slog.DiscardHandler), Answers: func(_ context.Context, hub string) bool {
						if hub != "silent" {
							t.Errorf("%q was asked", hub)
						}
						asked++
						return c.answers[min(asked, len(c.answers))-1]
					}}.Run(ctx, func(term context.Context) {
						elected = time.Since(began)
						<-term.Done()
					})
				}()
				time.Sleep(time.Minute)
				stop()
				<-ended
				if elected != c.deposed {
					t.Errorf("it was deposed after %v, want %v", elected, c.deposed)
				}
				if asked < 4 {
					t.Errorf("it was asked %d times: this shows nothing", asked)
				}
			})
		})
	}
}
