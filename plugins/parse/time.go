package parse

import (
	"math"
	"strings"
	"time"

	"github.com/creelhq/creel"
)

// All times are nanoseconds since the Unix epoch. Years before 1970 and after 2261 are none, as OTLP cannot write them.
const (
	firstYear, lastYear = 1970, 2261
	lastSecond          = math.MaxInt64/1_000_000_000 - 1
)

// digits reads n decimal digits at i, -1 if there are not so many.
func digits(s string, i, n int) int {
	if i+n > len(s) {
		return -1
	}
	v := 0
	for _, c := range []byte(s[i : i+n]) {
		if c -= '0'; c > 9 {
			return -1
		}
		v = 10*v + int(c)
	}
	return v
}

// month reads the first three letters of a month's English name at i; 0 if there are none.
func month(s string, i int) int {
	if i+3 > len(s) {
		return 0
	}
	switch s[i : i+3] {
	case "Jan":
		return 1
	case "Feb":
		return 2
	case "Mar":
		return 3
	case "Apr":
		return 4
	case "May":
		return 5
	case "Jun":
		return 6
	case "Jul":
		return 7
	case "Aug":
		return 8
	case "Sep":
		return 9
	case "Oct":
		return 10
	case "Nov":
		return 11
	case "Dec":
		return 12
	}
	return 0
}

// clock reads 15:04:05 at i as seconds of the day, -1 if it is none. A leap second is the next minute's first.
func clock(s string, i int) int {
	const (
		colons = 0x00003a00003a0000
		places = 0xffff00ffff00ffff // of the digits
		zeros  = 0x30 * ones & places
		sixes  = 0x06 * ones & places
		upper  = 0xf0 * ones // half of each byte
	)
	if i+8 > len(s) {
		return -1
	}
	d := load(s, i) ^ colons ^ zeros
	if d&^places != 0 || (d|(d+sixes))&upper != 0 { // a digit is 0 to 9 now, so that even with six more it is below 16
		return -1
	}
	h, m, sec := int(d&15*10+d>>8&15), int(d>>24&15*10+d>>32&15), int(d>>48&15*10+d>>56&15)
	if h > 23 || m > 59 || sec > 60 {
		return -1
	}
	return h*3600 + m*60 + sec
}

// fraction reads the fraction of a second at i, which may be absent, and returns nanoseconds and the index behind it.
// Digits beyond the ninth are cut off.
func fraction(s string, i int) (nanos, next int) {
	if i+1 >= len(s) || s[i] != '.' && s[i] != ',' || s[i+1]-'0' > 9 {
		return 0, i
	}
	i++
	start := i
	for i < len(s) && s[i]-'0' <= 9 {
		if i-start < 9 {
			nanos = 10*nanos + int(s[i]-'0')
		}
		i++
	}
	for n := i - start; n < 9; n++ {
		nanos *= 10
	}
	return nanos, i
}

// offset reads what is left of s from i on as an offset from UTC in seconds: Z, +02:00, +0200, +02, or nothing at all.
func offset(s string, i int) (seconds int, given, ok bool) {
	switch rest := s[i:]; {
	case rest == "":
		return 0, false, true
	case rest == "Z" || rest == "z":
		return 0, true, true
	case rest[0] == '+' || rest[0] == '-':
		h, m := digits(rest, 1, 2), 0
		switch {
		case len(rest) == 6 && rest[3] == ':':
			m = digits(rest, 4, 2)
		case len(rest) == 5:
			m = digits(rest, 3, 2)
		case len(rest) != 3:
			return 0, false, false
		}
		if h|m < 0 || h > 23 || m > 59 {
			return 0, false, false
		}
		if seconds = h*3600 + m*60; rest[0] == '-' {
			seconds = -seconds
		}
		return seconds, true, true
	}
	return 0, false, false
}

// date returns the day's number since the epoch, -1 if there is no such day.
func date(year, month, day int) int {
	if year < firstYear || year > lastYear || month < 1 || month > 12 || day < 1 || day > 31 {
		return -1
	}
	leap := year%4 == 0 && (year%100 != 0 || year%400 == 0)
	if day > 28 {
		most := 31 - (0b0_1010_0101_0000>>month)&1 // April, June, September, November
		if month == 2 {
			if most = 28; leap {
				most = 29
			}
		}
		if day > most {
			return -1
		}
	}
	// Years start in March, so that the odd day is the last.
	y, m := year, month-3
	if m < 0 {
		y, m = y-1, m+12
	}
	return 365*y + y/4 - y/100 + y/400 + (153*m+2)/5 + day - 1 - 719468
}

