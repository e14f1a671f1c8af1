package metric

import (
	"bufio"
	"io"
	"slices"
	"strconv"
	"strings"
)

// WriteText writes what s gathers in the Prometheus text format, version 0.0.4. Names are translated as OpenTelemetry's
// compatibility specification says: dots become underscores, the unit and for counters _total are appended.
func WriteText(w io.Writer, s *Set) error {
	t := text{Writer: bufio.NewWriter(w)}
	last := ""
	s.Gather(func(p Point) {
		name := textName(p)
		if name != last {
			t.put("# HELP ", name, " ", escape(p.Help, false), "\n# TYPE ", name, " ", p.Kind.String(), "\n")
			last = name
		}
		if p.Kind != KindHistogram {
			t.sample(name, p.Labels, "", p.Value)
			return
		}
		sum := uint64(0)
		for i, n := range p.Counts {
			sum += n
			bound := "+Inf"
			if i < len(p.Bounds) {
				bound = number(p.Bounds[i])
			}
			t.sample(name+"_bucket", p.Labels, bound, float64(sum))
		}
		t.sample(name+"_sum", p.Labels, "", p.Sum)
		t.sample(name+"_count", p.Labels, "", float64(p.Count))
	})
	return t.Flush()
}

type text struct{ *bufio.Writer }

func (t text) put(parts ...string) {
	for _, p := range parts {
		t.WriteString(p) // an error stays with the writer until Flush
	}
}

// sample writes one line; bound is the label le of a bucket.
func (t text) sample(name string, labels []Label, bound string, value float64) {
	t.put(name)
	if bound != "" {
		labels = append(slices.Clone(labels), Label{"le", bound})
	}
	for i, l := range labels {
		t.put([]string{"{", ","}[min(i, 1)], strings.ReplaceAll(l.Name, ".", "_"), `="`, escape(l.Value, true), `"`)
	}
	if len(labels) > 0 {
		t.put("}")
	}
	t.put(" ", number(value), "\n")
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func escape(s string, quotes bool) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "\n", `\n`)
	if quotes {
		s = strings.ReplaceAll(s, `"`, `\"`)
	}
	return s
}

func textName(p Point) string {
	name := strings.ReplaceAll(p.Name, ".", "_")
	suffix := ""
	switch p.Unit {
	case "By":
		suffix = "_bytes"
	case "s":
		suffix = "_seconds"
	case "1":
		if p.Kind == KindGauge {
			suffix = "_ratio"
		}
	}
	if !strings.HasSuffix(name, suffix) {
		name += suffix
	}
	if p.Kind == KindCounter && !strings.HasSuffix(name, "_total") {
		name += "_total"
	}
	return name
}
