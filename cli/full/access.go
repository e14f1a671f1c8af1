package full

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/tlsconf"
)

func (c *commands) tokens() *cobra.Command {
	return parent("token", "Make, list and delete the tokens that agents, people and applications come in with.", c.createToken(), c.listTokens(), c.deleteToken())
}

func (c *commands) createToken() *cobra.Command {
	var r api.AccessTokenRequest
	var life time.Duration
	role := ""
	cmd := &cobra.Command{
		Use: "create --role ROLE", Short: "Make a token, and print it this one time.", Args: cobra.NoArgs,
		Long: "Make a token. Its text goes to standard output, and what to do with it to standard error. The hub keeps only a hash of it:\n" +
			"it is never shown again.\n\n" +
			"A viewer may look, an operator also change documents and order agents about, an admin do everything; --within bounds\n" +
			"what they see and change. With role agent a host joins (creel join); such a token is worth something for an hour at\n" +
			"most, and once unless --uses says more; with role hub, once, a hub (creel hub --join). With role ingest an application sends OTLP, and may do nothing else.",
		Example: "  creel token create --role agent                                # prints what to run on the host that joins\n" +
			"  creel token create --role agent --uses 50 --labels site=north\n" +
			"  creel token create --role hub                                  # likewise, for a hub that shares this one's control state\n" +
			"  creel token create --role ingest --name shop --signals logs,traces --limit 100000\n" +
			"  creel token create --role operator --name ann --within 'site == \"north\"' --for 720h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if role == "" {
				return errors.New("which role? Say --role agent, hub, ingest, viewer, operator or admin")
			}
			if life%time.Second != 0 || life < 0 {
				return errors.New("read --for: must be whole seconds, such as 30m")
			}
			r.Role, r.Seconds = api.Role(role), int64(life/time.Second)
			r.Name = first(r.Name, map[api.Role]string{api.Enrol: "agents", api.Member: "hubs"}[r.Role])
			client, err := c.client()
			if err != nil {
				return err
			}
			t, err := client.CreateToken(cmd.Context(), r)
			if err != nil {
				return failed(err)
			}
			err = c.Print(c.output, t, []string{t.Text}, func(w *tabwriter.Writer) { fmt.Fprintln(w, t.Text) })
			c.explainToken(t, client.URL)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&role, "role", "", "what it is for: `ROLE` agent, hub, ingest, viewer, operator or admin")
	flags.StringVar(&r.Name, "name", "", "whose it is: `NAME` for people and the audit log")
	flags.StringVar(&r.Within, "within", "", "of viewer, operator, admin: only agents whose labels meet this `CONDITION`")
	flags.StringSliceVar(&r.Signals, "signals", nil, "of ingest: only these `SIGNALS`: logs, metrics, traces")
	flags.Int64Var(&r.Records, "limit", 0, "of ingest: `N` records in any ten seconds; 0 is no limit")
	flags.StringToStringVar(&r.Labels, "labels", nil, "of agent: labels `KEY=VALUE` that agents get who join with it, whatever they say of themselves")
	flags.IntVar(&r.Uses, "uses", 0, "of agent: how many may join with it: `N` (default 1)")
	flags.DurationVar(&life, "for", 0, "how long it is worth something: `TIME` (default of agent and hub, and their most, 1h; of others for ever)")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"agent", "hub", "ingest", "viewer", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return c.answering(cmd)
}

