package full

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
)

// parent is a command that has others.
func parent(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(children...)
	return cmd
}

func (c *commands) getDocuments() *cobra.Command {
	var q api.DocumentQuery
	cmd := &cobra.Command{
		Use: "documents [NAME]", Aliases: []string{"document"}, Short: "List the documents that the hub hands out, or print one.", Args: cobra.MaximumNArgs(1),
		Long: "List the documents that the hub hands out, and how many agents run each; or print the text of one.",
		Example: "  creel get documents\n" +
			"  creel get document nginx > nginx.yaml\n" +
			"  creel get document nginx --version 3",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				d, err := client.Document(cmd.Context(), args[0], q)
				if err != nil {
					return failed(err)
				}
				return c.Print(c.output, d, []string{d.Name}, func(w *tabwriter.Writer) { printText(c, d.Text) })
			}
			list, err := client.Documents(cmd.Context())
			if err != nil {
				return failed(err)
			}
			names := make([]string, len(list.Documents))
			for i, d := range list.Documents {
				names[i] = d.Name
			}
			return c.Print(c.output, list, names, func(w *tabwriter.Writer) { documentTable(w, list.Documents) })
		},
	}
	cmd.Flags().Int64Var(&q.Version, "version", 0, "version `N` of it, instead of the newest")
	return c.answering(cmd)
}

// printText prints a document as it is, so that it can be written to a file.
func printText(c *commands, text string) {
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	fmt.Fprint(c.Out, text)
}

func documentTable(w *tabwriter.Writer, list []api.Document) {
	fmt.Fprintln(w, "NAME\tVERSION\tAGENTS\tRUNNING\tWAITING\tFAILED\tCHANGED\tBY\tSELECTOR")
	for _, d := range list {
		n := d.Agents
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", plain(d.Name), d.Version, n.Selected, n.Running, n.Waiting, n.Failed, cli.Ago(d.Time), plain(d.By), selector(&d))
	}
}

func selector(d *api.Document) string { return first(plain(d.Selector), "(all)") }

// document returns the hub's client and a document as it is now.
func (c *commands) document(cmd *cobra.Command, name string) (*api.Client, api.DocumentDetail, error) {
	client, err := c.client()
	if err != nil {
		return nil, api.DocumentDetail{}, err
	}
	d, err := client.Document(cmd.Context(), name, api.DocumentQuery{})
	if err != nil {
		err = failed(err)
	}
	return client, d, err
}

// describedDocument is what describe shows of one.
type describedDocument struct {
	api.DocumentDetail
	History []api.Document `json:"history"`
}

func (c *commands) describeDocument() *cobra.Command {
	return c.answering(&cobra.Command{
		Use: "document NAME", Aliases: []string{"documents"}, Short: "Show one document: its agents, its history, its text.", Args: cobra.ExactArgs(1),
		Example: "  creel describe document nginx",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, d, err := c.document(cmd, args[0])
			if err != nil {
				return err
			}
			h, err := client.DocumentHistory(cmd.Context(), args[0])
			if err != nil {
				return failed(err)
			}
			return c.Print(c.output, describedDocument{d, h.Versions}, []string{d.Name}, func(w *tabwriter.Writer) {
				n := d.Agents
				fmt.Fprintf(w, "document\t%s\nversion\t%d\nselector\t%s\nplace\t%s\nhash\t%s\nagents\t%d: %d running, %d waiting, %d failed\n", plain(d.Name), d.Version,
					selector(&d.Document), plain(d.Place), d.Hash, n.Selected, n.Running, n.Waiting, n.Failed)
				if len(d.Placed) > 0 {
					fmt.Fprintln(w, "\nAGENT\tID\tSTATUS\tVERSION\tERROR")
					for _, p := range d.Placed {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", plain(p.Name), p.Agent, plain(p.Status), plain(p.Version), plain(firstLine(p.Error)))
					}
				}
				fmt.Fprintln(w, "\nVERSION\tCHANGED\tBY\tHASH\tNOTE")
				for _, v := range h.Versions {
					note := v.Note
					if v.Deleted {
						note = strings.TrimSuffix("deleted: "+note, ": ")
					}
					fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", v.Version, stamp(v.Time), plain(v.By), v.Hash, plain(note))
				}
				fmt.Fprintln(w)
				w.Flush()
				printText(c, d.Text)
			})
		},
	})
}

