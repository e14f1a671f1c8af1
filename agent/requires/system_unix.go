//go:build unix

package requires

import (
	"context"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// diskFree returns how much this process can still write to the disk of a directory.
func diskFree(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

var errBound = errors.New("it could be bound")

// bind takes an address as a listener would, and gives it back. It never listens, so that nobody connects to it by mistake,
// and who wants to listen there at that moment can.
func bind(ctx context.Context, address string) error {
	l := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error { // with SO_REUSEADDR, and before bind
		to, err := socketAddress(network, address)
		if err != nil {
			return err
		}
		if bad := c.Control(func(fd uintptr) { err = unix.Bind(int(fd), to) }); bad != nil || err != nil {
			return errors.Join(bad, err)
		}
		return errBound
	}}
	listener, err := l.Listen(ctx, "tcp", address)
	if errors.Is(err, errBound) {
		return nil
	}
	if err == nil {
		listener.Close()
		return errors.New("BUG: it listens, though it should not")
	}
	return err
}

// socketAddress returns an address for a socket of the network tcp4 or tcp6. That of all addresses is the latter where it
// can be, whichever way it is written.
func socketAddress(network, address string) (unix.Sockaddr, error) {
	t, err := net.ResolveTCPAddr("tcp", address) // of numbers: it asks nobody
	if err != nil {
		return nil, err
	}
	if network == "tcp4" {
		s := &unix.SockaddrInet4{Port: t.Port}
		copy(s.Addr[:], t.IP.To4())
		return s, nil
	}
	s := &unix.SockaddrInet6{Port: t.Port}
	if !t.IP.IsUnspecified() {
		copy(s.Addr[:], t.IP.To16())
	}
	if t.Zone != "" {
		i, err := net.InterfaceByName(t.Zone)
		if err != nil {
			return nil, err
		}
		s.ZoneId = uint32(i.Index)
	}
	return s, nil
}
