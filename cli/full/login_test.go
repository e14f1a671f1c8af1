package full

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/control"
)

// doorman is a hub that people sign in at.
type doorman struct {
	*httptest.Server
	token string

	mu     sync.Mutex
	life   time.Duration // of JWTs
	logins int
	worth  string // the JWT that is worth something
}

func newDoorman(t *testing.T) *doorman {
	d := &doorman{life: 10 * time.Minute}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+api.Prefix+"/login", func(w http.ResponseWriter, r *http.Request) {
		var q api.LoginRequest
		d.mu.Lock()
		defer d.mu.Unlock()
		if r.Header.Get("Authorization") != "" {
			t.Error("a token goes with the login")
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Token != d.token {
			deny(w, "the token is worth nothing")
			return
		}
		d.logins++
		d.worth = fmt.Sprintf("jwt-%d", d.logins)
		_ = json.NewEncoder(w).Encode(api.LoginResponse{Token: d.worth, Seconds: d.life.Seconds()}) // the client has gone
	})
	answer := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if got := r.Header.Get("Authorization"); got != "Bearer "+d.worth && got != "Bearer explicit" {
				deny(w, "not "+got)
				return
			}
			var body api.Because
			if err := json.NewDecoder(r.Body).Decode(&body); r.Method == http.MethodPost && (err != nil || body.Cause != "ticket 17") {
				t.Errorf("asked %+v, %v", body, err)
			}
			_ = json.NewEncoder(w).Encode(v) // likewise
		}
	}
	mux.HandleFunc("GET "+api.Prefix+"/me", answer(api.Me{Name: "ann", Role: api.Operator, Within: `site == "north"`, Ends: noon}))
	mux.HandleFunc("GET "+api.Prefix+"/agents/{id}", answer(api.AgentDetail{Agent: api.Agent{ID: "0193b7c5-6b1e-7d0e-8000-00000000000a", Name: "edge-1"}}))
	mux.HandleFunc("POST "+api.Prefix+"/agents/{id}/revoke", answer(struct{}{}))
	d.Server = httptest.NewUnstartedServer(mux)
	d.Config.ErrorLog = log.New(io.Discard, "", 0)
	d.StartTLS() // with a certificate for 127.0.0.1 and example.com, which it has signed itself
	t.Cleanup(d.Close)
	d.token = theToken + "_" + control.FingerprintOf(d.Certificate().Raw)
	return d
}

const theToken = "creel_aaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbb"

func deny(w http.ResponseWriter, why string) {
	w.WriteHeader(http.StatusUnauthorized)
	_ = json.NewEncoder(w).Encode(api.Error{Code: "unauthorized", Message: why}) // the client has gone
}

// forget makes what the hub has handed out worth nothing, as new keys do.
func (d *doorman) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.worth = "nothing"
}

func (d *doorman) asked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer func() { d.logins = 0 }()
	return d.logins
}

// person is somebody with a configuration directory of their own.
type person struct {
	t    *testing.T
	file string // login.json
}

func newPerson(t *testing.T) person {
	for _, name := range []string{"CREEL_HUB", "CREEL_TOKEN", "CREEL_HUB_CA", "CREEL_HUB_CERT", "CREEL_HUB_KEY"} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	t.Setenv("HOME", dir)
	file, err := loginFile()
	if err != nil {
		t.Fatal(err)
	}
	return person{t, file}
}

// run compares the exit code and what is printed, in which no token may be.
func (p person) run(code int, want string, args ...string) {
	p.t.Helper()
	var out bytes.Buffer
	got := cli.Main(cli.Program{Name: "creel", More: Commands}, args, &out, &out)
	if got != code || !strings.Contains(out.String(), want) {
		p.t.Errorf("%q: exit code %d, not %d with %q\n%s", args, got, code, want, &out)
	}
	if strings.Contains(out.String(), "bbbbbbbb") || strings.Contains(out.String(), "jwt-") {
		p.t.Errorf("%q prints a secret:\n%s", args, &out)
	}
}

func (p person) kept() login {
	p.t.Helper()
	l, err := readLogin()
	if err != nil {
		p.t.Error(err)
	}
	return l
}

