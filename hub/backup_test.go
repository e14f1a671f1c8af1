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
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/audit"
	"github.com/creelhq/creel/hub/internal/state"
)

// kept is what a hub has, in memory and in a directory.
type kept struct {
	*testing.T
	backupSource
}

func newKept(t *testing.T) *kept {
	k := &kept{t, backupSource{store: (&state.Memory{}).Open(), data: t.TempDir(), id: "0193b7c5-6b1e-7d0e-8000-000000000001", version: "1.2.3", now: time.Now}}
	for name, text := range map[string]string{
		"id": k.id + "\n", "token": "TOKEN\n", "secret": "\x00\xff", "ca/root.key": "KEY", "ca/.new-1": "half", "ca/old/x": "x", "quicklook/rows": "rows", "agent/spool/x": "x", "hub.json": "{}",
	} {
		k.write(name, text)
	}
	for key, value := range map[string]string{"agents/1": `{"generation":3}`, "agents/2": "", "authority/keys": "\x00\x01\xfe", "documents/große": strings.Repeat("long ", 1<<17), "documents/next": strings.Repeat("long ", 1<<17)} {
		k.put(key, value, false)
	}
	k.put("hubs/1", "leased", true)
	return k
}

func (k *kept) write(name, text string) {
	k.Helper()
	file := filepath.Join(k.data, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		k.Fatal(err)
	}
}

func (k *kept) put(key, value string, leased bool) {
	k.Helper()
	if _, err := k.store.Put(k.Context(), key, []byte(value), leased, state.Always()); err != nil {
		k.Fatal(err)
	}
}

// short cuts what would take long.
func (k *kept) short() {
	for _, key := range []string{"documents/große", "documents/next"} {
		k.put(key, "short", false)
	}
}

func (k *kept) backup() []byte {
	k.Helper()
	var b bytes.Buffer
	if err := k.writeTo(k.Context(), &b); err != nil {
		k.Fatal(err)
	}
	return b.Bytes()
}

// values returns what is in a control state and not leased.
func values(t *testing.T, s state.Store) map[string]string {
	t.Helper()
	list, _, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, e := range list {
		if !e.Leased {
			got[e.Key] = string(e.Value)
		}
	}
	return got
}

