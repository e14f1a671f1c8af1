package hub

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/hub/internal/state"
)

// A backup is a tar archive of what makes a hub the one that its agents know:
//
//	backup.json              first: a backupHead
//	entries/000001.jsonl …   the control state but for what is leased and its name, one backupEntry a line, all as of one moment
//	files/id, files/token, files/secret, files/ca/…
//	end.sha256               last: the SHA-256 of all bytes before this member, in hexadecimal
//
// Whoever has it can be this hub. The quick look and the queues of the hub's own agent are not in it.
const (
	backupFormat = 1
	backupFirst  = "backup.json"
	backupLast   = "end.sha256"
	backupTail   = 4 * 512 // the last member with its header, and the end of the archive
	backupChunk  = 1 << 20 // bytes of entries in a member
	backupFile   = 1 << 20 // of a file, at most
	backupWrites = 64      // at once, when it is restored: etcd syncs them together
)

// hubParts are the files and directories of a hub's state directory that a backup replaces.
var hubParts = [...]string{"id", "token", "secret", "ca", "etcd", "etcd-tls", "cluster.json"}

// backupHead says what a backup is of.
type backupHead struct {
	Format  int       `json:"format"`
	Hub     string    `json:"hub"`     // its id
	Version string    `json:"version"` // of creel
	Time    time.Time `json:"time"`
	Entries int       `json:"entries"`
	Files   []string  `json:"files"`
}

// backupEntry is an entry of the control state.
type backupEntry struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// backupSource is a running hub, as far as a backup needs it.
type backupSource struct {
	store   state.Store
	data    string // the state directory
	id      string
	version string
	now     func() time.Time
}

// writeTo writes a backup. What changes meanwhile is in it or not; entries are all as of one moment.
func (b backupSource) writeTo(ctx context.Context, w io.Writer) error {
	list, _, err := b.store.List(ctx, "")
	if err != nil {
		return fmt.Errorf("back up: read the control state: %w", err)
	}
	list = slices.DeleteFunc(list, func(e state.Entry) bool { return e.Leased || e.Key == state.IncarnationKey })
	files, names, err := b.files()
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	sum := sha256.New()
	archive := tar.NewWriter(io.MultiWriter(w, sum))
	head := backupHead{backupFormat, b.id, b.version, b.now().UTC(), len(list), names}
	err = b.members(ctx, archive, head, list, files)
	if err == nil {
		err = archive.Flush()
	}
	if err == nil {
		err = addMember(archive, backupLast, []byte(hex.EncodeToString(sum.Sum(nil))+"\n"))
	}
	if err == nil {
		err = archive.Close()
	}
	if err != nil {
		return fmt.Errorf("back up: write: %w", err)
	}
	return nil
}

// members writes all but the last.
func (b backupSource) members(ctx context.Context, archive *tar.Writer, head backupHead, list []state.Entry, files map[string][]byte) error {
	text, err := json.MarshalIndent(head, "", "  ")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	if err := addMember(archive, backupFirst, append(text, '\n')); err != nil {
		return err
	}
	var chunk bytes.Buffer
	for i, n := 0, 1; i < len(list); n++ {
		chunk.Reset()
		for lines := json.NewEncoder(&chunk); i < len(list) && chunk.Len() < backupChunk; i++ {
			if err := lines.Encode(backupEntry{list[i].Key, list[i].Value}); err != nil {
				panic("BUG: " + err.Error())
			}
		}
		if err := errors.Join(ctx.Err(), addMember(archive, fmt.Sprintf("entries/%06d.jsonl", n), chunk.Bytes())); err != nil {
			return err
		}
	}
	for _, name := range head.Files {
		if err := addMember(archive, "files/"+name, files[name]); err != nil {
			return err
		}
	}
	return nil
}

func addMember(archive *tar.Writer, name string, data []byte) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), Format: tar.FormatUSTAR}); err != nil {
		return err
	}
	_, err := archive.Write(data)
	return err
}

// files reads what is beside the control state.
func (b backupSource) files() (files map[string][]byte, names []string, err error) {
	root, err := os.OpenRoot(b.data)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	names = []string{"id", "token", "secret"}
	list, err := fs.ReadDir(root.FS(), "ca")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, e := range list {
		if name := "ca/" + e.Name(); isBackupFile(name) && e.Type().IsRegular() {
			names = append(names, name)
		}
	}
	files = make(map[string][]byte)
	for _, name := range names {
		data, err := root.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && name == "secret" {
			continue // it has none
		}
		if err == nil && len(data) > backupFile {
			err = fmt.Errorf("%s has %d bytes: that is none of a hub's files", name, len(data))
		}
		if err != nil {
			return nil, nil, err
		}
		files[name] = data
	}
	return files, slices.DeleteFunc(names, func(name string) bool { return files[name] == nil }), nil
}

