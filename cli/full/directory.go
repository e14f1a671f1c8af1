package full

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
)

func (c *commands) getServices() *cobra.Command {
	q := api.DirectoryQuery{Kind: api.KindService}
	var follow bool
	cmd := &cobra.Command{
		Use: "services [NAME]", Aliases: []string{"service"}, Short: "List the services that agents offer, or watch them.", Args: cobra.MaximumNArgs(1),
		Long: "List the services that agents offer (agent.services with center: hub), or those of a name. With --watch also each change, one a line,\n" +
			"until it is interrupted; when the hub is away for a while, or another goes on for it, nothing is missed. Other hubs know what creel login\nsigns in with, and not the token in a hub's state directory.",
		Example: "  creel get services otlp -l site=north\n  creel get services -w",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				q.Service = args[0]
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			if follow {
				return watched(cmd.Context(), client, func(ctx context.Context) error { return client.WatchDirectory(ctx, q, "", c.changed) })
			}
			d, err := client.Directory(cmd.Context(), q)
			if err != nil {
				return failed(err)
			}
			names := make([]string, len(d.Entries))
			for i, e := range d.Entries {
				names[i] = e.Address
			}
			return c.Print(c.output, d, names, func(w *tabwriter.Writer) { serviceTable(w, q, d.Entries) })
		},
	}
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "print each change, until interrupted")
	cmd.Flags().StringVarP(&q.Label, "label", "l", "", "only of agents with these labels: `KEY=VALUE`, separated by commas")
	return c.answering(cmd)
}

// watched watches something until it is interrupted, at the other hubs when this one is gone.
func watched(ctx context.Context, client *api.Client, watch func(context.Context) error) error {
	if err := others(ctx, client); err != nil {
		return failed(err)
	}
	if err := watch(ctx); !errors.Is(err, context.Canceled) {
		return failed(err)
	}
	return nil
}

// others tells a client which other hubs there are, as far as who asks may know and the way to them is as safe.
func others(ctx context.Context, client *api.Client) error {
	x, err := client.Cluster(ctx)
	if errors.Is(err, api.ErrUnreachable) {
		return err
	}
	for _, h := range x.Hubs { // none, if who asks may not know: what is asked for says so, if it is worth saying
		if h.ID != x.Hub && h.URL != "" && (strings.HasPrefix(h.URL, "https://") || strings.HasPrefix(client.URL, "http://")) {
			client.Others = append(client.Others, h.URL)
		}
	}
	return nil
}

// changed prints a change of the directory.
func (c *commands) changed(e api.DirectoryEvent) error {
	list, word := e.Entries, map[string]string{api.DirectoryAll: "+", api.DirectoryPut: "+", api.DirectoryDelete: "-"}[e.Event]
	if e.Entry != nil {
		list = []api.DirectoryEntry{*e.Entry}
	}
	for _, x := range list {
		if _, err := fmt.Fprintf(c.Out, "%s %s %s %s %s %s\n", time.Now().Format(time.TimeOnly), word, plain(x.Service), plain(x.Address), plain(x.Name), plain(x.ID)); err != nil {
			return err
		}
	}
	return nil
}

func serviceTable(w *tabwriter.Writer, q api.DirectoryQuery, list []api.DirectoryEntry) {
	switch {
	case len(list) > 0:
	case q.Service != "" || q.Label != "":
		fmt.Fprintln(w, "no agent offers such a service, as far as you may see")
		return
	default:
		fmt.Fprintln(w, "no agent offers a service, as far as you may see: one does with agent: {services: {NAME: {address: HOST:PORT}}} in its configuration")
		return
	}
	fmt.Fprintln(w, "SERVICE\tADDRESS\tTAGS\tMETA\tWEIGHT\tAGENT\tID\tHUB\tSINCE")
	for _, e := range list {
		var meta []string
		for key, value := range e.Meta {
			meta = append(meta, key+"="+value)
		}
		slices.Sort(meta)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", plain(e.Service), plain(e.Address), plain(strings.Join(e.Tags, ",")), plain(strings.Join(meta, ",")), e.Weight, plain(e.Name), plain(e.ID), plain(e.Hub), cli.Ago(e.Since))
	}
}
