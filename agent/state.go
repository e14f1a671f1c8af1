package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent/identity"
)

// stateDir is an agent's state directory, locked against other processes:
//
//	lock            held while the agent runs; names its process
//	identity.json   who the agent is
//	identity/       who it is to its hub
//	endpoints.json  where a running agent is found
//	admin.sock      the admin endpoint
//	state/          one file a component: offsets, cursors; and of those that are handed over, in which epoch that was
//	spool/          one directory an exporter: its disk queue
//	deadletters/    what was refused for good
type stateDir struct {
	path   string
	id     string // UUIDv7
	unlock func()
	log    *slog.Logger

	mu         sync.Mutex
	components map[string]*componentState
}

// LockDir makes a state directory if it is not there, and locks it against other processes until unlock is called or the
// process ends.
func LockDir(path string) (unlock func(), err error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w; name another with --data", err)
	}
	if err := CheckOwner(path); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return nil, fmt.Errorf("protect state directory: %w; name another with --data", err)
	}
	lock, err := lockFile(filepath.Join(path, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock state directory %s: %w", path, err)
	}
	return func() { lock.Close() }, nil
}

// openState locks the directory, making it if it is not there.
func openState(path string) (*stateDir, error) {
	unlock, err := LockDir(path)
	if err != nil {
		return nil, err
	}
	d := &stateDir{path: path, unlock: unlock, log: slog.New(slog.DiscardHandler), components: make(map[string]*componentState)}
	if err := os.MkdirAll(filepath.Join(path, "state"), 0o700); err != nil {
		unlock()
		return nil, fmt.Errorf("make state directory: %w; name another with --data", err)
	}
	if d.id, err = d.self(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *stateDir) close() {
	os.Remove(filepath.Join(d.path, "endpoints.json"))
	d.unlock()
}

// errHeld is what lockFile fails with when another process has the lock.
var errHeld = errors.New("it is in use")

// heldBy names the process that wrote its number into the lock file.
func heldBy(f *os.File) error {
	text := make([]byte, 32)
	n, _ := f.ReadAt(text, 0) // nothing to read: nobody to name
	pid := strings.TrimSpace(string(text[:n]))
	if pid == "" {
		return errHeld
	}
	return fmt.Errorf("%w: process %s; stop it, or name another directory with --data", errHeld, pid)
}

// IdentityDir returns the directory, in the state directory data, of who the agent is to its hub. See package identity.
func IdentityDir(data string) string { return filepath.Join(data, "identity") }

// selfFile is the file in the state directory that says who the agent is.
const selfFile = "identity.json"

type self struct {
	Version int    `json:"version"` // of this format: 1
	ID      string `json:"id"`
}

// ID returns the id of the agent whose state directory is data, which may be running. If it has none yet, it is made, and the
// directory with it. With another, it gets a new one in any case, and must not be running: a copy of another agent becomes one
// of its own.
func ID(data string, another bool) (string, error) {
	if id, err := readSelf(data); err == nil && id != "" && !another {
		return id, nil
	}
	unlock, err := LockDir(data)
	if err != nil {
		return "", err
	}
	defer unlock()
	d := &stateDir{path: data, log: slog.New(slog.DiscardHandler)}
	if another {
		return d.newSelf()
	}
	return d.self()
}

// readSelf returns the agent's id; "" if the file does not name one.
func readSelf(data string) (string, error) {
	text, err := os.ReadFile(filepath.Join(data, selfFile))
	if err != nil {
		return "", err
	}
	var is self
	if json.Unmarshal(text, &is) != nil || is.Version != 1 || uuid.Validate(is.ID) != nil {
		return "", nil
	}
	return is.ID, nil
}

// self returns the agent's id, making one the first time. If it is lost, its identity at a hub still has it.
func (d *stateDir) self() (string, error) {
	id, err := readSelf(d.path)
	switch {
	case err == nil && id != "":
		return id, nil
	case err == nil:
		d.setAside(filepath.Join(d.path, selfFile), errors.New("it does not name an agent"))
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read identity: %w", err)
	}
	if i, err := identity.Open(IdentityDir(d.path), identity.Options{}); err == nil {
		return i.Agent(), d.keepSelf(i.Agent())
	}
	return d.newSelf()
}

func (d *stateDir) newSelf() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make identity: %w", err)
	}
	return id.String(), d.keepSelf(id.String())
}

func (d *stateDir) keepSelf(id string) error {
	if err := WriteJSON(filepath.Join(d.path, selfFile), self{1, id}); err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	return nil
}

// setAside renames a file that cannot be used, so that it neither stops the agent nor is lost.
func (d *stateDir) setAside(file string, why error) {
	aside := fmt.Sprintf("%s.damaged-%s", file, time.Now().UTC().Format("20060102T150405.000"))
	if err := os.Rename(file, aside); err != nil {
		d.log.Error("damaged state cannot be set aside", "file", file, "why", why, "error", err)
		return
	}
	d.log.Error("damaged state set aside, starting without it", "file", file, "why", why, "kept_as", aside)
}

// WriteJSON is WriteFile for a value as JSON.
func WriteJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(file, append(text, '\n'))
}

// WriteFile replaces a file, with mode 0600, so that after a crash it is either the old or the new one.
func WriteFile(file string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(file))
}

// component returns the state of one component, by its path. All its instances share it.
func (d *stateDir) component(path string) creel.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.components[path]
	if s == nil {
		s = &componentState{dir: d, file: filepath.Join(d.path, "state", url.PathEscape(path))}
		d.components[path] = s
	}
	return s
}

// A componentState is a file: magic, version (8 bytes), checksum (CRC-32C, 4 bytes) of version and data, data; numbers
// are little-endian.
type componentState struct {
	dir  *stateDir
	file string

	mu      sync.Mutex
	loaded  bool
	version uint64
	data    []byte
}

const (
	stateMagic  = "creelst1"
	stateHeader = len(stateMagic) + 8 + 4
)

// Load returns what was saved last. What cannot be read is set aside, and counts as nothing.
func (s *componentState) Load() ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return nil, 0, err
	}
	return append([]byte(nil), s.data...), s.version, nil
}

func (s *componentState) load() error {
	if s.loaded {
		return nil
	}
	text, err := os.ReadFile(s.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("load state: %w", err)
	case len(text) < stateHeader || string(text[:len(stateMagic)]) != stateMagic:
		s.dir.setAside(s.file, errors.New("it is no state"))
	case binary.LittleEndian.Uint32(text[16:]) != stateSum(text[8:16], text[stateHeader:]):
		s.dir.setAside(s.file, errors.New("its checksum is wrong"))
	default:
		s.version, s.data = binary.LittleEndian.Uint64(text[8:]), text[stateHeader:]
	}
	s.loaded = true
	return nil
}

func stateSum(version, data []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(version, table), table, data)
}

// Save replaces the state. It is on disk when Save returns.
func (s *componentState) Save(data []byte, version uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return 0, err
	}
	if version != s.version {
		return 0, creel.ErrStale
	}
	text := append([]byte(stateMagic), make([]byte, 12)...)
	binary.LittleEndian.PutUint64(text[8:], version+1)
	binary.LittleEndian.PutUint32(text[16:], stateSum(text[8:16], data))
	text = append(text, data...)
	if err := WriteFile(s.file, text); err != nil {
		return 0, fmt.Errorf("save state: %w", err)
	}
	s.version, s.data = version+1, text[stateHeader:]
	return s.version, nil
}
