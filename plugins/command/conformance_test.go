//go:build linux || darwin || freebsd

package command_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/command"
)

func TestConformance(t *testing.T) {
	list := filepath.Join(t.TempDir(), "commands.yaml")
	text := fmt.Sprintf("commands: {say: {path: %q, env: {CREEL_TEST_HELPER: echo}, args: [one, two]}}", os.Getenv("CREEL_TEST_PROGRAM"))
	if err := os.WriteFile(list, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREEL_COMMANDS", list)
	plugintest.Run(t, command.Plugin, plugintest.Options{Config: "{run: say}"})
}
