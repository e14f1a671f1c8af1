package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A host is a network namespace: a machine's network without the machine. All hosts of a network reach each other.
type host struct {
	t       *testing.T
	name    string
	address string   // in the network
	env     []string // of the commands that run on it, beside this process's
}

// newNetwork makes so many hosts, joined by a bridge in a namespace of its own: nothing of it touches the machine's network.
func newNetwork(t *testing.T, n int) []*host {
	t.Helper()
	ownProcess(t)
	prefix := fmt.Sprintf("creel%d-%s-", os.Getpid(), t.Name())
	bridge := prefix + "b"
	if out, err := exec.Command("ip", "netns", "add", bridge).CombinedOutput(); err != nil {
		t.Skipf("this machine lets nobody make network namespaces: %v: %s", err, out)
	}
	t.Cleanup(func() { ip(t, "netns del "+bridge) })
	ip(t, "-n "+bridge+" link add sw0 type bridge", "-n "+bridge+" link set sw0 up")
	hosts := make([]*host, n)
	for i := range hosts {
		h := &host{t: t, name: fmt.Sprintf("%sh%d", prefix, i), address: fmt.Sprintf("198.18.0.%d", i+1)} // RFC 2544: for tests of networks
		hosts[i] = h
		ip(t, "netns add "+h.name)
		t.Cleanup(func() { ip(t, "netns del "+h.name) })
		ip(t,
			fmt.Sprintf("-n %s link add eth0 type veth peer name p%d netns %s", h.name, i, bridge),
			fmt.Sprintf("-n %s link set p%d master sw0 up", bridge, i),
			fmt.Sprintf("-n %s addr add %s/24 dev eth0", h.name, h.address),
			"-n "+h.name+" link set eth0 up", "-n "+h.name+" link set lo up")
	}
	return hosts
}

func ip(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			t.Errorf("ip %s: %v: %s", c, err, out)
		}
	}
}

// cut takes the host off the network, or puts it back.
func (h *host) cut(off bool) {
	h.t.Helper()
	ip(h.t, "-n "+h.name+" link set eth0 "+map[bool]string{true: "down", false: "up"}[off])
}

// command returns creel with arguments, to be run on the host.
func (h *host) command(args ...string) *exec.Cmd {
	h.t.Helper()
	bin, err := creelBinary()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("ip", append([]string{"netns", "exec", h.name, bin}, args...)...)
	cmd.Env = append(os.Environ(), h.env...)
	return cmd
}

// dial connects from the host.
func (h *host) dial(network, address string) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: time.Minute}
	if failed := h.inside(func() { conn, err = d.Dial(network, address) }); failed != nil {
		return nil, failed
	}
	return conn, err
}

// inside runs f on the host. The error is that of getting there.
func (h *host) inside(f func()) (err error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, so nobody else gets it
		var ns *os.File
		if ns, err = os.Open("/run/netns/" + h.name); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			f()
		}
	}()
	<-ended
	return err
}
