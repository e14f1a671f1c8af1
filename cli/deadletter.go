package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/agent/trial"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/spool"
)

func (c *Commands) deadletter() *cobra.Command {
	cmd := &cobra.Command{
		Use: "deadletter", Short: "Look at records that an exporter's far side refused, send them again, drop them.", Args: cobra.NoArgs,
		Long: "Records that a far side refuses for good are kept as dead letters, with the reason and the answer, in the agent's state\n" +
			"directory. There is room for some; when it is full, the oldest go.\n\n" +
			"These commands ask the running agent. Without one ls, show and drop work on the directory itself.",
		Example: fmt.Sprintf("  %[1]s deadletter ls --since 1h\n  %[1]s deadletter show 17\n  %[1]s deadletter replay --all --exporter otlp/hub\n  %[1]s deadletter drop 17 18", c.Name),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.deadletterList(), c.deadletterShow(), c.deadletterReplay(), c.deadletterDrop())
	return cmd
}

func (c *Commands) deadletterList() *cobra.Command {
	format, since, limit := "table", "", 1000
	var f deadletter.Filter
	cmd := &cobra.Command{
		Use: "ls", Short: "List dead letters, oldest first.", Args: cobra.NoArgs,
		Example: fmt.Sprintf("  %[1]s deadletter ls --exporter otlp/hub --since 15m\n  %[1]s deadletter ls -o json", c.Name),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if since != "" {
				if f.Since, err = api.ParseTime(since, time.Now()); err != nil {
					return fmt.Errorf("read --since: %w", err)
				}
			}
			if limit < 1 || limit > 10000 {
				return errors.New("--limit must be from 1 to 10000")
			}
			list, err := c.letters(cmd.Context(), f, limit)
			if err != nil {
				return err
			}
			names := make([]string, len(list.Letters))
			for i, l := range list.Letters {
				names[i] = strconv.FormatUint(l.ID, 10)
			}
			if n := len(list.Letters); n < list.Total {
				fmt.Fprintf(c.Err, "the newest %d of %s; --limit shows more\n", n, count(list.Total, "letter"))
			}
			return c.Print(format, list, names, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "ID\tTIME\tEXPORTER\tPIPELINE\tSIGNAL\tRECORDS\tSIZE\tREASON\tANSWER")
				for _, l := range list.Letters {
					fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", l.ID, l.Time.Local().Format(time.DateTime), printable(l.Exporter), printable(l.Pipeline),
						l.Signal, l.Records, config.Size(l.Bytes), printable(l.Reason), printable(shorten(l.Answer, 60)))
				}
			})
		},
	}
	cmd.Flags().StringVar(&f.Exporter, "exporter", "", "only those of this exporter's `ID`")
	cmd.Flags().StringVar(&since, "since", "", "only those since a `TIME`, or a duration such as 15m")
	cmd.Flags().IntVar(&limit, "limit", limit, "the newest `N` at most")
	cmd.Flags().StringVarP(&format, "output", "o", format, "table, json, yaml or name")
	return c.WithData(cmd)
}

// shorten returns the first line of s, and no more than n characters of it.
func shorten(s string, n int) string {
	line, _, more := strings.Cut(s, "\n")
	if r := []rune(line); len(r) > n {
		line, more = string(r[:n]), true
	}
	if more {
		line += "…"
	}
	return line
}

