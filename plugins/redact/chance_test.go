package redact

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// randomText returns n characters of an alphabet.
func randomText(r *rand.Rand, n int, alphabet string) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

const (
	digits = "0123456789"
	hexes  = digits + "abcdef"
	alnums = digits + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// randomCard returns a card number: its check digit is found by trying.
func randomCard(r *rand.Rand) string {
	for {
		s := randomText(r, 1, "23456") + randomText(r, 12+r.IntN(7), digits)
		sum := 0
		for i := range len(s) { // the sum as the standard's text has it, from the right
			d := int(s[len(s)-1-i] - '0')
			if i%2 == 1 {
				d *= 2
			}
			sum += d/10 + d%10
		}
		if sum%10 == 0 {
			return s
		}
	}
}

// TestSecretsInAnyText: a secret is found whatever it stands between, with other secrets about.
func TestSecretsInAnyText(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	p := open(t, everything, creel.Host{})
	secrets := []func() string{
		func() string { return randomCard(r) },
		func() string {
			c := randomCard(r)
			sep := randomText(r, 1, " -")
			return c[:4] + sep + c[4:8] + sep + c[8:12] + sep + c[12:]
		},
		func() string {
			return randomText(r, 1+r.IntN(10), alnums+"._+") + "x@" + randomText(r, 1+r.IntN(9), alnums) + ".example.org"
		},
		func() string {
			part := func() string {
				return base64.RawURLEncoding.EncodeToString([]byte(`{"a` + randomText(r, 5+r.IntN(20), alnums) + `":1}`))
			}
			return part() + "." + part() + "." + randomText(r, 43, alnums)
		},
		func() string { return "AKIA" + randomText(r, 16, digits+"ABCDEFGHIJKLMNOPQRSTUVWXYZ") },
		func() string { return "gh" + randomText(r, 1, "pousr") + "_" + randomText(r, 36, alnums) },
		func() string { return "xoxb-" + randomText(r, 12, digits) + "-" + randomText(r, 24, alnums) },
		func() string { return "ORD-" + randomText(r, 8, digits) },
		func() string { return fmt.Sprintf("%d.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256)) },
		func() string {
			return fmt.Sprintf("2001:db8:%x:%x:%x:%x:%x:1", r.IntN(65536), r.IntN(65536), r.IntN(65536), r.IntN(65536), r.IntN(65536))
		},
	}
	between := []string{" ", "\n", "\t", ", ", "; ", "=", "|", "(", ")", "\"", "'", "<", ">", "[", "]", "{\"k\":\"", "\",\"x\":\"", " and ", "é", "日本", "\x00", " - ", " [card] ", " https://h/", "?x=", "&y="}
	for range 20000 {
		var text strings.Builder
		var hidden []string
		for range 1 + r.IntN(4) {
			text.WriteString(between[r.IntN(len(between))])
			s := secrets[r.IntN(len(secrets))]()
			hidden = append(hidden, s)
			text.WriteString(s)
		}
		text.WriteString(between[r.IntN(len(between))])
		got := p.rewrite(text.String())
		for _, s := range hidden {
			if strings.Contains(got, s) {
				t.Fatalf("seed %d: %q is left in %q, which was %q", seed, s, got, text.String())
			}
		}
	}
}

// TestFalseAlarms: what logs are full of stays as it is.
func TestFalseAlarms(t *testing.T) {
	if testing.Short() {
		t.Skip("it is one goroutine, and takes long")
	}
	r := rand.New(rand.NewPCG(1, 2))
	p := open(t, "{}", creel.Host{})
	f := func(what string, most int, make func() string) {
		t.Helper()
		alarms, example := 0, ""
		for range 100_000 {
			if s := make(); !p.clean(s) {
				alarms, example = alarms+1, s
			}
		}
		if alarms > most {
			t.Errorf("%d of 100000 %s are taken for secrets, such as %q: %q", alarms, what, example, p.rewrite(example))
		}
	}
	f("ids of traces", 5 /* an id may well be a card number */, func() string { return "trace_id=" + randomText(r, 32, hexes) + " span_id=" + randomText(r, 16, hexes) })
	f("UUIDs", 0, func() string {
		return randomText(r, 8, hexes) + "-" + randomText(r, 4, hexes) + "-4" + randomText(r, 3, hexes) + "-" + randomText(r, 4, hexes) + "-" + randomText(r, 12, hexes)
	})
	f("times", 0, func() string {
		at := time.Unix(r.Int64N(4e9), r.Int64N(1e9)).UTC()
		return at.Format(time.RFC3339Nano) + " " + at.Format(time.ANSIC) + " " + at.Format("2006-01-02 15:04:05 -0700")
	})
	f("nanoseconds", 0, func() string { return strconv.FormatInt(1e18+r.Int64N(9e17), 10) })
	f("milliseconds", 0, func() string { return strconv.FormatInt(1e12+r.Int64N(9e11), 10) })
	f("fractions", 0, func() string { return strconv.FormatFloat(r.Float64()*10, 'g', -1, 64) })
	f("addresses", 0, func() string {
		return fmt.Sprintf("%d.%d.%d.%d:%d 10.0.0.1 -> [fe80::%x]", r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(65536), r.IntN(65536))
	})
	f("numbers in columns", 0, func() string {
		return fmt.Sprintf("%d %d %d %d", r.IntN(1000), r.IntN(100), r.IntN(10000), r.IntN(100))
	})
}
