//go:build linux || darwin || freebsd

package command

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/creelhq/creel"
)

// TestWhoCouldChangeIt: each case makes one thing wrong with what is right otherwise, and says what the error must have.
func TestWhoCouldChangeIt(t *testing.T) {
	const stranger = 12345
	type paths struct{ dir, list, bin, program string }
	refused := 0
	f := func(name, want string, spoil func(p paths) error) {
		t.Helper()
		root := t.TempDir()
		p := paths{dir: filepath.Join(root, "etc"), bin: filepath.Join(root, "bin")}
		p.list, p.program = filepath.Join(p.dir, "commands.yaml"), filepath.Join(p.bin, "program")
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(name, err)
			}
		}
		must(os.Mkdir(p.dir, 0o755))
		must(os.Mkdir(p.bin, 0o755))
		must(os.Link(helper, p.program))
		entry := "commands: {run: {path: " + p.program + ", env: {CREEL_TEST_HELPER: echo}, args: [hello]}}"
		must(os.WriteFile(p.list, []byte(entry), 0o644))
		c := open(t, p.list, "lines") // all is well so far
		must(spoil(p))
		var s sink
		inRound := c.Collect(t.Context(), &s)
		_, atOpen := New(Config{Run: "run"}, creel.Host{})
		if want == "" {
			if inRound != nil || atOpen != nil || len(s.logs) != 1 {
				t.Errorf("%s: %v, %v, %q", name, inRound, atOpen, s.bodies())
			}
			return
		}
		for _, err := range []error{inRound, atOpen} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want …%s…", name, err, want)
				continue
			}
			refused++
		}
	}
	chmod := func(path func(paths) string, mode os.FileMode) func(paths) error {
		return func(p paths) error { return os.Chmod(path(p), mode) }
	}
	dir, list, bin := func(p paths) string { return p.dir }, func(p paths) string { return p.list }, func(p paths) string { return p.bin }

	f("nothing", "", func(paths) error { return nil })
	f("list for its owner alone", "", chmod(list, 0o600))
	f("list for its group", "commands.yaml can be written by others (mode 0664), who could change what runs: chmod go-w /", chmod(list, 0o664))
	f("list for all", "commands.yaml can be written by others", chmod(list, 0o646))
	f("its directory", "etc can be written by others", chmod(dir, 0o777))
	f("its sticky directory", "", chmod(dir, 0o777|os.ModeSticky))
	f("the program's directory", "bin can be written by others", chmod(bin, 0o775))
	replace := func(mode os.FileMode) func(p paths) error { // the link is the helper of all tests
		return func(p paths) error {
			err := os.Remove(p.program)
			if err == nil {
				err = os.WriteFile(p.program, []byte("#!/bin/sh\n"), 0o600)
			}
			if err == nil {
				err = os.Chmod(p.program, mode)
			}
			return err
		}
	}
	f("the program", "program can be written by others (mode 0777)", replace(0o777))
	f("no program", "is not an executable file", replace(0o644))
	f("a directory as program", "is not an executable file", func(p paths) error {
		if err := os.Remove(p.program); err != nil {
			return err
		}
		return os.Mkdir(p.program, 0o755)
	})
	f("the program is gone", "no such file", func(p paths) error { return os.Remove(p.program) })
	f("the list is gone", "commands are off on this host", func(p paths) error { return os.Remove(p.list) })
	f("the list is a link", "is a symbolic link; put the file itself there", func(p paths) error {
		if err := os.Rename(p.list, p.list+"2"); err != nil {
			return err
		}
		return os.Symlink(p.list+"2", p.list)
	})
	f("the list is a FIFO", "is not a regular file", func(p paths) error {
		if err := os.Remove(p.list); err != nil {
			return err
		}
		return syscall.Mkfifo(p.list, 0o644)
	})
	f("a link to the program", "", func(p paths) error { // as /bin/sh is
		if err := os.Rename(p.program, p.dir+"/real"); err != nil {
			return err
		}
		return os.Symlink("../etc/./real", p.program)
	})
	f("a link through somebody's directory", "open can be written by others", func(p paths) error {
		open := p.dir + "/open"
		if err := os.Mkdir(open, 0o700); err != nil {
			return err
		}
		if err := os.Chmod(open, 0o777); err != nil {
			return err
		}
		if err := os.Rename(p.program, open+"/real"); err != nil {
			return err
		}
		return os.Symlink(open+"/real", p.program)
	})
	f("a link to itself", "more than 40 symbolic links", func(p paths) error {
		if err := os.Remove(p.program); err != nil {
			return err
		}
		return os.Symlink("program", p.program)
	})
	cases := 13
	if os.Geteuid() == 0 {
		chown := func(path func(paths) string) func(paths) error {
			return func(p paths) error { return os.Lchown(path(p), stranger, -1) }
		}
		f("somebody's list", "commands.yaml belongs to user 12345, who could change what runs; it must belong to root: chown root /", chown(list))
		f("somebody's directory", "etc belongs to user 12345", chown(dir))
		f("somebody's directory of programs", "bin belongs to user 12345", chown(bin))
		f("somebody's program", "program belongs to user 12345", func(p paths) error {
			if err := replace(0o755)(p); err != nil {
				return err
			}
			return os.Chown(p.program, stranger, -1)
		})
		f("somebody's link", "program belongs to user 12345", func(p paths) error {
			if err := os.Rename(p.program, p.dir+"/real"); err != nil {
				return err
			}
			if err := os.Symlink(p.dir+"/real", p.program); err != nil {
				return err
			}
			return os.Lchown(p.program, stranger, -1)
		})
		cases += 5
	}
	if refused != 2*cases {
		t.Errorf("%d refusals, want %d", refused, 2*cases)
	}
}

