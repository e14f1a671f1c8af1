package full

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
)

func (c *commands) getHubs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "hubs", Aliases: []string{"hub"}, Short: "List the hubs that share a control state, and how that is.", Args: cobra.NoArgs,
		Long:    "List the hubs that share a control state: which of them leads and places documents, which answers here, about how many agents\neach has. Then the members of etcd, where the control state is: more than half must answer for anything to be changed.",
		Example: "  creel get hubs\n  creel get hubs -o yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			x, err := client.Cluster(cmd.Context())
			if err != nil {
				return failed(err)
			}
			ids := make([]string, len(x.Hubs))
			for i, h := range x.Hubs {
				ids[i] = h.ID
			}
			return c.Print(c.output, x, ids, func(w *tabwriter.Writer) { hubTable(w, x) })
		},
	}
	return c.answering(cmd)
}

func hubTable(w *tabwriter.Writer, x api.Cluster) {
	fmt.Fprintln(w, "NAME\tID\tROLE\tAGENTS\tSTARTED\tVERSION\tURL")
	for _, h := range x.Hubs {
		var roles []string
		if h.ID == x.Leader {
			roles = append(roles, "leads")
		}
		if h.Draining {
			roles = append(roles, "draining")
		}
		if h.ID == x.Hub {
			roles = append(roles, "answers")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", plain(h.Name), plain(h.ID), strings.Join(roles, ", "), h.Agents, cli.Ago(h.Started), plain(h.Version), plain(h.URL))
	}
	fmt.Fprintln(w)
	switch s := x.State; {
	case !s.Healthy:
		fmt.Fprintf(w, "The control state does not answer as it should: %s\n", plain(firstLine(s.Error)))
	case x.Leader == "":
		fmt.Fprintln(w, "No hub leads at present: what is placed on agents stays where it is.")
	}
	fmt.Fprintln(w, "ETCD MEMBER\tSTATE\tSIZE\tPEER")
	for _, m := range x.State.Members {
		size := "unknown"
		if m.Size > 0 {
			size = cli.Bytes(m.Size)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", plain(m.Name), memberState(m), size, plain(m.Peer))
	}
}

// memberState says in a word how a member of etcd is.
func memberState(m api.StateMember) string {
	switch {
	case !m.Healthy && m.Self:
		return "has no leader"
	case !m.Healthy:
		return "does not answer"
	case m.Full:
		return "full"
	case m.Learner:
		return "joins"
	case m.Leader:
		return "leads"
	}
	return "follows"
}

// drainHub is a command below creel hub.
func (c *commands) drainHub() *cobra.Command {
	var undo bool
	var cause string
	cmd := &cobra.Command{
		Use: "drain HUB", Short: "Have all agents of a hub go to other hubs, so that it can be stopped.", Args: cobra.ExactArgs(1),
		Long: "Have all agents of a hub go to other hubs, a few at a time, so that it can be stopped without anybody missing it. HUB is an id or how\n" +
			"one begins, or the name of a host; creel get hubs lists them, and how many agents each still has. It holds until --undo.",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			h, err := client.DrainHub(cmd.Context(), args[0], api.HubDrain{Drain: !undo, Cause: cause})
			if err != nil {
				return failed(err)
			}
			if undo {
				fmt.Fprintf(c.Out, "agents may go to hub %s again\n", plain(h.ID))
			} else {
				fmt.Fprintf(c.Out, "the agents of hub %s are asked to go to other hubs: it has about %d; see creel get hubs\n", plain(h.ID), h.Agents)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "take it back")
	cmd.Flags().StringVar(&cause, "cause", "", "why: `TEXT` for the audit log")
	return c.asking(cmd)
}
