package full

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/all"
)

// TestPortsThatAreTaken: both ports of OTLP may be taken, and then they do not get the same one, nor one that the hub takes for OpAMP.
func TestPortsThatAreTaken(t *testing.T) {
	first, err := net.Listen("tcp", "127.0.0.1:20000") // below the ports that systems give to whoever connects: those come and go
	for n := 20001; err != nil; n++ {
		first, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n)))
		if n == 30000 {
			t.Fatal(err)
		}
	}
	defer first.Close()
	port := first.Addr().(*net.TCPAddr).Port
	if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1))); err == nil {
		defer l.Close()
	} // else somebody else has it
	var m ports
	m.grpc = m.free("gRPC", "127.0.0.1", port)
	m.http = m.free("HTTP", "127.0.0.1", port+1)
	for _, address := range []string{m.grpc, m.http} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("%s is not free: %v", address, err)
			continue
		}
		l.Close()
	}
	step := func(address string, from int) int {
		at, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return (at.Port - from) % 10
	}
	if step(m.grpc, port) != 0 || step(m.http, port+1) != 0 || len(m.moved) != 2 || !strings.Contains(m.moved[0], strconv.Itoa(port)) {
		t.Errorf("got %s and %s, and told %q", m.grpc, m.http, m.moved)
	}
}

// TestConfigurations: what up and hub make up is right, whatever was found.
func TestConfigurations(t *testing.T) {
	full, bare := cli.Machine{Journal: true, Logs: []string{"/var/log/a.log"}}, cli.Machine{}
	for _, f := range []hubFlags{{}, {open: true, o: hub.Options{Address: "0.0.0.0:4380"}}} {
		otlp := f.otlp("127.0.0.1:1", "127.0.0.1:2")
		sends := cli.Sends{Agent: "{drain: 2s}", OTLP: otlp, Exporter: "quicklook", Options: quickLook}
		for name, text := range map[string]string{"full": full.Config(sends), "bare": bare.Config(sends), "hub": fmt.Sprintf(hubConfig, otlp)} {
			if _, err := (agent.Parts{Plugins: append(all.Plugins(), hub.QuickLook())}).Parse(name, []byte(text), config.Env{}); err != nil {
				t.Errorf("%s: %v\n%s", name, err, text)
			}
			if strings.Count(text, "identity: true") != 2*strings.Count(f.host(), "0.0.0.0") {
				t.Errorf("%s on %s:\n%s", name, f.host(), text)
			}
		}
	}
}

// TestAddresses: what is left out of --listen and --opamp.
func TestAddresses(t *testing.T) {
	f := func(listen, opamp, wantListen, wantOpAMP, wantOTLP string) {
		t.Helper()
		var flags hubFlags
		cmd := &cobra.Command{}
		flags.add(cmd)
		args := []string{}
		if listen != "" {
			args = append(args, "--listen", listen)
		}
		if opamp != "" {
			args = append(args, "--opamp", opamp)
		}
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		err := flags.addresses(cmd)
		if wantListen == "" {
			if err == nil || !strings.Contains(err.Error(), "read --listen") {
				t.Errorf("%q: %v", listen, err)
			}
			return
		}
		if err != nil || flags.o.Address != wantListen || flags.o.OpAMP != wantOpAMP || flags.host() != wantOTLP {
			t.Errorf("%q, %q: %s, %s, %s, %v", listen, opamp, flags.o.Address, flags.o.OpAMP, flags.host(), err)
		}
	}
	f("", "", "127.0.0.1:4380", "127.0.0.1:4320", "127.0.0.1")
	f("127.0.0.2", "", "127.0.0.2:4380", "127.0.0.1:4320", "127.0.0.1")
	f("localhost:1", "", "localhost:1", "127.0.0.1:4320", "127.0.0.1")
	f("0.0.0.0", "", "0.0.0.0:4380", "0.0.0.0:4320", "0.0.0.0")
	f("0.0.0.0:80", "none", "0.0.0.0:80", "none", "0.0.0.0")
	f("hub.example", "127.0.0.1:4320", "hub.example:4380", "127.0.0.1:4320", "hub.example")
	f("::", "", "[::]:4380", "[::]:4320", "::")
	f("[::1]", "", "[::1]:4380", "127.0.0.1:4320", "127.0.0.1")
	f(":4380", "", ":4380", ":4320", "")
	f("a:b:c", "", "", "", "")
}

func TestQuoted(t *testing.T) {
	for s, want := range map[string]string{"/var/lib/creel": "/var/lib/creel", "a b": "'a b'", "": "''", "it's": `'it'\''s'`, "$x": "'$x'"} {
		if got := quoted(s); got != want {
			t.Errorf("%q: %s", s, got)
		}
	}
}
