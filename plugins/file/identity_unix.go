//go:build unix

package file

import (
	"io/fs"
	"os"
	"syscall"
)

// identify returns which file the path leads to, and what it is.
func identify(path string) (fileID, fs.FileInfo, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return fileID{}, nil, err
	}
	return idOf(fi), fi, nil
}

// openFile opens the path for reading. It does not wait for the writer of a FIFO.
func openFile(path string) (*os.File, fileID, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileID{}, nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fileID{}, nil, err
	}
	return f, idOf(fi), fi, nil
}

func idOf(fi fs.FileInfo) fileID {
	st := fi.Sys().(*syscall.Stat_t)
	return fileID{uint64(st.Dev), uint64(st.Ino)}
}
