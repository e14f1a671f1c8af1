package full

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/config"
)

func (c *commands) getTasks() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "tasks", Aliases: []string{"task"}, Short: "List documents that are to be on some agents, and on which they are.", Args: cobra.NoArgs,
		Long: "List the tasks: a document with place: 2 has two. Each has one owner, an agent; when that is lost, the hub gives it to another,\nwith a higher epoch.\n" +
			"With --watch each task, and then each that is not as it was, one a line, until it is interrupted.",
		Example: "  creel get tasks\n  creel get tasks --watch\n  creel get tasks -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if follow {
				return watched(cmd.Context(), client, func(ctx context.Context) error {
					return client.WatchTasks(ctx, c.tasksChanged(make(map[string][]api.Task)))
				})
			}
			list, err := client.Tasks(cmd.Context())
			if err != nil {
				return failed(err)
			}
			names := make([]string, len(list.Tasks))
			for i, t := range list.Tasks {
				names[i] = t.Document
			}
			return c.Print(c.output, list, names, func(w *tabwriter.Writer) { taskTable(w, list.Tasks) })
		},
	}
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "print each change, until interrupted")
	return c.answering(cmd)
}

// tasksChanged returns what prints the tasks of a change that are not among the known ones, which are by document.
func (c *commands) tasksChanged(known map[string][]api.Task) func(api.TaskChange) error {
	return func(change api.TaskChange) error {
		was, at := known, time.Now().Format(time.TimeOnly)
		if known = maps.Clone(was); change.All {
			known = make(map[string][]api.Task)
		}
		for _, document := range change.Documents {
			delete(known, document)
		}
		for _, t := range change.Tasks {
			known[t.Document] = append(known[t.Document], t)
			if slices.Contains(was[t.Document], t) {
				continue
			}
			if _, err := fmt.Fprintf(c.Out, "%s + %s %s\n", at, plain(t.Document), taskText(t)); err != nil {
				return err
			}
		}
		for _, document := range slices.Sorted(maps.Keys(was)) {
			if known[document] != nil {
				continue
			}
			if _, err := fmt.Fprintf(c.Out, "%s - %s\n", at, plain(document)); err != nil {
				return err
			}
		}
		return nil
	}
}

// taskText is a task in a line: how it is, and on whom.
func taskText(t api.Task) string {
	text := plain(t.Status)
	if t.Epoch > 0 {
		text += fmt.Sprintf(" %s %s epoch %d", plain(first(t.Name, "-")), plain(first(t.Agent, "-")), t.Epoch)
	}
	if t.Error != "" {
		text += ": " + plain(firstLine(t.Error))
	}
	return text
}

func taskTable(w *tabwriter.Writer, list []api.Task) {
	if len(list) == 0 {
		fmt.Fprintln(w, "there are no tasks: no document says on how many agents it is to be, such as place: 1")
		return
	}
	fmt.Fprintln(w, "DOCUMENT\tVERSION\tPRIORITY\tSTATUS\tAGENT\tID\tEPOCH\tSINCE\tERROR")
	for _, t := range list {
		epoch, since := "", ""
		if t.Epoch > 0 {
			epoch, since = fmt.Sprint(t.Epoch), cli.Ago(t.Since)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", plain(t.Document), t.Version, t.Priority, plain(t.Status), plain(t.Name), plain(t.Agent), epoch, since, plain(firstLine(t.Error)))
	}
}

func (c *commands) describeTask() *cobra.Command {
	return c.answering(&cobra.Command{
		Use: "task NAME", Aliases: []string{"tasks"}, Short: "Show the tasks of one document: where they are, what has become of them, what they wait for.", Args: cobra.ExactArgs(1),
		Example: "  creel describe task nightly",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			t, err := client.Task(cmd.Context(), args[0])
			if err != nil {
				return failed(err)
			}
			return c.printTask(&t)
		},
	})
}

func (c *commands) printTask(t *api.TaskDetail) error {
	return c.Print(c.output, t, []string{t.Document}, func(w *tabwriter.Writer) { describeTask(w, t) })
}

