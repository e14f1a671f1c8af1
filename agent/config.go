package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent/change"
	"github.com/creelhq/creel/agent/requires"
	"github.com/creelhq/creel/agent/trial"
	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/tlsconf"
)

// Settings is the section agent of a configuration.
type Settings struct {
	Labels      map[string]string  `doc:"What is said of this agent everywhere. Collectors that observe this machine put them into the resource of their records." optional:"true" example:"{site: north, rack: b7}"`
	Log         Logging            `doc:"The agent's own log, on standard error."`
	Admin       Admin              `doc:"The admin endpoint, beside the Unix socket in the state directory."`
	Hub         Hub                `doc:"The hub that this agent reports to. It works as well without."`
	Memory      Memory             `doc:"How much memory the agent may have. When it becomes scarce, pipelines take less, those of low priority first."`
	DeadLetters Letters            `doc:"What exporters' far sides refuse for good."`
	Tasks       Tasks              `doc:"How many rounds of collectors run at once. It may stand in the agent's own file only, and takes effect when the agent is started again."`
	Requires    requires.Config    `doc:"What must be there for the agent to collect. While something is missing it waits, paused, and goes on by itself."`
	Probation   time.Duration      `doc:"How long a change of the configuration is watched. If what has changed fails, drops or needs much more than before, the last good configuration comes back. 0s: never." default:"60s" min:"0s"`
	Watch       bool               `doc:"Take in changes of the configuration file, and of agent.d beside it, as soon as they are written." default:"false"`
	Centers     json.RawMessage    `doc:"Where more of the configuration comes from, or who knows of services, by id: type or type/name." optional:"true"`
	Services    map[string]Service `doc:"What this agent offers to others, by name, such as an address of a collector otlp. It is registered with a center while the agent runs and is not paused." optional:"true"`
	Drain       time.Duration      `doc:"How long the agent, when it is stopped, tries to deliver what it has collected." default:"10s" min:"0s"`
}

// Tasks size the scheduler.
type Tasks struct {
	Slots    int            `doc:"Rounds that run at once; one that waits for the network or for room does not count. 0: twice the number of processors." default:"0" min:"0"`
	Capacity float64        `doc:"How much of what the hub places on some agents (place: 2) this one may have: the sum of the documents' costs, which are 1 unless they say otherwise. Left out, there is no limit." optional:"true" min:"0" example:"10"`
	Classes  map[string]int `doc:"Rounds of collectors of a class that run at once, whether they wait or not." optional:"true" example:"{snmp: 4}"`
}

// Validate checks that each class has a round at least.
func (t Tasks) Validate() error {
	for name, n := range t.Classes {
		if n < 1 {
			return config.FieldError("classes", fmt.Errorf("class %s must have 1 at least", name))
		}
	}
	return nil
}

// Memory bounds what the process has.
type Memory struct {
	Limit config.Size `doc:"Bytes at most. Left out, what the control group (the container, the systemd unit) may have, which counts as well if it is less; without either there is no limit." optional:"true" min:"32MiB" example:"256MiB"`
}

// bytes returns the limit of a process whose control group has the given one; 0: none.
func (m Memory) bytes(group int64) int64 {
	if group > 0 && (m.Limit == 0 || group < int64(m.Limit)) {
		return group
	}
	return int64(m.Limit)
}

// Letters bounds what is kept of refused records.
type Letters struct {
	MaxSize config.Size `doc:"Bytes on disk at most; the oldest go." default:"256MiB" min:"1MiB"`
}

// Hub says where the agent's hub is.
type Hub struct {
	URL      []string       `doc:"Where the hub is, or a list of hubs that share their control state: one will do, for it tells of the others. What the agent is, its health, configuration (secrets redacted) and counts go to one of them, over OpAMP; when that is gone, to another. Left out, the hub that the agent has joined with creel join, if it has." optional:"true" example:"https://hub.example:4380"`
	Discover Discover       `doc:"Instead of url: a center that knows where hubs are. When they move, so does the agent."`
	Balance  string         `doc:"Which of several hubs the agent goes to. rendezvous: by the agent's id, so that it is always the same as long as that is there. round_robin: another one each time. least_loaded: of two, by chance, the one that has fewer agents. Hubs that are being drained are left, and one that has far more agents than the others asks some to go." default:"rendezvous" enum:"rendezvous|round_robin|least_loaded"`
	TLS      tlsconf.Client `doc:"Certificates, if the URL begins with https://. Left out, towards the hub that the agent has joined and those that it has learned of there, identity: true."`
}

// configured reports whether there is to be a hub.
func (h Hub) configured() bool { return len(h.URL) > 0 || h.Discover.Center != "" }

