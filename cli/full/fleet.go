package full

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/report"
)

func (c *commands) get() *cobra.Command {
	return parent("get", "List what the hub knows.", c.getAgents(), c.getDocuments(), c.getTasks(), c.getHubs(), c.getServices(), c.getConfigurations(), c.getKnocks())
}

func (c *commands) getAgents() *cobra.Command {
	var q api.AgentQuery
	cmd := &cobra.Command{
		Use: "agents [WORD...]", Aliases: []string{"agent"}, Short: "List agents, worst first.",
		Long:    "List the agents whose name, id, version, cause or labels contain all words, worst first.",
		Example: "  creel get agents --status lost\n  creel get agents -l site=north -o json\n  creel get agents -o wide    # with what this hub let in of each",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			q.Search = strings.Join(args, " ")
			list := api.AgentList{Agents: []api.Agent{}}
			for q.Limit = 1000; ; q.Cursor = list.Next {
				page, err := client.Agents(cmd.Context(), q)
				if err != nil {
					return failed(err)
				}
				page.Agents = append(list.Agents, page.Agents...)
				if list = page; list.Next == "" {
					break
				}
			}
			ids := make([]string, len(list.Agents))
			for i, a := range list.Agents {
				ids[i] = a.ID
			}
			return c.Print(c.output, list, ids, func(w *tabwriter.Writer) { agentTable(w, list.Agents, c.output == "wide") })
		},
	}
	cmd.Flags().StringVar(&q.Status, "status", "", "only `STATUS`: lost, degraded, disconnected, unknown or healthy")
	cmd.Flags().StringVarP(&q.Label, "label", "l", "", "only with these labels: `KEY=VALUE`, separated by commas")
	cmd.Flags().StringVar(&q.Config, "config", "", "only those that run this configuration `ID`")
	return c.answering(cmd)
}

func agentTable(w *tabwriter.Writer, agents []api.Agent, wide bool) {
	more := ""
	if wide {
		more = "ADMITTED\tTHROTTLED\tUNEXPLAINED\t"
	}
	fmt.Fprintf(w, "STATUS\tNAME\tID\tVERSION\tIN/S\tOUT/S\tDROPPED\tDEAD LETTERS\tQUEUE\tON DISK\tDISK QUEUE\t%sSEEN\tCAUSE\n", more)
	for _, a := range agents {
		if wide {
			n := api.Intake{}
			if a.Intake != nil {
				n = *a.Intake
			}
			more = fmt.Sprintf("%d\t%d\t%d\t", n.Records, n.ThrottledRecords, a.Unexplained)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.0f\t%.0f\t%d\t%d\t%s\t%s\t%s%s\t%s\n", status(&a), plain(a.Name), a.ID, plain(a.Version), a.In, a.Out,
			a.Totals.Dropped, a.Totals.DeadLettered, cli.Bytes(a.QueueBytes), onDisk(a.Disk), more, cli.Ago(a.LastSeen), plain(firstLine(a.Cause)))
	}
}

// onDisk is two columns: how much waits in disk queues, and what becomes of it.
func onDisk(d *api.Disk) string {
	if d == nil {
		return "\t"
	}
	does := cli.DiskQueue(report.Spool{Full: d.Full, FullIn: d.FullIn, Replaying: d.Replaying, EmptyIn: d.EmptyIn, Waiting: d.Waiting})
	if d.Exporter != "" {
		does = plain(d.Exporter) + ": " + does
	}
	return fmt.Sprintf("%d (%s)\t%s", d.Waiting, cli.Bytes(d.Bytes), does)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

func (c *commands) getConfigurations() *cobra.Command {
	cmd := &cobra.Command{
		Use: "configurations [ID]", Aliases: []string{"configuration", "configs"}, Short: "List the configurations that run, or print one.", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				d, err := client.Configuration(cmd.Context(), args[0])
				if err != nil {
					return failed(err)
				}
				return c.Print(c.output, d, []string{d.ID}, func(w *tabwriter.Writer) { fmt.Fprintln(w, d.Text) })
			}
			list, err := client.Configurations(cmd.Context())
			if err != nil {
				return failed(err)
			}
			ids := make([]string, len(list.Configurations))
			for i, d := range list.Configurations {
				ids[i] = d.ID
			}
			return c.Print(c.output, list, ids, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "ID\tAGENTS")
				for _, d := range list.Configurations {
					fmt.Fprintf(w, "%s\t%d\n", d.ID, len(d.Agents))
				}
			})
		},
	}
	return c.answering(cmd)
}

