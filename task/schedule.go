package task

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/netresearch/go-cron"
)

// A Schedule tells when rounds are due, by the wall clock. It may be used by several tasks at once.
type Schedule interface {
	// Next returns the first time after the given one, zero if there is none. It must be quick and must not call the
	// scheduler.
	Next(after time.Time) time.Time
}

// Once returns the Schedule of a single round.
func Once(at time.Time) Schedule { return once(at.Round(0)) }

type once time.Time

// Next implements Schedule.
func (o once) Next(after time.Time) time.Time {
	if at := time.Time(o); at.After(after) {
		return at
	}
	return time.Time{}
}

// ParseCron returns the Schedule of a cron expression: minute, hour, day of month, month, day of week, as in crontab(5),
// or @hourly, @daily, @weekly, @monthly, @yearly. If both days are given, one of them must match. zone is a name such as
// Europe/Berlin or UTC; "": this machine's.
//
// When clocks are put forward, what falls into the gap is due once, when the gap ends. When they are put back, what falls
// into the repeated time is due the first time only. Expressions for every hour just follow the hours that there are.
func ParseCron(expr, zone string) (Schedule, error) {
	fail := func(err error) (Schedule, error) { return nil, fmt.Errorf("parse cron %q: %w", expr, err) }
	text := strings.ToLower(strings.TrimSpace(expr)) // the parser takes the H of THU for another syntax
	switch {
	case text == "":
		return fail(errors.New("it is empty; write minute, hour, day of month, month, day of week"))
	case strings.Contains(text, "tz="):
		return fail(errors.New("the zone does not belong into the expression"))
	case strings.HasPrefix(text, "@every"):
		return fail(errors.New("@every is an interval, not a time of the clock"))
	}
	loc := time.Local
	if zone != "" {
		var err error
		if loc, err = time.LoadLocation(zone); err != nil {
			return fail(fmt.Errorf("zone %q is not known; write one such as Europe/Berlin or UTC: %w", zone, err))
		}
	}
	parser, err := cron.TryNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.DowOrDom)
	if err != nil {
		return fail(err)
	}
	parsed, err := parser.WithMaxSearchYears(searchYears).Parse(text)
	if err != nil {
		return fail(err)
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return fail(errors.New("it is not a time of the clock"))
	}
	spec.Location = time.UTC
	const day = 1<<24 - 1
	c := &clockSchedule{spec: spec, zone: loc, hourly: bits.OnesCount64(spec.Hour&day) == 24}
	if c.Next(time.Now()).IsZero() {
		return fail(errors.New("no day is ever like that"))
	}
	return c, nil
}

// searchYears is how far a Schedule looks: February 29th may be eight years away, and on a given weekday forty.
const searchYears = 41

// clockSchedule is a cron expression. The library searches in a calendar without zone, in which no hour is missing or
// doubled: what clocks show, taken as UTC. What a change of the offset means is decided here.
type clockSchedule struct {
	spec   *cron.SpecSchedule
	zone   *time.Location
	hourly bool
}

// Next implements Schedule. It goes through the periods in which the zone's offset is constant.
func (c *clockSchedule) Next(after time.Time) time.Time {
	at := after.Round(0).In(c.zone)
	from := shown(at, offset(at))
	for {
		begin, end := at.ZoneBounds()
		here := offset(at)
		if !c.hourly && !begin.IsZero() {
			// Clocks were put back when the period began: until they show again what they had shown, everything was due.
			if had := shown(begin, offset(begin.Add(-1))).Add(-time.Second); had.After(from) {
				from = had
			}
		}
		next := c.spec.Next(from)
		if next.IsZero() {
			return time.Time{}
		}
		due := next.Add(-here).In(c.zone)
		if end.IsZero() || due.Before(end) {
			return due
		}
		there := offset(end)
		if !c.hourly && next.Before(shown(end, there)) { // in the gap
			return end.In(c.zone)
		}
		at, from = end.In(c.zone), shown(end, there).Add(-time.Second)
	}
}

