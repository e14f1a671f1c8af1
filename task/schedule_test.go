package task_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata" // for machines without zone files

	"github.com/creelhq/creel/task"
)

func TestCron(t *testing.T) {
	f := func(expr, zone, after string, want ...string) {
		t.Helper()
		c, err := task.ParseCron(expr, zone)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, after)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for range want {
			at = c.Next(at)
			got = append(got, at.Format("02T15:04Z07"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s in %s: got %v, want %v", expr, zone, got, want)
		}
	}
	f("30 2 * * *", "UTC", "2026-03-28T00:00:00Z", "28T02:30Z", "29T02:30Z")
	// Berlin: 2 to 3 is missing on March 29th, and twice there on October 25th.
	f("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", "28T02:30+01", "29T03:00+02", "30T02:30+02")
	f("*/20 2 * * *", "Europe/Berlin", "2026-03-28T01:30:00Z", "28T02:40+01", "29T03:00+02", "30T02:00+02")
	f("0 3 * * *", "Europe/Berlin", "2026-03-28T22:00:00Z", "29T03:00+02", "30T03:00+02")
	f("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z", "24T02:30+02", "25T02:30+02", "26T02:30+01")
	f("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", "26T02:30+01") // asked in the second 2 to 3
	f("0 2,3 * * *", "Europe/Berlin", "2026-10-24T22:00:00Z", "25T02:00+02", "25T03:00+01", "26T02:00+01")
	f("30 * * * *", "Europe/Berlin", "2026-10-24T23:40:00Z", "25T02:30+02", "25T02:30+01", "25T03:30+01")
	f("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "29T01:30+01", "29T03:30+02")
	// Sydney: forward on October 4th, back on April 5th. Santiago: forward at midnight of September 6th. Lord Howe: by half
	// an hour, on October 4th.
	f("30 2 * * *", "Australia/Sydney", "2026-10-02T20:00:00Z", "04T03:00+11", "05T02:30+11")
	f("30 2 * * *", "Australia/Sydney", "2026-04-04T12:00:00Z", "05T02:30+11", "06T02:30+10")
	f("15 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", "06T01:00-03", "07T00:15-03")
	f("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "04T02:30+11", "05T02:15+11")
	f("0 12 13 * FRI", "UTC", "2026-11-12T00:00:00Z", "13T12:00Z", "20T12:00Z") // one of the days is enough
	f("0 0 * * THU", "UTC", "2026-11-12T00:00:00Z", "19T00:00Z")
	f("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "29T00:00Z")
	f("@daily", "Asia/Tokyo", "2026-11-12T00:00:00Z", "13T00:00+09")
}

// TestNoDayIsSkipped: whatever zone and year, a daily time comes every day, once.
func TestNoDayIsSkipped(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "Australia/Sydney", "America/Santiago", "Australia/Lord_Howe", "Africa/Cairo", "UTC"} {
		for _, expr := range []string{"30 0 * * *", "15 1 * * *", "30 2 * * *", "59 23 * * *"} {
			c, err := task.ParseCron(expr, zone)
			if err != nil {
				t.Fatal(err)
			}
			at := c.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
			for range 800 {
				next := c.Next(at)
				y, m, d := at.Date()
				if ny, nm, nd := next.Date(); !time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC).Equal(time.Date(ny, nm, nd, 0, 0, 0, 0, time.UTC)) {
					t.Fatalf("%s in %s: %v is followed by %v", expr, zone, at, next)
				}
				at = next
			}
		}
	}
}

func TestBadCron(t *testing.T) {
	f := func(expr, zone, want string) {
		t.Helper()
		if _, err := task.ParseCron(expr, zone); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q in %q: %v", expr, zone, err)
		}
	}
	f("", "", "empty")
	f("* * * *", "", "5 fields")
	f("61 * * * *", "", "61")
	f("x * * * *", "", "x")
	f("0 0 30 2 *", "", "no day is ever like that")
	f("0 0 * * *", "Europe/Atlantis", "Europe/Atlantis")
	f("TZ=UTC 0 0 * * *", "", "zone")
	f("@every 5m", "", "interval")
}

// start lets s work beside the test, until stop is called.
func start(s *task.Scheduler) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = s.Run(ctx); close(done) }()
	return func() { cancel(); <-done }
}

