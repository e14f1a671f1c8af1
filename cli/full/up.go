package full

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/tlsconf"
)

// hubFlags are the flags of what runs a hub.
type hubFlags struct {
	file  string
	o     hub.Options
	size  string
	bytes string // a second, of one agent
	fleet int
	open  bool // it is not on loopback alone
}

func (f *hubFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "config", "c", "", "configuration `FILE` of the hub's own agent, which may name the exporter quicklook")
	flags.StringVar(&f.o.Address, "listen", hub.DefaultAddress, "`ADDRESS` of UI, API and OpAMP; its port may be left out")
	flags.StringVar(&f.o.OpAMP, "opamp", hub.DefaultOpAMP, "second `ADDRESS` for OpAMP agents, or none; if not given, on the host of --listen")
	flags.DurationVar(&f.o.Heartbeat, "heartbeat", 0, "least `TIME` between an agent's heartbeats (default 5s; it grows beyond 10 000 agents)")
	flags.StringVar(&f.size, "max-size", "4GiB", "`SIZE` of the quick look on disk")
	flags.DurationVar(&f.o.MaxAge, "max-age", 7*24*time.Hour, "for how much `TIME` the quick look keeps records")
	flags.Int64Var(&f.o.AgentRecords, "agent-records", 0, "how many records a second one agent may send: `N`; 0 is no limit")
	flags.StringVar(&f.bytes, "agent-bytes", "0", "how much one agent may send a second, uncompressed: `SIZE` such as 8MiB; 0 is no limit")
	flags.StringSliceVar(&f.o.Hosts, "host", nil, "host `NAME`s under which the hub may be asked for, beside its addresses")
	flags.DurationVar(&f.o.AgentLife, "agent-certificates", 24*time.Hour, "for how much `TIME` an agent's certificate is good; it is renewed at two thirds")
	flags.BoolVar(&f.o.Insecure, "insecure", false, "allow addresses that are not loopback without TLS")
	flags.StringVar(&f.o.TLS.CertFile, "tls-cert", "", "`FILE` with the hub's certificate, PEM, instead of one of its own authority: its addresses then speak TLS; a file that changes is read again")
	flags.StringVar(&f.o.TLS.KeyFile, "tls-key", "", "`FILE` with the certificate's key, PEM")
	flags.StringVar(&f.o.TLS.ClientCAFile, "tls-client-ca", "", "`FILE` with authorities, PEM: whoever has no certificate of theirs is refused, browsers too")
	f.share(cmd)
	cmd.MarkFlagFilename("config", "yaml", "yml", "json")
}

func (c *commands) hubCommand() *cobra.Command {
	var f hubFlags
	cmd := &cobra.Command{
		Use: "hub", Short: "Run a hub until it is told to stop.", Args: cobra.NoArgs,
		Long: "Run a hub: agents report to it, it stores what they send for a first look, and shows it in a browser.\n" +
			"Without a configuration it takes OTLP in on ports 4317 and 4318.\n\n" +
			"Everything is on loopback. On another address, --listen 0.0.0.0 say, the hub speaks TLS with certificates of an\n" +
			"authority of its own, unless --tls-cert names others; agents need a certificate of that authority (creel join),\n" +
			"applications and people a token (creel token create, creel login).\n\n" +
			"Several hubs share one control state: one is started with --etcd-listen, and creel token create --role hub prints there\n" +
			"what to run on another machine. Three are needed for one to be allowed to fail.",
		Example: "  creel hub\n  creel hub --listen 0.0.0.0 --host hub.example\n  creel hub -c hub.yaml --listen 0.0.0.0 --tls-cert hub.pem --tls-key hub.key\n" +
			"  creel hub --listen 10.0.0.1 --etcd-listen 10.0.0.1\n  creel hub --listen 10.0.0.2 --join https://10.0.0.1:4380 --token TOKEN",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(f.addresses(cmd), f.shared(cmd)); err != nil {
				return err
			}
			f.o.Text = []byte(fmt.Sprintf(hubConfig, f.otlp(net.JoinHostPort(f.host(), "4317"), net.JoinHostPort(f.host(), "4318"))))
			return c.runHub(cmd, &f, func(e hub.Endpoints) {
				fmt.Fprintf(c.Err, "Web UI: %s\n", c.open(e))
				if f.open {
					fmt.Fprintf(c.Err, "To let an agent in: %s\n", c.invitation(cmd))
				}
			})
		},
	}
	f.add(cmd)
	cmd.AddCommand(c.drainHub(), c.leave())
	return c.WithData(cmd)
}