func describeTask(w *tabwriter.Writer, t *api.TaskDetail) {
	fmt.Fprintf(w, "document\t%s\nversion\t%d\nselector\t%s\nplace\t%d\npriority\t%d\ncost\t%g\n", plain(t.Document), t.Version, plain(first(t.Selector, "all agents")), t.Place, t.Priority, t.Cost)
	var measured []string
	for _, x := range t.Tasks {
		if x.Measured > 0 {
			measured = append(measured, strconv.FormatFloat(x.Measured, 'g', 2, 64))
		}
	}
	if len(measured) > 0 {
		fmt.Fprintf(w, "measured\t%s of a slot\n", strings.Join(measured, ", "))
	}
	if t.Spread != "" {
		fmt.Fprintf(w, "spread\t%s\n", plain(t.Spread))
	}
	if t.Once {
		fmt.Fprintln(w, "once\ta task is done when a round of each of its collectors is")
	}
	if t.Exclusive {
		fmt.Fprintln(w, "overlap\tnever")
	}
	if t.Waits != "" {
		fmt.Fprintf(w, "waits\t%s\n", plain(t.Waits))
	}
	fmt.Fprintln(w)
	taskTable(w, t.Tasks)
	if len(t.Failed) > 0 {
		fmt.Fprintln(w, "\nFAILED ON\tID\tVERSION\tERROR")
		for _, f := range t.Failed {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", plain(f.Name), plain(f.Agent), f.Version, plain(firstLine(f.Error)))
		}
	}
	if len(t.History) > 0 {
		fmt.Fprintln(w, "\nTIME\tWHAT\tTASK\tFROM\tTO\tEPOCH\tWHY")
		for _, e := range t.History {
			task, epoch := "", ""
			if e.Place > 0 {
				task = fmt.Sprint(e.Place)
			}
			if e.Epoch > 0 {
				epoch = fmt.Sprint(e.Epoch)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", stamp(e.Time), plain(e.What), task, plain(e.From), plain(e.To), epoch, plain(firstLine(e.Why)))
		}
	}
}

// task are the commands that ask for something of the tasks of a document.
func (c *commands) task() *cobra.Command {
	cancel := c.taskChange("cancel", "End a document that is to be done once; of one that goes on, give up the rounds under way.",
		"A document with once: true that is not done is taken from its agents, and no other gets it until creel task retry, or another\nversion. Of other documents the rounds under way are given up; the next begin when they are due.", (*api.Client).CancelTask)
	retry := c.taskChange("retry", "Place a document anew that is parked, cancelled or done.",
		"What it has failed on before is forgotten.", (*api.Client).RetryTask)
	return parent("task", "Run, end and look at documents that are to be on some agents.", c.taskRun(), cancel, retry, c.taskLogs())
}

func (c *commands) taskChange(do, short, long string, change func(*api.Client, context.Context, string, api.Because) (api.TaskDetail, error)) *cobra.Command {
	var b api.Because
	cmd := &cobra.Command{
		Use: do + " NAME", Short: short, Long: short + "\n" + long, Args: cobra.ExactArgs(1),
		Example: fmt.Sprintf("  creel task %[1]s nightly\n  creel task %[1]s nightly --cause 'ticket 17'", do),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			t, err := change(client, cmd.Context(), args[0], b)
			if err != nil {
				return failed(err)
			}
			return c.printTask(&t)
		},
	}
	cmd.Flags().StringVar(&b.Cause, "cause", "", "why: `TEXT` for the document's history")
	return c.answering(cmd)
}

func (c *commands) taskRun() *cobra.Command {
	var file string
	var b api.Because
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "run NAME | run -f FILE", Short: "Have a document's agents do a round of its collectors now.", Args: cobra.MaximumNArgs(1),
		Long: "Have a document's agents do a round of its collectors now. One with once: true that is done, parked or cancelled is done again.\n" +
			"With -f the document is written first, and must have once: true.\n" +
			"Exit code 1: with --wait, it was parked or cancelled, or was not done in time.",
		Example: "  creel task run nightly\n  creel task run -f diagnose.yaml --wait=5m",
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (file != "") {
				return errors.New("which document? Say its NAME, or -f FILE with its text")
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			var t api.TaskDetail
			if file != "" {
				t, err = c.runFile(cmd, client, file, b)
			} else if t, err = client.RunTask(cmd.Context(), args[0], b); err != nil {
				err = failed(err)
			}
			if err == nil && wait > 0 {
				return c.followTask(cmd.Context(), client, t, wait)
			}
			if err != nil {
				return err
			}
			return c.printTask(&t)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "`FILE` with the document, - for standard input")
	cmd.Flags().StringVar(&b.Cause, "cause", "", "why: `TEXT` for the document's history")
	waiting(cmd, &wait, "the document, which has once: true, is done")
	return c.answering(cmd)
}