func (c *Commands) deadletterShow() *cobra.Command {
	format := "text"
	cmd := &cobra.Command{
		Use: "show ID…", Short: "Show dead letters and the records in them.", Args: cobra.MinimumNArgs(1),
		Long:    "Show dead letters and their records. -o json has the records as an OTLP export request, in OTLP's JSON.\nExit code 5: there is no such letter.",
		Example: fmt.Sprintf("  %[1]s deadletter show 17\n  %[1]s deadletter show 17 -o json | jq .request > request.json", c.Name),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("unknown output %q; say -o text or -o json", format)
			}
			ids, err := letterIDs(args)
			if err != nil {
				return err
			}
			missing, err := c.eachLetter(cmd.Context(), ids, func(l agent.Letter) error { return c.printLetter(l, format) })
			if err == nil {
				err = noLetters(missing)
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", format, "text or json")
	return c.WithData(cmd)
}

func (c *Commands) printLetter(l agent.Letter, format string) error {
	from := deadletter.Letter{Seq: l.ID, Records: l.Records, Reason: l.Reason, Payload: l.Payload}
	for _, s := range creel.Signals() {
		if s.String() == l.Signal {
			from.Signal = s
		}
	}
	if format == "json" {
		l.Payload = nil
		return c.Print("json", l.WithRequest(from), nil, nil)
	}
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "letter\t%d\ntime\t%s\nexporter\t%s\npipeline\t%s\nsignal\t%s\nrecords\t%d\nbytes\t%d\nreason\t%s\nanswer\t%s\n", l.ID, l.Time.Local().Format(time.RFC3339),
		printable(l.Exporter), printable(l.Pipeline), l.Signal, l.Records, l.Bytes, printable(l.Reason), printable(l.Answer))
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(c.Out)
	if l.Reason == deadletter.Unreadable {
		return nil
	}
	b, err := from.Batch(nil)
	if err != nil {
		fmt.Fprintf(c.Out, "what is in it is no request: %v\n\n", err)
		return nil
	}
	for i := range b.Len() {
		fmt.Fprintln(c.Out, recordText(trial.Append(nil, b, i)))
	}
	fmt.Fprintln(c.Out)
	return nil
}

// letterFlags are what says which letters are meant.
type letterFlags struct{ agent.LetterRequest }

func (f *letterFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.All, "all", false, "all letters")
	cmd.Flags().StringVar(&f.Exporter, "exporter", "", "with --all: those of this exporter's `ID`")
}

func (f *letterFlags) read(args []string) (err error) {
	if f.All == (len(args) > 0) {
		return errors.New("which letters? Say their IDs, or --all")
	}
	if f.Exporter != "" && !f.All {
		return errors.New("--exporter goes with --all")
	}
	f.IDs, err = letterIDs(args)
	return err
}