// tree returns all files under a directory but for etcd's, with their modes.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && d.Name() == "etcd" {
				return filepath.SkipDir
			}
			return err
		}
		text, err := os.ReadFile(file)
		info, _ := d.Info()
		name, _ := filepath.Rel(dir, file)
		if name != "lock" {
			got[name] = info.Mode().String() + " " + string(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// opened opens the control state of a directory while f looks.
func opened(t *testing.T, data string, f func(s state.Store)) {
	t.Helper()
	s, err := state.Embedded(t.Context(), state.EmbeddedOptions{Dir: filepath.Join(data, "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	f(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestBackup restores elsewhere, and then an older backup over that.
func TestBackup(t *testing.T) {
	t.Parallel() // starting etcd is waiting
	k := newKept(t)
	log := func(s state.Store) *audit.Log {
		l, err := audit.Open(t.Context(), audit.Options{Store: s, Hub: k.id})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return l
	}
	add := func(l *audit.Log) {
		if err := l.Add(t.Context(), api.AuditEntry{Action: "apply", Outcome: audit.Done}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		add(log(k.store))
	}
	then, backup := values(t, k.store), k.backup()
	// The hub goes on: an agent renews twice, another joins, the log gets longer.
	k.put("agents/1", `{"generation":5}`, false)
	k.put("agents/3", `{"generation":1}`, false)
	add(log(k.store))
	data := filepath.Join(t.TempDir(), "a", "hub")
	var said strings.Builder
	if err := Restore(t.Context(), RestoreOptions{Data: data, From: bytes.NewReader(k.backup()), Log: &said}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"id": "-rw------- " + k.id + "\n", "token": "-rw------- TOKEN\n", "secret": "-rw------- \x00\xff", "ca/root.key": "-rw------- KEY"}
	if diff := cmp.Diff(want, tree(t, data)); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(said.String(), k.id) || !strings.Contains(said.String(), "in no backup") || strings.Contains(said.String(), "before-restore") {
		t.Errorf("it says: %s", said.String())
	}
	restored := kept{t, backupSource{data: data}}
	restored.write("quicklook/rows", "newer rows")
	restored.write("ca/next.key", "made later")
	if err := Restore(t.Context(), RestoreOptions{Data: data, From: bytes.NewReader(backup)}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Fatalf("a hub's state is overwritten: %v", err)
	}
	said.Reset()
	if err := Restore(t.Context(), RestoreOptions{Data: data, From: bytes.NewReader(backup), Force: true, Log: &said}); err != nil {
		t.Fatal(err)
	}
	aside, err := filepath.Glob(filepath.Join(data, "before-restore-*"))
	if err != nil || len(aside) != 1 || !strings.Contains(said.String(), aside[0]) {
		t.Fatalf("what was there is in %s, %v; it says: %s", aside, err, said.String())
	}
	for name, text := range maps.Clone(want) {
		want[filepath.Join(filepath.Base(aside[0]), name)] = text
	}
	want[filepath.Join(filepath.Base(aside[0]), "ca/next.key")] = "-rw-r--r-- made later"
	want["quicklook/rows"] = "-rw-r--r-- newer rows"
	if diff := cmp.Diff(want, tree(t, data)); diff != "" {
		t.Error(diff)
	}
	opened(t, data, func(s state.Store) {
		if diff := cmp.Diff(then, values(t, s)); diff != "" {
			t.Errorf("it is not as it was: %s", diff)
		}
		l := log(s)
		add(l)
		if list, err := l.List(t.Context(), api.AuditQuery{}); err != nil || len(list.Entries) != 4 || list.Broken != 0 {
			t.Errorf("the audit log is %+v, %v", list, err)
		}
		l.Close()
	})
	if !exists(filepath.Join(aside[0], "etcd", "member", "snap", "db")) {
		t.Error("the newer control state is gone")
	}
}

// TestBackupDamaged: a backup that is not whole, or in which anything was changed, is refused, and nothing is made.
func TestBackupDamaged(t *testing.T) {
	k := newKept(t)
	k.short()
	good := k.backup()
	if _, err := verifyBackup(bytes.NewReader(good), int64(len(good))); err != nil {
		t.Fatal(err)
	}
	tried := 0
	bad := func(what string, at int, text []byte) {
		t.Helper()
		tried++
		if _, err := verifyBackup(bytes.NewReader(text), int64(len(text))); err == nil {
			t.Errorf("%s at %d is not seen", what, at)
		}
		if tried%100 != 1 {
			return
		}
		data := filepath.Join(t.TempDir(), "hub")
		if err := Restore(t.Context(), RestoreOptions{Data: data, From: bytes.NewReader(text)}); err == nil || exists(data) {
			t.Errorf("%s at %d is restored, or something was made: %v", what, at, err)
		}
	}
	for i := 0; i < len(good); i += 17 {
		text := bytes.Clone(good)
		text[i] ^= 1 << (i % 8)
		bad("a bit", i, text)
	}
	for i := 0; i < len(good); i += 256 {
		bad("an end", i, good[:i])
		bad("a hole", i, append(bytes.Clone(good[:i]), good[min(len(good), i+512):]...))
	}
	bad("more", len(good), append(bytes.Clone(good), 0))
	bad("more", len(good), append(bytes.Clone(good), make([]byte, 512)...))
	bad("twice", len(good), append(bytes.Clone(good), good...))
	if tried < 300 {
		t.Errorf("only %d were tried", tried)
	}
}

// sealed makes a backup of members whose digest is right.
func sealed(t *testing.T, head backupHead, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	archive := tar.NewWriter(&b)
	first, _ := json.Marshal(head)
	members = append([]string{backupFirst, string(first)}, members...)
	for i := 0; i < len(members); i += 2 {
		if err := addMember(archive, members[i], []byte(members[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Flush(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	if err := errors.Join(addMember(archive, backupLast, []byte(hex.EncodeToString(sum[:])+"\n")), archive.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRestoreRefused: whatever stops it, the directory is as it was.
func TestRestoreRefused(t *testing.T) {
	t.Parallel() // starting etcd is waiting
	k := newKept(t)
	good := k.backup()
	head := backupHead{Format: 1, Hub: k.id, Version: "1.2.3"}
	f := func(what string, from io.Reader, want string) {
		t.Helper()
		before := tree(t, k.data)
		if err := Restore(t.Context(), RestoreOptions{Data: k.data, From: from, Force: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
		if diff := cmp.Diff(before, tree(t, k.data)); diff != "" {
			t.Errorf("%s has changed: %s", what, diff)
		}
	}
	f("nothing", strings.NewReader(""), "no backup of a hub")
	f("something else", strings.NewReader(strings.Repeat("something else ", 1000)), "no backup of a hub")
	f("a broken connection", io.MultiReader(bytes.NewReader(good[:5000]), iotest.ErrReader(errors.New("broken"))), "broken")
	f("what was cut off", bytes.NewReader(good[:len(good)-1024]), "was cut off")
	newer := head
	newer.Format, newer.Version = 2, "9.9"
	f("a newer one", bytes.NewReader(sealed(t, newer, "what", "ever")), "use a newer creel")
	twice := head
	twice.Entries = 2
	f("with an entry twice", bytes.NewReader(sealed(t, twice, "entries/000001.jsonl", strings.Repeat(`{"key":"a","value":"eA=="}`, 2))), "somebody else has changed")
	unlock, err := agent.LockDir(k.data)
	if err != nil {
		t.Fatal(err)
	}
	f("of a hub that runs", bytes.NewReader(good), fmt.Sprintf("process %d", os.Getpid()))
	unlock()
}

func TestBackupFileNames(t *testing.T) {
	for _, name := range []string{"id", "token", "secret", "ca/root.key", "ca/a b"} {
		if !isBackupFile(name) {
			t.Errorf("%s is not restored", name)
		}
	}
	for _, name := range []string{"", "other", "ca", "ca/", "ca/.", "ca/..", "ca/.new-1", "ca/a/b", `ca/a\b`, "../id", "/id", "ca/../id", "id/x", "etcd/member/wal"} {
		if isBackupFile(name) {
			t.Errorf("%s is restored", name)
		}
	}
}

// TestRestoreInterrupted stops at each step of putting parts in their place: the next start goes on, nothing of before is lost.
func TestRestoreInterrupted(t *testing.T) {
	steps := 0
	for stop := 0; stop == 0 || steps >= stop; stop++ {
		k := &kept{t, backupSource{data: t.TempDir()}}
		want := map[string]string{}
		for _, name := range hubParts {
			k.write(filepath.Join(name, "x"), "old") // all are directories here
			if name == "secret" {
				k.write(filepath.Join(restoreReady, restoreGone+name), "")
				continue
			}
			k.write(filepath.Join(restoreReady, name, "x"), "new")
			want[name] = "new"
		}
		// What a run does before it is interrupted.
		steps = 0
		step := func(from, to string) {
			if steps++; steps > stop {
				return
			}
			if err := os.Rename(filepath.Join(k.data, from), filepath.Join(k.data, to)); err != nil {
				t.Fatal(err)
			}
		}
		k.write("before-restore-1/y", "")
		for _, name := range hubParts {
			step(name, "before-restore-1/"+name)
			if name == "secret" {
				step(filepath.Join(restoreReady, restoreGone+name), "removed")
			} else {
				step(filepath.Join(restoreReady, name), name)
			}
		}
		if _, err := finishRestore(k.data); err != nil {
			t.Fatal(err)
		}
		if aside, err := finishRestore(k.data); aside != "" || err != nil {
			t.Errorf("it is not finished: %s, %v", aside, err)
		}
		got := map[string]string{}
		for _, name := range hubParts {
			if text, err := os.ReadFile(filepath.Join(k.data, name, "x")); err == nil {
				got[name] = string(text)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("after %d steps: %s", stop, diff)
		}
		if old, err := filepath.Glob(filepath.Join(k.data, "before-restore-*", "*", "x")); err != nil || len(old) != len(hubParts) || exists(filepath.Join(k.data, restoreReady)) {
			t.Errorf("after %d steps: what was before is %s, %v", stop, old, err)
		}
	}
	if steps != 2*len(hubParts) {
		t.Errorf("%d steps", steps)
	}
}

// TestBackupFails: what cannot be read or written is told.
func TestBackupFails(t *testing.T) {
	k := newKept(t)
	k.short()
	full := errors.New("the disk is full")
	size := len(k.backup())
	for n := 0; n < size; n += size / 7 {
		if err := k.writeTo(t.Context(), &short{n, full}); !errors.Is(err, full) {
			t.Errorf("a disk that is full after %d bytes: %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.writeTo(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := os.Remove(filepath.Join(k.data, "token")); err != nil {
		t.Fatal(err)
	}
	if err := k.writeTo(t.Context(), io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a token: %v", err)
	}
}

// short is a writer that has room for n bytes.
type short struct {
	n   int
	err error
}

func (s *short) Write(p []byte) (int, error) {
	if s.n -= len(p); s.n < 0 {
		return 0, s.err
	}
	return len(p), nil
}
