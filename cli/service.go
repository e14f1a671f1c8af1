package cli

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/spf13/cobra"
)

// Units of systemd, hardened. deploy/ has what becomes of them with nothing but defaults.
//
//go:embed service/*.tmpl
var units embed.FS

// service is a service of systemd.
type service struct {
	Name    string // of the program
	Command string // what ExecStart says
	User    string // it runs as
	State   string // its directory in /var/lib

	hub  bool
	root string // what is / there
}

func (s *service) unit() string {
	if s.hub {
		return "creel-hub.service"
	}
	return "creel-agent.service"
}

func (s *service) unitFile() string { return filepath.Join(s.root, "/etc/systemd/system", s.unit()) }

// render fills in one of units.
func (s *service) render(name string) ([]byte, error) {
	t, err := template.ParseFS(units, "service/"+name+".tmpl")
	if err != nil {
		return nil, fmt.Errorf("read the unit: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, s); err != nil {
		return nil, fmt.Errorf("make the unit: %w", err)
	}
	return b.Bytes(), nil
}

func (s *service) renderUnit() ([]byte, error) {
	return s.render(strings.TrimPrefix(s.unit(), "creel-"))
}

func (c *Commands) service() *cobra.Command {
	cmd := &cobra.Command{
		Use: "service", Short: "Have systemd run an agent or a hub on this machine.", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.installService(), c.uninstallService(), c.serviceStatus())
	return cmd
}

// serviceFlags adds the flags that say which service is meant.
func (c *Commands) serviceFlags(cmd *cobra.Command, s *service) {
	agent := false
	cmd.Flags().BoolVar(&agent, "agent", false, "the agent, which is what is meant if nothing is said")
	if c.More != nil {
		cmd.Flags().BoolVar(&s.hub, "hub", false, "the hub")
		cmd.MarkFlagsMutuallyExclusive("agent", "hub")
	}
	cmd.Flags().StringVar(&s.root, "root", "", "`DIR` with the file system of another machine, such as an image: nothing is started")
	cmd.MarkFlagDirname("root")
}

func (c *Commands) installService() *cobra.Command {
	s := &service{Name: c.Name}
	show, enable := false, false
	cmd := &cobra.Command{
		Use: "install [-- ARGUMENT...]", Short: "Write a hardened unit of systemd, and make the user that it runs as.",
		Long: "Write a unit of systemd that may do what an agent or a hub needs and nothing else, and make the user that it runs as. It\n" +
			"runs this very program. What stands behind -- are further arguments of `" + c.Name + " agent`, or hub. An agent that has\n" +
			"joined a hub needs none. Variables for its configuration are read from /etc/creel/agent.env, or hub.env.",
		Example: fmt.Sprintf("  %[1]s join https://hub.example:4380 --token TOKEN --no-run && %[1]s service install --enable\n"+
			"  %[1]s service install --enable -- -c /etc/creel/agent.yaml\n  %[1]s service install --print", c.Name),
		RunE: func(cmd *cobra.Command, args []string) error {
			if runtime.GOOS != "linux" {
				return Exit(ExitNo, errors.New("install a service: there is systemd on Linux only; have the service manager here run `"+c.Name+" agent`"))
			}
			if cmd.ArgsLenAtDash() != 0 && len(args) > 0 {
				return fmt.Errorf("unknown argument %q; arguments of the program stand behind --", args[0])
			}
			if err := s.complete(c.DataDir(), cmd.Flags().Changed("data"), args); err != nil {
				return err
			}
			text, err := s.renderUnit()
			if err != nil {
				return Exit(ExitNo, err)
			}
			if show {
				_, err := c.Out.Write(text)
				return err
			}
			if err := c.install(cmd.Context(), s, text, enable); err != nil {
				return Exit(ExitNo, err)
			}
			return nil
		},
	}
	c.serviceFlags(cmd, s)
	cmd.Flags().StringVar(&s.User, "user", "creel", "`NAME` of the user that it runs as; it is made if it is not there")
	cmd.Flags().BoolVar(&show, "print", false, "only print the unit")
	cmd.Flags().BoolVar(&enable, "enable", false, "start it now, and whenever the machine starts")
	cmd.MarkFlagsMutuallyExclusive("print", "enable")
	return c.WithData(cmd)
}

var (
	userName  = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
	stateName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// complete finds out what the unit has to say.
func (s *service) complete(data string, asked bool, args []string) error {
	if !userName.MatchString(s.User) {
		return fmt.Errorf("read --user: %q is no user's name", s.User)
	}
	if !asked {
		data = "/var/lib/creel"
	}
	s.State = filepath.Base(data)
	if filepath.Dir(filepath.Clean(data)) != "/var/lib" || !stateName.MatchString(s.State) {
		return fmt.Errorf("read --data: the state directory of a service is one in /var/lib, such as /var/lib/creel, got %s", data)
	}
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return Exit(ExitNo, fmt.Errorf("find this program: %w", err))
	}
	return s.command(exe, args)
}

// command makes the command line. Arguments are quoted as systemd.service(5), "Command lines", has it.
func (s *service) command(exe string, args []string) error {
	does := "agent"
	if s.hub {
		does = "hub"
	}
	words := append([]string{exe, does, "--data", "/var/lib/" + s.State}, args...)
	for i, w := range words {
		if strings.ContainsFunc(w, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("read arguments: %q has control characters", w)
		}
		w = strings.NewReplacer("%", "%%", "$", "$$", `\`, `\\`, `"`, `\"`).Replace(w)
		if w == "" || strings.ContainsAny(w, " '\";") {
			w = `"` + w + `"`
		}
		words[i] = w
	}
	s.Command = strings.Join(words, " ")
	return nil
}

// install writes the files and has systemd read them.
func (c *Commands) install(ctx context.Context, s *service, unit []byte, enable bool) error {
	if s.root == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		if err := reachable(exe); err != nil {
			return err
		}
		other := *s
		other.hub = !s.hub
		if text, err := os.ReadFile(other.unitFile()); err == nil && bytes.Contains(text, []byte("StateDirectory="+s.State+"\n")) {
			return fmt.Errorf("install %s: %s has the state directory /var/lib/%s already. A hub has an agent of its own, which collects what its configuration says (-c); or name another with --data /var/lib/NAME", s.unit(), other.unit(), s.State)
		}
	}
	if err := c.makeUser(ctx, s); err != nil {
		return err
	}
	if err := c.writeFile(s.unitFile(), unit); err != nil {
		return err
	}
	systemctl := [][]string{{"daemon-reload"}}
	if enable {
		systemctl = append(systemctl, []string{"enable", s.unit()}, []string{"restart", s.unit()})
	}
	if !s.running() {
		fmt.Fprintln(c.Err, "systemd does not run there; when it does:")
		for _, args := range append(systemctl[:1:1], []string{"enable", "--now", s.unit()}) {
			fmt.Fprintf(c.Err, "  systemctl %s\n", strings.Join(args, " "))
		}
		return nil
	}
	for _, args := range systemctl {
		if err := c.run(ctx, "systemctl", args...); err != nil {
			return err
		}
	}
	if !enable {
		fmt.Fprintf(c.Err, "start it, now and with the machine: systemctl enable --now %s\n", s.unit())
	}
	return nil
}

// running reports whether there is a systemd to talk to: sd_booted(3).
func (s *service) running() bool {
	info, err := os.Lstat("/run/systemd/system")
	return s.root == "" && err == nil && info.IsDir()
}

// reachable checks that other users can run a program, where PrivateTmp= does not hide it.
func reachable(exe string) error {
	for _, dir := range []string{"/tmp/", "/var/tmp/"} {
		if strings.HasPrefix(exe, dir) {
			return fmt.Errorf("install %s as a service: services do not see what is in %s; copy it to /usr/local/bin and run that", exe, dir)
		}
	}
	for path := exe; path != "/"; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("look at this program: %w", err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("install %s as a service: %s is closed to other users; copy it to /usr/local/bin and run that", exe, path)
		}
	}
	return nil
}

