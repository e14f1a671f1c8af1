package requires

import (
	"context"
	"net"

	"golang.org/x/sys/windows"
)

// diskFree returns how much this process can still write to the disk of a directory.
func diskFree(dir string) (int64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(free), nil
}

// bind takes an address as a listener would, and gives it back.
func bind(ctx context.Context, address string) error {
	var l net.ListenConfig
	listener, err := l.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return listener.Close()
}
