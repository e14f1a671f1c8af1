package full

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
)

func (c *commands) query() *cobra.Command {
	cmd := &cobra.Command{Use: "query", Short: "Ask the hub's quick look.", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(c.queryMetrics(), c.queryLogs(), c.queryTraces())
	return cmd
}

// window are the flags --since and --until.
type window struct{ since, until string }

func (f *window) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.since, "since", "1h", "from when: a duration such as 15m, or a `TIME`")
	cmd.Flags().StringVar(&f.until, "until", "now", "until when, in the same forms")
}

func (f *window) parse() (w api.Window, err error) {
	now := time.Now()
	if w.Start, err = api.ParseTime(f.since, now); err != nil {
		return w, fmt.Errorf("read --since: %w", err)
	}
	if w.End, err = api.ParseTime(f.until, now); err != nil {
		return w, fmt.Errorf("read --until: %w", err)
	}
	return w, nil
}

func (c *commands) queryMetrics() *cobra.Command {
	var f window
	var step time.Duration
	cmd := &cobra.Command{
		Use: "metrics PROMQL", Short: "Evaluate PromQL, now or over time.", Args: cobra.ExactArgs(1),
		Long:    "Evaluate a PromQL expression now, or, with --since, at every --step of a time.",
		Example: "  creel query metrics 'sum by (host_name) (rate(system_network_io_bytes_total[1m]))'\n  creel query metrics --since 1h up -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			call, parameters := "query", url.Values{"query": args}
			if cmd.Flags().Changed("since") {
				w, err := f.parse()
				if err != nil {
					return err
				}
				if step == 0 {
					step = max(time.Second, w.End.Sub(w.Start)/60)
				}
				call = "query_range"
				parameters.Set("start", unix(w.Start))
				parameters.Set("end", unix(w.End))
				parameters.Set("step", strconv.FormatFloat(step.Seconds(), 'f', -1, 64))
			}
			data, err := client.PromQL(cmd.Context(), call, parameters)
			if err != nil {
				return failed(err)
			}
			return c.printSamples(data)
		},
	}
	f.add(cmd)
	cmd.Flags().DurationVar(&step, "step", 0, "with --since: the `TIME` between points (default: a sixtieth of it)")
	return c.answering(cmd)
}

func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixNano())/1e9, 'f', 3, 64) }

// samples is the data of Prometheus' answers to queries.
type samples struct {
	ResultType string
	Result     json.RawMessage
}

type oneSeries struct {
	Metric map[string]string
	Value  [2]any
	Values [][2]any
}

func (c *commands) printSamples(data json.RawMessage) error {
	var s samples
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("read the hub's answer: %w", err)
	}
	var list []oneSeries
	switch s.ResultType {
	case "vector", "matrix":
		if err := json.Unmarshal(s.Result, &list); err != nil {
			return fmt.Errorf("read the hub's answer: %w", err)
		}
	default: // scalar, string
		var v [2]any
		if err := json.Unmarshal(s.Result, &v); err != nil {
			return fmt.Errorf("read the hub's answer: %w", err)
		}
		list = []oneSeries{{Value: v}}
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = seriesName(list[i].Metric)
	}
	return c.Print(c.output, data, names, func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "TIME\tVALUE\tSERIES")
		for i, x := range list {
			values := x.Values
			if values == nil {
				values = [][2]any{x.Value}
			}
			for _, v := range values {
				seconds, _ := v[0].(float64)
				fmt.Fprintf(w, "%s\t%v\t%s\n", time.UnixMilli(int64(seconds*1000)).Local().Format(time.DateTime), v[1], plain(names[i]))
			}
		}
	})
}

func seriesName(labels map[string]string) string {
	var parts []string
	for k, v := range labels {
		if k != "__name__" {
			parts = append(parts, k+"="+strconv.Quote(v))
		}
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return labels["__name__"]
	}
	return labels["__name__"] + "{" + strings.Join(parts, ", ") + "}"
}