// explainToken says what a new token is and what to do with it.
func (c *commands) explainToken(t api.AccessTokenCreated, hub string) {
	until := "until it is deleted"
	if !t.Ends.IsZero() {
		until = "until " + stamp(t.Ends)
	}
	fmt.Fprintf(c.Err, "token %s, role %s, worth something %s. It is shown this one time\n", t.ID, t.Role, until)
	switch u, err := url.Parse(hub); {
	case t.Role == api.Enrol:
		fmt.Fprintf(c.Err, "on the host that is to join, run:\n  %s\n", first(t.Join, "creel join "+hub+" --token "+t.Text))
	case t.Role == api.Member && strings.Contains(t.Join, " --listen "):
		fmt.Fprintf(c.Err, "on the machine of the other hub run, with an address of it instead if it shall not listen on all:\n  %s\n", t.Join)
	case t.Role == api.Member:
		fmt.Fprintf(c.Err, "this hub, or its etcd, is on loopback: to let hubs of other machines join, start it with --listen and --etcd-listen. For a trial run on this machine:\n  %s\n", t.Join)
	case t.Role == api.Ingest:
		fmt.Fprintln(c.Err, "an application of OpenTelemetry sends it with: OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer%20TOKEN'")
	case err == nil && tlsconf.IsLoopback(u.Hostname()):
		fmt.Fprintln(c.Err, "whoever gets it signs in with: creel login URL, and the address of this machine in URL")
	default:
		fmt.Fprintf(c.Err, "whoever gets it signs in with: creel login %s\n", hub)
	}
}

func (c *commands) listTokens() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the tokens that are worth something, without their secrets.", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			list, err := client.Tokens(cmd.Context())
			if err != nil {
				return failed(err)
			}
			ids := make([]string, len(list.Tokens))
			for i, t := range list.Tokens {
				ids[i] = t.ID
			}
			return c.Print(c.output, list, ids, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "ID\tROLE\tNAME\tENDS\tMADE BY\tMADE\tBOUNDS")
				for _, t := range list.Tokens {
					ends := "never"
					if !t.Ends.IsZero() {
						ends = stamp(t.Ends)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", plain(t.ID), plain(string(t.Role)), plain(t.Name), ends, plain(t.By), stamp(t.Created), plain(bounds(t)))
				}
			})
		},
	}
	return c.answering(cmd)
}

// bounds says what else a token is bounded by.
func bounds(t api.AccessToken) string {
	var parts []string
	if t.Within != "" {
		parts = append(parts, "within "+t.Within)
	}
	if len(t.Signals) > 0 {
		parts = append(parts, strings.Join(t.Signals, ", "))
	}
	if t.Records > 0 {
		parts = append(parts, fmt.Sprintf("%d records in 10 s", t.Records))
	}
	if t.Role == api.Enrol || t.Role == api.Member {
		parts = append(parts, fmt.Sprintf("%s left, %d used", count(t.Uses, "use"), t.Used))
	}
	for _, k := range slices.Sorted(maps.Keys(t.Labels)) {
		parts = append(parts, k+"="+t.Labels[k])
	}
	return strings.Join(parts, "; ")
}

func (c *commands) deleteToken() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete ID", Aliases: []string{"rm"}, Short: "Make a token worth nothing, and whatever it was changed for.", Args: cobra.ExactArgs(1),
		Long: "Make a token worth nothing, and whatever it was changed for. ID is what creel token list shows; a token's whole text will\n" +
			"do. Agents that have joined with it stay: creel revoke is for them.",
		RunE: func(cmd *cobra.Command, args []string) error {
			id := args[0]
			if parts := strings.Split(id, "_"); len(parts) > 2 && parts[0] == "creel" {
				id = parts[1]
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			if err := client.DeleteToken(cmd.Context(), id); err != nil {
				return failed(err)
			}
			fmt.Fprintf(c.Err, "token %s is worth nothing any more\n", plain(id))
			return nil
		},
	}
	return c.asking(cmd)
}

func (c *commands) revoke() *cobra.Command {
	return c.verdict("revoke", "Let an agent in no more, within seconds.",
		"It keeps what it collects as far as its queues reach, and waits until creel admit lets it in again. creel get knocks lists who\nis revoked.",
		"is let in no more", (*api.Client).Revoke)
}

