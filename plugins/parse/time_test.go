package parse

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// stamp reads one timestamp as a field.
func stamp(t *testing.T, options, s string, at int64) string {
	t.Helper()
	p := open(t, `"format":"json","timestamp":{`+options+`}`)
	f := fields{p: p, observed: at}
	n, ok := f.readTime(creel.String(s))
	if !ok {
		return ""
	}
	return time.Unix(0, n).UTC().Format(time.RFC3339Nano)
}

func TestTimestamps(t *testing.T) {
	const auto = `"layouts":["auto"]`
	for _, c := range []struct{ options, in, want string }{
		{auto, "2026-11-24T13:55:36Z", "2026-11-24T13:55:36Z"},
		{auto, "2026-11-24t13:55:36.5z", "2026-11-24T13:55:36.5Z"},
		{auto, "2026-11-24 13:55:36,123", "2026-11-24T13:55:36.123Z"},
		{auto, "2026-11-24 13:55:36 +0200", "2026-11-24T11:55:36Z"},
		{auto, "2026-11-24T13:55:36.1234567899-02:30", "2026-11-24T16:25:36.123456789Z"},
		{auto, "2026-11-24T13:55:36+02", "2026-11-24T11:55:36Z"},
		{auto, "2026/11/24 13:55:36", "2026-11-24T13:55:36Z"},
		{auto, "2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z"},
		{auto, "2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"},
		{auto, "24/Nov/2026:13:55:36 +0100", "2026-11-24T12:55:36Z"},
		{auto, "Nov 24 13:55:36", "2026-11-24T13:55:36Z"},
		{auto, "Nov  4 13:55:36.25", "2026-11-04T13:55:36.25Z"},
		{auto, "1790000000", "2026-09-21T14:13:20Z"},
		{auto, "1790000000.123456789", "2026-09-21T14:13:20.123456789Z"},
		{auto, "1790000000123", "2026-09-21T14:13:20.123Z"},
		{auto, "1790000000123456", "2026-09-21T14:13:20.123456Z"},
		{auto, "1790000000123456789", "2026-09-21T14:13:20.123456789Z"},
		{auto, "99999999", ""}, {auto, "", ""}, {auto, "-1790000000", ""}, {auto, "1790000000.", ""}, {auto, "1790000000.x", ""},
		{auto, "2026-11-24", ""}, {auto, "2026-02-29T00:00:00Z", ""}, {auto, "2026-13-01T00:00:00Z", ""}, {auto, "2026-00-01T00:00:00Z", ""},
		{auto, "2026-11-31T00:00:00Z", ""}, {auto, "2026-11-24T24:00:00Z", ""}, {auto, "2026-11-24T13:60:00Z", ""}, {auto, "2026-11-24T13:55:61Z", ""},
		{auto, "2026-11-24T13:55:36X", ""}, {auto, "2026-11-24T13:55:36+25:00", ""}, {auto, "0001-01-01T00:00:00Z", ""}, {auto, "2262-01-01T00:00:00Z", ""},
		{auto, "2026-11-24T13:55:3 Z", ""}, {auto, "2026-11-24T13:55:36. Z", ""}, {auto, "Nov 31 13:55:36", ""}, {auto, "Nov 24 13:55:36 x", ""},
		{`"layouts":["rfc3339"]`, "1790000000", ""},
		{`"layouts":["unix"]`, "12", "1970-01-01T00:00:12Z"},
		{`"layouts":["unix_ms"]`, "1500.5", "1970-01-01T00:00:01.5005Z"},
		{`"layouts":["unix_us"]`, "1500000", "1970-01-01T00:00:01.5Z"},
		{`"layouts":["unix_ns"]`, "1500000000", "1970-01-01T00:00:01.5Z"},
		{`"layouts":["unix"]`, "9223372036854775807", ""},
		{`"layouts":["%d.%m.%y, %H:%M:%S.%f"]`, "24.11.26, 13:55:36.25", "2026-11-24T13:55:36.25Z"},
		{`"layouts":["%b %e %Y %I:%M %p %z"]`, "Nov  4 2026 01:55 PM +0100", "2026-11-04T12:55:00Z"},
		{`"layouts":["%d %b %H:%M:%S"]`, "24 Nov 13:55:36", "2026-11-24T13:55:36Z"},
		{`"layouts":["unix","02.01.2006 15:04"],"zone":"Europe/Berlin"`, "24.07.2026 13:55", "2026-07-24T11:55:00Z"},
		{`"zone":"America/New_York"`, "2026-11-24 13:55:36", "2026-11-24T18:55:36Z"},
		{`"zone":"America/New_York"`, "2026-11-24T13:55:36Z", "2026-11-24T13:55:36Z"},
	} {
		if got := stamp(t, c.options, c.in, observed); got != c.want {
			t.Errorf("%s: %q is %q, not %q", c.options, c.in, got, c.want)
		}
	}
}

