package full

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/config"
)

// A piece is one document of a file.
type piece struct {
	file string
	line int // lines of the file before it
	text string
}

// pieces reads documents: from files, from those of directories, and from in for -.
func pieces(names []string, in io.Reader) ([]piece, error) {
	var list []piece
	for _, name := range names {
		files := []string{name}
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			entries, err := os.ReadDir(name)
			if err != nil {
				return nil, fmt.Errorf("read documents: %w", err)
			}
			files = nil
			for _, e := range entries {
				if !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
					files = append(files, filepath.Join(name, e.Name()))
				}
			}
		}
		for _, file := range files {
			var text []byte
			var err error
			if file == "-" {
				text, err = io.ReadAll(in)
			} else {
				text, err = os.ReadFile(file)
			}
			if err != nil {
				return nil, fmt.Errorf("read documents: %w", err)
			}
			list = append(list, split(file, string(text))...)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("read documents: there is none in %s", strings.Join(names, ", "))
	}
	return list, nil
}

// split cuts a YAML stream where a line begins with ---, which is a mark wherever it stands (YAML 1.2.2, section 9.1.2).
// What has comments alone is no document.
func split(file, text string) []piece {
	if filepath.Ext(file) == ".json" {
		return []piece{{file, 0, text}}
	}
	var list []piece
	var b strings.Builder
	first, line, any := 0, 0, false
	end := func() {
		if any {
			list = append(list, piece{file, first, b.String()})
		}
		b.Reset()
		any = false
	}
	for l := range strings.Lines(text) {
		if rest, mark := strings.CutPrefix(l, "---"); mark && (rest == "" || strings.ContainsAny(rest[:1], " \t\r\n")) {
			end()
			first, l = line, "   "+rest // columns stay as they are
			if strings.TrimSpace(rest) == "" {
				first, l = line+1, ""
			}
		}
		b.WriteString(l)
		content := strings.TrimSpace(l)
		any = any || content != "" && content[0] != '#'
		line++
	}
	end()
	return list
}

// named returns the pieces that have a name, and those that cannot be read: the hub says why.
func named(list []piece, name string) []piece {
	return slices.DeleteFunc(list, func(p piece) bool {
		root, err := config.Parse(p.file, []byte(p.text), config.Env{Defer: true})
		return err == nil && root.Get("document").Text() != name
	})
}

// refused prints what is wrong with a document, if that is what err says, and gives err its exit code.
func (c *commands) refused(p piece, err error) error {
	var e *api.Error
	if !errors.As(err, &e) || len(e.Problems) == 0 {
		return failed(err)
	}
	for _, x := range e.Problems {
		problem := config.Error{File: p.file, Line: x.Line, Col: x.Column, Path: plain(x.Path), Message: plain(x.Message), Hint: plain(x.Hint)}
		if problem.Line > 0 {
			problem.Line += p.line
		}
		fmt.Fprintln(c.Err, problem.Error())
	}
	return cli.Exit(cli.ExitUsage, fmt.Errorf("%s in %s; the document was not written. %s explain PATH tells what can be written", count(len(e.Problems), "error"), p.file, c.Name))
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// applyFlags say how documents are written.
type applyFlags struct {
	files   []string
	note    string
	dry     bool
	verbose bool
	wait    time.Duration
}

// waiting adds the flag --wait.
func waiting(cmd *cobra.Command, wait *time.Duration, what string) {
	cmd.Flags().DurationVar(wait, "wait", 0, "wait for so much `TIME` at most until "+what+" (30s if no TIME is given)")
	cmd.Flags().Lookup("wait").NoOptDefVal = "30s"
}

func (c *commands) apply() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Have agents run documents: pieces of configuration that the hub hands out.", Args: cobra.NoArgs,
		Long: "Write documents to the hub, which hands each to the agents that its selector means. A file may hold several, with\n" +
			"--- between them; of a directory its .yaml, .yml and .json files count. They are written in their order; what is wrong\n" +
			"with one does not keep the others. Exit code 1: with --wait, an agent has refused one or did not run it in time;\n" +
			"2: one is wrong.",
		Example: "  creel apply -f nginx.yaml --dry-run           # what would change, and for which agents\n" +
			"  creel apply -f nginx.yaml --wait              # until they run it\n" +
			"  creel apply -f documents/ --note 'ticket 17'\n" +
			"  creel get document nginx | sed s/info/debug/ | creel apply -f -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := f.read(cmd)
			if err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			done, err := c.write(cmd.Context(), client, list, f)
			return errors.Join(c.tell(done, f.dry || f.verbose, f.dry), err, c.await(cmd.Context(), client, done, f.wait))
		},
	}
	filesFlag(cmd, &f.files)
	cmd.Flags().StringVar(&f.note, "note", "", "why: `TEXT` for the history")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "only tell what would change")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "tell what has changed in each")
	waiting(cmd, &f.wait, "their agents run them")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "wait")
	return c.answering(cmd)
}

func filesFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "`FILE` or directory with documents, - for standard input; may be given several times")
	cmd.MarkFlagFilename("filename", "yaml", "yml", "json")
}

