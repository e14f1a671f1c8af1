package cli

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

func (c *Commands) bundle() *cobra.Command {
	file := ""
	cmd := &cobra.Command{
		Use: "bundle", Short: "Collect what helps to find a fault in the agent on this machine, in one file.", Args: cobra.NoArgs,
		Long: "Write what the running agent knows of itself to a .tar.gz file: configuration (secrets redacted), log, profiles, metrics,\n" +
			"graph and state. Standard error says what is in it; look at that before you give it away: what is logged may say more\n" +
			"than you want. No records are in it. Exit code 3: no agent was reached.",
		Example: fmt.Sprintf("  %[1]s bundle\n  %[1]s bundle -o fault.tar.gz --data /var/lib/creel\n  %[1]s bundle -o - | ssh desk 'cat >fault.tar.gz'", c.Name),
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := c.do(cmd.Context(), http.MethodGet, "/bundle", nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if file == "-" {
				return c.copyBundle(c.Out, resp.Body)
			}
			if file == "" {
				file = "creel-bundle-" + time.Now().Format("20060102-150405") + ".tar.gz"
			}
			if err := c.writeBundle(file, resp.Body); err != nil {
				return err
			}
			fmt.Fprintln(c.Out, file)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "`FILE` to write, - for standard output (default creel-bundle-TIME.tar.gz)")
	cmd.MarkFlagFilename("output", "tar.gz", "tgz")
	return c.WithData(cmd)
}

// writeBundle makes the file, which only its owner may read, once all of it has come.
func (c *Commands) writeBundle(file string, from io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".creel-bundle-*")
	if err != nil {
		return Exit(ExitNo, fmt.Errorf("write bundle: %w", err))
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = c.copyBundle(f, from)
	if e := f.Close(); err == nil && e != nil {
		err = Exit(ExitNo, fmt.Errorf("write bundle: %w", e))
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return Exit(ExitNo, fmt.Errorf("write bundle: %w", err))
	}
	return nil
}

// copyBundle copies a .tar.gz, and says on standard error what is in it. A part of one is an error.
func (c *Commands) copyBundle(to io.Writer, from io.Reader) error {
	saved := &target{to: to}
	err := c.listBundle(io.TeeReader(from, saved))
	switch {
	case saved.err != nil:
		return Exit(ExitNo, fmt.Errorf("write bundle: %w", saved.err))
	case err != nil:
		return Exit(ExitNo, fmt.Errorf("read bundle from the agent: %w", err))
	}
	return nil
}

// listBundle reads a .tar.gz to its end.
func (c *Commands) listBundle(from io.Reader) error {
	unzipped, err := gzip.NewReader(from)
	if err != nil {
		return err
	}
	files, total := 0, int64(0)
	for r := tar.NewReader(unzipped); ; files++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			return err
		}
		total += n
		fmt.Fprintf(c.Err, "%10s  %s\n", Bytes(n), printable(h.Name))
	}
	if _, err := io.Copy(io.Discard, unzipped); err != nil { // its checksum
		return err
	}
	if _, err := io.Copy(io.Discard, from); err != nil {
		return err
	}
	fmt.Fprintf(c.Err, "%d files, %s\n", files, Bytes(total))
	return nil
}

// target remembers why writing to it has failed.
type target struct {
	to  io.Writer
	err error
}

func (t *target) Write(p []byte) (n int, err error) {
	n, err = t.to.Write(p)
	t.err = err
	return n, err
}