func (c *commands) queryLogs() *cobra.Command {
	var f window
	q := api.LogQuery{Order: "desc"}
	cmd := &cobra.Command{
		Use: "logs [TEXT]", Short: "Search log records.", Args: cobra.MaximumNArgs(1),
		Long:    "Search log records whose body has all words of TEXT and its \"phrases\", and none of its -words.",
		Example: "  creel query logs 'connection refused' --filter 'severity>=ERROR' --since 15m\n  creel query logs --filter service=cart -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if q.Window, err = f.parse(); err != nil {
				return err
			}
			q.Query = strings.Join(args, " ")
			client, err := c.client()
			if err != nil {
				return err
			}
			result, err := client.Logs(cmd.Context(), q)
			if err != nil {
				return failed(err)
			}
			if q.Order == "desc" && c.output == "table" { // a terminal ends below
				slices.Reverse(result.Logs)
			}
			ids := make([]string, len(result.Logs))
			for i, l := range result.Logs {
				ids[i] = l.ID
			}
			if result.Partial != "" {
				fmt.Fprintf(c.Err, "the answer may lack records: %s\n", result.Partial)
			}
			return c.Print(c.output, result, ids, func(*tabwriter.Writer) {
				for i := range result.Logs {
					c.printLog(&result.Logs[i])
				}
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringArrayVarP(&q.Filters, "filter", "f", nil, "a `CONDITION` such as service=cart, key!=value or severity>=WARN; all must hold")
	cmd.Flags().IntVarP(&q.Limit, "limit", "n", 100, "at most `N` records")
	cmd.Flags().StringVar(&q.Order, "order", "desc", "which come first if there are more: desc (newest) or asc")
	return c.answering(cmd)
}

func (c *commands) printLog(l *api.Log) {
	var text string
	if json.Unmarshal(l.Body, &text) != nil {
		text = string(l.Body)
	}
	fmt.Fprintf(c.Out, "%s %-5s %s  %s\n", l.Time.Local().Format("2006-01-02 15:04:05.000"), l.Severity, plain(l.Service), plain(text))
}

// logs follows log records.
func (c *commands) logs() *cobra.Command {
	var q api.LogQuery
	follow := true
	cmd := &cobra.Command{
		Use: "logs [TEXT]", Short: "Show the last log records of the fleet, and those that come.", Args: cobra.MaximumNArgs(1),
		Example: "  creel logs\n  creel logs -f severity'>='ERROR timeout",
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Query = strings.Join(args, " ")
			client, err := c.client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			last := q
			last.Order, last.Limit = "desc", 20
			result, err := client.Logs(ctx, last)
			if err != nil {
				return failed(err)
			}
			for i := range result.Logs {
				c.printLog(&result.Logs[len(result.Logs)-1-i])
			}
			if !follow {
				return nil
			}
			err = client.TailLogs(ctx, q, func(l api.Log) error {
				c.printLog(&l)
				return nil
			})
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return failed(err)
		},
	}
	cmd.Flags().StringArrayVarP(&q.Filters, "filter", "f", nil, "a `CONDITION` such as service=cart, key!=value or severity>=WARN; all must hold")
	cmd.Flags().BoolVar(&follow, "follow", true, "go on with what comes")
	return c.asking(cmd)
}

func (c *commands) queryTraces() *cobra.Command {
	var f window
	var q api.TraceQuery
	var shortest, longest time.Duration
	cmd := &cobra.Command{
		Use: "traces [TRACE-ID]", Short: "Search traces, or show one.", Args: cobra.MaximumNArgs(1),
		Example: "  creel query traces --service cart --error --min 200ms\n  creel query traces 5b8efff798038103d269b633813fc60c",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				t, err := client.Trace(cmd.Context(), args[0])
				if err != nil {
					return failed(err)
				}
				return c.Print(c.output, t, []string{t.TraceID}, func(w *tabwriter.Writer) { waterfall(w, &t) })
			}
			if q.Window, err = f.parse(); err != nil {
				return err
			}
			q.MinDuration, q.MaxDuration = milliseconds(shortest), milliseconds(longest)
			list, err := client.Traces(cmd.Context(), q)
			if err != nil {
				return failed(err)
			}
			ids := make([]string, len(list.Traces))
			for i, t := range list.Traces {
				ids[i] = t.TraceID
			}
			return c.Print(c.output, list, ids, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "TIME\tTRACE\tSERVICE\tNAME\tMS\tSPANS\tERRORS")
				for _, t := range list.Traces {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f\t%d\t%d\n", stamp(t.Start), t.TraceID, plain(t.Service), plain(t.Name), t.Duration, t.Spans, t.Errors)
				}
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&q.Service, "service", "", "service.name of a `SERVICE`")
	cmd.Flags().StringVar(&q.Name, "name", "", "`NAME` of a span")
	cmd.Flags().DurationVar(&shortest, "min", 0, "spans that take at least this `TIME`")
	cmd.Flags().DurationVar(&longest, "max", 0, "spans that take at most this `TIME`")
	cmd.Flags().BoolVar(&q.Error, "error", false, "only with an error")
	cmd.Flags().StringArrayVarP(&q.Filters, "filter", "f", nil, "a `CONDITION` such as http.route=/cart; all must hold")
	cmd.Flags().IntVarP(&q.Limit, "limit", "n", 20, "at most `N` traces")
	return c.answering(cmd)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// waterfall prints a trace as a tree, with each span's start after the first.
func waterfall(w *tabwriter.Writer, t *api.Trace) {
	fmt.Fprintln(w, "START MS\tMS\tSERVICE\tSPAN\tSTATUS")
	children := make(map[string][]*api.Span)
	here := make(map[string]bool)
	for i := range t.Spans {
		here[t.Spans[i].SpanID] = true
	}
	for i := range t.Spans {
		s := &t.Spans[i]
		parent := s.ParentID
		if !here[parent] || parent == s.SpanID {
			parent = ""
		}
		children[parent] = append(children[parent], s)
	}
	var show func(parent, indent string)
	show = func(parent, indent string) {
		for _, s := range children[parent] {
			fmt.Fprintf(w, "%.2f\t%.2f\t%s\t%s%s\t%s %s\n", milliseconds(s.Start.Sub(t.Spans[0].Start)), s.Duration, plain(s.Service), indent, plain(s.Name), s.Status, plain(s.Message))
			if len(indent) < 64 {
				show(s.SpanID, indent+"  ")
			}
		}
	}
	show("", "")
}