// runFile writes a document that is to be done once, and has it done again if it is no other than before.
func (c *commands) runFile(cmd *cobra.Command, client *api.Client, file string, b api.Because) (t api.TaskDetail, err error) {
	list, err := pieces([]string{file}, cmd.InOrStdin())
	if err != nil {
		return t, err
	}
	if len(list) > 1 {
		return t, fmt.Errorf("%s has %d documents: give one", file, len(list))
	}
	if root, err := config.Parse(file, []byte(list[0].text), config.Env{Defer: true}); err == nil && (root.Get("once").Text() != "true" || root.Get("place").Text() == "") {
		return t, fmt.Errorf("%s does not say once: true and place: 1, or on how many agents it is to be done: creel apply has agents run what goes on", file)
	}
	a, err := client.ApplyDocument(cmd.Context(), api.DocumentChange{Text: list[0].text, Note: b.Cause})
	if err != nil {
		return t, c.refused(list[0], err)
	}
	for _, text := range a.Warnings {
		c.warn(text)
	}
	if t, err = client.Task(cmd.Context(), a.Document.Name); err != nil {
		return t, failed(err)
	}
	if a.Outcome == "unchanged" && (ended(&t) || t.Parked) {
		if t, err = client.RunTask(cmd.Context(), t.Document, b); err != nil {
			return t, failed(err)
		}
	}
	return t, nil
}

// ended reports whether nothing more becomes of a document that is to be done once.
func ended(t *api.TaskDetail) bool {
	return !slices.ContainsFunc(t.Tasks, func(t api.Task) bool { return t.Status != "done" && t.Status != "cancelled" })
}

// followTask waits until a document is done that is to be done once, and prints what became of it.
func (c *commands) followTask(ctx context.Context, client *api.Client, t api.TaskDetail, wait time.Duration) (err error) {
	if !t.Once {
		return fmt.Errorf("document %s is asked for a round, but --wait is for documents with once: true: creel task logs %[1]s -f shows what it does", plain(t.Document))
	}
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for version := t.Version; !ended(&t) && !t.Parked; {
		if sleep(within, pollEvery) != nil {
			break
		}
		now, err := client.Task(within, t.Document)
		switch {
		case err != nil && within.Err() != nil:
		case err != nil:
			return failed(err)
		case now.Version != version:
			return cli.Exit(cli.ExitNo, fmt.Errorf("document %s is at version %d now: somebody has changed it meanwhile", plain(t.Document), now.Version))
		default:
			t = now
		}
	}
	if err := c.printTask(&t); err != nil {
		return err
	}
	done := 0
	for _, x := range t.Tasks {
		if x.Status == "done" {
			done++
		}
	}
	switch {
	case done == len(t.Tasks):
		return nil
	case t.Parked:
		return cli.Exit(cli.ExitNo, fmt.Errorf("document %s is parked: %s", plain(t.Document), plain(t.Waits)))
	case ended(&t):
		return cli.Exit(cli.ExitNo, fmt.Errorf("document %s was not done: it was cancelled", plain(t.Document)))
	}
	return cli.Exit(cli.ExitNo, fmt.Errorf("document %s: %d of %d tasks are done after %v; it goes on", plain(t.Document), done, len(t.Tasks), wait))
}

