package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as 512, 64KiB, 4MiB, 1.5GiB, or decimal as 1MB.
type Size int64

var sizeUnits = []struct {
	name string
	n    float64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	t, unit := string(text), 1.0
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(t, u.name); ok {
			t, unit = strings.TrimSpace(rest), u.n
			break
		}
	}
	if i, err := strconv.ParseInt(t, 10, 64); err == nil && unit == 1 && i >= 0 { // all its digits count
		*s = Size(i)
		return nil
	}
	n, err := strconv.ParseFloat(t, 64)
	if n *= unit; err != nil || math.IsNaN(n) || n < 0 || n > 1<<62 {
		return fmt.Errorf("must be a size such as 64KiB or 4MiB, got %q", text)
	}
	*s = Size(n)
	return nil
}

// String returns the size in the largest binary unit that needs no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if n := int64(u.n); s != 0 && int64(s)%n == 0 {
			return strconv.FormatInt(int64(s)/n, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText returns what String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// TypeName is what help calls it.
func (Size) TypeName() string { return "size" }

// Rate is a number of things per second, written as 100/s, 6000/m or 5/h.
type Rate float64

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(text []byte) error {
	count, unit, _ := strings.Cut(string(text), "/")
	n, err := strconv.ParseFloat(strings.TrimSpace(count), 64)
	seconds := map[string]float64{"s": 1, "m": 60, "h": 3600}[strings.TrimSpace(unit)]
	if err != nil || seconds == 0 || n < 0 || math.IsNaN(n) || math.IsInf(n, 0) {
		return fmt.Errorf("must be a rate such as 100/s, 6000/m or 5/h, got %q", text)
	}
	*r = Rate(n / seconds)
	return nil
}

// String returns the rate per second.
func (r Rate) String() string { return strconv.FormatFloat(float64(r), 'g', -1, 64) + "/s" }

// MarshalText returns what String does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// TypeName is what help calls it.
func (Rate) TypeName() string { return "rate" }

// ParseDuration reads what time.ParseDuration does, and days: 7d, 1d12h.
func ParseDuration(s string) (time.Duration, error) {
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 16)
	var d time.Duration
	if err == nil && (rest != "" || !ok) {
		d, err = time.ParseDuration(rest)
	}
	total := time.Duration(n)*24*time.Hour + d
	if err != nil || n > 0 && (d < 0 || total < 0) {
		return 0, fmt.Errorf("must be a duration such as 500ms, 10s, 1m30s or 7d, got %q", s)
	}
	return total, nil
}

// formatDuration leaves out the zeros that time.Duration.String ends in.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}
