package full

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/report"
)

// orderFlags say how an agent is asked to do something.
type orderFlags struct {
	cause string
	wait  time.Duration
}

// orders are the commands that ask an agent to do something: one of the fleet through the hub, or the one on this machine.
func (c *commands) orders() []*cobra.Command {
	var list []*cobra.Command
	for _, o := range []struct{ do, short, long string }{
		{"pause", "Have an agent collect nothing until it is resumed.",
			"It delivers what it has, keeps its positions and disk queues, and tells whoever sends to it to try later. It stays\npaused when it is started again."},
		{"resume", "Have a paused agent collect again.", "It takes back what pause asked for. What the agent itself waits for (agent.requires) stays."},
		{"drain", "Have an agent collect nothing, and deliver what it has.",
			"Like pause, but what waits in its queues, on disk as well, is sent as fast as the far sides take it."},
		{"restart", "Have an agent stop and start again.", "It drains as when it is stopped, and reads its configuration anew."},
		{"stop", "Have an agent stop.", "It drains, for agent.drain at most, and its process ends. Whoever supervises it may start it again."},
	} {
		var f orderFlags
		cmd := &cobra.Command{
			Use: o.do + " [AGENT]", Short: o.short, Args: cobra.MaximumNArgs(1),
			Long: o.short + "\n" + o.long + "\n\nAGENT is its id, the beginning of that, or its host's name: the hub asks it, and one that is not connected when it comes\n" +
				"back. Without AGENT it is the one on this machine whose state directory is --data, and no hub is needed.\n" +
				"Exit code 1: with --wait, it did not say in time that it did; 3: nobody was reached.",
			Example: fmt.Sprintf("  %[1]s %[2]s\n  %[1]s %[2]s edge-1 --cause 'ticket 17' --wait", c.Name, o.do),
			RunE: func(cmd *cobra.Command, args []string) error {
				switch {
				case len(args) == 1:
					return c.order(cmd.Context(), args[0], o.do, f)
				case f.wait != 0 || c.hub != "":
					return errors.New("which agent? Say its id or its host's name; --wait and --hub are for one of the fleet")
				}
				return c.Order(cmd.Context(), o.do, f.cause, c.output)
			},
		}
		cmd.Flags().StringVar(&f.cause, "cause", "", "why: `TEXT` for the agent's history")
		waiting(cmd, &f.wait, "an AGENT of the fleet says that it did")
		list = append(list, c.answering(cmd))
	}
	return list
}

// order asks an agent, through the hub, to do something.
func (c *commands) order(ctx context.Context, word, do string, f orderFlags) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	d, err := client.Agent(ctx, word)
	if err != nil {
		return failed(err)
	}
	o, err := client.Order(ctx, d.ID, api.OrderRequest{Do: do, Cause: f.cause})
	if err != nil {
		return failed(err)
	}
	name := plain(first(d.Name, d.ID))
	err = c.Print(c.output, o, []string{o.ID}, func(w *tabwriter.Writer) {
		when := ""
		if d.Connection != api.Connected {
			when = "; it is " + string(d.Connection) + ", and hears of it when it is connected again"
		}
		fmt.Fprintf(w, "%s is asked to %s%s\n", name, plain(o.Do), when)
	})
	if err != nil || f.wait <= 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, f.wait)
	defer cancel()
	for {
		now, err := client.Agent(ctx, d.ID)
		switch last := now.Intended.Order; {
		case ctx.Err() != nil:
			return cli.Exit(cli.ExitNo, fmt.Errorf("wait for %s to %s: it has not said that it did; it will when it can", name, plain(o.Do)))
		case err != nil:
			return failed(err)
		case last != nil && last.ID != o.ID:
			return cli.Exit(cli.ExitNo, fmt.Errorf("wait for %s to %s: it was asked to %s since", name, plain(o.Do), plain(last.Do)))
		case last != nil && last.Done:
			fmt.Fprintf(c.Err, "%s did, and is %s\n", name, first(plain(now.State), "unknown"))
			return nil
		}
		_ = sleep(ctx, pollEvery) // the next question ends it
	}
}