func (c *commands) admit() *cobra.Command {
	return c.verdict("admit", "Let an agent in again.",
		"It is for one that was revoked, and when two have the same identity: then it lets the one in that knocks, and keeps out the\nother. creel get knocks lists who knocks.",
		"is let in again", (*api.Client).Admit)
}

// verdict makes a command about who may come in.
func (c *commands) verdict(do, short, long, done string, ask func(*api.Client, context.Context, string, api.Because) error) *cobra.Command {
	var why api.Because
	cmd := &cobra.Command{
		Use: do + " AGENT", Short: short, Args: cobra.ExactArgs(1),
		Long:    short + " " + long + "\n\nAGENT is its id, the beginning of that, or its host's name.",
		Example: fmt.Sprintf("  creel %s edge-1 --cause 'ticket 17'", do),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			id, name, err := whom(cmd.Context(), client, args[0])
			if err != nil {
				return failed(err)
			}
			if err := ask(client, cmd.Context(), id, why); err != nil {
				return failed(err)
			}
			fmt.Fprintf(c.Err, "%s %s\n", plain(first(name, id)), done)
			return nil
		},
	}
	cmd.Flags().StringVar(&why.Cause, "cause", "", "why: `TEXT` for the audit log")
	return c.asking(cmd)
}

// whom returns the agent that is meant: one of the fleet, or else one that was refused.
func whom(ctx context.Context, client *api.Client, word string) (id, name string, err error) {
	d, err := client.Agent(ctx, word)
	if e := (*api.Error)(nil); err == nil || !errors.As(err, &e) || e.Code != "not_found" {
		return d.ID, d.Name, err
	}
	list, knocksErr := client.Knocks(ctx)
	if knocksErr != nil {
		return "", "", knocksErr
	}
	found := map[string]string{}
	note := func(id, name string) {
		if id != "" && (strings.HasPrefix(id, word) || name == word) {
			found[id] = name
		}
	}
	for _, r := range list.Revoked {
		note(r.Agent, r.Name)
	}
	for _, k := range list.Knocks {
		note(k.Agent, k.Name)
	}
	switch ids := slices.Sorted(maps.Keys(found)); len(ids) {
	case 0:
		return "", "", err
	case 1:
		return ids[0], found[ids[0]], nil
	default:
		return "", "", &api.Error{Code: "bad_request", Message: fmt.Sprintf("%q means several agents: %s; say more of the id", word, strings.Join(ids, ", "))}
	}
}

func (c *commands) getKnocks() *cobra.Command {
	cmd := &cobra.Command{
		Use: "knocks", Aliases: []string{"knock"}, Short: "List who wanted to come in as an agent and was refused, why, and what to do.", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			list, err := client.Knocks(cmd.Context())
			if err != nil {
				return failed(err)
			}
			var ids []string
			for _, k := range list.Knocks {
				if id := first(k.Agent, k.Address); !slices.Contains(ids, id) {
					ids = append(ids, id)
				}
			}
			return c.Print(c.output, list, ids, func(w *tabwriter.Writer) { knockTables(w, list) })
		},
	}
	return c.answering(cmd)
}

func knockTables(w *tabwriter.Writer, list api.KnockList) {
	if len(list.Knocks) == 0 {
		fmt.Fprintln(w, "nobody was refused")
	} else {
		fmt.Fprintln(w, "LAST\tTIMES\tNAME\tAGENT\tFROM\tWHY\tWHAT TO DO")
	}
	for _, k := range list.Knocks {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", stamp(k.Last), k.Count, plain(k.Name), plain(k.Agent), plain(k.Address), plain(first(k.Text, k.Reason)), plain(k.Remedy))
	}
	if len(list.Revoked) > 0 {
		fmt.Fprintln(w, "\nREVOKED\tBY\tNAME\tAGENT\tCAUSE")
		for _, r := range list.Revoked {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", stamp(r.Time), plain(r.By), plain(r.Name), plain(r.Agent), plain(r.Cause))
		}
	}
}
