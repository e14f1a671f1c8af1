package command

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes makes the program end with the agent, even one that is killed.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// wait waits for the program and calls ended when it has ended, while its process id still means it and its group.
func wait(cmd *exec.Cmd, ended func()) error {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break // an error is Wait's to find
		}
	}
	ended()
	return cmd.Wait()
}
