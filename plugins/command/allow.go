package command

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/config"
)

// allowList is what the host's file says.
type allowList struct {
	Commands map[string]entry `doc:"What may be run, by name." optional:"true"`
}

// entry is a command that may be run.
type entry struct {
	Path      string            `doc:"The program, an absolute path."`
	Args      []string          `doc:"Its arguments." optional:"true"`
	Env       map[string]string `doc:"Its environment, beside PATH and LANG." optional:"true" secret:"true"`
	User      string            `doc:"The user it runs as, if not the agent's; only root can choose another." optional:"true"`
	Dir       string            `doc:"The directory it runs in." default:"/"`
	Timeout   time.Duration     `doc:"How long it may take; then it is told to end, and soon killed." default:"10s" min:"1ms" max:"1h"`
	MaxOutput config.Size       `doc:"How much of what it prints is collected." default:"1MiB" min:"1KiB" max:"16MiB"`
	Overflow  string            `doc:"What happens when it prints more: the rest is left out (truncate), or it is ended (kill)." default:"truncate" enum:"truncate|kill"`
}

// Validate refuses what could be looked for, or is no environment.
func (e entry) Validate() error {
	if !filepath.IsAbs(e.Path) {
		return config.FieldError("path", fmt.Errorf("must be an absolute path, got %q: programs are not searched for", e.Path))
	}
	if !filepath.IsAbs(e.Dir) {
		return config.FieldError("dir", fmt.Errorf("must be an absolute path, got %q", e.Dir))
	}
	for name, value := range e.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			return config.FieldError("env", fmt.Errorf("cannot set %q: a name has no =, and nothing has a zero byte", name))
		}
	}
	return nil
}

// environ returns the program's whole environment.
func (e entry) environ() []string {
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
	maps.Copy(env, e.Env)
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// defaultList is where the allow list is when CREEL_COMMANDS does not say.
const defaultList = "/etc/creel/commands.yaml"

// listPath returns where the allow list is. A configuration must have no say in it.
func listPath() string {
	if p := os.Getenv("CREEL_COMMANDS"); p != "" {
		return p
	}
	return defaultList
}

// load reads the allow list and returns the program that it has under a name. It fails if somebody else could have
// changed either.
func load(list, name string) (*program, error) {
	if !filepath.IsAbs(list) {
		return nil, fmt.Errorf("open allow list: CREEL_COMMANDS must be an absolute path, is %q", list)
	}
	text, err := readTrusted(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open allow list: commands are off on this host, as there is no %s; to allow this one, make the file as root, mode 0644: commands: {%s: {path: /absolute/path/of/the/program}}", list, name)
	}
	if err != nil {
		return nil, fmt.Errorf("open allow list: %w", err)
	}
	// What it refers to would be somebody else's to change: ${env:…} and ${file:…} are errors.
	node, err := config.Parse(list, text, config.Env{})
	if err != nil {
		return nil, fmt.Errorf("read allow list: %w", err)
	}
	canonical, errs := config.Of[allowList]().Check(node)
	if len(errs) > 0 {
		return nil, fmt.Errorf("read allow list: %w", errs)
	}
	allowed, err := config.Decode[allowList](canonical)
	if err != nil {
		return nil, fmt.Errorf("read allow list: %w", err)
	}
	e, ok := allowed.Commands[name]
	if !ok {
		known := slices.Sorted(maps.Keys(allowed.Commands))
		hint := config.DidYouMean(name, known)
		if hint == "" && len(known) > 0 {
			hint = "it allows " + strings.Join(known, ", ")
		}
		if hint != "" {
			hint = " (" + hint + ")"
		}
		return nil, fmt.Errorf("find command %q: %s does not allow it%s; who owns the host can add it there", name, list, hint)
	}
	p, err := prepare(e)
	if err != nil {
		return nil, fmt.Errorf("check command %s of %s: %w", name, list, err)
	}
	return p, nil
}