func (c *commands) describe() *cobra.Command {
	agent := &cobra.Command{
		Use: "agent ID", Aliases: []string{"agents"}, Short: "Show one agent: its state, what it shall run, components, pipelines, ledger, timeline.", Args: cobra.ExactArgs(1),
		Long: "Show all that the hub knows of an agent. The beginning of its id will do when it is unique, and so will its name.",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			d, err := client.Agent(cmd.Context(), args[0])
			if err != nil {
				return failed(err)
			}
			return c.Print(c.output, d, []string{d.ID}, func(w *tabwriter.Writer) { describeAgent(w, &d) })
		},
	}
	return parent("describe", "Show one thing that the hub knows, with all about it.", c.answering(agent), c.describeDocument(), c.describeTask())
}

func describeAgent(w *tabwriter.Writer, d *api.AgentDetail) {
	fmt.Fprintf(w, "agent\t%s\nname\t%s\ntype\t%s %s\nstatus\t%s\n", d.ID, plain(d.Name), plain(d.Type), plain(d.Version), status(&d.Agent))
	if d.Cause != "" {
		fmt.Fprintf(w, "cause\t%s\n", plain(d.Cause))
	}
	fmt.Fprintf(w, "last seen\t%s (%s)\nstarted\t%s\nheartbeat\t%gs\neffective configuration\t%s\n", stamp(d.LastSeen), cli.Ago(d.LastSeen), stamp(d.Started), d.Heartbeat, d.Config)
	for _, k := range slices.Sorted(maps.Keys(d.Labels)) {
		fmt.Fprintf(w, "label\t%s=%s\n", plain(k), plain(d.Labels[k]))
	}
	describeLife(w, &d.Intended)
	cli.ComponentTable(w, d.Components)
	if len(d.Routes) > 0 {
		fmt.Fprintln(w, "\nPIPELINE\tFROM\tTHROUGH\tTO\tIN/S")
		for _, r := range d.Routes {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.0f\n", r.Pipeline, strings.Join(r.From, " "), strings.Join(r.Through, " "), strings.Join(r.To, " "), r.In)
		}
	}
	describeLedger(w, d)
	describeChanges(w, &d.Intended)
	fmt.Fprintln(w, "\nTIME\tEVENT\tCAUSE")
	for _, e := range d.Timeline {
		fmt.Fprintf(w, "%s\t%s\t%s\n", stamp(e.Time), e.Kind, plain(e.Cause))
	}
}

// describeLedger shows an agent's books, to the hub.
func describeLedger(w *tabwriter.Writer, d *api.AgentDetail) {
	cli.LedgerTables(w, d.Ledger)
	if len(d.Hops) > 0 {
		fmt.Fprintln(w, "\nTO THIS HUB\tSENT\tTAKEN\tUNDER WAY\tREPEATS\tUNEXPLAINED\tSINCE")
		for _, h := range d.Hops {
			sent, under := fmt.Sprint(h.Sent), fmt.Sprint(max(0, h.Taken-h.Sent))
			if h.Settling {
				sent, under = "?", "?"
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%d\t%s\n", plain(h.Exporter), sent, h.Taken, under, h.Repeats, h.Unexplained, stamp(h.Since))
		}
	}
	if n := d.Intake; n != nil {
		fmt.Fprintln(w, "\nADMISSION\tREQUESTS\tRECORDS\tBYTES")
		fmt.Fprintf(w, "admitted\t%d\t%d\t%s\nthrottled\t%d\t%d\t\n", n.Requests, n.Records, cli.Bytes(n.Bytes), n.ThrottledRequests, n.ThrottledRecords)
	}
}

func sum(reasons map[string]int64) (n int64) {
	for _, k := range reasons {
		n += k
	}
	return n
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.Local().Format(time.DateTime)
}
