package cli_test

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/plugins/all"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"creel": func() {
			os.Exit(cli.Main(cli.Program{Name: "creel", Plugins: all.Plugins()}, os.Args[1:], os.Stdout, os.Stderr))
		},
		"creel-agent": func() {
			os.Exit(cli.Main(cli.Program{Name: "creel-agent", Plugins: all.Plugins(), AgentIsDefault: true}, os.Args[1:], os.Stdout, os.Stderr))
		},
	})
}

// TestScripts runs the programs as their users do; testdata/script tells what they see.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("what is tested are processes of their own")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "", RequireExplicitExec: true,
	})
}
