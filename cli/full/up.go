package full

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
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
)

// hubFlags are the flags of what runs a hub.
type hubFlags struct {
	file  string
	o     hub.Options
	size  string
	bytes string // a second, of one agent
	fleet int
}

func (f *hubFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "config", "c", "", "configuration `FILE` of the hub's own agent, which may name the exporter quicklook")
	flags.StringVar(&f.o.Address, "listen", hub.DefaultAddress, "`ADDRESS` of UI, API and OpAMP")
	flags.StringVar(&f.o.OpAMP, "opamp", hub.DefaultOpAMP, "second `ADDRESS` for OpAMP agents, or none")
	flags.StringSliceVar(&f.o.Etcd, "etcd", nil, "endpoint `URL`s of an etcd cluster, instead of an etcd within")
	flags.DurationVar(&f.o.Heartbeat, "heartbeat", 0, "least `TIME` between an agent's heartbeats (default 5s; it grows beyond 10 000 agents)")
	flags.StringVar(&f.size, "max-size", "4GiB", "`SIZE` of the quick look on disk")
	flags.DurationVar(&f.o.MaxAge, "max-age", 7*24*time.Hour, "for how much `TIME` the quick look keeps records")
	flags.Int64Var(&f.o.AgentRecords, "agent-records", 0, "how many records a second one agent may send: `N`; 0 is no limit")
	flags.StringVar(&f.bytes, "agent-bytes", "0", "how much one agent may send a second, uncompressed: `SIZE` such as 8MiB; 0 is no limit")
	flags.StringSliceVar(&f.o.Hosts, "host", nil, "host `NAME`s under which the hub may be asked for, beside its addresses")
	flags.BoolVar(&f.o.Insecure, "insecure", false, "allow addresses that are not loopback without TLS")
	flags.StringVar(&f.o.TLS.CertFile, "tls-cert", "", "`FILE` with the hub's certificate, PEM: its addresses then speak TLS; a file that changes is read again")
	flags.StringVar(&f.o.TLS.KeyFile, "tls-key", "", "`FILE` with the certificate's key, PEM")
	flags.StringVar(&f.o.TLS.ClientCAFile, "tls-client-ca", "", "`FILE` with authorities, PEM: whoever has no certificate of theirs is refused, browsers too")
	cmd.MarkFlagFilename("config", "yaml", "yml", "json")
}

func (c *commands) hubCommand() *cobra.Command {
	var f hubFlags
	cmd := &cobra.Command{
		Use: "hub", Short: "Run a hub until it is told to stop.", Args: cobra.NoArgs,
		Long: "Run a hub: agents report to it, it stores what they send for a first look, and shows it in a browser.\n" +
			"Without a configuration it takes OTLP in on 127.0.0.1:4317 and 4318.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.o.Text = []byte(fmt.Sprintf(hubConfig, "127.0.0.1:4317", "127.0.0.1:4318"))
			return c.runHub(cmd, &f, func(e hub.Endpoints) {
				fmt.Fprintf(c.Err, "Web UI: %s\n", e.SignIn())
			})
		},
	}
	f.add(cmd)
	return c.WithData(cmd)
}

const hubConfig = `# What a hub runs when it is given no configuration.
collectors:
  self: {every: 10s}
  otlp: {grpc: {endpoint: %q}, http: {endpoint: %q}}
exporters:
  quicklook: {delivery: {concurrency: 1, spool: {max_size: 1GiB, min_free: 64MiB, when_full: drop_oldest}}}
pipelines:
  received: {from: [otlp], to: [quicklook]}
  own: {from: [self], to: [quicklook]}
`

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
	if t := f.o.TLS; (t.CertFile == "") != (t.KeyFile == "") || t.ClientCAFile != "" && t.CertFile == "" {
		return errors.New("read --tls-cert, --tls-key and --tls-client-ca: a certificate needs its key, and only with a certificate can one be asked of clients")
	}
	ctx, reload, stop := cli.Signals(cmd.Context())
	defer stop()
	o := f.o
	o.MaxBytes, o.AgentBytes, o.Data, o.Plugins, o.Version, o.Log, o.Reload = int64(size), int64(bytes), c.DataDir(), c.Plugins, cli.Version(), c.Err, reload
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
			f.o.NextPort = true
			if f.o.Heartbeat == 0 {
				f.o.Heartbeat = time.Second // it is for looking
			}
			found := look()
			f.o.Text = []byte(found.config())
			return c.runHub(cmd, &f, func(e hub.Endpoints) { c.welcome(e, found, f.file) })
		},
	}
	f.add(cmd)
	cmd.Flags().IntVar(&f.fleet, "demo-fleet", 0, "add `N` simulated agents")
	return c.WithData(cmd)
}