// makeUser makes the service's user with systemd-sysusers, which does nothing when it is there.
func (c *Commands) makeUser(ctx context.Context, s *service) error {
	if s.root == "" {
		if _, err := user.Lookup(s.User); err == nil {
			return nil
		}
	}
	text, err := s.render("sysusers.conf")
	if err != nil {
		return err
	}
	file := filepath.Join(s.root, "/etc/sysusers.d", s.User+".conf")
	if err := c.writeFile(file, text); err != nil {
		return err
	}
	if s.root != "" { // systemd makes it when that machine starts
		return nil
	}
	if _, err := exec.LookPath("systemd-sysusers"); err != nil {
		return fmt.Errorf("make user %s: %w; make it yourself: useradd --system --shell /usr/sbin/nologin %[1]s", s.User, err)
	}
	return c.run(ctx, "systemd-sysusers", file)
}

func (c *Commands) writeFile(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write %s: %w; only root may", file, err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return fmt.Errorf("write %s: %w; only root may", file, err)
	}
	fmt.Fprintf(c.Err, "wrote %s\n", file)
	return nil
}

// run runs a program, and says so.
func (c *Commands) run(ctx context.Context, name string, args ...string) error {
	fmt.Fprintf(c.Err, "%s %s\n", name, strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = c.Err, c.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

func (c *Commands) uninstallService() *cobra.Command {
	s := &service{Name: c.Name}
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Stop the service and remove its unit. Its state and its user stay.", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(s.unitFile()); errors.Is(err, fs.ErrNotExist) {
				return Exit(ExitNotFound, fmt.Errorf("uninstall %s: %s is not there", s.unit(), s.unitFile()))
			}
			if s.running() {
				if err := c.run(cmd.Context(), "systemctl", "disable", "--now", s.unit()); err != nil {
					return Exit(ExitNo, err)
				}
			}
			if err := os.Remove(s.unitFile()); err != nil {
				return Exit(ExitNo, fmt.Errorf("uninstall %s: %w", s.unit(), err))
			}
			fmt.Fprintf(c.Err, "removed %s\n", s.unitFile())
			if s.running() {
				if err := c.run(cmd.Context(), "systemctl", "daemon-reload"); err != nil {
					return Exit(ExitNo, err)
				}
			}
			return nil
		},
	}
	c.serviceFlags(cmd, s)
	return cmd
}

