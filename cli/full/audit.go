package full

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
)

func (c *commands) audit() *cobra.Command {
	var q api.AuditQuery
	var verify bool
	cmd := &cobra.Command{
		Use: "audit", Short: "List what was changed at the hub, by whom, and what was refused.", Args: cobra.NoArgs,
		Long: "List the audit log, newest first. Each entry has a hash over itself and the one before: --verify has the hub compute all\n" +
			"of them again, and looks for gaps. Exit code 1: an entry is not what was written, or is missing.",
		Example: "  creel audit --search ann\n  creel audit --limit 1000 -o json\n  creel audit --verify",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Limit < 1 {
				return errors.New("read --limit: must be at least 1")
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			if verify {
				return c.verifyAudit(cmd.Context(), client)
			}
			list := api.AuditList{Entries: []api.AuditEntry{}}
			for page := q; len(list.Entries) < q.Limit; {
				page.Limit = min(q.Limit-len(list.Entries), auditPage)
				l, err := client.Audit(cmd.Context(), page)
				if err != nil {
					return failed(err)
				}
				list.Entries, list.Next, list.Broken = append(list.Entries, l.Entries...), l.Next, max(list.Broken, l.Broken)
				if page.Before = l.Next; l.Next == 0 {
					break
				}
			}
			numbers := make([]string, len(list.Entries))
			for i, e := range list.Entries {
				numbers[i] = fmt.Sprint(e.Number)
			}
			err = c.Print(c.output, list, numbers, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "NUMBER\tTIME\tWHO\tROLE\tFROM\tACTION\tTARGET\tOUTCOME\tDETAIL")
				for _, e := range list.Entries {
					fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Number, stamp(e.Time), plain(e.Who), plain(string(e.Role)), plain(e.Address),
						plain(e.Action), plain(e.Target), plain(e.Outcome), plain(e.Detail))
				}
			})
			if list.Broken > 0 {
				err = errors.Join(err, broken(list.Broken))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&q.Search, "search", "", "only entries with these `WORDS` in who, action, target, outcome or detail")
	cmd.Flags().IntVar(&q.Limit, "limit", 100, "`N` entries at most")
	cmd.Flags().BoolVar(&verify, "verify", false, "check the whole log instead")
	cmd.MarkFlagsMutuallyExclusive("verify", "search")
	cmd.MarkFlagsMutuallyExclusive("verify", "limit")
	return c.answering(cmd)
}

// auditPage is the most entries that a hub gives at once.
const auditPage = 1000

func broken(number int64) error {
	return cli.Exit(cli.ExitNo, fmt.Errorf("entry %d of the audit log, or one before it, is not what was written; compare with a backup, or with what was copied elsewhere", number))
}

// verifyAudit reads the whole log.
func (c *commands) verifyAudit(ctx context.Context, client *api.Client) error {
	result := struct {
		Entries int64  `json:"entries"`
		Newest  int64  `json:"newest"`
		Hash    string `json:"hash"` // of the newest: who keeps it elsewhere sees whether the log was written anew
	}{}
	for q := (api.AuditQuery{Limit: auditPage}); ; {
		page, err := client.Audit(ctx, q)
		if err != nil {
			return failed(err)
		}
		if page.Broken > 0 {
			return broken(page.Broken)
		}
		for _, e := range page.Entries {
			if result.Entries == 0 {
				result.Newest, result.Hash = e.Number, e.Hash
			}
			if want := result.Newest - result.Entries; e.Number != want {
				return cli.Exit(cli.ExitNo, fmt.Errorf("entry %d of the audit log is missing: %d comes instead", want, e.Number))
			}
			result.Entries++
		}
		if q.Before = page.Next; page.Next == 0 {
			break
		}
	}
	if result.Entries != result.Newest {
		return cli.Exit(cli.ExitNo, fmt.Errorf("the first %d entries of the audit log are missing", result.Newest-result.Entries))
	}
	return c.Print(c.output, result, []string{result.Hash}, func(w *tabwriter.Writer) {
		if result.Entries == 0 {
			fmt.Fprintln(w, "the audit log is empty")
			return
		}
		fmt.Fprintf(w, "%d entries, without a gap, and all hashes are right. The newest is %s\n", result.Entries, plain(result.Hash))
	})
}

func (c *commands) authority() *cobra.Command {
	show := func(ctx context.Context, ask func(*api.Client) (api.Authority, error)) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		a, err := ask(client)
		if err != nil {
			return failed(err)
		}
		return c.Print(c.output, a, []string{a.Phase}, func(w *tabwriter.Writer) { authorityTable(w, &a) })
	}
	cmd := &cobra.Command{
		Use: "authority", Short: "Show the hub's own authority: what its certificates and its agents' come from.", Args: cobra.NoArgs,
		Long: "Show the hub's own authority. It is changed in steps: rotate announces a new root, which agents then trust beside the old\n" +
			"one; next has certificates issued from it; next again makes an end of the old one. back takes the last step back.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), func(client *api.Client) (api.Authority, error) { return client.Authority(cmd.Context()) })
		},
	}
	for _, s := range []struct{ step, short, long string }{
		{"rotate", "Begin to change the authority: announce a new root.", "Agents trust the new root beside the old one within a minute; creel authority tells how many do."},
		{"next", "Go on with the change of the authority.", "From announced to issuing, when certificates come from the new root; from there to steady, without the old one. It is refused\nwhile agents have not confirmed that they trust the new root: those would be left behind."},
		{"back", "Take the last step of the change back.", "It is possible until the old root has gone."},
		{"renew", "Make a new certificate of the same root.", "The root's key must be at the hub for this; it may be kept elsewhere otherwise."},
	} {
		change := api.AuthorityChange{Step: s.step}
		sub := &cobra.Command{
			Use: s.step, Short: s.short, Long: s.short + " " + s.long, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return show(cmd.Context(), func(client *api.Client) (api.Authority, error) { return client.ChangeAuthority(cmd.Context(), change) })
			},
		}
		sub.Flags().BoolVar(&change.Force, "force", false, "go on though agents have not confirmed, and leave those behind")
		cmd.AddCommand(c.answering(sub))
	}
	return c.answering(cmd)
}

func authorityTable(w *tabwriter.Writer, a *api.Authority) {
	where := "not at this hub"
	if a.RootKey {
		where = "at this hub"
	}
	fmt.Fprintf(w, "phase\t%s\nends\t%s\nroot's key\t%s\n", plain(a.Phase), stamp(a.Ends), where)
	if len(a.TLS.Names) > 0 {
		from := "of a file"
		if a.TLS.Own {
			from = "of this authority"
		}
		fmt.Fprintf(w, "TLS\t%s, ends %s, for %s\n", from, stamp(a.TLS.Ends), plain(strings.Join(a.TLS.Names, ", ")))
	}
	fmt.Fprintf(w, "confirmed by\t%s\n", count(a.Confirmed, "agent"))
	if len(a.Behind) > 0 {
		fmt.Fprintf(w, "not by\t%s\n", plain(strings.Join(a.Behind, ", ")))
	}
	for _, s := range a.Warnings {
		fmt.Fprintf(w, "warning\t%s\n", plain(s))
	}
	fmt.Fprintln(w, "\nROOT\tBEGINS\tENDS\tISSUES")
	for _, r := range a.Roots {
		issues := "no"
		if r.Issues {
			issues = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", plain(r.Fingerprint), stamp(r.Begins), stamp(r.Ends), issues)
	}
}
