//go:build darwin || freebsd

package command

import (
	"os/exec"
	"syscall"
)

func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

// wait waits for the program and calls ended when it has ended. By then its process id is free again; that another group
// gets it in this moment is as good as impossible, for ids are given out in turn.
func wait(cmd *exec.Cmd, ended func()) error {
	err := cmd.Wait()
	ended()
	return err
}
