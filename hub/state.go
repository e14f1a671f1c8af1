package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/uuid"

	"github.com/creelhq/creel/agent"
)

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// keep returns what a file of one line says, and makes the file if it is not there.
func keep(file string, fresh func() string) (string, error) {
	text, err := os.ReadFile(file)
	if value := strings.TrimSpace(string(text)); err == nil && value != "" {
		return value, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	value := fresh()
	if err := agent.WriteFile(file, []byte(value+"\n")); err != nil {
		return "", fmt.Errorf("write %s: %w", file, err)
	}
	return value, nil
}