// instant returns the time of a day's number, seconds of that day and nanoseconds, in zone.
func (f *fields) instant(day, second, nanos int) int64 {
	unix := int64(day)*86400 + int64(second)
	if zone := f.p.Timestamp.Zone.location; zone != nil {
		t := time.Unix(unix, 0).UTC()
		unix = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, zone).Unix()
	}
	return unix*1_000_000_000 + int64(nanos)
}

// newDay remembers what a date means, as the next line will have the same.
func (f *fields) newDay(text string, day int) int {
	f.dayText, f.day = text, day
	return day
}

// readISO reads 2006-01-02T15:04:05 (RFC 3339, ISO 8601), with a space or / as well, with or without fraction and zone.
func (f *fields) readISO(s string) (int64, bool) {
	if len(s) < 19 || s[4] != '-' && s[4] != '/' || s[7] != s[4] || s[10] != 'T' && s[10] != ' ' && s[10] != 't' {
		return 0, false
	}
	day, second := f.day, clock(s, 11)
	if s[:10] != f.dayText {
		day = f.newDay(s[:10], date(digits(s, 0, 4), digits(s, 5, 2), digits(s, 8, 2)))
	}
	nanos, i := fraction(s, 19)
	if i+1 < len(s) && s[i] == ' ' {
		i++ // as in 15:04:05 +0200
	}
	return f.assemble(day, second, nanos, s, i)
}

// readCLF reads 02/Jan/2006:15:04:05 -0700, as access logs have it.
func (f *fields) readCLF(s string) (int64, bool) {
	if len(s) < 20 || s[2] != '/' || s[6] != '/' || s[11] != ':' {
		return 0, false
	}
	day, second := f.day, clock(s, 12)
	if s[:11] != f.dayText {
		day = f.newDay(s[:11], date(digits(s, 7, 4), month(s, 3), digits(s, 0, 2)))
	}
	nanos, i := fraction(s, 20)
	if i < len(s) && s[i] == ' ' {
		i++
	}
	return f.assemble(day, second, nanos, s, i)
}

// assemble makes a time of its parts; what is left of s from i on is the zone.
func (f *fields) assemble(day, second, nanos int, s string, i int) (int64, bool) {
	off, given, ok := offset(s, i)
	if day < 0 || second < 0 || !ok {
		return 0, false
	}
	if given {
		t := (int64(day)*86400+int64(second-off))*1_000_000_000 + int64(nanos)
		return t, t > 0
	}
	t := f.instant(day, second, nanos)
	return t, t > 0
}

// readBSD reads Jan _2 15:04:05 at the start of s, as RFC 3164 has it, with a year after the day or a fraction after the
// seconds as some write it. It returns the index behind it, -1 if it is none.
func (f *fields) readBSD(s string) (t int64, next int) {
	m := month(s, 0)
	if m == 0 || len(s) < 15 || s[3] != ' ' || s[6] != ' ' {
		return 0, -1
	}
	d := digits(s, 4, 2)
	if s[4] == ' ' {
		d = digits(s, 5, 1)
	}
	i, year := 7, -1
	if len(s) >= 20 && s[11] == ' ' {
		year, i = digits(s, 7, 4), 12
		if year < 0 {
			return 0, -1
		}
	}
	second := clock(s, i)
	if second < 0 {
		return 0, -1
	}
	nanos, next := fraction(s, i+8)
	if year < 0 {
		t = f.nearest(m, d, second, nanos)
	} else if day := date(year, m, d); day >= 0 {
		t = f.instant(day, second, nanos)
	}
	if t <= 0 {
		return 0, -1
	}
	return t, next
}

// nearest returns the time without a year that is nearest to when the line was collected, 0 if there is none: in early
// January, a line of December is from last year.
func (f *fields) nearest(month, day, second, nanos int) int64 {
	if f.observed <= 0 {
		f.observed = time.Now().UnixNano()
	}
	best, distance := int64(0), int64(math.MaxInt64)
	year := time.Unix(0, f.observed).UTC().Year()
	for y := year - 1; y <= year+1; y++ {
		if n := date(y, month, day); n >= 0 {
			t := f.instant(n, second, nanos)
			if away := max(t-f.observed, f.observed-t); away < distance {
				best, distance = t, away
			}
		}
	}
	return best
}

