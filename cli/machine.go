package cli

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Machine is what was found on this machine that can be collected without being told more.
type Machine struct {
	Journal bool     // systemd's
	Logs    []string // log files under /var/log that can be read
}

// Look looks at this machine.
func Look() Machine {
	var m Machine
	if _, err := exec.LookPath("journalctl"); err == nil {
		for _, dir := range []string{"/var/log/journal", "/run/log/journal"} {
			if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
				m.Journal = true
			}
		}
	}
	_ = filepath.WalkDir("/var/log", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, ".log") {
			return nil // what cannot be read is not there
		}
		if f, err := os.Open(path); err == nil {
			f.Close()
			m.Logs = append(m.Logs, path)
		}
		return nil
	})
	return m
}

// Sends is where the configuration that is made up for a machine sends to. What it says is YAML in one line.
type Sends struct {
	Agent    string // the section agent
	OTLP     string // options of a collector of OTLP; empty: there is none
	Exporter string // its id
	Options  string // of the exporter
}

// Config returns the configuration that collects what was found.
func (m Machine) Config(s Sends) string {
	var b strings.Builder
	var logs []string
	fmt.Fprintf(&b, "# What creel has made up for this machine.\nagent: %s\ncollectors:\n  host: {every: 5s}\n  self: {every: 10s}\n", s.Agent)
	if s.OTLP != "" {
		logs = append(logs, "otlp")
		fmt.Fprintf(&b, "  otlp: %s\n", s.OTLP)
	}
	if m.Journal {
		logs = append(logs, "journald")
		b.WriteString("  journald: {last: 1000}\n")
	}
	if len(m.Logs) > 0 {
		logs = append(logs, "file/var-log")
		b.WriteString("  file/var-log: {include: [\"/var/log/**/*.log\"], last: 1MiB}\n")
	}
	fmt.Fprintf(&b, "exporters:\n  %s: %s\npipelines:\n  machine: {from: [host], to: [%[1]s]}\n  own: {from: [self], to: [%[1]s]}\n", s.Exporter, s.Options)
	if len(logs) > 0 {
		fmt.Fprintf(&b, "  received: {from: [%s], to: [%s]}\n", strings.Join(logs, ", "), s.Exporter)
	}
	return b.String()
}