// serviceState is what status says of a service.
type serviceState struct {
	Unit      string `json:"unit"`
	Installed bool   `json:"installed"`
	Enabled   string `json:"enabled,omitempty"` // as systemctl says it
	Active    string `json:"active,omitempty"`
}

func (c *Commands) serviceStatus() *cobra.Command {
	s := &service{Name: c.Name}
	format := ""
	cmd := &cobra.Command{
		Use: "status", Short: "Say whether the service is installed and runs.", Args: cobra.NoArgs,
		Long: "Say whether the service is installed and runs. Exit code 1: it does not run; 5: it is not installed. How the agent itself is\nsays " + c.Name + " status.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			state := serviceState{Unit: s.unit()}
			if _, err := os.Stat(s.unitFile()); err == nil {
				state.Installed = true
			}
			if state.Installed && s.running() {
				state.Enabled, state.Active = systemdSays(cmd.Context(), "is-enabled", s.unit()), systemdSays(cmd.Context(), "is-active", s.unit())
			}
			err := c.Print(format, state, []string{state.Unit}, func(w *tabwriter.Writer) {
				switch {
				case !state.Installed:
					fmt.Fprintf(w, "%s is not installed\n", state.Unit)
				case state.Active == "":
					fmt.Fprintf(w, "%s is installed; systemd does not run there\n", state.Unit)
				default:
					fmt.Fprintf(w, "%s is installed, %s, %s\n", state.Unit, state.Enabled, state.Active)
				}
			})
			switch {
			case err != nil:
				return err
			case !state.Installed:
				return Exit(ExitNotFound, fmt.Errorf("%s service install installs it", c.Name))
			case state.Active != "active":
				return Exit(ExitNo, fmt.Errorf("%s does not run; journalctl -u %[1]s tells what it said", state.Unit))
			}
			return nil
		},
	}
	c.serviceFlags(cmd, s)
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, json, yaml or name")
	return cmd
}

// systemdSays returns systemctl's one word, which it says with an exit code that is not 0 when the answer is no.
func systemdSays(ctx context.Context, ask, unit string) string {
	text, _ := exec.CommandContext(ctx, "systemctl", ask, unit).Output()
	return cmp.Or(strings.TrimSpace(string(text)), "unknown")
}