// offset is what clocks are ahead of UTC at a time.
func offset(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}

// shown is what clocks show at a time, if they are ahead of UTC by an offset.
func shown(t time.Time, ahead time.Duration) time.Time { return t.UTC().Add(ahead) }

// Missed says what becomes of rounds that could not begin when they were due: the scheduler was paused, the breaker open,
// the clock put forward, every slot taken. What is due while an earlier round of the task still runs or waits counts as
// missed, too.
type Missed uint8

// The ways to treat missed rounds.
const (
	MissedOnce Missed = iota // one late round stands for all; what was due while it ran is skipped
	MissedSkip               // a round is skipped if it cannot begin before the next is due, or within a minute
	MissedAll                // each is made up for, one after the other; after 100 late ones in a row the rest is skipped
)

const (
	grace   = time.Minute // of MissedSkip
	maxLate = 100         // of MissedAll, and of what is counted as skipped at once if a Schedule must be asked for each
	look    = time.Minute // how often at least wall clock times are compared with the wall clock
)

// recurs reports whether a task has a next round.
func (j *job) recurs() bool { return j.Every > 0 || j.Schedule != nil }

// next returns when the round after the one that was due at j.at is due, zero for never, and how many are skipped.
func (j *job) next(now, wall time.Time) (at time.Time, skipped int) {
	all := j.Missed == MissedAll && j.late < maxLate
	if j.Schedule == nil {
		n := (now.Sub(j.at) + j.Every - 1) / j.Every
		if n < 1 || all {
			n = 1
		}
		return j.at.Add(n * j.Every), int(n) - 1
	}
	at = after(j.Schedule, j.at)
	for !all && !at.IsZero() && at.Before(wall) {
		if skipped++; skipped == maxLate {
			return after(j.Schedule, wall), skipped
		}
		at = after(j.Schedule, at)
	}
	return at, skipped
}

// notBefore returns the first time from at on that is due and not before end, and how many are skipped for that.
func (j *job) notBefore(at, end time.Time) (_ time.Time, skipped int) {
	if at.IsZero() || !at.Before(end) {
		return at, 0
	}
	if j.Schedule == nil {
		n := (end.Sub(at) + j.Every - 1) / j.Every
		return at.Add(n * j.Every), int(n)
	}
	for !at.IsZero() && at.Before(end) {
		if skipped++; skipped == maxLate {
			return after(j.Schedule, end), skipped
		}
		at = after(j.Schedule, at)
	}
	return at, skipped
}

// after guards against a Schedule that does not advance: it is over.
func after(s Schedule, t time.Time) time.Time {
	if next := s.Next(t); next.After(t) {
		return next.Round(0)
	}
	return time.Time{}
}

// tooLate reports whether the round of j, whose policy is MissedSkip, is to be skipped now that it could begin.
func (j *job) tooLate(now, wall time.Time) bool {
	if j.sure || !j.recurs() {
		return false
	}
	if j.Schedule != nil {
		return wall.Sub(j.at) > j.delay+grace
	}
	return now.Sub(j.at) > j.delay+min(grace, j.Every)
}

// chance is j's share of its Jitter for the round that is due at j.at: the same for the same seed, id and time.
func (j *job) chance(seed uint64) time.Duration {
	if j.Jitter <= 0 {
		return 0
	}
	h := seed ^ 0xcbf29ce484222325 // FNV-1a over id and time
	for i := range len(j.ID) {
		h = (h ^ uint64(j.ID[i])) * 0x100000001b3
	}
	h = (h ^ uint64(j.at.UnixNano())) * 0x100000001b3
	h ^= h >> 32 // its last bytes are to reach the upper half, which counts below
	h *= 0x9e3779b97f4a7c15
	share, _ := bits.Mul64(h, uint64(j.Jitter))
	return time.Duration(share)
}