func TestAllowListErrors(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		list := filepath.Join(t.TempDir(), "commands.yaml")
		if err := os.WriteFile(list, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Setenv("CREEL_COMMANDS", list)
		_, err := New(Config{Run: "disk-check"}, creel.Host{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want …%s…", text, err, want)
		}
	}
	f("", `find command "disk-check": `)
	f("commands: {disk-chek: {path: /bin/true}}", "(did you mean \"disk-chek\"?)")
	f("commands: {other: {path: /bin/true}, another: {path: /bin/true}}", "it allows another, other")
	f("commands: {disk-check: {path: bin/true}}", `commands.disk-check.path: must be an absolute path, got "bin/true": programs are not searched for`)
	f("commands: {disk-check: {path: /bin/true, dir: tmp}}", `commands.disk-check.dir: must be an absolute path`)
	f("commands: {disk-check: {path: /bin/true, env: {a=b: c}}}", `cannot set "a=b"`)
	f("commands: {disk-check: {path: /bin/true, arg: [a]}}", `unknown option "arg"`)
	f("commands: {disk-check: {}}", `option "path" is missing`)
	f("commands: {disk-check: {path: /bin/true, args: [\"${env:HOME}\"]}}", "HOME")
	f("commands: {disk-check: {path: /bin/true, args: [\"${file:/etc/hostname}\"]}}", "file")
	f("commands: {disk-check: {path: /bin/true, max_output: 1GiB}}", "must be at most 16MiB")
	f("commands: {disk-check: {path: /bin/true, user: there-is-nobody}}", "find user of command: ")
	f("commands: [", "read allow list: ")
	f(strings.Repeat("#", maxList+10), "is larger than")

	t.Setenv("CREEL_COMMANDS", "commands.yaml")
	if _, err := New(Config{Run: "x"}, creel.Host{}); err == nil || !strings.Contains(err.Error(), "CREEL_COMMANDS must be an absolute path") {
		t.Errorf("got %v", err)
	}
	if t.Setenv("CREEL_COMMANDS", ""); listPath() != defaultList {
		t.Errorf("the list is %s", listPath())
	}
}
