package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// TokenHelp says how tokens are given, for the help of commands that want one.
const TokenHelp = "Arguments of a process can be seen by others on the machine: CREEL_TOKEN, or --token - and the token on standard\n" +
	"input, keep it from them."

// SecretFlag returns what the value of a flag for a secret means: - is a line of standard input.
func SecretFlag(cmd *cobra.Command, name, value string) (string, error) {
	if value != "-" {
		return value, nil
	}
	return readSecret(cmd.InOrStdin(), name)
}

// AskSecret asks for a secret on the terminal, which does not show it. Without a terminal it returns "".
func (c *Commands) AskSecret(cmd *cobra.Command, prompt string) (string, error) {
	f, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", nil
	}
	fmt.Fprint(c.Err, prompt)
	text, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(c.Err)
	if err != nil {
		return "", fmt.Errorf("read the terminal: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// maxSecret is the longest line in bytes that is taken for a secret.
const maxSecret = 16 << 10

// readSecret reads a line, and nothing of what follows it.
func readSecret(in io.Reader, name string) (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) <= maxSecret; line = append(line, b[0]) {
		if _, err := io.ReadFull(in, b); err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read --%s from standard input: %w", name, err)
		} else if err != nil || b[0] == '\n' {
			break
		}
	}
	text := strings.TrimSpace(string(line))
	if text == "" || len(line) > maxSecret {
		return "", fmt.Errorf("read --%s from standard input: it must be in the first line", name)
	}
	return text, nil
}