func TestLogin(t *testing.T) {
	d, p := newDoorman(t), newPerson(t)
	p.run(0, "nobody was signed in", "logout")
	p.run(cli.ExitUsage, "which token?", "login", d.URL)
	p.run(cli.ExitUsage, "without TLS; write https://", "login", "http://192.0.2.1:4380", "--token", d.token)
	p.run(cli.ExitUsage, "it is no token of creel's", "login", d.URL, "--token", "creel_x")
	p.run(cli.ExitUnreachable, "creel: hub not reached at "+d.URL+": it is not the hub that the token is for", "login", d.URL, "--token", theToken+"_cccccccccccccccccccccccccc")
	p.run(cli.ExitUnreachable, "a name that is in its certificate", "login", strings.Replace(d.URL, "127.0.0.1", "localhost", 1), "--token", d.token)
	p.run(cli.ExitUnreachable, "--hub-ca", "login", d.URL, "--token", "root-token-of-the-hub")
	if d.asked() != 0 || p.kept() != (login{}) {
		t.Error("the token was shown to somebody, or kept")
	}
	p.run(0, `signed in at `+d.URL+` as ann, operator within site == "north"`+"\n", "login", strings.TrimPrefix(d.URL, "https://")+"/", "--token", d.token)
	if info, err := os.Stat(p.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Dir(p.file)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	p.run(0, `ann at `+d.URL+`: operator within site == "north"`+"\n", "whoami")
	p.run(0, "edge-1 is let in no more", "revoke", "edge-1", "--cause", "ticket 17")
	if n := d.asked(); n != 1 {
		t.Errorf("asked for %d JWTs, not 1 for three commands", n)
	}
	d.forget()
	p.run(0, "edge-1 is let in no more", "revoke", "edge-1", "--cause", "ticket 17") // with a body that is sent again
	if n := d.asked(); n != 1 {
		t.Errorf("asked for %d JWTs after the hub has forgotten the first", n)
	}
	p.run(0, "ann", "whoami")
	p.run(0, "until 2026-11-26 12:00:00", "whoami", "--token", "explicit")
	p.run(0, "ann", "whoami", "--hub", d.URL)
	if n := d.asked(); n != 0 {
		t.Errorf("asked for %d JWTs though there was one", n)
	}
	p.run(cli.ExitUnreachable, "", "whoami", "--hub", strings.Replace(d.URL, "127.0.0.1", "localhost", 1)) // who is not known
	d.mu.Lock()
	d.token = "another"
	d.mu.Unlock()
	p.run(0, "ann", "whoami")
	d.forget()
	p.run(cli.ExitForbidden, "creel: sign in at "+d.URL+": the token is worth nothing; creel login signs in with another token", "whoami")
	l := p.kept()
	l.JWT = ""
	if err := l.write(); err != nil {
		t.Fatal(err)
	}
	p.run(cli.ExitForbidden, "creel: sign in at "+d.URL+": the token is worth nothing; creel login signs in with another token", "whoami")
	p.run(0, "signed out", "logout")
	p.run(cli.ExitUnreachable, "--hub-ca", "whoami", "--hub", d.URL)
	if err := os.WriteFile(p.file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.run(cli.ExitNo, "creel logout removes it", "whoami")
	p.run(0, "signed out", "logout")
}

// TestLoginByFile: a hub whose certificates are brought has no fingerprint in its tokens.
func TestLoginByFile(t *testing.T) {
	d, p := newDoorman(t), newPerson(t)
	d.token = "root-token-of-the-hub"
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.Certificate().Raw})))
	t.Setenv("CREEL_TOKEN", d.token)
	p.run(0, "by the authorities in "+ca, "login", d.URL, "--hub-ca", ca)
	t.Setenv("CREEL_TOKEN", "")
	p.run(0, "ann", "whoami")
	p.run(cli.ExitUsage, "there is no certificate", "login", d.URL, "--token", "x", "--hub-ca", p.file)
}

// TestLife: a JWT is shown until two thirds of its life, and never when the clock was set back.
func TestLife(t *testing.T) {
	var l login
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	l.took(api.LoginResponse{Token: "x", Seconds: 600}, now)
	for after, want := range map[time.Duration]bool{0: true, 399 * time.Second: true, 400 * time.Second: false, -time.Second: false} {
		if l.good(now.Add(after)) != want {
			t.Errorf("after %v: %v", after, !want)
		}
	}
}