// isBackupFile reports whether a backup may have a file of that name.
func isBackupFile(name string) bool {
	base, ca := strings.CutPrefix(name, "ca/")
	return slices.Contains([]string{"id", "token", "secret"}, name) || ca && filepath.IsLocal(base) && !strings.HasPrefix(base, ".") && !strings.ContainsAny(base, `/\`)
}

// RestoreOptions say what to restore. Data and From are required.
type RestoreOptions struct {
	Data  string    // the state directory, of no running hub; it is made if it does not exist
	From  io.Reader // a backup
	Force bool      // also where there is a hub's state: that is moved aside
	Log   io.Writer // what was done, for people; nil: nowhere
}

// While a hub is restored its new parts are made in restoreNew. When all are there it is renamed to restoreReady: from then on
// nothing can fail but a rename, and whoever finds it finishes the rest.
const (
	restoreNew   = ".restore-new"
	restoreReady = ".restore-ready"
	restoreGone  = "gone." // begins the names of files there that say that a part is not in the backup
)

// Restore puts back what a backup has: who the hub is, its authority, tokens, documents, and what it knew of agents. Agents come
// back by themselves, also with certificates that are newer than the backup. The control state is one within the state
// directory afterwards, wherever it was. The quick look and the queues of the hub's own agent are in no backup: those that are in
// the directory stay as they are.
//
// A backup that is damaged or incomplete is refused before anything has changed. A failure later changes nothing either, or
// leaves what the next Restore or Run finishes. What was there before is in a directory before-restore-… afterwards.
func Restore(ctx context.Context, o RestoreOptions) error {
	if o.Log == nil {
		o.Log = io.Discard
	}
	_, err := os.Stat(o.Data)
	fresh := errors.Is(err, fs.ErrNotExist)
	unlock, err := agent.LockDir(o.Data)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	err = o.restore(ctx)
	unlock()
	if err != nil && fresh {
		_ = os.Remove(filepath.Join(o.Data, "lock"))
		_ = os.Remove(o.Data) // unless there is something in it
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

func (o RestoreOptions) restore(ctx context.Context) error {
	if _, err := finishRestore(o.Data); err != nil {
		return err
	}
	var there []string
	for _, name := range hubParts {
		if exists(filepath.Join(o.Data, name)) {
			there = append(there, name)
		}
	}
	if len(there) > 0 && !o.Force {
		return fmt.Errorf("in %s there is a hub's state already (%s); name another directory with --data, or say --force: then it is moved aside", o.Data, strings.Join(there, ", "))
	}
	dir := filepath.Join(o.Data, restoreNew)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return err
	}
	defer os.RemoveAll(dir) // unless it was renamed
	head, err := o.prepare(ctx, dir)
	if err != nil {
		return err
	}
	if err := errors.Join(syncDir(dir), os.Rename(dir, filepath.Join(o.Data, restoreReady)), syncDir(o.Data)); err != nil {
		return err
	}
	aside, err := finishRestore(o.Data)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Log, "Restored hub %s as it was at %s, by creel %s: %d entries of the control state, and %s.\n", head.Hub, head.Time.Format(time.RFC3339), head.Version, head.Entries, strings.Join(head.Files, ", "))
	fmt.Fprintln(o.Log, "What the hub has stored for a first look, and the queues of its own agent, are in no backup: those of this directory are as they were.")
	if aside != "" {
		fmt.Fprintf(o.Log, "What was there before is in %s: it has keys in it; delete it when it is not needed.\n", aside)
	}
	return nil
}

// prepare makes all new parts in a directory.
func (o RestoreOptions) prepare(ctx context.Context, dir string) (backupHead, error) {
	name := filepath.Join(dir, "backup.tar")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return backupHead{}, err
	}
	defer f.Close()
	size, err := io.Copy(f, o.From)
	if err != nil {
		return backupHead{}, fmt.Errorf("read the backup: %w", err)
	}
	head, err := verifyBackup(f, size)
	if err != nil {
		return backupHead{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return backupHead{}, err
	}
	if err := extract(ctx, f, dir, head); err != nil {
		return backupHead{}, err
	}
	for _, name := range hubParts {
		if !exists(filepath.Join(dir, name)) {
			if err := agent.WriteFile(filepath.Join(dir, restoreGone+name), nil); err != nil {
				return backupHead{}, err
			}
		}
	}
	return head, errors.Join(f.Close(), os.Remove(name))
}

// verifyBackup reads a backup to its end.
func verifyBackup(f io.ReaderAt, size int64) (head backupHead, err error) {
	archive := tar.NewReader(io.NewSectionReader(f, 0, size))
	first, err := archive.Next()
	if err != nil || first.Name != backupFirst || json.NewDecoder(archive).Decode(&head) != nil || head.Format < 1 {
		return head, errors.New("this is no backup of a hub, or its beginning is damaged")
	}
	if head.Format > backupFormat {
		return head, fmt.Errorf("creel %s has written the backup in format %d, and this one knows %d at most; use a newer creel", head.Version, head.Format, backupFormat)
	}
	whole := NewBackupCheck()
	if _, err := io.Copy(whole, io.NewSectionReader(f, 0, size)); err != nil {
		return head, fmt.Errorf("read the backup: %w", err)
	}
	if err := whole.Check(); err != nil {
		return head, fmt.Errorf("read the backup: %w; nothing was changed: take another, or copy it again", err)
	}
	return head, nil
}

// A BackupCheck is told a backup as it comes, by Write, and says at its end whether it is whole.
type BackupCheck struct {
	sum  hash.Hash // of all but the tail
	tail []byte
}

// NewBackupCheck returns one that was told nothing yet.
func NewBackupCheck() *BackupCheck { return &BackupCheck{sum: sha256.New()} }

// Write never fails.
func (c *BackupCheck) Write(p []byte) (int, error) {
	c.tail = append(c.tail, p...)
	if n := len(c.tail) - backupTail; n > 0 {
		c.sum.Write(c.tail[:n]) // it never fails
		c.tail = append(c.tail[:0], c.tail[n:]...)
	}
	return len(p), nil
}

// Check returns nil if what came is a whole backup: its last member is the digest of all that is before.
func (c *BackupCheck) Check() error {
	want := hex.EncodeToString(c.sum.Sum(nil)) + "\n"
	last, err := tar.NewReader(bytes.NewReader(c.tail)).Next()
	if err == nil && len(c.tail) == backupTail && last.Name == backupLast && last.Size == int64(len(want)) {
		if rest, ok := strings.CutPrefix(string(c.tail[512:]), want); ok && strings.Trim(rest, "\x00") == "" {
			return nil
		}
	}
	return errors.New("it is not whole: it is damaged or was cut off")
}

// extract writes what is in a backup: files as they are, entries into an etcd. It is what was written: its digest is right.
func extract(ctx context.Context, f io.Reader, dir string, head backupHead) (err error) {
	if err := os.Mkdir(filepath.Join(dir, "ca"), 0o700); err != nil {
		return err
	}
	store, err := state.Embedded(ctx, state.EmbeddedOptions{Dir: filepath.Join(dir, "etcd"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	entries, files := 0, 0
	archive := tar.NewReader(f)
	for {
		m, err := archive.Next()
		if err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
		name, isFile := strings.CutPrefix(m.Name, "files/")
		switch {
		case m.Name == backupFirst:
		case m.Name == backupLast:
			if entries != head.Entries || files != len(head.Files) {
				return fmt.Errorf("the backup has %d entries and %d files, and says that it has %d and %d", entries, files, head.Entries, len(head.Files))
			}
			return nil
		case isFile && isBackupFile(name) && m.Typeflag == tar.TypeReg && m.Size <= backupFile:
			data, err := io.ReadAll(archive)
			if err == nil {
				err = agent.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), data)
			}
			if err != nil {
				return err
			}
			files++
		case strings.HasPrefix(m.Name, "entries/") && m.Typeflag == tar.TypeReg:
			n, err := load(ctx, store, archive)
			if err != nil {
				return fmt.Errorf("read %s of the backup: %w", m.Name, err)
			}
			entries += n
		default:
			return fmt.Errorf("%q is no part of a backup", m.Name)
		}
	}
}

// load puts entries into a control state, and returns how many.
func load(ctx context.Context, store state.Store, from io.Reader) (n int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, backupWrites)
	var wg sync.WaitGroup
	defer wg.Wait()
	for lines := json.NewDecoder(from); ; n++ {
		var e backupEntry
		err := lines.Decode(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && e.Key == "" {
			err = errors.New("an entry has no key")
		}
		if err != nil {
			return n, err
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if _, err := store.Put(ctx, e.Key, e.Value, false, state.Unchanged(0)); err != nil {
				cancel(fmt.Errorf("write %s: %w", e.Key, err))
			}
		})
	}
	wg.Wait()
	return n, context.Cause(ctx)
}

// finishRestore puts the parts of a restored hub in their place, if there are any, and returns where it has moved what was there
// before; empty: nothing was there. The state directory is locked. However often it is interrupted, it goes on.
func finishRestore(data string) (aside string, err error) {
	ready := filepath.Join(data, restoreReady)
	if !exists(ready) {
		return "", nil
	}
	for _, name := range hubParts {
		part, gone, place := filepath.Join(ready, name), filepath.Join(ready, restoreGone+name), filepath.Join(data, name)
		if !exists(part) && !exists(gone) {
			continue // it is in its place already
		}
		if exists(place) {
			if aside == "" {
				if aside, err = os.MkdirTemp(data, "before-restore-"+time.Now().UTC().Format("20060102T150405")+"-*"); err != nil {
					return "", fmt.Errorf("move the state from before aside: %w", err)
				}
			}
			if err := os.Rename(place, filepath.Join(aside, name)); err != nil {
				return aside, fmt.Errorf("move the state from before aside: %w; what is left to do is done by the next start of the hub", err)
			}
		}
		if exists(part) {
			err = os.Rename(part, place)
		} else {
			err = os.Remove(gone)
		}
		if err != nil {
			return aside, fmt.Errorf("put the restored state in its place: %w; what is left to do is done by the next start of the hub", err)
		}
	}
	return aside, errors.Join(syncDir(data), os.RemoveAll(ready))
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

// syncDir makes renames in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
