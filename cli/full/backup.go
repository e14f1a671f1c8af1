package full

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/hub"
)

func (c *commands) backup() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Save what makes the hub the one that its agents know.", Args: cobra.ExactArgs(1),
		Long: "Save a running hub: who it is, its authority, tokens, documents, and what it knows of agents. FILE is a tar archive; - is\n" +
			"standard output. Whoever has it can be this hub: keep it as you keep keys. What the hub has stored for a first look is not\n" +
			"in it. Exit code 1: the backup has not come whole; then no FILE is written.",
		Example: "  creel backup hub-$(date +%F).tar\n  creel backup - | age -r RECIPIENT > hub.tar.age",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt) // so that nothing unfinished stays
			defer stop()
			file := args[0]
			if _, err := os.Lstat(file); file != "-" && !force && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("write %s: it is there already; say --force to replace it", file)
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			if file == "-" {
				_, err := receive(ctx, client, c.Out)
				return err
			}
			size, err := save(ctx, client, file)
			if err == nil {
				fmt.Fprintf(c.Err, "wrote %s: %s. Whoever has it can be this hub\n", file, cli.Bytes(size))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE")
	return c.asking(cmd)
}

// save writes a backup beside a file, and puts it in its place when it is whole. Nobody else can read it.
func save(ctx context.Context, client *api.Client, file string) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".creel-backup-*") // mode 0600
	if err != nil {
		return 0, cli.Exit(cli.ExitNo, fmt.Errorf("write %s: %w", file, err))
	}
	defer os.Remove(f.Name()) // unless it was renamed
	if size, err = receive(ctx, client, f); err != nil {
		return 0, errors.Join(err, f.Close())
	}
	if err = errors.Join(f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return 0, cli.Exit(cli.ExitNo, fmt.Errorf("write %s: %w", file, err))
	}
	return size, nil
}

// receive copies a backup from the hub, and checks that it is whole.
func receive(ctx context.Context, client *api.Client, to io.Writer) (size int64, err error) {
	whole := hub.NewBackupCheck()
	if size, err = client.Backup(ctx, io.MultiWriter(to, whole)); err != nil {
		return size, failed(err)
	}
	if err = whole.Check(); err != nil {
		return size, cli.Exit(cli.ExitNo, fmt.Errorf("read the backup: %w; the hub's log may tell why", err))
	}
	return size, nil
}

func (c *commands) restore() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Put back what creel backup has saved.", Args: cobra.ExactArgs(1),
		Long: "Make a state directory that of the hub which a backup is of; - is standard input. The hub must not run; the next creel hub\n" +
			"with this directory is it. Agents come back by themselves, also those that have renewed their certificates since. What of\n" +
			"a hub was in the directory is moved aside.",
		Example: "  creel restore hub-2026-11-26.tar --data /var/lib/creel",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := agent.CheckOwner(c.DataDir()); err != nil {
				return cli.Exit(cli.ExitNo, err)
			}
			from := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("read the backup: %w", err)
				}
				defer f.Close()
				from = f
			}
			if err := hub.Restore(cmd.Context(), hub.RestoreOptions{Data: c.DataDir(), From: from, Force: force, Log: c.Err}); err != nil {
				return cli.Exit(cli.ExitNo, err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also where there is a hub's state: it is moved aside")
	return c.WithData(cmd)
}
