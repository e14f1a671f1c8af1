package full

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/hub"
)

// TestHubTLS: commands find out from hub.json what to trust, or are told; what else goes wrong says what to do.
func TestHubTLS(t *testing.T) {
	for _, name := range []string{"CREEL_HUB", "CREEL_TOKEN", "CREEL_HUB_CA", "CREEL_HUB_CERT", "CREEL_HUB_KEY"} {
		t.Setenv(name, "")
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_ = json.NewEncoder(w).Encode(api.AgentList{}) // the client has gone
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS() // with a certificate for 127.0.0.1 and example.com
	defer s.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	here, err := json.Marshal(hub.Endpoints{Version: 1, URL: s.URL, CAFile: ca, ServerName: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), filepath.Join(dir, "hub.json"): here, filepath.Join(dir, "token"): []byte("secret\n")} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(code int, want string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		p := cli.Program{Name: "creel", More: Commands}
		if got := cli.Main(p, append([]string{"get", "agents"}, args...), &out, &out); got != code || !strings.Contains(out.String(), want) {
			t.Errorf("%q: %d, want %d with %q\n%s", args, got, code, want, &out)
		}
	}
	elsewhere := t.TempDir()
	run(0, "", "--data", dir)
	run(0, "", "--hub", s.URL, "--hub-ca", ca, "--token", "secret", "--data", elsewhere)
	run(cli.ExitUnreachable, "--hub-ca or CREEL_HUB_CA names authorities", "--hub", s.URL, "--token", "secret", "--data", elsewhere)
	run(cli.ExitUnreachable, "a name that is in its certificate", "--hub", strings.Replace(s.URL, "127.0.0.1", "localhost", 1), "--hub-ca", ca, "--data", elsewhere)
	run(cli.ExitUnreachable, "write https://", "--hub", strings.Replace(s.URL, "https", "http", 1), "--data", elsewhere)
	run(cli.ExitUsage, "no such file", "--hub", s.URL, "--hub-ca", filepath.Join(elsewhere, "none"), "--data", elsewhere)
	run(cli.ExitUsage, "set key_file", "--hub", s.URL, "--hub-ca", ca, "--hub-cert", ca, "--data", elsewhere)
	t.Setenv("CREEL_HUB", s.URL)
	t.Setenv("CREEL_HUB_CA", ca)
	t.Setenv("CREEL_TOKEN", "secret")
	run(0, "", "--data", elsewhere)
}
