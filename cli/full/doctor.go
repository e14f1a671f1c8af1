package full

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/report"
)

// doctor looks for what is wrong, and says what to do about it.
func (c *commands) doctor() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong with the hub and the agent here, and say what to do.", Args: cobra.NoArgs,
		Long: "Check the state directory, the agent, what waits on its disk, the hub, its store and its fleet.\nExit code 1: something is wrong.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			e := &examination{c: c}
			e.directory()
			e.agent(ctx)
			e.hub(ctx)
			if e.wrong > 0 {
				return cli.Exit(cli.ExitNo, fmt.Errorf("%s wrong", map[bool]string{true: "1 thing is", false: fmt.Sprint(e.wrong, " things are")}[e.wrong == 1]))
			}
			return nil
		},
	}
	return c.asking(cmd)
}

// examination is one run of doctor.
type examination struct {
	c     *commands
	wrong int
}

func (e *examination) good(format string, args ...any) {
	fmt.Fprintf(e.c.Out, "ok     "+format+"\n", args...)
}

func (e *examination) note(format string, args ...any) {
	fmt.Fprintf(e.c.Out, "note   "+format+"\n", args...)
}

// bad says what is wrong and what to do.
func (e *examination) bad(remedy, format string, args ...any) {
	e.wrong++
	fmt.Fprintf(e.c.Out, "WRONG  "+format+"\n       %s\n", append(args, remedy)...)
}

func (e *examination) directory() {
	dir := e.c.DataDir()
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		e.note("state directory %s is not there: neither hub nor agent has run with it; --data names another", dir)
	case err != nil:
		e.bad("Run as the user whom it belongs to, or name another with --data.", "state directory %s cannot be read: %v", dir, err)
	case info.Mode().Perm()&0o077 != 0:
		e.bad("chmod 700 "+dir, "state directory %s is open to other users (mode %o)", dir, info.Mode().Perm())
	default:
		e.good("state directory %s", dir)
	}
}

// agent looks at the agent whose state directory is here.
func (e *examination) agent(ctx context.Context) {
	var h report.Health
	switch err := e.c.Call(ctx, http.MethodGet, "/healthz", nil, &h); {
	case errors.Is(err, os.ErrNotExist):
		e.note("no agent runs with this state directory")
		return
	case err != nil:
		e.bad("If its process is gone, start it again; if not, see its log.", "%v", err)
		return
	}
	for _, d := range h.Degraded {
		e.bad("See the agent's log; creel explain tells the component's options.", "%s is degraded: %s", d.Component, d.Error)
	}
	if len(h.Degraded) == 0 {
		e.good("agent %s is %s and healthy", h.ID, h.State)
	}
	if h.Hub.URL != "" && !h.Hub.Connected {
		e.bad("Is the hub running, and is the URL right? The agent works without, and connects by itself.", "the agent is not connected to its hub %s: %s", h.Hub.URL, h.Hub.Error)
	}
	e.delivery(ctx)
}

// hub looks at the hub that is meant, its store and its fleet.
func (e *examination) hub(ctx context.Context) {
	client, err := e.c.client()
	if err != nil {
		e.bad("Say --hub http://host:port.", "%v", err)
		return
	}
	h, err := client.Hub(ctx)
	var answered *api.Error
	switch {
	case errors.As(err, &answered):
		e.bad("Say --token, or --data with the hub's state directory.", "the hub at %s refuses: %s", client.URL, answered.Message)
		return
	case err != nil:
		if _, found := e.c.hubHere(); !found && e.c.hub == "" {
			e.note("no hub runs at %s", client.URL)
			return
		}
		e.bad("Start it with creel up or creel hub, or name another with --hub.", "%v", err)
		return
	}
	e.good("hub %s at %s, up for %s", h.ID, client.URL, cli.Ago(h.Started))
	q := h.QuickLook
	if q.Stopped != "" {
		e.bad("Make room on its disk, or give it less with --max-size. What agents forward elsewhere goes on.", "the quick look stores nothing: %s", q.Stopped)
	} else {
		e.good("quick look stores: %.1f MiB, %d series", float64(q.Bytes)/(1<<20), q.Series)
	}
	for _, f := range q.Damaged {
		e.bad("It was set aside, and is not used; delete it when you have looked at it.", "damaged file %s", f)
	}
	if h.State != "" {
		e.bad("creel get documents and creel token list show what there is; agents go on with what they have.", "%s", plain(h.State))
	}
	e.cluster(ctx, client)
	e.fleet(ctx, client, h.Agents)
	e.tasks(ctx, client)
	if l, err := client.Ledger(ctx, api.LedgerQuery{Limit: 1}); err == nil && l.Total.Unexplained > 0 {
		e.bad("creel ledger tells whose; creel describe agent ID since when.", "%d records that agents call delivered to this hub never came", l.Total.Unexplained)
	}
}

// cluster looks at the hubs that share the control state, as far as who asks may know.
func (e *examination) cluster(ctx context.Context, client *api.Client) {
	x, err := client.Cluster(ctx)
	if err != nil {
		return
	}
	switch {
	case !x.State.Healthy:
		e.bad("creel get hubs shows which members of etcd do not answer: start their hubs. Nothing can be changed meanwhile; agents go on with what they have.",
			"the control state does not answer as it should: %s", plain(firstLine(first(x.State.Error, "this hub has no lease there"))))
	case len(x.Hubs) > 1:
		e.good("control state: %d hubs share it", len(x.Hubs))
	}
	for _, m := range x.State.Members {
		if x.State.Healthy && x.State.Embedded && !m.Healthy {
			e.bad("Start it; or, if it will not come back: creel delete hub "+plain(m.Name), "hub %s, which keeps the control state with others, does not answer at %s", plain(m.Name), plain(m.Peer))
		}
	}
}

// tasks looks for documents that were given up.
func (e *examination) tasks(ctx context.Context, client *api.Client) {
	list, err := client.Tasks(ctx)
	if err != nil {
		return
	}
	last := ""
	for _, t := range list.Tasks { // by document
		if t.Status == "parked" && t.Document != last {
			e.bad("creel describe task "+plain(t.Document)+" tells where it has failed; another version of it is tried anew, and creel task retry tries this one.", "document %s is on no agent: %s", plain(t.Document), plain(firstLine(t.Error)))
			last = t.Document
		}
	}
}

func (e *examination) fleet(ctx context.Context, client *api.Client, counts map[string]int) {
	e.good("fleet: %d healthy, %d degraded, %d lost, %d disconnected, %d unknown", counts["healthy"], counts["degraded"], counts["lost"], counts["disconnected"], counts["unknown"])
	for _, status := range []string{"lost", "degraded"} {
		if counts[status] == 0 {
			continue
		}
		list, err := client.Agents(ctx, api.AgentQuery{Status: status, Limit: 10})
		if err != nil {
			e.bad("Try again.", "the fleet cannot be listed: %v", err)
			return
		}
		for _, a := range list.Agents {
			e.bad("creel describe agent "+a.ID, "agent %s is %s: %s", plain(a.Name), status, plain(firstLine(a.Cause)))
		}
		if more := counts[status] - len(list.Agents); more > 0 {
			e.note("and %d more: creel get agents --status %s", more, status)
		}
	}
}
