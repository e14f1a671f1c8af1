package full

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/hub"
)

// What an etcd outside asks for comes in the environment: arguments can be seen by everybody on the machine.
const (
	etcdUser     = "CREEL_ETCD_USER"
	etcdPassword = "CREEL_ETCD_PASSWORD"
)

// share adds the flags of a hub that shares its control state with others.
func (f *hubFlags) share(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.o.Etcd, "etcd", nil, "endpoint `URL`s of an etcd cluster, instead of an etcd within; a user of it in "+etcdUser+" and "+etcdPassword)
	flags.StringVar(&f.o.EtcdTLS.CAFile, "etcd-ca", "", "`FILE` with the authorities that --etcd is trusted by, PEM (default: the system's)")
	flags.StringVar(&f.o.EtcdTLS.CertFile, "etcd-cert", "", "`FILE` with the certificate to show to --etcd, PEM; a file that changes is read again")
	flags.StringVar(&f.o.EtcdTLS.KeyFile, "etcd-key", "", "`FILE` with the certificate's key, PEM")
	flags.StringVar(&f.o.EtcdListen, "etcd-listen", "", "`ADDRESS` of this machine at which other hubs reach the etcd within, so that they can join; its port may be left out (default: as the last time; with --join the host of --listen and port "+hub.DefaultEtcdPort+")")
	flags.StringVar(&f.o.Register.File, "register", "", "`FILE` that says with which centers this hub registers, so that agents find it there, YAML; see docs/centers.md")
	flags.StringVar(&f.o.Join, "join", "", "`URL` of a hub to share the control state of; once that is done it is kept, and need not be said again")
	flags.StringVar(&f.o.JoinToken, "token", "", "of --join: the `TOKEN` that creel token create --role hub has printed there, - reads it from standard input")
}

// shared checks and completes those flags.
func (f *hubFlags) shared(cmd *cobra.Command) (err error) {
	if f.o.JoinToken, err = cli.SecretFlag(cmd, "token", f.o.JoinToken); err != nil {
		return err
	}
	if (f.o.Join == "") != (f.o.JoinToken == "") {
		return errors.New("read --join and --token: a hub joins another with both; creel token create --role hub, at the other, prints what to run")
	}
	if len(f.o.Etcd) > 0 && f.o.EtcdListen != "" {
		return errors.New("read --etcd and --etcd-listen: the control state is in an etcd outside or in one within")
	}
	if t := f.o.EtcdTLS; (t.CertFile == "") != (t.KeyFile == "") {
		return errors.New("read --etcd-cert and --etcd-key: a certificate needs its key")
	}
	f.o.EtcdUser, f.o.EtcdPassword = os.Getenv(etcdUser), os.Getenv(etcdPassword)
	if (f.o.EtcdUser == "") != (f.o.EtcdPassword == "") {
		return errors.New("read " + etcdUser + " and " + etcdPassword + ": a user of etcd needs both")
	}
	return nil
}

func (c *commands) leave() *cobra.Command {
	cmd := &cobra.Command{
		Use: "leave", Short: "Let a hub leave those that it shares its control state with, for good. It stops.", Args: cobra.NoArgs,
		Long: "Let the hub that is asked leave those that it shares its control state with, for good. It stops; its state directory is of no\n" +
			"use any more but to join again. What it has stored for a first look stays there. For one that does not run any more, ask\n" +
			"another: creel delete hub ID.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			h, err := client.Hub(cmd.Context())
			if err == nil {
				err = client.RemoveHub(cmd.Context(), h.ID)
			}
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(c.Err, "hub %s has left the others, and stops\n", plain(h.ID))
			return nil
		},
	}
	return c.asking(cmd)
}

func (c *commands) deleteHub() *cobra.Command {
	cmd := &cobra.Command{
		Use: "hub ID", Aliases: []string{"hubs"}, Short: "Remove a hub for good from those that keep the control state together.", Args: cobra.ExactArgs(1),
		Long: "Remove a hub for good from those that keep the control state together: one that will not come back, so that the others do not\n" +
			"count it any more; or one that runs, which stops then. ID may be its beginning. It can come back only by joining again.",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if err := client.RemoveHub(cmd.Context(), args[0]); err != nil {
				return failed(err)
			}
			fmt.Fprintf(c.Err, "hub %s is none of those any more that keep the control state\n", plain(args[0]))
			return nil
		},
	}
	return c.asking(cmd)
}
