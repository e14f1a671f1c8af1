package cli

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestReferenceUnits compares deploy/ with what service install writes with nothing but defaults.
func TestReferenceUnits(t *testing.T) {
	rewrite := flag.Lookup("rewrite").Value.String() == "true"
	for _, isHub := range []bool{false, true} {
		s := &service{Name: "creel", User: "creel", State: "creel", hub: isHub}
		if err := s.command("/usr/local/bin/creel", nil); err != nil {
			t.Fatal(err)
		}
		unit, err := s.renderUnit()
		if err != nil {
			t.Fatal(err)
		}
		users, err := s.render("sysusers.conf")
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][]byte{s.unit(): unit, "creel.sysusers.conf": users} {
			file := filepath.Join("..", "deploy", name)
			if rewrite {
				if err := os.WriteFile(file, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s is not current (%v): run make docs", file, err)
			}
		}
	}
}

// TestUnitsAreHardened asks systemd itself.
func TestUnitsAreHardened(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("there is no systemd-analyze")
	}
	score := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`)
	for _, isHub := range []bool{false, true} {
		s := &service{Name: "creel", User: "root", State: "creel", hub: isHub} // a user that is there
		if err := s.command("/bin/sh", []string{"--label", `a "b" %h $HOME \x`, ""}); err != nil {
			t.Fatal(err)
		}
		text, err := s.renderUnit()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), s.unit())
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("systemd-analyze", "verify", file).CombinedOutput(); err != nil || bytes.Contains(out, []byte(s.unit()+":")) {
			t.Errorf("%v: %s", err, out)
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", file).CombinedOutput()
		if err != nil {
			t.Logf("systemd-analyze cannot judge: %v: %s", err, out) // before version 250
			continue
		}
		const most = 2.5
		if m := score.FindSubmatch(out); m == nil {
			t.Errorf("no score: %s", out)
		} else if n, err := strconv.ParseFloat(string(m[1]), 64); err != nil || n > most {
			t.Errorf("%s: exposure %s, %g at most", s.unit(), m[1], most)
		}
	}
}

func TestServiceCommand(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		s := &service{State: "creel"}
		err := s.command("/usr/bin/creel", args)
		if got := strings.TrimPrefix(s.Command, "/usr/bin/creel agent --data /var/lib/creel"); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", args, got, err)
		}
	}
	f(` -c /etc/creel/agent.yaml`, "-c", "/etc/creel/agent.yaml")
	f(` "a b" "" "it's" 100%% $$x "\"\\ ;"`, "a b", "", "it's", "100%", "$x", `"\ ;`)
	f("", "a\nExecStartPre=/bin/evil")
}

// TestServiceInstall writes into a directory that stands for a machine.
func TestServiceInstall(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no systemd")
	}
	root := t.TempDir()
	run := func(code int, want string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		p := Program{Name: "creel", More: func(*Commands) []*cobra.Command { return nil }}
		if got := Main(p, append([]string{"service"}, args...), &out, &out); got != code || !strings.Contains(out.String(), want) {
			t.Errorf("%q: exit code %d, not %d with %q\n%s", args, got, code, want, &out)
		}
	}
	run(ExitNotFound, "creel-agent.service is not installed", "status", "--root", root)
	run(ExitNotFound, "creel-agent.service is not there", "uninstall", "--root", root)
	run(0, "systemctl enable --now creel-hub.service", "install", "--hub", "--user", "watch", "--data", "/var/lib/watch", "--root", root, "--", "--listen", "0.0.0.0")
	for file, want := range map[string]string{"systemd/system/creel-hub.service": " hub --data /var/lib/watch --listen 0.0.0.0\n", "sysusers.d/watch.conf": "\nu watch - \"creel\" /var/lib/watch\n"} {
		if text, err := os.ReadFile(filepath.Join(root, "etc", file)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
	}
	run(ExitNo, `"installed": true`, "status", "--hub", "--root", root, "-o", "json")
	run(0, "removed", "uninstall", "--hub", "--root", root)
	run(ExitNotFound, "", "status", "--hub", "--root", root)
	run(ExitUsage, "stand behind --", "install", "x", "--print")
	run(ExitUsage, "is no user's name", "install", "--user", "a\nb", "--print")
	run(ExitUsage, "is one in /var/lib", "install", "--data", "/home/x", "--print")
	run(0, "WantedBy=", "install", "--print")
}

// TestReachable: a program that a service could not run is no service.
func TestReachable(t *testing.T) {
	for _, path := range []string{"/tmp/creel", "/var/tmp/x/creel"} {
		if err := reachable(path); err == nil || !strings.Contains(err.Error(), "/usr/local/bin") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := reachable("/bin/sh"); err != nil && runtime.GOOS == "linux" {
		t.Error(err)
	}
}
