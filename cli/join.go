package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/agent/identity"
	"github.com/creelhq/creel/control"
)

// joinFlags are the flags of join.
type joinFlags struct {
	token, name string
	again, stay bool
}

func (c *Commands) join() *cobra.Command {
	var f joinFlags
	cmd := &cobra.Command{
		Use: "join URL --token TOKEN", Short: "Make the agent of this machine one of a hub's, and run it.", Args: cobra.ExactArgs(1),
		Long: "Make the agent of this machine one of a hub's with a token, which creel token create --role agent makes at the hub, and\n" +
			"run it until it is told to stop. The hub is the right one if its authority has the fingerprint in the token. The agent\n" +
			"gets a certificate, which it renews by itself. One that belongs to that hub already just runs, and needs no token.\n\n" +
			"Without -c it runs what " + c.Name + " makes up for this machine: its metrics, the journal, the log files under /var/log that can\n" +
			"be read and what creel says of itself go to the hub, through a disk queue.\n\n" +
			"A token is worth something for an hour at most, and mostly once. " + TokenHelp,
		Example: fmt.Sprintf("  %[1]s join https://hub.example:4380 --token creel_…\n  %[1]s join https://hub.example:4380 --token - --no-run < token.txt\n  %[1]s agent    # what has joined once runs with this", c.Name),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := SecretFlag(cmd, "token", cmp.Or(f.token, os.Getenv("CREEL_TOKEN")))
			if err != nil {
				return err
			}
			if err := c.belong(cmd.Context(), args[0], token, f); err != nil {
				return err
			}
			if f.stay {
				return nil
			}
			return c.runAgent(cmd, nil)
		},
	}
	cmd.Flags().StringVar(&f.token, "token", "", "the `TOKEN` to join with; - reads it from standard input (default: CREEL_TOKEN)")
	cmd.Flags().StringVar(&f.name, "name", "", "`NAME` of this machine, for people who look at who has joined (default: its host name)")
	cmd.Flags().BoolVar(&f.again, "again", false, "join as somebody new: leave another hub for this one, or be no copy of another agent any more")
	cmd.Flags().BoolVar(&f.stay, "no-run", false, "do not run it")
	return c.WithData(c.mayHaveConfig(cmd))
}

// belong makes the agent of this machine one of the hub's at a URL, unless it is.
func (c *Commands) belong(ctx context.Context, address, token string, f joinFlags) error {
	data := c.DataDir()
	if c.AgentData() != data {
		return fmt.Errorf("join %s: %s is the state directory of a hub that runs; name another with --data", address, data)
	}
	if err := agent.CheckOwner(data); err != nil {
		return Exit(ExitNo, err)
	}
	had, err := identity.Open(agent.IdentityDir(data), identity.Options{})
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !f.again:
		return Exit(ExitNo, err)
	case token == "" && had != nil && sameHub(had.Addresses().URL, address):
		c.belongs(had, "belongs to")
		return nil
	case token == "":
		return errors.New("which token? Say --token TOKEN; at the hub, creel token create --role agent makes one")
	}
	if _, err := control.ParseToken(token); err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	name := f.name
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return Exit(ExitNo, fmt.Errorf("find the name of this machine: %w; say --name", err))
		}
	}
	id, back, err := agentID(data, f.again)
	if err != nil {
		return Exit(ExitNo, err)
	}
	is, err := c.enrol(ctx, identity.JoinOptions{
		URL: address, Token: token, Dir: agent.IdentityDir(data), Agent: id, Name: name, Again: f.again, Log: slog.New(slog.NewTextHandler(c.Err, nil)),
	})
	if err != nil {
		err = errors.Join(err, back())
	}
	var refused *control.Refusal
	switch {
	case err == nil:
		c.belongs(is, "has joined")
		return nil
	case errors.As(err, &refused) && strings.HasPrefix(refused.Code, "token_") && had != nil && !f.again && sameHub(had.Addresses().URL, address):
		fmt.Fprintf(c.Err, "the token was not taken, and is not needed: %v\n", err)
		c.belongs(had, "belongs to")
		return nil
	case refused != nil:
		return Exit(ExitForbidden, err)
	case errors.Is(err, identity.ErrNothingToJoin):
		return Exit(ExitUsage, err)
	}
	if unreached := (*url.Error)(nil); errors.As(err, &unreached) {
		return Exit(ExitUnreachable, err)
	}
	return Exit(ExitNo, err)
}

// agentID returns the id that the agent with a state directory has, or with another a new one: it may be a copy of another agent's
// directory. back takes that back.
func agentID(data string, another bool) (id string, back func() error, err error) {
	file := filepath.Join(data, "identity.json")
	before, err := os.ReadFile(file)
	if !another || err != nil {
		id, err = agent.ID(data, another)
		return id, func() error { return nil }, err
	}
	id, err = agent.ID(data, another)
	return id, func() error { return agent.WriteFile(file, before) }, err
}

// joinTries is how often a hub that is busy is asked.
const joinTries = 20

// enrol joins. When many come at once, a hub tells some of them to come again.
func (c *Commands) enrol(ctx context.Context, o identity.JoinOptions) (*identity.Identity, error) {
	for try := 1; ; try++ {
		is, err := identity.Join(ctx, o)
		var refused *control.Refusal
		if err == nil || !errors.As(err, &refused) || refused.Code != control.Busy || try == joinTries {
			return is, err
		}
		wait := min(cmp.Or(refused.After, time.Second), time.Minute)
		fmt.Fprintf(c.Err, "%v; asking again in %v\n", err, wait)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// belongs says to which hub the agent belongs, and as whom.
func (c *Commands) belongs(is *identity.Identity, how string) {
	s := is.Status()
	fmt.Fprintf(c.Err, "this agent %s the hub at %s, whose certificate was verified, as %s\nits certificate is good until %s, and renews itself\n",
		how, is.Addresses().URL, is.Agent(), stamp(s.Expires))
}

// sameHub reports whether two URLs lead to the same place.
func sameHub(a, b string) bool {
	u, errA := control.HubURL(a)
	v, errB := control.HubURL(b)
	return errA == nil && errB == nil && u.Scheme == v.Scheme && strings.EqualFold(u.Host, v.Host) && strings.Trim(u.Path, "/") == strings.Trim(v.Path, "/")
}

// joinedConfig returns the configuration that is made up for a machine whose agent belongs to a hub.
func joinedConfig(m Machine, at control.Addresses) (string, error) {
	options := ""
	switch {
	case at.OTLPGRPC != "":
		options = "endpoint: hub"
	case at.OTLPHTTP != "":
		options = "endpoint: hub, protocol: http"
	default:
		return "", fmt.Errorf("run an agent of %s: that hub takes no OTLP, so there is nowhere to send to; give its configuration a collector otlp, or this agent one of its own with -c", at.URL)
	}
	return m.Config(Sends{
		Agent:    fmt.Sprintf("{hub: {url: %q, tls: {identity: true}}}", at.URL),
		Exporter: "otlp/hub", Options: "{" + options + ", compression: zstd, tls: {identity: true}, delivery: {spool: {}}}",
	}), nil
}
