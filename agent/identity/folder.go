package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// The identity directory has one file, so that whatever changes in it changes at once. The new one is written beside it.
const (
	fileName = "identity.json"
	newName  = "identity.json.new"
	maxFile  = 1 << 20
)

// A folder is the identity directory. It belongs to the user who runs the agent, and nobody else can enter it; what is in it
// is not reached through symbolic links.
type folder struct {
	path string
	step func(what string) error // called before each step on the disk, by tests; an error ends it there. May be nil
}

func (f folder) before(what string) error {
	if f.step == nil {
		return nil
	}
	return f.step(what)
}

// make makes the directory if it is not there.
func (f folder) make() error {
	if _, err := os.Lstat(f.path); err == nil {
		return nil
	}
	if err := os.MkdirAll(f.path, 0o700); err != nil {
		return fmt.Errorf("make the identity directory: %w", err)
	}
	return syncDir(filepath.Dir(f.path))
}

// open returns the directory when nobody else can have read or changed it.
func (f folder) open() (*os.Root, error) {
	info, err := os.Lstat(f.path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is no directory", f.path)
	}
	if err := private(f.path, info); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return nil, err
	}
	if now, err := root.Stat("."); err != nil || !os.SameFile(info, now) {
		root.Close()
		return nil, fmt.Errorf("%s is another directory from one moment to the next", f.path)
	}
	return root, nil
}

// read returns what the file says. The error is a fs.ErrNotExist if there is none.
func (f folder) read() ([]byte, error) {
	root, err := f.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Lstat(fileName)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(f.path, fileName)
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if err := private(path, info); err != nil {
		return nil, err
	}
	file, err := root.Open(fileName)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if now, err := file.Stat(); err != nil || !os.SameFile(info, now) {
		return nil, fmt.Errorf("%s is another file from one moment to the next", path)
	}
	return io.ReadAll(io.LimitReader(file, maxFile))
}

// write replaces the file, so that after a crash it is either the old or the new one.
func (f folder) write(text []byte) (err error) {
	root, err := f.open()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := f.before("remove what is left of another time"); err != nil {
		return err
	}
	if err := root.Remove(newName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := f.before("create"); err != nil {
		return err
	}
	file, err := root.OpenFile(newName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = f.before("write"); err == nil {
		_, err = file.Write(text)
	}
	if err == nil {
		err = f.before("sync")
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := f.before("rename"); err != nil {
		return err
	}
	if err := root.Rename(newName, fileName); err != nil {
		return err
	}
	if err := f.before("sync the directory"); err != nil {
		return err
	}
	return syncDir(f.path)
}

// setAside renames a file that cannot be used, so that it is not lost, and returns what it is called then.
func (f folder) setAside(now time.Time) (string, error) {
	root, err := f.open()
	if err != nil {
		return "", err
	}
	defer root.Close()
	aside := fileName + ".damaged-" + now.UTC().Format("20060102T150405.000")
	return aside, root.Rename(fileName, aside)
}

// syncDir makes what was made or renamed in a directory last. On Windows there is nothing to do: NTFS journals it.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// load reads the file. The error is a fs.ErrNotExist if there is none.
func (f folder) load() (*record, []byte, error) {
	text, err := f.read()
	if err != nil {
		return nil, nil, fmt.Errorf("read the identity: %w", err)
	}
	r := &record{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, nil, fmt.Errorf("read the identity in %s: %w: %w", f.path, errDamaged, err)
	}
	if r.Version != version {
		return nil, nil, fmt.Errorf("read the identity in %s: it is of version %d, and this program knows %d", f.path, r.Version, version)
	}
	return r, text, nil
}

var errDamaged = errors.New("the file is damaged; put back what was there, or join the hub again with creel join URL --token TOKEN --again")