// machine is what up has found to collect from here.
type machine struct {
	journal    bool
	logs       []string // readable log files
	grpc, http string   // where OTLP can be taken in
	moved      []string // what is not where one expects it
}

// look looks at this machine.
func look() machine {
	var m machine
	if _, err := exec.LookPath("journalctl"); err == nil {
		for _, dir := range []string{"/var/log/journal", "/run/log/journal"} {
			if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
				m.journal = true
			}
		}
	}
	_ = filepath.WalkDir("/var/log", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, ".log") {
			return nil // what cannot be read is not there
		}
		if f, err := os.Open(path); err == nil {
			f.Close()
			m.logs = append(m.logs, path)
		}
		return nil
	})
	m.grpc = m.free("OTLP/gRPC", 4317)
	m.http = m.free("OTLP/HTTP", 4318) // looks at m.grpc
	return m
}

// free returns the first address from port on that nobody listens at.
func (m *machine) free(what string, port int) string {
	for p := port; ; p++ {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(p))
		l, err := net.Listen("tcp", address)
		if err == nil {
			l.Close()
		}
		if err != nil && p < port+100 || address == m.grpc {
			continue
		}
		if p != port {
			m.moved = append(m.moved, fmt.Sprintf("port %d is taken: %s is at %s", port, what, address))
		}
		return address
	}
}

// config returns the configuration for what was found.
func (m *machine) config() string {
	var b strings.Builder
	logs := []string{"otlp"}
	b.WriteString("# What creel up has made up for this machine.\nagent: {drain: 2s}\ncollectors:\n  host: {every: 5s}\n  self: {every: 10s}\n")
	fmt.Fprintf(&b, "  otlp: {grpc: {endpoint: %q}, http: {endpoint: %q}}\n", m.grpc, m.http)
	if m.journal {
		logs = append(logs, "journald")
		b.WriteString("  journald: {last: 1000}\n")
	}
	if len(m.logs) > 0 {
		logs = append(logs, "file/var-log")
		b.WriteString("  file/var-log: {include: [\"/var/log/**/*.log\"], last: 1MiB}\n")
	}
	fmt.Fprintf(&b, `exporters:
  quicklook: {delivery: {concurrency: 1, spool: {max_size: 1GiB, min_free: 64MiB, when_full: drop_oldest}}}
pipelines:
  machine: {from: [host], to: [quicklook]}
  own: {from: [self], to: [quicklook]}
  received: {from: [%s], to: [quicklook]}
`, strings.Join(logs, ", "))
	return b.String()
}

// welcome says what runs and what one can do with it.
func (c *commands) welcome(e hub.Endpoints, m machine, file string) {
	w := c.Err
	fmt.Fprintf(w, "\ncreel is up.\n\n  Open      %s\n", e.SignIn())
	if file == "" {
		fmt.Fprintf(w, "  Collects  metrics of this machine every 5 s, creel's own metrics and log\n")
		if m.journal {
			fmt.Fprintf(w, "            systemd's journal: the last 1 000 entries, and what comes\n")
		}
		if n := len(m.logs); n > 0 {
			fmt.Fprintf(w, "            %d log files under /var/log: the last 1 MiB of each, and what comes\n", n)
		}
		fmt.Fprintf(w, "  Send OTLP to it: gRPC at %s, HTTP at http://%s\n", m.grpc, m.http)
		fmt.Fprintf(w, "            OTEL_EXPORTER_OTLP_ENDPOINT=http://%s OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf YOUR-PROGRAM\n", m.http)
		for _, line := range m.moved {
			fmt.Fprintf(w, "            (%s)\n", line)
		}
	}
	fmt.Fprintf(w, "  A second agent here:\n            %s agent -c examples/edge.yaml --data run/second --hub %s\n", os.Args[0], e.URL)
	if e.CAFile != "" {
		name := ""
		if e.ServerName != "" {
			name = ", server_name: " + e.ServerName
		}
		fmt.Fprintf(w, "            (its configuration must say: agent: {hub: {tls: {ca_file: %s%s}}})\n", e.CAFile, name)
	}
	fmt.Fprintf(w, "  Ask it    %s get agents, %s top, %s logs, %s query metrics system_cpu_load_average_1m, %s doctor\n\n", c.Name, c.Name, c.Name, c.Name, c.Name)
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