// status is an agent's status, with where it is in its life if that says more.
func status(a *api.Agent) string {
	if a.Connection != api.Connected || a.State == "" || a.State == "running" || a.State == "unknown" {
		return a.Status()
	}
	return a.Status() + ", " + plain(a.State)
}

// describeLife shows where an agent is in its life, what it shall run, and how it takes that.
func describeLife(w *tabwriter.Writer, in *api.Intended) {
	if in.Life.State != "" {
		fmt.Fprintf(w, "state\t%s since %s\n", plain(in.Life.State), stamp(in.Life.Since))
	}
	for _, h := range in.Life.Holds {
		fmt.Fprintf(w, "held\tby %s since %s: %s\n", plain(h.By), stamp(h.Since), plain(h.Cause))
	}
	if o := in.Order; o != nil {
		done := "not done yet"
		if o.Done {
			done = "done"
		}
		fmt.Fprintf(w, "last order\t%s, by %s at %s: %s%s\n", plain(o.Do), plain(o.By), stamp(o.Time), done, reason(o.Cause))
	}
	cfg := &in.Configuration
	if cfg.Wanted != "" {
		since := ""
		if !cfg.Since.IsZero() {
			since = " since " + stamp(cfg.Since)
		}
		fmt.Fprintf(w, "wanted\t%s%s, runs %s%s\n", plain(cfg.Wanted), since, plain(cfg.Hash), reason(firstLine(cfg.Error)))
	}
	if cfg.Probation.After(time.Now()) {
		fmt.Fprintf(w, "probation\tuntil %s: then what runs is taken for good\n", stamp(cfg.Probation))
	}
	if in.Conflict != "" {
		fmt.Fprintf(w, "conflict\t%s\n", plain(in.Conflict))
	}
}

func reason(s string) string {
	if s == "" {
		return ""
	}
	return ": " + plain(s)
}

// describeChanges shows what an agent was asked to run, and what became of it, newest first.
func describeChanges(w *tabwriter.Writer, in *api.Intended) {
	if len(in.Documents) > 0 {
		fmt.Fprintln(w, "\nDOCUMENT OF THE HUB\tSTATUS\tVERSION\tERROR")
		for _, p := range in.Documents {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", plain(p.Name), plain(p.Status), plain(p.Version), plain(firstLine(p.Error)))
		}
	}
	cfg := &in.Configuration
	if len(cfg.Documents) > 0 {
		fmt.Fprintln(w, "\nIT WAS ASKED TO RUN\tSOURCE\tVERSION\tHASH\tSTATUS\tERROR")
		for _, d := range cfg.Documents {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", plain(d.Name), plain(d.Source), plain(d.Version), d.Hash, plain(d.Status), plain(firstLine(d.Error)))
		}
	}
	if len(cfg.Failed) > 0 {
		fmt.Fprintln(w, "\nFAILED\tWHEN\tREASON")
		for _, f := range cfg.Failed {
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Hash, stamp(f.Time), plain(firstLine(f.Reason)))
		}
	}
	if len(cfg.Receipts) > 0 {
		fmt.Fprintln(w, "\nCHANGE\tSOURCE\tHASH\tOUTCOME\tKEPT\tOPENED\tREOPENED\tCLOSED\tTOOK\tSTOOD STILL\tIN HAND\tERROR")
		for _, r := range slices.Backward(cfg.Receipts) {
			receipt(w, &r)
		}
	}
	if len(in.Life.History) > 0 {
		fmt.Fprintln(w, "\nTRANSITION\tFROM\tTO\tEVENT\tCAUSE")
		for _, t := range slices.Backward(in.Life.History) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", stamp(t.Time), plain(t.From), plain(t.To), plain(t.Event), plain(t.Cause))
		}
	}
}

func receipt(w *tabwriter.Writer, r *report.Receipt) {
	ch := r.Change
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%v\t%v\t%d\t%s\n", stamp(r.Time), plain(r.Source), r.Hash, plain(r.Outcome), len(ch.Keep), len(ch.Open),
		len(ch.Reopen), len(ch.Close), r.Took.Round(time.Microsecond), r.Still.Round(time.Microsecond), r.InHand, plain(firstLine(r.Error)))
	for _, path := range r.Leaked {
		fmt.Fprintf(w, "\tdid not close in time and was left behind: %s\n", plain(path))
	}
}
