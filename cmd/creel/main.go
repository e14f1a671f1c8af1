// Command creel is everything: the agent, the hub, and the commands to look after them.
package main

import (
	"os"
	_ "time/tzdata" // for hosts without zone files

	centers "github.com/creelhq/creel/center/all"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/cli/full"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/all"
)

func main() {
	os.Exit(cli.Main(cli.Program{Name: "creel", Plugins: append(all.Plugins(), hub.QuickLook()), Centers: centers.Centers(), More: full.Commands}, os.Args[1:], os.Stdout, os.Stderr))
}
