package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
)

// tapFlags are what one asks of a tap.
type tapFlags struct {
	before              bool
	where, rate, format string
	n                   int
}

func (c *Commands) tap() *cobra.Command {
	f := tapFlags{rate: "10/s", format: "text"}
	cmd := &cobra.Command{
		Use: "tap EDGE", Short: "Watch the records that pass a place of the running agent.", Args: cobra.ExactArgs(1),
		Long: "Watch records as they pass EDGE: a collector (what it sends), a processor (what it sends on or, with --before,\n" +
			"what it is given) or an exporter (what it is given), by the name that status gives it, or its id where that is enough.\n\n" +
			"The agent is not held up: it shows a bounded share, and counts what it passes over. Records are shown as they are,\n" +
			"secrets in them included; who may read the agent's state directory may watch.\n" +
			"Exit code 3: no agent was reached; 5: it has no such EDGE.",
		Example: fmt.Sprintf("  %[1]s tap file/nginx\n  %[1]s tap pipelines.web.sample --before -n 5\n  %[1]s tap otlp/hub --where 'severity >= ERROR' -o json", c.Name),
		RunE:    func(cmd *cobra.Command, args []string) error { return c.runTap(cmd.Context(), args[0], f) },
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			var list []report.Component
			_ = c.Call(cmd.Context(), http.MethodGet, "/components", nil, &list) // nothing to complete then
			for _, comp := range list {
				names = append(names, comp.Component)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().BoolVar(&f.before, "before", false, "what a processor is given, rather than what it sends on")
	cmd.Flags().StringVar(&f.where, "where", "", "show only records for which `CONDITION` holds")
	cmd.Flags().IntVarP(&f.n, "count", "n", 0, "end after so many records; 0: when interrupted")
	cmd.Flags().StringVar(&f.rate, "rate", f.rate, "show so many at most")
	cmd.Flags().StringVarP(&f.format, "output", "o", f.format, "text or json")
	return c.WithData(cmd)
}

// query checks the flags, and returns the request that they make.
func (f tapFlags) query(edge string) (url.Values, error) {
	if f.format != "text" && f.format != "json" {
		return nil, fmt.Errorf("unknown output %q; say -o text or -o json", f.format)
	}
	var rate config.Rate
	if err := rate.UnmarshalText([]byte(f.rate)); err != nil {
		return nil, fmt.Errorf("--rate %w", err)
	}
	if f.where != "" {
		if _, err := expr.ParseCondition(f.where); err != nil {
			return nil, fmt.Errorf("read --where: %w", err)
		}
	}
	if f.n < 0 {
		return nil, errors.New("-n must not be negative")
	}
	return url.Values{
		"edge": {edge}, "before": {strconv.FormatBool(f.before)}, "rate": {f.rate}, "where": {f.where}, "n": {strconv.Itoa(f.n)},
	}, nil
}

func (c *Commands) runTap(ctx context.Context, edge string, f tapFlags) error {
	q, err := f.query(edge)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	resp, err := c.do(ctx, http.MethodGet, "/tap?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	counts, shown, err := c.showTap(resp.Body, f.format)
	fmt.Fprintf(c.Err, "%d records passed", counts.Passed)
	if f.where != "" {
		fmt.Fprintf(c.Err, ", %d were looked at", counts.Looked)
	}
	fmt.Fprintf(c.Err, ", %d shown\n", shown)
	switch {
	case ctx.Err() != nil || f.n > 0 && shown >= f.n:
		return nil
	case err == nil:
		err = errors.New("the agent stops")
	}
	return Exit(ExitUnreachable, err)
}

// showTap prints what comes until there is no more. The counts are the last that came.
func (c *Commands) showTap(body io.Reader, format string) (counts pipeline.TapCounts, shown int, err error) {
	for dec := json.NewDecoder(body); ; {
		var line agent.TapLine
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return counts, shown, nil
		} else if err != nil {
			return counts, shown, fmt.Errorf("read what the agent shows: %w", err)
		}
		switch {
		case line.Error != "":
			return counts, shown, errors.New(line.Error)
		case line.Counts != nil:
			counts = *line.Counts
			continue
		case format == "json":
			fmt.Fprintf(c.Out, "%s\n", line.Record)
		default:
			fmt.Fprintln(c.Out, recordText(line.Record))
		}
		shown++
	}
}

// tapRecord is what the text of a record is made of.
type tapRecord struct {
	Time         string          `json:"time"`
	Start        string          `json:"start"`
	Severity     string          `json:"severity"`
	SeverityText string          `json:"severity_text"`
	Event        string          `json:"event"`
	Name         string          `json:"name"`
	Duration     string          `json:"duration"`
	Status       string          `json:"status"`
	Unit         string          `json:"unit"`
	TraceID      string          `json:"trace_id"`
	Body         json.RawMessage `json:"body"`
	Value        json.RawMessage `json:"value"`
	Count        json.RawMessage `json:"count"`
	Sum          json.RawMessage `json:"sum"`
	Attributes   json.RawMessage `json:"attributes"`

	Resource map[string]json.RawMessage `json:"resource"`
}

// recordText returns a record in one line, for a terminal.
func recordText(record json.RawMessage) string {
	var r tapRecord
	if err := json.Unmarshal(record, &r); err != nil {
		return string(record)
	}
	parts := []string{cmp.Or(r.Time, r.Start), cmp.Or(r.SeverityText, r.Severity)}
	for _, key := range []string{"service.name", "host.name"} {
		if v, ok := r.Resource[key]; ok {
			parts = append(parts, plain(v))
			break
		}
	}
	parts = append(parts, r.Event, r.Name, r.Duration, r.Status, plain(r.Body), plain(r.Value))
	if r.Count != nil {
		parts = append(parts, "count="+plain(r.Count), "sum="+plain(r.Sum))
	}
	parts = append(parts, r.Unit, r.TraceID, string(r.Attributes))
	var line []string
	for _, p := range parts {
		if p != "" {
			line = append(line, printable(p))
		}
	}
	return strings.Join(line, " ")
}

// plain returns a text without quotes, and other JSON as it is.
func plain(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// printable makes text that came from outside harmless to a terminal: control characters are escaped.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