func letterIDs(args []string) (ids []uint64, err error) {
	for _, a := range args {
		id, err := strconv.ParseUint(a, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("an ID is a number, as deadletter ls shows it; got %q", a)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// noLetters is the error that letters are missing, if they are.
func noLetters(missing []uint64) error {
	if len(missing) == 0 {
		return nil
	}
	return Exit(ExitNotFound, fmt.Errorf("there is no dead letter %s; deadletter ls lists them", strings.Trim(fmt.Sprint(missing), "[]")))
}

func (c *Commands) deadletterDrop() *cobra.Command {
	var f letterFlags
	yes := false
	cmd := &cobra.Command{
		Use: "drop ID… | --all", Short: "Drop dead letters for good.",
		Long: "Drop dead letters: what is in them is lost. With --all nothing is done before --yes is said as well.\n" +
			"Exit code 5: some of the letters are not there; the others were dropped.",
		Example: fmt.Sprintf("  %[1]s deadletter drop 17 18\n  %[1]s deadletter drop --all --exporter otlp/old --yes", c.Name),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.read(args); err != nil {
				return err
			}
			if f.All && !yes {
				list, err := c.letters(cmd.Context(), deadletter.Filter{Exporter: f.Exporter}, 1)
				if err != nil {
					return err
				}
				return fmt.Errorf("would be dropped for good: %s with %s; say --yes to do it", count(list.Total, "letter"), count(list.Records, "record"))
			}
			done, err := c.dropLetters(cmd.Context(), f.LetterRequest)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.Out, "dropped: %s\n", count(done.Letters, "letter"))
			return noLetters(done.Missing)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return c.WithData(cmd)
}

func (c *Commands) deadletterReplay() *cobra.Command {
	var f letterFlags
	cmd := &cobra.Command{
		Use: "replay ID… | --all", Short: "Send dead letters again.",
		Long: "Send dead letters again, to the exporter that they come from or, with --to, to another one, and wait until their records\n" +
			"are safe: delivered, or in the exporter's disk queue. Then the letter is dropped. What is refused again is a new letter.\n" +
			"Whoever interrupts this ends the waiting; letters that were not begun stay.\n" +
			"Exit code 1: some stay, and why; 3: no agent runs; 5: there is no such letter.",
		Example: fmt.Sprintf("  %[1]s deadletter replay 17 18\n  %[1]s deadletter replay --all --exporter otlp/old --to otlp/new", c.Name),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.read(args); err != nil {
				return err
			}
			return c.replayLetters(cmd.Context(), f.LetterRequest)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.To, "to", "", "the exporter's `ID` to send them to")
	return c.WithData(cmd)
}

func (c *Commands) replayLetters(ctx context.Context, q agent.LetterRequest) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	resp, err := c.do(ctx, http.MethodPost, "/deadletters/replay", q)
	if noAgent(err) {
		return Exit(ExitUnreachable, fmt.Errorf("%w; only a running agent can send: start it, and say this again", err))
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := replay{stays: map[string]*replayed{}}
	err = r.read(resp.Body, c.ticker())
	fmt.Fprintf(c.Out, "taken: %s\n", r.taken)
	stays := 0
	for i, why := range slices.Sorted(maps.Keys(r.stays)) {
		n := r.stays[why]
		stays += n.letters
		if i < maxReasons {
			fmt.Fprintf(c.Out, "not taken: %s: %s\n", n, printable(why))
		}
	}
	if n := len(r.stays) - maxReasons; n > 0 {
		fmt.Fprintf(c.Out, "and %s more\n", count(n, "reason"))
	}
	switch {
	case ctx.Err() != nil:
		return Exit(ExitNo, fmt.Errorf("interrupted, %s unanswered: those on their way go once they are taken, the others stay",
			count(r.letters-r.taken.letters-stays-len(r.missing), "letter")))
	case err != nil:
		return Exit(ExitUnreachable, fmt.Errorf("read what the agent answers: %w; letters that were not taken stay", err))
	case stays > 0:
		return Exit(ExitNo, fmt.Errorf("not taken: %d of %s; they stay", stays, count(r.letters, "letter")))
	}
	return noLetters(r.missing)
}

// maxReasons is how many reasons for which letters stay are printed.
const maxReasons = 20

// replay is what became of letters.
type replay struct {
	letters int
	taken   replayed
	stays   map[string]*replayed // by the reason
	missing []uint64
}

type replayed struct{ letters, records int }

func (n replayed) String() string {
	return count(n.letters, "letter") + " with " + count(n.records, "record")
}

// read reads the answer to its end, and tells every two seconds how far it is.
func (r *replay) read(body io.Reader, progress *ticker) error {
	dec := json.NewDecoder(body)
	var first agent.ReplayLine
	if err := dec.Decode(&first); err != nil {
		return err
	}
	r.letters = first.Letters
	for seen := 1; ; seen++ {
		var line agent.ReplayLine
		if err := dec.Decode(&line); err != nil {
			return err
		}
		n := &r.taken
		switch {
		case line.Done:
			return nil
		case line.Missing:
			r.missing = append(r.missing, line.ID)
			n = &replayed{}
		case line.Error != "":
			if r.stays[line.Error] == nil {
				r.stays[line.Error] = &replayed{}
			}
			n = r.stays[line.Error]
		}
		n.letters++
		n.records += line.Records
		progress.tell("answered so far: %d of %s", seen, count(r.letters, "letter"))
	}
}

// Where letters come from: the running agent or, without one, its directory.

func (c *Commands) letters(ctx context.Context, f deadletter.Filter, limit int) (list agent.LetterList, err error) {
	q := url.Values{"exporter": {f.Exporter}, "limit": {strconv.Itoa(limit)}}
	if !f.Since.IsZero() {
		q.Set("since", f.Since.Format(time.RFC3339Nano))
	}
	err = c.Call(ctx, http.MethodGet, "/deadletters?"+q.Encode(), nil, &list)
	if !noAgent(err) {
		return list, err
	}
	list.Letters = []agent.Letter{}
	err = c.lettersIn(err, func(l deadletter.Letter) error {
		if !f.Chooses(l.Exporter, l.Time) {
			return nil
		}
		list.Total++
		list.Records += l.Records
		if list.Letters = append(list.Letters, agent.LetterOf(l)); len(list.Letters) > limit {
			list.Letters = list.Letters[1:]
		}
		return nil
	})
	return list, err
}

// eachLetter calls each with the letters named, and returns which are not there.
func (c *Commands) eachLetter(ctx context.Context, ids []uint64, each func(agent.Letter) error) (missing []uint64, err error) {
	for _, id := range ids {
		var l agent.Letter
		err := c.Call(ctx, http.MethodGet, fmt.Sprintf("/deadletters/%d", id), nil, &l)
		if noAgent(err) {
			return c.eachLetterIn(err, ids, each)
		}
		if f := (*failure)(nil); errors.As(err, &f) && f.code == ExitNotFound {
			missing = append(missing, id)
			continue
		}
		if err == nil {
			err = each(l)
		}
		if err != nil {
			return missing, err
		}
	}
	return missing, nil
}

func (c *Commands) eachLetterIn(why error, ids []uint64, each func(agent.Letter) error) (missing []uint64, err error) {
	missing = slices.Clone(ids)
	err = c.lettersIn(why, func(l deadletter.Letter) error {
		i := slices.Index(missing, l.Seq)
		if i < 0 {
			return nil
		}
		missing = slices.Delete(missing, i, i+1)
		full := agent.LetterOf(l)
		full.Payload = l.Payload
		return each(full)
	})
	return missing, err
}

// lettersIn calls each with the letters in the directory. why is the error that there is no agent; it counts when there is
// no state directory either.
func (c *Commands) lettersIn(why error, each func(deadletter.Letter) error) error {
	dir := filepath.Join(c.AgentData(), "deadletters")
	if _, err := os.Stat(c.AgentData()); err != nil {
		return why
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil // there never was a letter
	}
	if err := deadletter.List(dir, each); err != nil {
		return Exit(ExitNo, fmt.Errorf("read dead letters: %w", err))
	}
	return nil
}

func (c *Commands) dropLetters(ctx context.Context, q agent.LetterRequest) (done agent.LetterDrop, err error) {
	err = c.Call(ctx, http.MethodPost, "/deadletters/drop", q, &done)
	if !noAgent(err) {
		return done, err
	}
	dir := filepath.Join(c.AgentData(), "deadletters")
	if _, e := os.Stat(dir); e != nil {
		if _, e := os.Stat(c.AgentData()); e != nil {
			return done, err
		}
		return agent.LetterDrop{Missing: q.IDs}, nil
	}
	s, e := deadletter.Open(dir, deadletter.Options{Log: func(s string) { fmt.Fprintln(c.Err, s) }}) // only Put keeps its bound
	if errors.Is(e, spool.ErrInUse) {
		e = fmt.Errorf("%w; an agent has it, and does not answer: it may be starting or stopping, so say this again", e)
	}
	if e != nil {
		return done, Exit(ExitNo, e)
	}
	defer func() {
		if e := s.Close(); err == nil && e != nil {
			err = Exit(ExitNo, e)
		}
	}()
	ids := q.IDs
	if q.All {
		heads, err := s.Select(deadletter.Filter{Exporter: q.Exporter})
		if err != nil {
			return done, Exit(ExitNo, err)
		}
		for _, h := range heads {
			ids = append(ids, h.Seq)
		}
	}
	if done, err = agent.DropLetters(s, ids); err != nil {
		return done, Exit(ExitNo, err)
	}
	return done, nil
}
