// Command creel is everything: the agent and the commands to look after it.
package main

import (
	"os"

	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/plugins/all"
)

func main() {
	os.Exit(cli.Main(cli.Program{Name: "creel", Plugins: all.Plugins()}, os.Args[1:], os.Stdout, os.Stderr))
}