// Validate checks the URLs, and that they mean TLS if that is configured.
func (h Hub) Validate() error {
	if len(h.URL) > 0 && h.Discover.Center != "" {
		return config.FieldError("discover", errors.New("and url exclude each other; give one of them"))
	}
	for _, text := range h.URL {
		u, err := control.HubURL(text)
		switch {
		case err != nil:
			return config.FieldError("url", err)
		case u.Scheme != "https" && h.TLS != tlsconf.Client{} && h.TLS != tlsconf.Client{Insecure: true}:
			return config.FieldError("url", errors.New("is not https, though certificates are configured; write https://"))
		case u.Scheme == "https" && h.TLS.Insecure:
			return config.FieldError("url", errors.New("is https, though tls.insecure says not to; write http:// if that is meant"))
		case u.Scheme == "unix" && len(h.URL) > 1:
			return config.FieldError("url", errors.New("is a Unix socket, beside which there can be no other hub"))
		}
	}
	return nil
}

func (h Hub) equal(o Hub) bool {
	return slices.Equal(h.URL, o.URL) && h.Discover == o.Discover && h.Balance == o.Balance && h.TLS == o.TLS
}

// Logging says how the agent logs.
type Logging struct {
	Level  string `doc:"The least severity to log." default:"info" enum:"debug|info|warn|error"`
	Format string `doc:"How a line looks." default:"text" enum:"text|json"`
}

// Admin says where else the admin endpoint is.
type Admin struct {
	Address  string `doc:"TCP address of the admin endpoint, for a Prometheus or an orchestrator." optional:"true" example:"127.0.0.1:4390"`
	Insecure bool   `doc:"Allow an address that is not loopback, though everybody who reaches it may read and reload." default:"false"`
}

// Validate keeps the endpoint from the network unless that is asked for.
func (a Admin) Validate() error {
	if a.Address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(a.Address)
	if err != nil {
		return config.FieldError("address", fmt.Errorf("must be host:port: %w", err))
	}
	if tlsconf.IsLoopback(host) || a.Insecure {
		return nil
	}
	return config.FieldError("address", errors.New("is not a loopback address; say insecure: true if that is meant"))
}

func (l Logging) level() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		panic("BUG: " + err.Error())
	}
	return level
}

func (l Logging) handler(w io.Writer, level slog.Leveler) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}

// sections are a configuration file's. All but agent are the pipeline's business; tests mean nothing to a running agent.
type sections struct {
	Agent      Settings        `doc:"The agent itself."`
	Collectors json.RawMessage `doc:"Where records come from, by id." optional:"true"`
	Processors json.RawMessage `doc:"What happens to them, by id." optional:"true"`
	Exporters  json.RawMessage `doc:"Where they go, by id." optional:"true"`
	Pipelines  json.RawMessage `doc:"Who sends to whom, by id." optional:"true"`
	Tests      json.RawMessage `doc:"Tests of this configuration, by name." optional:"true"`
}

// A Config is a configuration that was found to be right.
type Config struct {
	Settings Settings
	Centers  []CenterConfig
	Plan     *pipeline.Plan

	root   *config.Node
	handed change.Pieces // the hub's documents in it
}

// CenterConfig is a center that a configuration names.
type CenterConfig struct {
	ID      string // type or type/name
	Center  center.Center
	Options []byte // all options, canonical
	Nothing error  // why it holds no documents; nil: it does
}

// Tests returns the tests that stand in the configuration. If they are wrong, the error is a config.Errors.
func (c *Config) Tests() ([]trial.Case, error) { return trial.Compile(c.root, c.Plan) }

// Parts are what a program has to make agents of: a distribution is a slice of plugins and one of centers.
type Parts struct {
	Plugins []creel.Plugin
	Centers []center.Center

	// Labels are said of the agent beside agent.labels, such as creel.role=hub.
	Labels map[string]string
}

// Load reads and checks the configuration in a file and the fragments beside it, and opens nothing. If it is wrong, the
// error is a config.Errors with everything that is.
func (p Parts) Load(file string, env config.Env) (*Config, error) {
	pieces, err := readFiles(file)
	if err != nil {
		return nil, err
	}
	return p.compile(change.Set{change.File: pieces}, env)
}

// Parse is Load for a configuration that is at hand; file is what errors call it.
func (p Parts) Parse(file string, text []byte, env config.Env) (*Config, error) {
	return p.compile(change.Set{change.File: {{Name: file, Text: text}}}, env)
}

// compile merges and checks the documents of all sources.
func (p Parts) compile(set change.Set, env config.Env) (*Config, error) {
	own, _ := ownSettingsOf(set, env) // what is wrong in them is found again below
	root, err := merge(set, env, p.labels(own))
	if err != nil {
		return nil, err
	}
	c := &Config{root: root, handed: set[HubSource]}
	var errs config.Errors
	options, wrong := config.Of[sections]().Check(root)
	if errs = append(errs, wrong...); len(errs) == 0 {
		s, err := config.Decode[sections](options)
		if err != nil {
			return nil, err
		}
		c.Settings = s.Agent
		c.Settings.Labels = p.labels(s.Agent)
	}
	c.Centers, wrong = p.CheckCenters(root.Get("agent").Get("centers"))
	if errs = append(errs, wrong...); len(errs) == 0 {
		errs = c.checkUse(root.Get("agent"))
	}
	plan, err := pipeline.Compile(root, p.Plugins, c.Settings.Labels)
	var more config.Errors
	if errors.As(err, &more) {
		errs = append(errs, more...)
	} else if err != nil {
		return nil, err
	}
	if len(errs) > 0 {
		errs.Sort()
		return nil, errs
	}
	c.Plan = plan
	c.Plan.Documents = definedBy(root.Get(pipeline.Section(creel.KindCollector)), c.handed)
	return c, nil
}

