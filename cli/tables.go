package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/report"
)

// ComponentTable writes how an agent's components are. w aligns what stands between tabs.
func ComponentTable(w io.Writer, list []report.Component) {
	disks := slices.ContainsFunc(list, func(c report.Component) bool { return c.Spool != nil })
	more := ""
	if disks {
		more = "ON DISK\tWAITING\tDISK QUEUE\t"
	}
	fmt.Fprintf(w, "\nCOMPONENT\tHEALTH\tBREAKER\tQUEUE\t%sERROR\n", more)
	for _, c := range list {
		health, queue, why := "healthy", "", shorten(c.Error, 1000)
		if !c.Healthy {
			health = "degraded"
		}
		if c.Limit > 0 {
			queue = of(c.Queued, c.Limit)
		}
		if disks {
			more = "\t\t\t"
		}
		if s := c.Spool; s != nil {
			waiting := fmt.Sprint(s.Waiting)
			if s.Waiting > 0 && !s.Oldest.IsZero() {
				waiting += " since " + stamp(s.Oldest)
			}
			more = fmt.Sprintf("%s\t%s\t%s\t", of(s.Bytes, s.Limit), waiting, DiskQueue(*s))
			if s.Error != "" {
				why = strings.TrimPrefix(why+"; disk queue: "+shorten(s.Error, 1000), "; ")
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s%s\n", printable(c.Component), health, printable(c.Breaker), queue, more, printable(why))
	}
}

func of(n, limit int64) string { return Bytes(n) + " of " + Bytes(limit) }

// Bytes is a size as one says it: 17B, 3.4MiB.
func Bytes(n int64) string {
	const units = "KMGTPE"
	size, unit := float64(n), -1
	for ; size >= 1023.95 && unit < len(units)-1; unit++ {
		size /= 1024
	}
	if unit < 0 {
		return fmt.Sprintf("%dB", n)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", size), ".0") + units[unit:unit+1] + "iB"
}

// DiskQueue says what a disk queue does, such as "fills in 12m" or "full, replaying 5000/s, 3m left".
func DiskQueue(s report.Spool) string {
	var parts []string
	switch {
	case s.Full:
		parts = append(parts, "full")
	case s.Error != "":
		parts = append(parts, "fails")
	}
	if !s.Full && s.FullIn > 0 {
		parts = append(parts, "fills in "+Span(s.FullIn))
	}
	if s.Replaying {
		replay := "replaying"
		if s.OutRate > 0 {
			replay += fmt.Sprintf(" %.0f/s", s.OutRate)
		}
		if parts = append(parts, replay); s.EmptyIn > 0 {
			parts = append(parts, Span(s.EmptyIn)+" left")
		}
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, ", ")
	case s.Waiting > 0:
		return "waits for the far side"
	}
	return "nothing waits"
}

// Span is a time in seconds as one says it: 7s, 12m, 3h, 2d.
func Span(seconds float64) string {
	for _, u := range []struct {
		below, unit float64
		name        string
	}{{60, 1, "s"}, {3600, 60, "m"}, {48 * 3600, 3600, "h"}, {1000 * 86400, 86400, "d"}} {
		if seconds < u.below {
			return fmt.Sprintf("%d%s", int(max(0, seconds)/u.unit), u.name)
		}
	}
	return "years"
}

// LedgerTables write an agent's books. Each line adds up: what stands first is the sum of what follows it, UNEXPLAINED
// included. w aligns what stands between tabs.
func LedgerTables(w io.Writer, l report.Ledger) {
	if len(l.Pipelines) == 0 {
		return
	}
	fmt.Fprintln(w, "\nPIPELINE\tACCEPTED\tCREATED\tFILTERED\tABSORBED\tROUTED\tHELD\tPASSED\tDROPPED\tUNEXPLAINED")
	for _, p := range l.Pipelines {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%d\n", printable(p.Pipeline), p.Accepted, p.Created, p.Filtered, p.Absorbed, p.Routed, p.Held,
			p.Passed, dropped(p.Dropped), p.Unexplained)
	}
	fmt.Fprintln(w, "\nPIPELINE\tEXPORTER\tIN\tDELIVERED\tSPOOLED\tQUEUED\tDEAD LETTERS\tDROPPED\tUNEXPLAINED")
	for _, p := range l.Pipelines {
		for _, x := range p.Exporters {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%d\n", printable(p.Pipeline), printable(x.Exporter), x.In, x.Delivered, x.Spooled, x.Queued,
				x.DeadLettered, dropped(x.Dropped), x.Unexplained)
		}
	}
	if len(l.Spools) == 0 {
		return
	}
	fmt.Fprintln(w, "\nDISK QUEUE\tRECOVERED\tIN\tDELIVERED\tWAITING\tDEAD LETTERS\tDROPPED\tUNEXPLAINED")
	for _, s := range l.Spools {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%d\n", printable(s.Exporter), s.Recovered, s.In, s.Delivered, s.Waiting, s.DeadLettered,
			dropped(s.Dropped), s.Unexplained)
	}
}

func dropped(reasons map[string]int64) string {
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		parts = append(parts, fmt.Sprintf("%s %d", printable(why), reasons[why]))
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, ", ")
}

// Ago says how long ago t was.
func Ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "now"
	}
	return Span(d.Seconds())
}