// addresses completes the addresses: --listen may have no port, and agents find OpAMP on the same host.
func (f *hubFlags) addresses(cmd *cobra.Command) error {
	_, port, err := net.SplitHostPort(hub.DefaultAddress)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	host := strings.TrimSuffix(strings.TrimPrefix(f.o.Address, "["), "]")
	if !strings.Contains(host, ":") || net.ParseIP(host) != nil {
		f.o.Address = net.JoinHostPort(host, port)
	}
	if host, _, err = net.SplitHostPort(f.o.Address); err != nil {
		return fmt.Errorf("read --listen %s: must be an address with or without a port, such as 0.0.0.0 or 0.0.0.0:%s: %w", f.o.Address, port, err)
	}
	f.open = !tlsconf.IsLoopback(host)
	if f.open && !cmd.Flags().Changed("opamp") {
		_, port, err = net.SplitHostPort(hub.DefaultOpAMP)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		f.o.OpAMP = net.JoinHostPort(host, port)
	}
	return nil
}

// secure says whether the hub speaks TLS, and its default configuration as well, where it can be reached from the network.
func (f *hubFlags) secure() bool { return f.open && !f.o.Insecure }

// host is where OTLP is taken in if the configuration does not say: where everything is, if that is safe.
func (f *hubFlags) host() string {
	host, _, _ := net.SplitHostPort(f.o.Address) // addresses has checked it
	if !f.secure() {
		return "127.0.0.1"
	}
	return host
}

// otlp is the options of the hub's collector of OTLP.
func (f *hubFlags) otlp(grpc, http string) string {
	secure := ""
	if f.secure() {
		secure = ", tls: {identity: true}"
	}
	return fmt.Sprintf("{grpc: {endpoint: %q%s}, http: {endpoint: %q%[2]s}}", grpc, secure, http)
}

// invitation is the command that lets an agent in.
func (c *commands) invitation(cmd *cobra.Command) string {
	s := os.Args[0] + " token create --role agent"
	if cmd.Flags().Changed("data") {
		s += " --data " + quoted(c.DataDir())
	}
	return s + "    (it prints what to run there)"
}

// quoted is a word as a shell takes it.
func quoted(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/.-_:@%+=,", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

const hubConfig = `# What a hub runs when it is given no configuration.
collectors:
  self: {every: 10s}
  otlp: %s
exporters:
  quicklook: ` + quickLook + `
pipelines:
  received: {from: [otlp], to: [quicklook]}
  own: {from: [self], to: [quicklook]}
`

const quickLook = "{delivery: {concurrency: 1, spool: {max_size: 1GiB, min_free: 64MiB, when_full: drop_oldest}}}"

func (c *commands) runHub(cmd *cobra.Command, f *hubFlags, ready func(hub.Endpoints)) error {
	cli.LimitMemory()
	var size config.Size
	if err := size.UnmarshalText([]byte(f.size)); err != nil {
		return fmt.Errorf("read --max-size: %w", err)
	}
	var bytes config.Size
	if err := bytes.UnmarshalText([]byte(f.bytes)); err != nil {
		return fmt.Errorf("read --agent-bytes: %w", err)
	}
	if f.o.AgentRecords < 0 || bytes < 0 {
		return errors.New("read --agent-records and --agent-bytes: a limit is above 0, and 0 is none")
	}
	if f.o.AgentLife <= 0 {
		return errors.New("read --agent-certificates: must be above 0s, such as 24h")
	}
	if t := f.o.TLS; (t.CertFile == "") != (t.KeyFile == "") || t.ClientCAFile != "" && t.CertFile == "" {
		return errors.New("read --tls-cert, --tls-key and --tls-client-ca: a certificate needs its key, and only with a certificate can one be asked of clients")
	}
	ctx, reload, stop := cli.Signals(cmd.Context())
	defer stop()
	o := f.o
	o.MaxBytes, o.AgentBytes, o.Data, o.Plugins, o.Version, o.Log, o.Reload = int64(size), int64(bytes), c.DataDir(), c.Plugins, cli.Version(), c.Err, reload
	if o.Register.Centers = c.Centers; o.Register.File != "" {
		var err error
		if o.Register.Text, err = os.ReadFile(o.Register.File); err != nil {
			return fmt.Errorf("read --register: %w", err)
		}
	}
	o.Config = "creel's own configuration"
	if f.file != "" {
		o.Config, o.Text = f.file, nil
	}
	var fleet sync.WaitGroup
	defer fleet.Wait()
	o.Ready = func(e hub.Endpoints) {
		ready(e)
		for i := range f.fleet {
			fleet.Go(func() { demoAgent(ctx, e.Inside, i) })
		}
	}
	for {
		if err := hub.Run(ctx, o); !errors.Is(err, agent.ErrRestart) {
			return cli.Started(err)
		}
	}
}

func (c *commands) up() *cobra.Command {
	var f hubFlags
	cmd := &cobra.Command{
		Use: "up", Short: "Show this machine in a browser: hub, agent, store and UI in one process.", Args: cobra.NoArgs,
		Long: "Run a hub whose own agent collects from this machine: its metrics, the journal, the log files under /var/log that\n" +
			"can be read, and what is sent to it over OTLP. No file is needed. Ports that are taken are passed over.",
		Example: "  creel up\n  creel up --demo-fleet 50\n  creel up -c examples/hub.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(f.addresses(cmd), f.shared(cmd)); err != nil {
				return err
			}
			f.o.NextPort = true
			if f.o.Heartbeat == 0 {
				f.o.Heartbeat = time.Second // it is for looking
			}
			found, at := cli.Look(), findPorts(f.host())
			f.o.Text = []byte(found.Config(cli.Sends{Agent: "{drain: 2s}", OTLP: f.otlp(at.grpc, at.http), Exporter: "quicklook", Options: quickLook}))
			return c.runHub(cmd, &f, func(e hub.Endpoints) { c.welcome(cmd, e, found, at, &f) })
		},
	}
	f.add(cmd)
	cmd.Flags().IntVar(&f.fleet, "demo-fleet", 0, "add `N` simulated agents")
	return c.WithData(cmd)
}