func (f *applyFlags) read(cmd *cobra.Command) ([]piece, error) {
	if len(f.files) == 0 {
		return nil, errors.New("which documents? Say -f FILE, or -f - for standard input")
	}
	list, err := pieces(f.files, cmd.InOrStdin())
	if err != nil {
		return nil, cli.Exit(cli.ExitUsage, err)
	}
	return list, nil
}

// write writes documents, or tells what that would change. The error is of those that were refused.
func (c *commands) write(ctx context.Context, client *api.Client, list []piece, f applyFlags) (done []api.DocumentApplied, err error) {
	for _, p := range list {
		a, e := client.ApplyDocument(ctx, api.DocumentChange{Text: p.text, Note: f.note, DryRun: f.dry})
		if e == nil {
			done = append(done, a)
			continue
		}
		if e = c.refused(p, e); errors.Is(e, api.ErrUnreachable) {
			return done, e
		}
		err = errors.Join(err, e)
	}
	return done, err
}

// tell prints what became of documents.
func (c *commands) tell(done []api.DocumentApplied, verbose, dry bool) error {
	names := make([]string, len(done))
	for i, a := range done {
		names[i] = a.Document.Name
	}
	if done == nil {
		done = []api.DocumentApplied{}
	}
	return c.Print(c.output, done, names, func(w *tabwriter.Writer) {
		for _, a := range done {
			would := ""
			if dry && a.Outcome != "unchanged" {
				would = "would be "
			}
			fmt.Fprintf(w, "%s %s%s: version %d, for %s\n", plain(a.Document.Name), would, a.Outcome, a.Document.Version, agents(a.Document.Agents.Selected, a.Selected))
			for _, s := range a.Warnings {
				fmt.Fprintf(w, "  warning: %s\n", plain(s))
			}
			if verbose {
				differences(w, a.Differences)
			}
		}
	})
}

// agents says which agents, as far as there is room.
func agents(n int, names []string) string {
	const shown = 8
	if n = max(n, len(names)); n == 0 {
		return "no agent"
	}
	s := count(n, "agent")
	for i, name := range names[:min(shown, len(names))] {
		s += map[bool]string{true: ": ", false: ", "}[i == 0] + plain(name)
	}
	if n > shown && len(names) > 0 {
		s += fmt.Sprintf(" and %d more", n-min(shown, len(names)))
	}
	return s
}

func differences(w io.Writer, list []api.Difference) {
	for _, d := range list {
		switch d.Kind {
		case "added":
			fmt.Fprintf(w, "  + %s: %s\n", plain(d.Path), plain(d.New))
		case "removed":
			fmt.Fprintf(w, "  - %s: %s\n", plain(d.Path), plain(d.Old))
		default:
			fmt.Fprintf(w, "  ~ %s: %s → %s\n", plain(d.Path), plain(d.Old), plain(d.New))
		}
	}
}

// pollEvery is the time between two questions of who waits.
const pollEvery = 200 * time.Millisecond

// await waits until the agents of documents run them, and tells how far that is. The error says which do not.
func (c *commands) await(ctx context.Context, client *api.Client, done []api.DocumentApplied, patience time.Duration) error {
	if patience <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var errs []error
	for _, a := range done {
		errs = append(errs, c.awaitOne(ctx, client, a.Document.Name, a.Document.Version))
	}
	return errors.Join(errs...)
}

func (c *commands) awaitOne(ctx context.Context, client *api.Client, name string, version int64) error {
	said := ""
	var d api.DocumentDetail
	for {
		now, err := client.Document(ctx, name, api.DocumentQuery{})
		switch {
		case ctx.Err() != nil:
			return cli.Exit(cli.ExitNo, fmt.Errorf("wait for %s: the time is over: %s", name, notYet(d.Placed)))
		case err != nil:
			return failed(err)
		case now.Version != version:
			return cli.Exit(cli.ExitNo, fmt.Errorf("wait for %s: somebody has changed it since, to version %d", name, now.Version))
		}
		if now.Place != "all" && now.Place != "" {
			return c.awaitTasks(ctx, client, name, version)
		}
		d = now
		n := d.Agents
		if s := fmt.Sprintf("%s version %d: %d of %s run it, %d waiting, %d failed", plain(name), version, n.Running, count(n.Selected, "agent"), n.Waiting, n.Failed); s != said {
			fmt.Fprintln(c.Err, s)
			said = s
		}
		if n.Running+n.Failed >= n.Selected {
			if n.Failed > 0 {
				return cli.Exit(cli.ExitNo, fmt.Errorf("%s was not run everywhere: %s", name, notYet(d.Placed)))
			}
			return nil
		}
		_ = sleep(ctx, pollEvery) // the next question ends it
	}
}

// notYet says which agents do not run a document, and why, as far as there is room.
func notYet(list []api.Placed) string {
	var parts []string
	for _, p := range list {
		if p.Status == "running" {
			continue
		}
		s := plain(first(p.Name, p.Agent)) + ": " + plain(p.Status)
		if p.Error != "" {
			s += ": " + plain(p.Error)
		}
		parts = append(parts, s)
	}
	if len(parts) == 0 {
		return "the hub has not answered"
	}
	const shown = 5
	if n := len(parts); n > shown {
		parts = append(parts[:shown], fmt.Sprintf("and %d more", n-shown))
	}
	return strings.Join(parts, "; ")
}
