// Package full adds to the command line what runs a hub and what asks one. The agent's own program does without it.
//
// Like package cli it reads flags, calls, and prints.
package full

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/tlsconf"
)

// Commands returns the commands, for cli.Program.More.
func Commands(c *cli.Commands) []*cobra.Command {
	f := &commands{Commands: c}
	list := []*cobra.Command{
		f.up(), f.hubCommand(), f.get(), f.describe(), f.apply(),
		parent("diff", "", f.diffDocuments()), // package cli has the rest of it
		parent("delete", "Delete a thing that the hub has.", f.deleteDocument(), f.deleteHub()),
		parent("rollback", "Go back to an earlier version.", f.rollbackDocument()),
		parent("edit", "Change a thing that the hub has, in an editor.", f.editDocument()),
		f.task(), f.ledger(), f.top(), f.query(), f.logs(), f.doctor(),
		f.login(), f.logout(), f.whoami(), f.tokens(), f.revoke(), f.admit(), f.audit(), f.authority(), f.backup(), f.restore(),
	}
	return append(list, f.orders()...)
}

type commands struct {
	*cli.Commands

	hub    string         // --hub
	tls    tlsconf.Client // --hub-ca, --hub-cert, --hub-key
	token  string         // --token
	output string         // -o
}

// asking adds the flags of a command that asks a hub.
func (c *commands) asking(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.hub, "hub", "", "`URL` of the hub (default: CREEL_HUB, or the hub whose state directory is here, or that of creel login, or http://"+hub.DefaultAddress+")")
	cmd.Flags().StringVar(&c.token, "token", "", "a `TOKEN` of the hub, - reads it from standard input (default: CREEL_TOKEN, or that of creel login, or what the hub's state directory says)")
	prev := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) (err error) {
		if c.token, err = cli.SecretFlag(cmd, "token", c.token); err != nil || prev == nil {
			return err
		}
		return prev(cmd, args)
	}
	c.trusting(cmd)
	return c.WithData(cmd)
}

// trusting adds the flags that say which hub is the right one, and prove to it who asks.
func (c *commands) trusting(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.tls.CAFile, "hub-ca", "", "`FILE` with the authorities to trust, PEM (default: CREEL_HUB_CA, or what the hub whose state directory is here says, or what creel login has verified, or the system's)")
	cmd.Flags().StringVar(&c.tls.CertFile, "hub-cert", "", "`FILE` with the certificate to show to a hub that wants one, PEM (default: CREEL_HUB_CERT)")
	cmd.Flags().StringVar(&c.tls.KeyFile, "hub-key", "", "`FILE` with its key, PEM (default: CREEL_HUB_KEY)")
}

// answering adds the flag -o as well.
func (c *commands) answering(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&c.output, "output", "o", "table", "table, wide, json, yaml or name")
	return c.asking(cmd)
}

// client returns what asks the hub that is meant.
func (c *commands) client() (*api.Client, error) {
	client := &api.Client{URL: first(c.hub, os.Getenv("CREEL_HUB")), Token: first(c.token, os.Getenv("CREEL_TOKEN")), Warn: c.warn}
	here, found := c.hubHere()
	in, err := readLogin()
	if err != nil {
		return nil, cli.Exit(cli.ExitNo, err)
	}
	if client.URL == "" {
		client.URL = first(here.URL, in.URL, "http://"+hub.DefaultAddress)
	}
	u, err := url.Parse(client.URL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("read --hub: must be a URL such as http://%s, got %q", hub.DefaultAddress, client.URL)
	}
	own := found && client.URL == here.URL
	if in.URL != strings.TrimRight(client.URL, "/") {
		in = login{} // it is for another hub
	}
	if client.HTTP, err = c.http(u, here, own, in.CA); err != nil {
		return nil, err
	}
	switch {
	case client.Token != "":
	case in.Token != "":
		s := &session{next: http.DefaultTransport, login: in}
		if client.HTTP.Transport != nil {
			s.next = client.HTTP.Transport
		}
		if _, err := s.token(context.Background(), s.URL, ""); err != nil { // at once, so that an error is told as what it is
			return nil, failed(err)
		}
		client.HTTP = &http.Client{Transport: s}
	case own || tlsconf.IsLoopback(u.Hostname()): // the token is not sent to others
		text, err := os.ReadFile(filepath.Join(c.DataDir(), "token"))
		if err == nil {
			client.Token = strings.TrimSpace(string(text))
		}
	}
	return client, nil
}

// warn tells what is wrong with an answer, beside it.
func (c *commands) warn(text string) { fmt.Fprintf(c.Err, "warning: %s\n", plain(text)) }

// http returns what sends requests to the hub at u, which is own if it is the one that is here. known is what creel login
// has verified, PEM.
func (c *commands) http(u *url.URL, here hub.Endpoints, own bool, known string) (*http.Client, error) {
	if u.Scheme != "https" {
		return http.DefaultClient, nil
	}
	o := tlsconf.Client{
		CAFile: first(c.tls.CAFile, os.Getenv("CREEL_HUB_CA")), CertFile: first(c.tls.CertFile, os.Getenv("CREEL_HUB_CERT")), KeyFile: first(c.tls.KeyFile, os.Getenv("CREEL_HUB_KEY")),
	}
	if own && o.CAFile == "" {
		o.CAFile, o.ServerName = here.CAFile, here.ServerName
	}
	if o.CAFile == "" && known != "" {
		secure, err := c.secure(u.Hostname(), known)
		if err != nil {
			return nil, err
		}
		return &http.Client{Transport: transport(secure)}, nil
	}
	secure, err := o.Config(u.Hostname(), nil, nil)
	if err != nil {
		return nil, fmt.Errorf("read --hub-ca, --hub-cert and --hub-key: %w", err)
	}
	return &http.Client{Transport: transport(secure)}, nil
}

// hubHere returns what the state directory says of a running hub.
func (c *commands) hubHere() (e hub.Endpoints, found bool) {
	text, err := os.ReadFile(filepath.Join(c.DataDir(), "hub.json"))
	return e, err == nil && json.Unmarshal(text, &e) == nil && e.URL != ""
}

func first(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// failed gives an error of the client its exit code.
func failed(err error) error {
	var e *api.Error
	hint := tlsconf.Hint(err, "--hub-ca or CREEL_HUB_CA", "--hub-cert and --hub-key")
	switch {
	case errors.Is(err, errOtherHub):
		return cli.Exit(cli.ExitUnreachable, err)
	case hint != "" && !errors.As(err, &e):
		return cli.Exit(cli.ExitUnreachable, fmt.Errorf("%w%s", err, hint))
	case errors.Is(err, api.ErrUnreachable):
		return cli.Exit(cli.ExitUnreachable, fmt.Errorf("%w; start one with creel up or creel hub, or name another with --hub or CREEL_HUB", err))
	case !errors.As(err, &e):
		return cli.Exit(cli.ExitNo, err)
	case e.Code == "unauthorized" || e.Code == "forbidden":
		return cli.Exit(cli.ExitForbidden, err)
	case e.Code == "not_found":
		return cli.Exit(cli.ExitNotFound, err)
	case e.Code == "bad_request" || e.Code == "bad_data":
		return cli.Exit(cli.ExitUsage, err)
	}
	return cli.Exit(cli.ExitNo, err)
}

// plain keeps control characters of others' texts from the terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
