package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/report"
)

// order is what an agent can be asked to do with itself, and what is said of it.
type order struct{ do, short, long string }

var orders = []order{
	{"pause", "Have the agent on this machine collect nothing until it is resumed.",
		"It delivers what it has, keeps its positions and disk queues, and tells whoever sends to it to try later. It stays\npaused when it is started again."},
	{"resume", "Have the paused agent on this machine collect again.",
		"It takes back what pause asked for. What the agent itself waits for (agent.requires) stays; exit code 1 then."},
	{"drain", "Have the agent on this machine collect nothing, and deliver what it has.",
		"Like pause, but what waits in its queues, on disk as well, is sent as fast as the far sides take it."},
	{"restart", "Have the agent on this machine stop and start again, in the same process.",
		"It drains as when it is stopped, and reads its configuration anew."},
	{"stop", "Have the agent on this machine stop.",
		"It drains, for agent.drain at most, and its process ends. Whoever supervises it may start it again."},
}

// orderCommand makes the command that asks the agent here to do something.
func (c *Commands) orderCommand(o order) *cobra.Command {
	cause, format := "", "table"
	cmd := &cobra.Command{
		Use: o.do, Short: o.short, Args: cobra.NoArgs,
		Long:    o.short + " " + o.long + "\n\n--data names its state directory. Exit code 3: no agent was reached.",
		Example: fmt.Sprintf("  %[1]s %[2]s\n  %[1]s %[2]s --data /var/lib/creel --cause 'ticket 17'", c.Name, o.do),
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.Order(cmd.Context(), o.do, cause, format) },
	}
	cmd.Flags().StringVar(&cause, "cause", "", "why: `TEXT` for the agent's history")
	answerFlag(cmd, &format)
	return c.WithData(cmd)
}

// answerFlag adds the flag -o.
func answerFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", *format, "table, json, yaml or name")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml", "name"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
}

// Order asks the agent whose state directory is meant to pause, resume, drain, restart or stop, and prints what it answers
// as format says. The error has an exit code.
func (c *Commands) Order(ctx context.Context, do, cause, format string) error {
	path := "/-/" + do
	if cause != "" {
		path += "?" + url.Values{"cause": {cause}}.Encode()
	}
	var l report.Life
	if err := c.Call(ctx, http.MethodPost, path, nil, &l); err != nil {
		return err
	}
	err := c.Print(format, l, []string{l.State}, func(w *tabwriter.Writer) {
		if do == "restart" || do == "stop" {
			fmt.Fprintf(w, "the agent was asked to %s, and delivers what it has before\n", do)
			return
		}
		fmt.Fprintf(w, "the agent is %s since %s\n", printable(l.State), stamp(l.Since))
		c.holds(w, l)
	})
	if err == nil && do == "resume" && len(l.Holds) > 0 {
		return Exit(ExitNo, errors.New("the agent collects nothing yet: see why above"))
	}
	return err
}

// holds writes why an agent is paused, and what ends that.
func (c *Commands) holds(w io.Writer, l report.Life) {
	for _, h := range l.Holds {
		end := "it goes on by itself once that is right"
		if h.By == "operator" {
			end = c.Name + " resume takes it back"
		}
		cause := ""
		if h.Cause != "" {
			cause = ": " + printable(h.Cause)
		}
		fmt.Fprintf(w, "  held by %s since %s%s; %s\n", printable(h.By), stamp(h.Since), cause, end)
	}
}

func (c *Commands) reload() *cobra.Command {
	force, format := false, "table"
	cmd := &cobra.Command{
		Use: "reload", Short: "Have the agent on this machine read its configuration anew.", Args: cobra.NoArgs,
		Long: "Have the agent read its configuration anew and change what is different. If it is wrong, or something new does not open,\n" +
			"nothing happens. What was rolled back is tried again only with --force, then also what the hub and centers want.\n" +
			"Exit code 1: it was refused; 3: no agent was reached.",
		Example: fmt.Sprintf("  %[1]s diff -c creel.yaml && echo nothing to do\n  %[1]s reload\n  %[1]s reload --force -o json", c.Name),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/-/reload"
			if force {
				path += "?force=1"
			}
			var r report.Receipt
			if err := c.Call(cmd.Context(), http.MethodPost, path, nil, &r); err != nil {
				return err
			}
			if err := c.Print(format, r, []string{r.Hash}, func(w *tabwriter.Writer) { c.receipt(w, r) }); err != nil {
				return err
			}
			if r.Outcome != report.Applied && r.Outcome != report.Unchanged {
				return Exit(ExitNo, errors.New("the configuration does not run: see why above"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "try again what has failed before")
	answerFlag(cmd, &format)
	return c.WithData(cmd)
}

// receipt writes what became of a change, in words.
func (c *Commands) receipt(w io.Writer, r report.Receipt) {
	outcome := map[string]string{report.RolledBack: "rolled back"}[r.Outcome]
	if outcome == "" {
		outcome = printable(r.Outcome)
	}
	fmt.Fprintf(w, "configuration %s, asked for by %s at %s: %s", printable(r.Hash), printable(r.Source), stamp(r.Time), outcome)
	if r.Took > 0 {
		fmt.Fprintf(w, " in %v", short(r.Took))
	}
	fmt.Fprintln(w)
	if r.Error != "" {
		fmt.Fprintf(w, "  %s\n", indented(r.Error))
	}
	if r.Outcome != report.Unchanged && len(r.Change.Keep)+len(r.Change.Open)+len(r.Change.Reopen)+len(r.Change.Close) > 0 {
		changeTable(w, r.Change)
	}
	if r.Still > 0 {
		fmt.Fprintf(w, "  no pipeline stood still for more than %v; %d records were in hand\n", short(r.Still), r.InHand)
	}
	for _, path := range r.Leaked {
		fmt.Fprintf(w, "  %s did not close in time and was left behind; %s restart gets rid of it\n", printable(path), c.Name)
	}
	if r.Trace != "" {
		fmt.Fprintf(w, "  trace %s\n", printable(r.Trace))
	}
	switch r.Outcome {
	case report.Refused:
		fmt.Fprintf(w, "  nothing has changed; correct the configuration (%[1]s validate -c FILE), or try it again as it is: %[1]s reload --force\n", c.Name)
	case report.RolledBack:
		fmt.Fprintf(w, "  the last good configuration runs again; correct this one, or try it again as it is: %s reload --force\n", c.Name)
	}
}

// changeTable writes which components are touched, and how many are not.
func changeTable(w io.Writer, ch report.Change) {
	for _, part := range []struct {
		sign string
		keys []string
	}{{"+", ch.Open}, {"~", ch.Reopen}, {"-", ch.Close}} {
		for _, key := range part.keys {
			fmt.Fprintf(w, "  %s %s\n", part.sign, printable(key))
		}
	}
	fmt.Fprintf(w, "  %d opened, %d reopened, %d closed, %d kept\n", len(ch.Open), len(ch.Reopen), len(ch.Close), len(ch.Keep))
}

// short is a time with three digits or so.
func short(d time.Duration) time.Duration {
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
}

// indented is a text of several lines within what is indented; what is no text in it is escaped.
func indented(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, l := range lines {
		lines[i] = printable(l)
	}
	return strings.Join(lines, "\n  ")
}
