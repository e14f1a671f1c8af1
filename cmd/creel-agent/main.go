// Command creel-agent is the agent alone, for edge hosts.
package main

import (
	"os"
	_ "time/tzdata" // for hosts without zone files

	centers "github.com/creelhq/creel/center/all"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/plugins/all"
)

func main() {
	os.Exit(cli.Main(cli.Program{Name: "creel-agent", Plugins: all.Plugins(), Centers: centers.Centers(), AgentIsDefault: true}, os.Args[1:], os.Stdout, os.Stderr))
}