func TestSchedules(t *testing.T) {
	bubble(t, task.Options{}, func(s *task.Scheduler, d *diary) { // it is midnight UTC
		c, err := task.ParseCron("*/10 * * * *", "UTC")
		if err != nil {
			t.Fatal(err)
		}
		ten, once := sleeper(d, "ten", 5, 0, 0), sleeper(d, "once", 5, 0, 0)
		ten.Schedule, once.Schedule = c, task.Once(time.Now().Add(15*time.Minute))
		add(t, s, ten, once)
		past := sleeper(d, "past", 5, 0, 0)
		past.Schedule = task.Once(time.Now())
		if err := s.Add(past); err == nil {
			t.Error("a task without a future was taken in")
		}
		stop := start(s)
		time.Sleep(25 * time.Minute)
		d.want(t, "10m0s ten", "15m0s once", "20m0s ten")
		if got := s.Tasks(); len(got) != 1 || !got[0].Next.Equal(d.start.Add(30*time.Minute)) {
			t.Errorf("left: %+v", got)
		}
		stop()
	})
}

// TestWallClockIsSet: schedules follow it within a minute, and no time of the clock comes twice; intervals do not care.
func TestWallClockIsSet(t *testing.T) {
	bubble(t, task.Options{}, func(s *task.Scheduler, d *diary) {
		var ahead atomic.Int64
		s.SetWall(func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) })
		c, err := task.ParseCron("0 * * * *", "UTC")
		if err != nil {
			t.Fatal(err)
		}
		hourly := sleeper(d, "hourly", 5, 0, 0)
		hourly.Schedule = c
		add(t, s, hourly, sleeper(d, "interval", 5, 2*time.Hour, 0))
		run := func(until time.Duration) { time.Sleep(until - time.Since(d.start)) }
		stop := start(s)
		run(70*time.Minute + 30*time.Second)
		ahead.Store(int64(50 * time.Minute)) // 2:00:30
		run(90 * time.Minute)                // 2:20
		ahead.Store(-int64(30 * time.Minute))
		run(5 * time.Hour)
		stop()
		d.want(t, "0s interval", "1h0m0s hourly", "1h11m0s hourly", "2h0m0s interval", "3h30m0s hourly", "4h0m0s interval", "4h30m0s hourly")
	})
}

func TestJitter(t *testing.T) {
	starts := func(seed uint64) (got []time.Duration) {
		bubble(t, task.Options{Seed: seed}, func(s *task.Scheduler, d *diary) {
			add(t, s, task.Task{ID: "a", Every: time.Minute, Jitter: 10 * time.Second, Run: func(context.Context) error {
				late := time.Since(d.start) % time.Minute
				if late >= 10*time.Second {
					t.Errorf("it came %v late", late)
				}
				got = append(got, late)
				return nil
			}})
			run(s, 20*time.Minute)
		})
		return got
	}
	a, b, c := starts(1), starts(1), starts(2)
	if len(a) != 20 || !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Errorf("%v, again %v, with another seed %v", a, b, c)
	}
	if spread := slices.Max(a) - slices.Min(a); spread < 3*time.Second {
		t.Errorf("they are only %v apart: %v", spread, a)
	}
}

func TestMissed(t *testing.T) {
	f := func(m task.Missed, skipped int, want ...string) {
		t.Helper()
		bubble(t, task.Options{}, func(s *task.Scheduler, d *diary) {
			a := sleeper(d, "a", 5, 10*time.Second, time.Second)
			a.Missed = m
			add(t, s, a)
			stop := start(s)
			time.Sleep(5 * time.Second)
			s.Pause()
			time.Sleep(30 * time.Second)
			s.Resume()
			time.Sleep(8 * time.Second)
			d.want(t, want...)
			if got := s.Tasks()[0].Skipped; got != skipped {
				t.Errorf("%d rounds were skipped, not %d", got, skipped)
			}
			stop()
		})
	}
	f(task.MissedOnce, 2, "0s a", "35s a", "40s a")
	f(task.MissedSkip, 3, "0s a", "40s a")
	f(task.MissedAll, 0, "0s a", "35s a", "36s a", "37s a", "40s a")
}

// TestMissedAllIsBounded: after 100 late rounds it is over.
func TestMissedAllIsBounded(t *testing.T) {
	bubble(t, task.Options{}, func(s *task.Scheduler, d *diary) {
		a := sleeper(d, "a", 5, time.Second, 0)
		a.Missed = task.MissedAll
		add(t, s, a)
		s.Pause()
		stop := start(s)
		time.Sleep(1000*time.Second + time.Millisecond)
		s.Resume()
		synctest.Wait()
		st := s.Tasks()[0]
		if st.Rounds != 101 || st.Skipped != 900 || time.Until(st.Next) > time.Second {
			t.Errorf("%+v", st)
		}
		stop()
	})
}