// TestNearestYear: a timestamp without a year is of the year that makes it nearest to when it was seen.
func TestNearestYear(t *testing.T) {
	for _, c := range []struct{ seen, in, want string }{
		{"2027-01-01T00:00:05Z", "Dec 31 23:59:58", "2026-12-31T23:59:58Z"},
		{"2026-12-31T23:59:58Z", "Jan  1 00:00:05", "2027-01-01T00:00:05Z"},
		{"2026-07-01T00:00:00Z", "Jan  1 00:00:00", "2026-01-01T00:00:00Z"},
		{"2026-07-03T00:00:00Z", "Jan  1 00:00:00", "2027-01-01T00:00:00Z"},
		{"2028-03-01T00:00:00Z", "Feb 29 12:00:00", "2028-02-29T12:00:00Z"},
		{"2029-01-02T00:00:00Z", "Feb 29 12:00:00", "2028-02-29T12:00:00Z"},
		{"2026-06-01T00:00:00Z", "Feb 29 12:00:00", ""},
	} {
		seen, err := time.Parse(time.RFC3339, c.seen)
		must(t, err)
		if got := stamp(t, `"layouts":["auto"]`, c.in, seen.UnixNano()); got != c.want {
			t.Errorf("%q, seen %s, is %q, not %q", c.in, c.seen, got, c.want)
		}
	}
	// A record that nobody has noted the time of is taken as seen now.
	p := open(t, `"format":"syslog"`)
	now := time.Now().UTC()
	l := creel.Log{Body: creel.String("<34>" + now.Format(time.Stamp) + " h a: x")}
	p.log(&fields{p: p, own: &creel.Records{}}, &l)
	if away := now.UnixNano() - l.Time; away < 0 || away > int64(time.Second) {
		t.Errorf("%v away", time.Duration(away))
	}
}

// TestTimesAgreeWithPackageTime compares random times, written in each layout, with what package time reads.
func TestTimesAgreeWithPackageTime(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p := open(t, `"format":"json"`)
	f := &fields{p: p}
	for range 20000 {
		at := time.Unix(1+r.Int64N(9_000_000_000), r.Int64N(1e9)).In(time.FixedZone("", (r.IntN(47)-23)*1800))
		for _, layout := range []string{time.RFC3339Nano, time.RFC3339, "2006-01-02 15:04:05.000000Z0700", "02/Jan/2006:15:04:05 -0700", "2006/01/02 15:04:05,000 -07:00"} {
			s := at.Format(layout)
			want, err := time.Parse(layout, s)
			must(t, err)
			if got, ok := f.readAuto(s); ok != (want.UnixNano() > 0) || ok && got != want.UnixNano() {
				t.Fatalf("%q is %d, %v, not %d", s, got, ok, want.UnixNano())
			}
		}
	}
	for y := firstYear; y <= lastYear; y++ {
		for m := 0; m <= 13; m++ {
			for d := 0; d <= 32; d++ {
				want := -1
				if day := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC); int(day.Month()) == m && day.Day() == d {
					want = int(day.Unix() / 86400)
				}
				if got := date(y, m, d); got != want {
					t.Fatalf("day %d-%d-%d is %d, not %d", y, m, d, got, want)
				}
			}
		}
	}
}

