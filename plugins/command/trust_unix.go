//go:build linux || darwin || freebsd

package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxList is how much of an allow list is read: more than package config takes.
const maxList = 1<<20 + 1

// readTrusted reads a file that nobody but root and this process's user can change or replace.
func readTrusted(path string) ([]byte, error) {
	dir, err := follow(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK: opening a FIFO must not wait.
	f, err := os.OpenFile(filepath.Join(dir, filepath.Base(path)), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EMLINK) { // EMLINK: FreeBSD
		return nil, fmt.Errorf("%s is a symbolic link; put the file itself there", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !i.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if err := trusted(path, i); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxList))
}

// maxLinks is how many symbolic links a path may lead through.
const maxLinks = 40

// follow returns where path leads to. It wants that nobody but root and this process's user can make it lead elsewhere,
// or change what is there: each directory and symbolic link on the way is looked at.
func follow(path string) (string, error) {
	at, links := "/", 0
	for rest := strings.Split(path, "/"); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at) // at has no links in it
			continue
		}
		next := filepath.Join(at, name)
		i, err := os.Lstat(next)
		if err != nil {
			return "", err
		}
		if err := trusted(next, i); err != nil {
			return "", err
		}
		if i.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s leads through more than %d symbolic links", path, maxLinks)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// trusted returns an error if somebody else than root and this process's user can change what i is of.
func trusted(path string, i fs.FileInfo) error {
	s, ok := i.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("find the owner of %s: this system does not tell", path)
	}
	if me := os.Geteuid(); s.Uid != 0 && int(s.Uid) != me {
		who := "root"
		if me != 0 {
			who = fmt.Sprintf("root or user %d, who runs the agent", me)
		}
		return fmt.Errorf("%s belongs to user %d, who could change what runs; it must belong to %s: chown root %s", path, s.Uid, who, path)
	}
	// In a sticky directory others can make files, but not replace those of root.
	sticky := i.IsDir() && i.Mode()&fs.ModeSticky != 0
	if i.Mode().Type() != fs.ModeSymlink && i.Mode().Perm()&0o022 != 0 && !sticky {
		return fmt.Errorf("%s can be written by others (mode %#o), who could change what runs: chmod go-w %s", path, i.Mode().Perm(), path)
	}
	return nil
}