// definedBy tells which of the hub's documents defines each collector, if one does.
func definedBy(collectors *config.Node, handed change.Pieces) map[string]pipeline.Document {
	files := make(map[string]pipeline.Document, len(handed))
	for _, d := range handed {
		files[shown(HubSource, d)] = pipeline.Document{Name: d.Name, Version: d.Version}
	}
	by := make(map[string]pipeline.Document)
	for id, node := range collectors.Entries() {
		if d, is := files[node.File()]; is {
			by[id] = d
		}
	}
	return by
}

// ownSettingsOf returns the settings that the agent's own files give: what must be known before all documents are put
// together.
func ownSettingsOf(set change.Set, env config.Env) (Settings, error) {
	root, err := merge(change.Set{change.File: set[change.File]}, env, nil)
	if err != nil {
		return Settings{}, err
	}
	options, errs := SettingsSchema().Check(root.Get("agent"))
	if len(errs) > 0 {
		return Settings{}, errs
	}
	return config.Decode[Settings](options)
}

// labels returns all that is said of an agent with these settings: what the machine is called, what its program says, and
// what its configuration does, the last of which counts.
func (p Parts) labels(s Settings) map[string]string {
	labels := map[string]string{"os.type": runtime.GOOS, "host.arch": runtime.GOARCH}
	if name, err := os.Hostname(); err == nil {
		labels["host.name"] = name
	}
	if s.Tasks.Capacity > 0 {
		labels[control.CapacityLabel] = strconv.FormatFloat(s.Tasks.Capacity, 'f', -1, 64)
	}
	maps.Copy(labels, p.Labels)
	maps.Copy(labels, s.Labels)
	return labels
}

// CheckCenters checks a section such as agent.centers: centers by id.
func (p Parts) CheckCenters(section *config.Node) (list []CenterConfig, errs config.Errors) {
	if !section.IsMap() {
		return nil, config.Errors{section.Errorf("must be a map from ids to options, such as \"etcd: {endpoints: [127.0.0.1:2379], key: /creel}\"")}
	}
	known := make([]string, len(p.Centers))
	for i, c := range p.Centers {
		known[i] = c.Name
	}
	for id, node := range section.Entries() {
		name, _, _ := strings.Cut(id, "/")
		i := slices.Index(known, name)
		if i < 0 || id == change.File || id == HubSource {
			e := node.KeyErrorf("there is no center %q", name)
			if e.Hint = config.DidYouMean(name, known); e.Hint == "" && len(known) > 0 {
				e.Hint = "known are " + strings.Join(known, ", ")
			}
			errs = append(errs, e)
			continue
		}
		options, wrong := center.Schema(p.Centers[i]).Check(node)
		if errs = append(errs, wrong...); len(wrong) == 0 {
			_, nothing := center.Open(p.Centers[i], options, center.Host{})
			list = append(list, CenterConfig{id, p.Centers[i], options, nothing})
		}
	}
	return list, errs
}

// SettingsSchema describes the section agent.
func SettingsSchema() config.Schema { return config.Of[Settings]() }

// JSONSchema describes a whole configuration (draft 2020-12), for editors.
func (p Parts) JSONSchema() map[string]any {
	settings := SettingsSchema().JSONSchema()
	centers := map[string]any{}
	for _, c := range p.Centers {
		s := center.Schema(c).JSONSchema()
		s["description"] = c.Doc
		centers["^"+c.Name+"(/.+)?$"] = s
	}
	if known, ok := settings["properties"].(map[string]any); ok && len(centers) > 0 {
		known["centers"] = map[string]any{
			"type": []any{"object", "null"}, "patternProperties": centers, "additionalProperties": false,
			"description": "Where more of the configuration comes from, or who knows of services, by id: type or type/name.",
		}
	}
	properties := map[string]any{
		"agent": settings,
		"pipelines": map[string]any{
			"type": []any{"object", "null"}, "additionalProperties": config.Of[pipeline.Route]().JSONSchema(),
			"description": "Who sends to whom, by id.",
		},
		trial.Section: trial.JSONSchema(),
	}
	for _, k := range []creel.Kind{creel.KindCollector, creel.KindProcessor, creel.KindExporter} {
		byType := map[string]any{}
		for _, p := range p.Plugins {
			if p.Kind == k {
				s := pipeline.Schema(p).JSONSchema()
				s["description"] = p.Doc
				byType["^"+p.Name+"(/.+)?$"] = s
			}
		}
		properties[pipeline.Section(k)] = map[string]any{
			"type": []any{"object", "null"}, "patternProperties": byType, "additionalProperties": false,
		}
	}
	return map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "creel configuration",
		"type": "object", "properties": properties, "additionalProperties": false,
	}
}