// unix returns the time of a count of units since the epoch, units being so many to a second.
func unix(n, units int64) (int64, bool) {
	if n <= 0 || n/units > lastSecond {
		return 0, false
	}
	return n * (1_000_000_000 / units), true
}

// unixAuto tells seconds, milliseconds, microseconds and nanoseconds apart by their size. Numbers below 100 000 000, which
// is in 1973, are rather durations.
func unixAuto(n int64) (int64, bool) {
	switch {
	case n < 1e8:
		return 0, false
	case n < 1e11:
		return unix(n, 1)
	case n < 1e14:
		return unix(n, 1e3)
	case n < 1e17:
		return unix(n, 1e6)
	}
	return unix(n, 1e9)
}

// unixText reads a count of units since the epoch that may have a fraction; units 0 is unixAuto.
func unixText(s string, units int64) (int64, bool) {
	whole, part, cut := strings.Cut(s, ".")
	n, ok := integer(whole)
	if !ok {
		return 0, false
	}
	if !cut {
		if units == 0 {
			return unixAuto(n)
		}
		return unix(n, units)
	}
	if units == 0 {
		if n < 1e8 || n >= 1e11 {
			return 0, false
		}
		units = 1
	}
	nanos, end := fraction(s, len(whole))
	t, ok := unix(n, units)
	return t + int64(nanos)/units, ok && part != "" && end == len(s)
}

// unixDouble is unixText of a double. Of seconds it holds about seven digits after the point: the rest is noise.
func unixDouble(d float64, units int64) (int64, bool) {
	if units == 0 {
		if !(d >= 1e8 && d < 1e11) {
			return 0, false
		}
		units = 1
	}
	if !(d > 0 && d/float64(units) < lastSecond) {
		return 0, false
	}
	whole, part := math.Modf(d)
	t, ok := unix(int64(whole), units)
	return t + int64(math.Round(part*1e6))*1000/units, ok
}

// readTime reads a field as a time, by the layouts that are configured.
func (f *fields) readTime(v creel.Value) (int64, bool) {
	for i := range f.p.Timestamp.Layouts {
		if t, ok := f.readLayout(v, &f.p.Timestamp.Layouts[i]); ok {
			return t, true
		}
	}
	return 0, false
}

func (f *fields) readLayout(v creel.Value, l *Layout) (int64, bool) {
	switch v.Kind() {
	case creel.ValueInt:
		switch {
		case l.kind == layoutAuto:
			return unixAuto(v.Int())
		case l.kind == layoutUnix:
			return unix(v.Int(), l.units)
		}
		return 0, false
	case creel.ValueDouble:
		if l.kind != layoutAuto && l.kind != layoutUnix {
			return 0, false
		}
		return unixDouble(v.Double(), l.units)
	case creel.ValueString:
		s := v.Str()
		switch l.kind {
		case layoutAuto:
			return f.readAuto(s)
		case layoutRFC3339:
			return f.readISO(s)
		case layoutUnix:
			return unixText(s, l.units)
		}
		return f.readWritten(s, l)
	}
	return 0, false
}

// readAuto reads any of the layouts that are known by their look.
func (f *fields) readAuto(s string) (int64, bool) {
	switch {
	case len(s) < 9:
		return 0, false
	case len(s) > 18 && (s[4] == '-' || s[4] == '/'):
		return f.readISO(s)
	case s[2] == '/':
		return f.readCLF(s)
	case s[0]-'0' <= 9:
		return unixText(s, 0)
	}
	t, next := f.readBSD(s)
	return t, next == len(s)
}

// readWritten reads a layout that the user wrote.
func (f *fields) readWritten(s string, l *Layout) (int64, bool) {
	if s == f.stampText && s != "" && f.stampLayout == l {
		return f.stamp, true
	}
	zone := f.p.Timestamp.Zone.location
	if zone == nil {
		zone = time.UTC
	}
	t, err := time.ParseInLocation(l.layout, s, zone)
	switch {
	case err != nil:
		return 0, false
	case t.Year() == 0: // without a year, which depends on when it was observed
		n := f.nearest(int(t.Month()), t.Day(), t.Hour()*3600+t.Minute()*60+t.Second(), t.Nanosecond())
		return n, n > 0
	case t.Year() < firstYear || t.Year() > lastYear:
		return 0, false
	}
	f.stampText, f.stampLayout, f.stamp = s, l, t.UnixNano()
	return f.stamp, f.stamp > 0
}