// ports is where OTLP can be taken in.
type ports struct {
	grpc, http string
	moved      []string // what is not where one expects it
}

func findPorts(host string) ports {
	var p ports
	p.grpc = p.free("OTLP/gRPC", host, 4317)
	p.http = p.free("OTLP/HTTP", host, 4318)
	return p
}

// free returns the first address from port on that nobody listens at, in steps that keep away from where the hub itself looks for one.
func (p *ports) free(what, host string, port int) string {
	for n := port; ; n += 10 {
		address := net.JoinHostPort(host, strconv.Itoa(n))
		l, err := net.Listen("tcp", address)
		if err == nil {
			l.Close()
		}
		if err != nil && n < port+1000 {
			continue
		}
		if n != port {
			p.moved = append(p.moved, fmt.Sprintf("port %d is taken: %s is at %s", port, what, address))
		}
		return address
	}
}

// open is what to open in a browser: it signs in if a person reads it now. A log is no place for a token.
func (c *commands) open(e hub.Endpoints) string {
	if f, ok := c.Err.(*os.File); ok && isTerminal(f) {
		return e.SignIn()
	}
	return e.URL + "  (sign in with what the file " + filepath.Join(c.DataDir(), "token") + " says)"
}

// welcome says what runs and what one can do with it.
func (c *commands) welcome(cmd *cobra.Command, e hub.Endpoints, m cli.Machine, at ports, f *hubFlags) {
	w := c.Err
	fmt.Fprintf(w, "\ncreel is up.\n\n  Open      %s\n", c.open(e))
	if f.file == "" {
		fmt.Fprintf(w, "  Collects  metrics of this machine every 5 s, creel's own metrics and log\n")
		if m.Journal {
			fmt.Fprintf(w, "            systemd's journal: the last 1 000 entries, and what comes\n")
		}
		if n := len(m.Logs); n > 0 {
			fmt.Fprintf(w, "            %d log files under /var/log: the last 1 MiB of each, and what comes\n", n)
		}
		if f.secure() {
			fmt.Fprintf(w, "  Send OTLP to it, over TLS: gRPC at %s, HTTP at https://%s\n", at.grpc, at.http)
			fmt.Fprintf(w, "            applications on other machines need a token: %s token create --role ingest --name YOUR-PROGRAM\n", c.Name)
		} else {
			fmt.Fprintf(w, "  Send OTLP to it: gRPC at %s, HTTP at http://%s\n", at.grpc, at.http)
			fmt.Fprintf(w, "            OTEL_EXPORTER_OTLP_ENDPOINT=http://%s OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf YOUR-PROGRAM\n", at.http)
		}
		for _, line := range at.moved {
			fmt.Fprintf(w, "            (%s)\n", line)
		}
	}
	if f.secure() {
		fmt.Fprintf(w, "  An agent on another machine:\n            %s\n", c.invitation(cmd))
	} else {
		fmt.Fprintf(w, "  A second agent here:\n            %s agent -c examples/edge.yaml --data run/second --hub %s\n", os.Args[0], e.URL)
	}
	if e.CAFile != "" && !f.secure() {
		name := ""
		if e.ServerName != "" {
			name = ", server_name: " + e.ServerName
		}
		fmt.Fprintf(w, "            (its configuration must say: agent: {hub: {tls: {ca_file: %s%s}}})\n", e.CAFile, name)
	}
	data := ""
	if cmd.Flags().Changed("data") {
		data = " --data " + quoted(c.DataDir())
	}
	fmt.Fprintf(w, "  Ask it    %s get agents%s\n            and in the same way: top, logs, query metrics system_cpu_load_average_1m, doctor\n\n", os.Args[0], data)
}

var errStopped = errors.New("stopped")

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return errStopped
	case <-time.After(d):
		return nil
	}
}
