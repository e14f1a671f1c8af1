package full

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
)

// editDocument opens a document in an editor.
func (c *commands) editDocument() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "document NAME", Aliases: []string{"documents"}, Short: "Change a document in an editor.", Args: cobra.ExactArgs(1),
		Long:    "Open a document in the editor that VISUAL or EDITOR names, vi if none does, and write it when it was changed. If it is\nrefused, or somebody has changed it meanwhile, your text is kept in a file.",
		Example: "  EDITOR=nano creel edit document nginx --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, d, err := c.document(cmd, args[0])
			if err != nil {
				return err
			}
			file, text, err := c.edited(cmd, d.Text)
			if err != nil {
				return cli.Exit(cli.ExitNo, err)
			}
			if text == d.Text {
				fmt.Fprintln(c.Err, "nothing was changed")
				return os.Remove(file)
			}
			a, err := client.ApplyDocument(cmd.Context(), api.DocumentChange{Text: text, Version: &d.Version, Note: f.note})
			if err != nil {
				fmt.Fprintf(c.Err, "your text is in %s\n", file)
				return c.refused(piece{file: file}, err)
			}
			done := []api.DocumentApplied{a}
			return errors.Join(os.Remove(file), c.tell(done, true, false), c.await(cmd.Context(), client, done, f.wait))
		},
	}
	cmd.Flags().StringVar(&f.note, "note", "", "why: `TEXT` for the history")
	waiting(cmd, &f.wait, "its agents run it")
	return c.answering(cmd)
}

// edited has somebody edit a text. It stays in the file that is returned.
func (c *commands) edited(cmd *cobra.Command, text string) (file string, result string, err error) {
	f, err := os.CreateTemp("", "creel-*.yaml")
	if err != nil {
		return "", "", fmt.Errorf("edit: %w", err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", "", fmt.Errorf("edit: %w", err)
	}
	editor := strings.Fields(first(strings.TrimSpace(os.Getenv("VISUAL")), strings.TrimSpace(os.Getenv("EDITOR")), "vi"))
	run := exec.CommandContext(cmd.Context(), editor[0], append(editor[1:], f.Name())...)
	run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), c.Out, c.Err
	if err := run.Run(); err != nil {
		return "", "", fmt.Errorf("edit %s with %s: %w; EDITOR names another editor", f.Name(), editor[0], err)
	}
	changed, err := os.ReadFile(f.Name())
	if err != nil {
		return "", "", fmt.Errorf("edit: %w", err)
	}
	return f.Name(), string(changed), nil
}