// awaitTasks waits until a version of a document is on as many agents as it is to be, or done there, and tells how far that is.
func (c *commands) awaitTasks(ctx context.Context, client *api.Client, name string, version int64) error {
	said, waits := "", "the hub has not answered"
	for {
		t, err := client.Task(ctx, name)
		switch {
		case ctx.Err() != nil:
			return cli.Exit(cli.ExitNo, fmt.Errorf("wait for %s: the time is over: %s", plain(name), plain(waits)))
		case err != nil:
			return failed(err)
		case t.Version != version:
			return cli.Exit(cli.ExitNo, fmt.Errorf("wait for %s: somebody has changed it since, to version %d", plain(name), t.Version))
		}
		runs, rests := 0, 0
		waits = first(t.Waits, "it has not been placed yet")
		for _, x := range t.Tasks {
			switch x.Status {
			case "running", "done":
				runs++
			case "parked", "cancelled":
				rests++
			default:
				if x.Agent != "" {
					waits = first(x.Name, x.Agent) + ": " + x.Status
				}
				if x.Error != "" {
					waits = x.Error
				}
			}
		}
		if s := fmt.Sprintf("%s version %d: %d of %s run or are done", plain(name), version, runs, count(len(t.Tasks), "task")); s != said {
			fmt.Fprintln(c.Err, s)
			said = s
		}
		switch {
		case runs == len(t.Tasks):
			return nil
		case runs+rests == len(t.Tasks):
			return cli.Exit(cli.ExitNo, fmt.Errorf("%s does not run everywhere: %s; creel describe task %[1]s tells more", plain(name), plain(waits)))
		}
		_ = sleep(ctx, pollEvery) // the next question ends it
	}
}

func (c *commands) taskLogs() *cobra.Command {
	var q api.LogQuery
	var f window
	follow := false
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Show how a document's rounds went and the log records that its collectors have sent, as far as the hub has them.", Args: cobra.ExactArgs(1),
		Example: "  creel task logs nightly --since 1d\n  creel task logs nightly -f",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			client, err := c.client()
			if err != nil {
				return err
			}
			if q.Window, err = f.parse(); err != nil {
				return err
			}
			q.Filters, q.Order = []string{"creel.document.name=" + args[0]}, "desc"
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			result, err := client.Logs(ctx, q)
			if err != nil {
				return failed(err)
			}
			for i := range result.Logs {
				c.printTaskLog(&result.Logs[len(result.Logs)-1-i])
			}
			if !follow && len(result.Logs) == 0 {
				return c.noTaskLogs(ctx, client, args[0])
			}
			if !follow {
				return nil
			}
			err = client.TailLogs(ctx, api.LogQuery{Filters: q.Filters}, func(l api.Log) error {
				c.printTaskLog(&l)
				return nil
			})
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return failed(err)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().IntVarP(&q.Limit, "limit", "n", 100, "at most `N` records, the newest")
	return c.asking(cmd)
}

// noTaskLogs says why there are no log records: of a document that there is not, that is an error.
func (c *commands) noTaskLogs(ctx context.Context, client *api.Client, document string) error {
	if _, err := client.Task(ctx, document); err != nil {
		return failed(err)
	}
	fmt.Fprintf(c.Err, "the hub has no log records of document %s from that time: its collectors send none, or not to here; creel describe task %[1]s shows what it does\n", plain(document))
	return nil
}

func (c *commands) printTaskLog(l *api.Log) {
	attr := func(name string) string {
		for _, text := range []json.RawMessage{l.Attributes, l.Resource} {
			var m map[string]json.RawMessage
			if json.Unmarshal(text, &m) == nil && m[name] != nil {
				return strings.Trim(string(m[name]), `"`)
			}
		}
		return "-"
	}
	var text string
	if json.Unmarshal(l.Body, &text) != nil {
		text = string(l.Body)
	}
	if outcome := attr("outcome"); outcome != "-" && attr("component") != "-" { // it says how a round went
		text = fmt.Sprintf("%s: %s, attempt %s, %ss", attr("component"), outcome, attr("attempt"), attr("seconds"))
		if why := attr("error"); why != "-" {
			text += ": " + firstLine(why)
		}
	}
	fmt.Fprintf(c.Out, "%s %-5s %s epoch %s  %s\n", l.Time.Local().Format("2006-01-02 15:04:05.000"), l.Severity, plain(attr("creel.agent.id")), plain(attr("creel.document.epoch")), plain(text))
}