func (c *commands) deleteDocument() *cobra.Command {
	var q api.DocumentDeletion
	cmd := &cobra.Command{
		Use: "document NAME", Aliases: []string{"documents"}, Short: "Delete a document; its agents go on without it.", Args: cobra.ExactArgs(1),
		Long:    "Delete a document; its agents go on without it. Its history stays: creel rollback document NAME brings it back.",
		Example: "  creel delete document nginx --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, d, err := c.document(cmd, args[0])
			if err != nil {
				return err
			}
			if err := client.DeleteDocument(cmd.Context(), d.Name, q); err != nil {
				return failed(err)
			}
			names := make([]string, len(d.Placed))
			for i, p := range d.Placed {
				names[i] = p.Name
			}
			would := ""
			if q.DryRun {
				would = "would be "
			}
			fmt.Fprintf(c.Out, "%s %sdeleted: version %d, of %s\n", plain(d.Name), would, d.Version, agents(d.Agents.Selected, names))
			return nil
		},
	}
	cmd.Flags().BoolVar(&q.DryRun, "dry-run", false, "only tell what would happen")
	return c.asking(cmd)
}

// earlier returns a version of a document: to, or if that is 0 the last before the newest that is no deletion.
func earlier(ctx context.Context, client *api.Client, name string, to int64) (api.Document, error) {
	h, err := client.DocumentHistory(ctx, name)
	if err != nil {
		return api.Document{}, err
	}
	for i, v := range h.Versions {
		if !v.Deleted && (v.Version == to || to == 0 && i > 0) {
			return v, nil
		}
	}
	return api.Document{}, &api.Error{Code: "not_found", Message: fmt.Sprintf("document %s has no such version that has a text", name)}
}

func (c *commands) diffDocuments() *cobra.Command {
	f := applyFlags{dry: true}
	var to int64
	cmd := &cobra.Command{
		Use: "documents [NAME] [-f FILE]", Aliases: []string{"document"}, Short: "Show what apply or rollback would change at the hub.", Args: cobra.MaximumNArgs(1),
		Long: "Show what would change if documents were written: those in FILE, or of them the one that is named. Without -f it is\n" +
			"what a rollback of the named one would change. Exit code 0: nothing; 1: something.",
		Example: "  creel diff documents -f documents/\n  creel diff document nginx -f nginx.yaml\n  creel diff document nginx --to 3     # a rollback",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && to != 0 || to != 0 && len(f.files) > 0 {
				return errors.New("--to is for a NAME without -f")
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			var list []piece
			if len(args) == 1 && len(f.files) == 0 {
				d, err := earlier(cmd.Context(), client, args[0], to)
				if err != nil {
					return failed(err)
				}
				list = []piece{{file: fmt.Sprintf("version %d", d.Version), text: d.Text}}
			} else if list, err = f.read(cmd); err != nil {
				return err
			} else if len(args) == 1 {
				if list = named(list, args[0]); len(list) == 0 {
					return cli.Exit(cli.ExitNotFound, fmt.Errorf("there is no document %s in %s", args[0], strings.Join(f.files, ", ")))
				}
			}
			done, err := c.write(cmd.Context(), client, list, f)
			if err := errors.Join(c.tell(done, true, true), err); err != nil {
				return err
			}
			changed := 0
			for _, a := range done {
				if a.Outcome != "unchanged" {
					changed++
				}
			}
			if changed > 0 {
				return cli.Exit(cli.ExitNo, fmt.Errorf("%s would change", count(changed, "document")))
			}
			return nil
		},
	}
	filesFlag(cmd, &f.files)
	cmd.Flags().Int64Var(&to, "to", 0, "version `N` that is gone back to (default: the one before the newest)")
	return c.answering(cmd)
}

func (c *commands) rollbackDocument() *cobra.Command {
	var to int64
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "document NAME", Aliases: []string{"documents"}, Short: "Make an earlier version of a document the newest.", Args: cobra.ExactArgs(1),
		Long:    "Make an earlier version of a document the newest; one that was deleted comes back. creel describe document NAME lists\nthe versions, creel diff document NAME --to N tells what would change.",
		Example: "  creel rollback document nginx\n  creel rollback document nginx --to 3 --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			a, err := client.RollBackDocument(cmd.Context(), args[0], api.Rollback{To: to})
			if err != nil {
				return c.refused(piece{file: args[0]}, err)
			}
			done := []api.DocumentApplied{a}
			return errors.Join(c.tell(done, true, false), c.await(cmd.Context(), client, done, wait))
		},
	}
	cmd.Flags().Int64Var(&to, "to", 0, "version `N` (default: the one before the newest)")
	waiting(cmd, &wait, "its agents run it")
	return c.answering(cmd)
}