// TestClock tries everything that is nearly a time of day.
func TestClock(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 300_000 {
		b := []byte(fmt.Sprintf("%02d:%02d:%02d", r.IntN(26), r.IntN(62), r.IntN(63)))
		if n%2 == 0 {
			b[r.IntN(8)] = byte(r.IntN(256))
		}
		want := -1
		if at, err := time.Parse("15:04:05", strings.Replace(string(b), ":60", ":59", 1)); err == nil && len(b) == 8 {
			want = at.Hour()*3600 + at.Minute()*60 + at.Second()
		}
		if string(b[5:]) == ":60" && want >= 0 {
			want++
		}
		if string(b[2:5]) == ":60" {
			want = -1
		}
		if got := clock("x"+string(b), 1); got != want {
			t.Fatalf("%q is %d, not %d", b, got, want)
		}
	}
}

func TestUnixDoubles(t *testing.T) {
	for _, c := range []struct {
		in    float64
		units int64
		want  int64
	}{
		{1790000000.123456, 0, 1_790_000_000_123_456_000}, {1790000000.5, 1, 1_790_000_000_500_000_000}, {1500.25, 1000, 1_500_250_000},
		{0.25, 0, 0}, {-1, 1, 0}, {1e300, 1, 0}, {1e18, 0, 0},
	} {
		if got, ok := unixDouble(c.in, c.units); got != c.want || ok != (c.want > 0) {
			t.Errorf("%v is %d, %v", c.in, got, ok)
		}
	}
}

func TestSeverities(t *testing.T) {
	p := open(t, `"format":"json","severity":{"map":{"bad":"ERROR","5":"WARN"}}`)
	f := &fields{p: p}
	for _, c := range []struct {
		in   any
		want string
	}{
		{"info", "INFO"}, {"INFO", "INFO"}, {"Information", "INFO"}, {"I", "INFO"}, {"warn", "WARN"}, {"Warning", "WARN"}, {"err", "ERROR"}, {"ERROR", "ERROR"},
		{"crit", "ERROR2"}, {"CRITICAL", "FATAL"}, {"alert", "ERROR3"}, {"emerg", "FATAL"}, {"notice", "INFO2"}, {"trace", "TRACE"}, {"dbg", "DEBUG"}, {"panic", "FATAL"},
		{"INFO2", "INFO2"}, {"ERROR4", "ERROR4"}, {"INFO+1", "INFO2"}, {"ERROR+400", ""}, {"ERROR+40", "FATAL4"}, {"DEBUG-4", "TRACE"}, {"TRACE-9", "TRACE"}, {"INFO5", ""}, {"INFO0", ""}, {"INFO x", ""},
		{"bad", "ERROR"}, {"BAD", "ERROR"}, {"", ""}, {"information about it", ""}, {"informationalinformational", ""}, {"é", ""}, {"warn ", ""},
		{0, "FATAL"}, {3, "ERROR"}, {5, "WARN"}, {7, "DEBUG"}, {8, ""}, {9, ""}, {10, "TRACE"}, {20, "DEBUG"}, {30, "INFO"}, {35, "INFO"}, {40, "WARN"}, {50, "ERROR"}, {60, "FATAL"}, {70, ""}, {-1, ""},
		{"30", "INFO"}, {true, ""},
	} {
		v := creel.Bool(true)
		switch in := c.in.(type) {
		case string:
			v = creel.String(in)
		case int:
			v = creel.Int(int64(in))
		}
		s, text, ok := f.readSeverity(v)
		if s.String() != c.want || ok != (c.want != "") || ok && text != fmt.Sprint(c.in) {
			t.Errorf("%v is %v %q, not %s", c.in, s, text, c.want)
		}
	}
}
