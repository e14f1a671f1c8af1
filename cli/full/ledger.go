package full

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
)

func (c *commands) ledger() *cobra.Command {
	q := api.LedgerQuery{}
	cmd := &cobra.Command{
		Use: "ledger", Short: "Show what became of every record of the fleet.", Args: cobra.NoArgs,
		Long: "Show the books of every agent, and their sum: what its pipelines have accepted, and where it is now. SENT is what agents\n" +
			"call delivered to this hub, TAKEN what the hub took of that; SENT is never above TAKEN for long, or records are\n" +
			"UNEXPLAINED. Counts are records since each agent was started. A record that goes to two exporters counts at both.",
		Example: "  creel ledger\n  creel ledger -o json | jq .total",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			l, err := client.Ledger(cmd.Context(), q)
			if err != nil {
				return failed(err)
			}
			ids := make([]string, len(l.Agents))
			for i, a := range l.Agents {
				ids[i] = a.ID
			}
			return c.Print(c.output, l, ids, func(w *tabwriter.Writer) { ledgerTable(w, &l) })
		},
	}
	cmd.Flags().IntVar(&q.Limit, "limit", 1000, "list `N` agents at most, the worst; the sum is of all")
	return c.answering(cmd)
}

func ledgerTable(w *tabwriter.Writer, l *api.Ledger) {
	fmt.Fprintln(w, "NAME\tID\tACCEPTED\tCREATED\tFILTERED\tABSORBED\tDELIVERED\tSPOOLED\tQUEUED\tHELD\tDROPPED\tDEAD LETTERS\tSENT\tTAKEN\tUNEXPLAINED")
	row := func(name, id string, b *api.Books) {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", name, id, b.Accepted, b.Created, b.Filtered, b.Absorbed, b.Delivered, b.Spooled,
			b.Queued, b.Held, sum(b.Dropped), b.DeadLettered, b.Sent, b.Taken, b.Unexplained)
	}
	for i := range l.Agents {
		row(plain(l.Agents[i].Name), l.Agents[i].ID, &l.Agents[i].Books)
	}
	if l.LeftOut > 0 {
		fmt.Fprintf(w, "and %d more\n", l.LeftOut)
	}
	row("all", "", &l.Total)
	if len(l.Total.Dropped) > 0 {
		var why []string
		for _, reason := range slices.Sorted(maps.Keys(l.Total.Dropped)) {
			why = append(why, fmt.Sprintf("%s %d", reason, l.Total.Dropped[reason]))
		}
		fmt.Fprintf(w, "\nDropped: %s\n", strings.Join(why, ", "))
	}
}
