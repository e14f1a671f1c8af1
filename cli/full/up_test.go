package full

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/all"
)

// TestPortsThatAreTaken: both ports of OTLP may be taken, and then they do not get the same one.
func TestPortsThatAreTaken(t *testing.T) {
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	port := first.Addr().(*net.TCPAddr).Port
	if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1))); err == nil {
		defer l.Close()
	} // else somebody else has it
	var m machine
	m.grpc = m.free("gRPC", port)
	m.http = m.free("HTTP", port+1)
	for _, address := range []string{m.grpc, m.http} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("%s is not free: %v", address, err)
			continue
		}
		l.Close()
	}
	if m.grpc == m.http || len(m.moved) != 2 || !strings.Contains(m.moved[0], strconv.Itoa(port)) {
		t.Errorf("got %s and %s, and told %q", m.grpc, m.http, m.moved)
	}
}

// TestConfigurations: what up and hub make up is right, whatever was found.
func TestConfigurations(t *testing.T) {
	full := machine{journal: true, logs: []string{"/var/log/a.log"}, grpc: "127.0.0.1:1", http: "127.0.0.1:2"}
	bare := machine{grpc: "127.0.0.1:1", http: "127.0.0.1:2"}
	for name, text := range map[string]string{"full": full.config(), "bare": bare.config(), "hub": hubConfig} {
		text = strings.NewReplacer("%q", `"127.0.0.1:1"`).Replace(text)
		if _, err := (agent.Parts{Plugins: append(all.Plugins(), hub.QuickLook())}).Parse(name, []byte(text), config.Env{}); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}
