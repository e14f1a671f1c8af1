package pipeline

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/task"
)

// TestSchedule: what is written of when a collector works is what the scheduler is told, and what is wrong is found before.
func TestSchedule(t *testing.T) {
	read := func(text string) (Schedule, config.Errors) {
		n, err := config.Parse("s.yaml", []byte(text), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		canonical, errs := config.Of[Schedule]().Check(n)
		if len(errs) > 0 {
			return Schedule{}, errs
		}
		s, err := config.Decode[Schedule](canonical)
		if err != nil {
			t.Fatal(err)
		}
		return s, nil
	}
	nothing := func(context.Context) error { return nil }
	s, _ := read("{}")
	got, err := s.task("id", nothing)
	if err != nil || got.Every != 10*time.Second || got.Schedule != nil || got.Missed != task.MissedOnce || got.Preempt != task.PreemptYield || got.Priority != 5 {
		t.Errorf("by default: %+v, %v", got, err)
	}
	s, _ = read(`{cron: "30 6 * * mon-fri", zone: Europe/Berlin, jitter: 5s, missed: all, preempt: restart, class: snmp, key: db-7, timeout: 1m, priority: 9}`)
	got, err = s.task("id", nothing)
	if err != nil || got.Every != 0 || got.Jitter != 5*time.Second || got.Missed != task.MissedAll || got.Preempt != task.Restart || got.Class != "snmp" || got.Key != "db-7" || got.Timeout != time.Minute || got.Priority != 9 {
		t.Errorf("got %+v, %v", got, err)
	}
	if next := got.Schedule.Next(time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)); !next.Equal(time.Date(2026, 11, 30, 5, 30, 0, 0, time.UTC)) { // a Friday, a Monday
		t.Errorf("it is due at %v", next)
	}
	for text, want := range map[string]string{
		`{cron: "61 * * * *"}`:                       "cron",
		`{cron: "0 0 30 2 *"}`:                       "no day is ever like that",
		`{cron: "0 6 * * *", zone: Europe/Atlantis}`: "not known",
		`{zone: UTC}`:                                "means nothing without cron",
		`{missed: perhaps}`:                          "once",
	} {
		if _, errs := read(text); len(errs) != 1 || !strings.Contains(errs.Error(), want) {
			t.Errorf("%s: %v", text, errs)
		}
	}
}
