package full

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
)

func (c *commands) getTasks() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tasks", Aliases: []string{"task"}, Short: "List documents that are to be on some agents, and on which they are.", Args: cobra.NoArgs,
		Long: "List the tasks: a document with place: 2 has two. Each has one owner, an agent; when that is lost, the hub gives it to another,\nwith a higher epoch.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
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
	return c.answering(cmd)
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
