package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/agent/identity"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
)

// A planted secret is one that must be nowhere but where it belongs.
type planted struct {
	name    string
	needles [][]byte // what it looks like
	may     []string // beginnings of the places where it may be
	shown   bool     // whoever it is for has seen it
}

// A planting is a hub and an agent with secrets in all places that have room for them.
type planting struct {
	*world
	base    string            // of the hub
	plain   string            // a far side's URL
	secrets []*planted        // in the order of planting
	places  map[string][]byte // what has come out, by where

	mu   sync.Mutex
	seen bytes.Buffer // what far sides were shown
}

// plant makes a secret.
func (p *planting) plant(name string, may ...string) string {
	text := "Pl4nt" + rand.Text()
	p.known(name, text, may...)
	return text
}

// known takes in a secret that somebody else has made.
func (p *planting) known(name, text string, may ...string) *planted {
	s := &planted{name: name, may: may, needles: [][]byte{[]byte(text)}}
	for i := range 3 { // wherever in a base64 it begins
		middle := base64.StdEncoding.EncodeToString(append(make([]byte, i), text...))
		s.needles = append(s.needles, []byte(middle[4:len(middle)-4]))
	}
	p.secrets = append(p.secrets, s)
	return s
}

// key takes in a private key: the number itself, and as PEM has it.
func (p *planting) key(name string, text []byte, may ...string) {
	p.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		p.Fatalf("%s is no PEM", name)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		p.Fatal(err)
	}
	d, err := k.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		p.Fatal(err)
	}
	const line = 48 // bytes of one of PEM
	at := bytes.Index(block.Bytes, d)
	from := max(line, at)
	s := &planted{name: name, may: may, shown: true, needles: [][]byte{d[:16], []byte(hex.EncodeToString(d[:16])), []byte(base64.StdEncoding.EncodeToString(block.Bytes[from : from+(at+len(d)-from)/3*3]))}}
	if !bytes.Contains(text, s.needles[2]) {
		p.Fatalf("%s does not look like %s", name, s.needles[2])
	}
	p.secrets = append(p.secrets, s)
}

// out takes in what has come out.
func (p *planting) out(place string, text []byte) { p.places[place] = append(p.places[place], text...) }

// says runs a command of creel and takes in what it says.
func (p *planting) says(want int, data string, args ...string) string {
	p.Helper()
	bin, err := creelBinary()
	if err != nil {
		p.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	home := "home"
	if data != "" {
		cmd.Args, home = append(cmd.Args, "--data", p.path(data)), "nobody" // who is at home counts more than what is in a directory
	}
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+p.path(home), "PLANTED="+p.text("environment"))
	text, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		p.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		p.Errorf("creel %v: exit code %d, not %d:\n%s", args, code, want, text)
	}
	place := "creel"
	for _, arg := range args { // without what is random in them
		place += " " + strings.ReplaceAll(arg, p.dir, "")
	}
	p.out(place, text)
	return string(text)
}

// secret returns the one of that name.
func (p *planting) secret(name string) *planted {
	p.Helper()
	i := slices.IndexFunc(p.secrets, func(s *planted) bool { return s.name == name })
	if i < 0 {
		p.Fatalf("no secret %s was planted", name)
	}
	return p.secrets[i]
}

func (p *planting) text(name string) string { return string(p.secret(name).needles[0]) }

// ask asks the hub, and takes in what it answers.
func (p *planting) ask(as, method, path, authorization, body string) (int, []byte) {
	p.Helper()
	req, err := http.NewRequest(method, p.base+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if cookie, ok := strings.CutPrefix(authorization, "Cookie "); ok {
		req.Header.Set("Cookie", cookie)
	} else if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := p.client.HTTP.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.Fatal(err)
	}
	p.out("api "+method+" "+path+" "+as, text)
	return resp.StatusCode, text
}

// far returns a far side of everything that speaks HTTP: it notes what it is shown.
func (p *planting) far() *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		_ = r.ParseForm() // what is none is none
		fmt.Fprintf(&p.seen, "%s %v %v %v\n", r.URL, r.Header, r.PostForm, r.TLS != nil && len(r.TLS.PeerCertificates) > 0)
		switch {
		case strings.HasPrefix(r.URL.Path, "/denied"):
			http.Error(w, "who are you?", http.StatusUnauthorized)
		case r.URL.Path == "/center.yaml":
			fmt.Fprintln(w, "{}")
		case !strings.HasPrefix(r.URL.Path, "/far"):
			http.Error(w, "not now", http.StatusForbidden)
		}
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	p.Cleanup(s.Close)
	return s
}

// raw hands bytes on as they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(any) (mem.BufferSlice, error) { return nil, errors.New("nothing is answered") }

func (raw) Unmarshal(data mem.BufferSlice, into any) error {
	*into.(*[]byte) = data.Materialize()
	return nil
}

// farGRPC is the same for what speaks gRPC.
func (p *planting) farGRPC() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var text []byte
		err := stream.RecvMsg(&text)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.seen.Write(text)
		return errors.Join(err, errors.New("not now"))
	}))
	go s.Serve(l)
	p.Cleanup(s.Stop)
	return l.Addr().String()
}

// deaf returns the address of somebody who listens and never answers.
func (p *planting) deaf() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			text := make([]byte, 4<<10)
			n, _ := conn.Read(text) // nothing is nothing
			conn.Close()
			p.mu.Lock()
			p.seen.Write(text[:n])
			p.mu.Unlock()
		}
	}()
	return l.Addr().String()
}

// certificate makes one that is its own authority, in files.
func (p *planting) certificate(name string) (cert, key string) {
	p.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		p.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		p.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	p.key("the key file of "+name, text, "file "+name+".key")
	return p.write(name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))), p.write(name+".key", string(text))
}

// read returns what a file in the world says.
func (p *planting) read(name string) []byte {
	p.Helper()
	text, err := os.ReadFile(p.path(name))
	if err != nil {
		p.Fatal(err)
	}
	return text
}

// TestSecrets: secrets are planted wherever there is room for them, a hub and an agent work with them and fail with them, people
// look at everything that there is to be looked at, and then all that has come out, all logs and all state is searched.
func TestSecrets(t *testing.T) {
	p := &planting{world: newWorld(t), places: make(map[string][]byte)}
	p.plant("environment")
	p.startHub()
	a := p.startAgent()
	p.people()
	p.documents()
	p.look()
	p.fail()
	for _, s := range []*process{a, p.hub} {
		s.stop()
	}
	p.files()
	p.judge()
}

func (p *planting) startHub() {
	p.Helper()
	cert, key := p.certificate("hub")
	config := p.write("hub.yaml", fmt.Sprintf(`
agent: {drain: 1s, log: {level: debug}}
collectors:
  self: {every: 200ms}
  otlp: {grpc: {endpoint: %q, tls: {identity: true}}, http: {endpoint: "127.0.0.1:0", tls: {identity: true}}}
exporters: {quicklook: {}}
pipelines: {received: {from: [otlp, self], to: [quicklook]}}
`, p.otlp))
	p.hub = startCreel(p.T, p.path("hub.log"), "hub", "-c", config, "--data", p.path("hub"), "--listen", p.listen, "--opamp", "none", "--heartbeat", "100ms", "--tls-cert", cert, "--tls-key", key)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.read("hub.pem"))
	p.base = "https://" + p.listen
	p.client = &api.Client{URL: p.base, HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}}
	eventually(p.T, "the hub answers", func() bool {
		token, err := os.ReadFile(p.path("hub/token"))
		p.client.Token = strings.TrimSpace(string(token))
		if err == nil {
			_, err = p.client.Hub(context.Background())
		}
		return err == nil
	})
	p.known("the root token", p.client.Token, "file hub/token").shown = true
	p.known("the file secret", strings.TrimSpace(string(p.read("hub/secret"))), "file hub/secret").shown = true
	raw, err := hex.DecodeString(p.text("the file secret"))
	if err != nil {
		p.Fatal(err)
	}
	p.known("what is in the file secret", string(raw)).shown = true
	p.key("the authority's root", p.read("hub/ca/root.key"), "file hub/ca/root.key")
}

// startAgent starts an agent with secrets in all its options.
func (p *planting) startAgent() *process {
	p.Helper()
	far, secure := p.far(), p.far()
	far.Start()
	secure.StartTLS()
	p.plain = far.URL
	p.write("far.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	cert, key := p.certificate("client")
	p.write("header.txt", p.plant("header from a file", "file header.txt"))
	inConfig := func(name string) string {
		return p.plant(name, "file agent.yaml", "file wrong", "file agent/configuration.json")
	}
	config := p.write("agent.yaml", fmt.Sprintf(`
agent:
  labels: {site: north}
  log: {level: debug}
  drain: 0s
  admin: {address: %[1]q}
  hub: {url: %[2]q}
  centers:
    http: {url: "%[3]s/center.yaml", headers: {authorization: "Bearer %[4]s"}, every: 1s}
    consul: {address: %[3]q, key: creel, token: %[5]s}
    nacos: {address: %[3]q, data_ids: [creel], username: reader, password: %[6]s}
    etcd: {endpoints: ["http://%[7]s"], key: creel, username: reader, password: %[8]s}
collectors:
  self: {every: 200ms}
  file: {include: [%[9]s], start_at: beginning, poll_interval: 20ms}
processors:
  redact: {salt: %[10]s}
exporters:
  otlp/hub: {endpoint: %[11]q, tls: {identity: true}}
  otlp/far: {endpoint: "%[3]s/far", protocol: http, headers: {x-literal: %[12]s, x-environment: "${env:PLANTED}", x-file: "a ${file:%[13]s} b"}}
  otlp/denied: {endpoint: "%[3]s/denied", protocol: http, headers: {authorization: "Basic %[14]s"}, delivery: {retry: {initial: 50ms, max: 50ms}}}
  otlp/nowhere: {endpoint: "http://%[15]s", protocol: http, headers: {authorization: "Bearer %[16]s"}, delivery: {retry: {initial: 50ms, max: 50ms}}}
  otlp/secure: {endpoint: "%[17]s/far", protocol: http, headers: {x-secure: %[18]s}, tls: {ca_file: %[19]s, cert_file: %[20]s, key_file: %[21]s}}
pipelines:
  lines: {from: [file], through: [redact], to: [otlp/far, otlp/denied, otlp/nowhere, otlp/secure]}
  own: {from: [self, file], to: [otlp/hub]}
`, freeAddress(p.T), p.base, far.URL, inConfig("http center"), inConfig("consul's token"), inConfig("nacos' password"), p.farGRPC(), inConfig("etcd's password"),
		p.path("app.log"), inConfig("salt"), p.otlp, inConfig("literal header"), p.path("header.txt"), inConfig("header of who is denied"), p.deaf(),
		inConfig("header to nowhere"), secure.URL, inConfig("header over TLS"), p.path("far.pem"), cert, key))
	stop := p.linesOf(1)
	p.Cleanup(func() { stop() })
	token := strings.Fields(p.says(0, "hub", "token", "create", "--role", "agent", "-o", "name"))[0]
	p.known("enrolment token", token, "creel token create").shown = true
	p.says(0, "agent", "join", p.base, "--no-run", "--token", token)

	bin, err := creelBinary()
	if err != nil {
		p.Fatal(err)
	}
	log, err := os.Create(p.path("agent.log"))
	if err != nil {
		p.Fatal(err)
	}
	defer log.Close()
	a := &process{exec.Command(bin, "agent", "-c", config, "--data", p.path("agent")), p.T, log.Name()}
	a.Stderr = log
	a.Env = append(os.Environ(), "PLANTED="+p.text("environment"))
	if err := a.Start(); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		a.kill()
		if p.Failed() {
			p.Logf("the agent's log ends so:\n%s", a.tail())
		}
	})
	p.arrives("environment", "header from a file", "http center", "consul's token", "nacos' password", "etcd's password", "literal header", "header of who is denied", "header to nowhere", "header over TLS")
	eventually(p.T, "the agent has shown its certificate", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return bytes.Contains(p.seen.Bytes(), []byte(" true\n"))
	})
	p.waitFor("degraded")
	p.secret("salt").shown = strings.Contains(p.says(0, "agent", "config"), "salt: ")
	var kept struct{ Key string }
	if err := json.Unmarshal(p.read("agent/identity/identity.json"), &kept); err != nil {
		p.Fatal(err)
	}
	p.key("the agent's identity", []byte(kept.Key), "file agent/identity/identity.json")
	return a
}

// people come and go.
func (p *planting) people() {
	p.Helper()
	for _, role := range []string{"viewer", "operator", "admin", "ingest"} {
		token := strings.TrimSpace(p.says(0, "hub", "token", "create", "--role", role, "--name", role, "-o", "name"))
		p.known("token of "+role, strings.Fields(token)[0], "creel token create --role "+role).shown = true
	}
	p.secret("token of viewer").may = []string{"creel token create --role viewer", "file home/"} // where login keeps it
	p.says(0, "", "login", p.base, "--hub-ca", p.path("hub.pem"), "--token", p.text("token of viewer"))
	resp, err := p.client.HTTP.Post(p.base+api.Prefix+"/login", "application/json", strings.NewReader(`{"token":"`+p.text("token of admin")+`"}`))
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	var in api.LoginResponse
	if err := json.NewDecoder(resp.Body).Decode(&in); err != nil || len(resp.Cookies()) == 0 {
		p.Fatalf("sign in: %s, %v", resp.Status, err)
	}
	cookie := resp.Cookies()[0]
	p.known("session cookie", cookie.Value)
	p.known("an admin's JWT", in.Token)
	id, err := identity.Open(agent.IdentityDir(p.path("agent")), identity.Options{})
	if err != nil {
		p.Fatal(err)
	}
	jwt, err := id.Token(context.Background())
	if err != nil {
		p.Fatal(err)
	}
	p.known("the agent's JWT", jwt)
	for name, shows := range map[string]string{
		"session cookie": "Cookie " + cookie.Name + "=" + cookie.Value, "an admin's JWT": "Bearer " + in.Token,
		"token of viewer": "Bearer " + p.text("token of viewer"), "token of operator": "Bearer " + p.text("token of operator"),
	} {
		code, _ := p.ask(name, "GET", api.Prefix+"/me", shows, "")
		p.secret(name).shown = code == http.StatusOK
		p.ask(name, "GET", api.Prefix+"/audit", shows, "")
	}
	code, _ := p.ask("token of ingest", "GET", api.Prefix+"/me", "Bearer "+p.text("token of ingest"), "")
	p.secret("token of ingest").shown = code == http.StatusForbidden // it is known, and for something else
	// The agent's is bound to its connections: here it is refused.
	code, _ = p.ask("the agent's JWT", "GET", api.Prefix+"/me", "Bearer "+jwt, "")
	p.secret("the agent's JWT").shown = code == http.StatusUnauthorized
}

// document is one with a secret in it.
func (p *planting) document(secret string) string {
	return p.write("web.yaml", fmt.Sprintf(`
document: web
selector: site == "north"
exporters: {otlp/web: {endpoint: "%s/far", protocol: http, headers: {x-document: %s}}}
pipelines: {web: {from: [file], to: [otlp/web]}}
`, p.plain, secret))
}

// documents are written, changed and rolled back. Who may read documents may read what is in them: so an environment's variable, or
// a file of the agent's host, is where secrets belong.
func (p *planting) documents() {
	p.Helper()
	readable := []string{"creel get document web", "creel describe document web", "creel apply -f /web.yaml --wait -v -o json", "api GET /api/creel/v1/documents/web", "file web.yaml", "file hub/etcd/", "file agent/configuration.json"}
	first, second := p.plant("in a document", readable...), p.plant("in its next version", readable...)
	p.says(0, "hub", "apply", "-f", p.document(first), "--wait", "-v")
	p.arrives("in a document")
	p.document(second)
	p.says(0, "hub", "apply", "-f", p.path("web.yaml"), "--dry-run", "-v")
	if out := p.says(1, "hub", "diff", "documents", "-f", p.path("web.yaml")); !strings.Contains(out, "x-document") {
		p.Errorf("the difference is not told:\n%s", out)
	}
	p.says(0, "hub", "apply", "-f", p.path("web.yaml"), "--wait", "-v", "-o", "json")
	p.arrives("in its next version")
	p.says(0, "hub", "rollback", "document", "web", "--to", "1")
}

// arrives waits until a far side was shown secrets.
func (p *planting) arrives(names ...string) {
	p.Helper()
	for _, name := range names {
		s := p.secret(name)
		eventually(p.T, "a far side is shown the secret "+name, func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			s.shown = bytes.Contains(p.seen.Bytes(), s.needles[0])
			return s.shown
		})
	}
}

// look looks at all that there is to be looked at, as everybody who may.
func (p *planting) look() {
	p.Helper()
	a, there := p.second()
	if !there {
		p.Fatal("the agent is not in the fleet")
	}
	for _, c := range []string{
		"get agents -o json", "describe agent " + a.ID + " -o json", "describe agent " + a.ID, "get documents -o json", "get document web", "describe document web",
		"get knocks -o json", "token list -o json", "audit -o json", "authority -o json", "whoami", "logs --follow=false", "query logs -o json", "query traces -o json", "ledger -o json",
	} {
		p.says(0, "hub", strings.Fields(c)...)
	}
	p.says(1, "hub", "doctor") // much is wrong with the agent
	p.says(1, "agent", "status", "-o", "json")
	p.says(2, "hub", "apply", "-f", p.write("wrong.yaml", "document: wrong\nexporters: {otlp: {headers: "+p.text("literal header")+"}}\n"))
	p.says(1, "agent", "diff", "-c", p.path("agent.yaml")) // the document is not in the file
	for _, c := range []string{"config", "config -o json", "config --origin", "config --origin -o json"} {
		p.says(0, "agent", strings.Fields(c)...)
	}
	for _, c := range []string{"validate", "graph", "graph -o dot", "config"} {
		p.says(0, "", append(strings.Fields(c), "-c", p.path("agent.yaml"))...)
	}
	p.says(0, "", "explain", "exporters.otlp.headers")
	p.says(0, "agent", "bundle", "-o", p.path("bundle.tar.gz"))
	p.unpack("bundle.tar.gz")
	for _, data := range []string{"agent", "hub/agent"} {
		m := mortal{t: p.T, data: p.path(data)}
		for _, path := range []string{"/state", "/ledger", "/components", "/config", "/config?origin=1", "/healthz", "/readyz"} {
			var text json.RawMessage
			if err := m.ask(path, &text); err != nil {
				p.Errorf("%s of %s: %v", path, data, err)
			}
			p.out(data+path, text)
		}
	}
	for _, as := range []string{"token of viewer", "the root token"} {
		list, err := p.client.Configurations(context.Background())
		if err != nil || len(list.Configurations) == 0 {
			p.Fatalf("no configurations: %v", err)
		}
		for _, op := range api.Operations() {
			if op.Method != http.MethodGet || op.Stream {
				continue
			}
			ids := append([]string{a.ID}, strings.Repeat("0", 31)+"1")
			for _, c := range list.Configurations {
				ids = append(ids, c.ID)
			}
			for _, id := range ids {
				code, text := p.ask(as, op.Method, api.Prefix+strings.NewReplacer("{id}", id, "{name}", "web").Replace(op.Path), "Bearer "+p.text(as), "")
				if code >= 500 {
					p.Errorf("%s: %d %s", op.ID, code, text)
				}
				if !strings.Contains(op.Path, "{id}") {
					break
				}
			}
		}
	}
	for _, path := range []string{"/prom/api/v1/series?match[]={__name__=~\".%2b\"}", "/.well-known/jwks.json", "/signin?token=" + p.text("token of viewer")} {
		p.ask("viewer", "GET", path, "Bearer "+p.text("token of viewer"), "")
	}
}

// unpack takes in what is in a bundle.
func (p *planting) unpack(name string) {
	p.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(p.read(name)))
	if err != nil {
		p.Fatal(err)
	}
	archive := tar.NewReader(zip)
	for n := 0; ; n++ {
		m, err := archive.Next()
		if errors.Is(err, io.EOF) && n > 3 {
			return
		}
		if err != nil {
			p.Fatalf("%d files in the bundle: %v", n, err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			p.Fatal(err)
		}
		p.out("bundle "+m.Name, text)
	}
}

// fail does what cannot be done, with secrets beside what is wrong.
func (p *planting) fail() {
	p.Helper()
	s := p.secret("literal header")
	text := string(s.needles[0])
	for i, options := range []string{
		"endpoint: 'x:1', headers: {authorization: " + text + "}, timeot: 1s",
		"endpoint: 'x:1', heders: {authorization: " + text + "}",
		"endpoint: 'x:1', headers: " + text,
		"endpoint: 'x:1', headers: [" + text + "]",
		"endpoint: 'x:1', headers: {authorization: [" + text + "]}",
		"endpoint: 'x:1', headers: {authorization: \"" + text + "}",
		"endpoint: 'http://reader:" + text + "@x:1'",
		"endpoint: 'http://reader:" + text + "@x:1/%zz'",
	} {
		config := fmt.Sprintf("exporters: {otlp: {%s}}\npipelines: {p: {from: [self], to: [otlp]}}\ncollectors: {self: }\n", options)
		name := p.write(fmt.Sprintf("wrong%d.yaml", i), config)
		p.says(1, "", "validate", "-c", name)
		body, err := json.Marshal(api.DocumentChange{Text: "document: wrong\nselector: site == 'north'\n" + config})
		if err != nil {
			p.Fatal(err)
		}
		if code, text := p.ask("root", "PUT", api.Prefix+"/documents", "Bearer "+p.client.Token, string(body)); code != http.StatusUnprocessableEntity && code != http.StatusBadRequest {
			p.Errorf("a wrong document: %d %s", code, text)
		}
		p.ask("root", "PUT", api.Prefix+"/documents", "Bearer "+p.client.Token, string(body[:len(body)-5]))
	}
	p.says(4, "late", "join", p.base, "--no-run", "--token", p.text("enrolment token")) // it was used
	p.says(2, "", "join", p.base, "--no-run", "--data", p.path("late"), "--token", p.text("token of admin")+"x")
	for _, name := range []string{"token of ingest", "the agent's JWT", "enrolment token"} {
		p.ask(name, "GET", api.Prefix+"/audit", "Bearer "+p.text(name), "")
		p.ask(name, "POST", api.Prefix+"/login", "", `{"token":"`+p.text(name)+`"}`)
		p.ask(name, "POST", api.Prefix+"/login", "", `{"token":"`+p.text(name))
		p.ask(name, "GET", "/signin?token="+p.text(name), "", "")
		p.ask(name, "POST", control.TokenPath, "Bearer "+p.text(name), "{}")
		p.ask(name, "GET", "/nowhere?token="+p.text(name), "Basic "+p.text(name), "")
	}
	p.says(0, "hub", "audit", "-o", "json", "--limit", "1000")
	p.says(0, "hub", "get", "knocks")
	p.says(0, "hub", "logs", "--follow=false")
}

// files takes in all files that are there in the end: logs, state, the quick look.
func (p *planting) files() {
	p.Helper()
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(p.dir, path)
		p.out("file "+name, bytes.TrimRight(text, "\x00")) // of what a database has reserved
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
}

// judge looks for each secret in all that has come out.
func (p *planting) judge() {
	p.Helper()
	size := 0
	for _, text := range p.places {
		size += len(text)
	}
	p.Logf("%d secrets, %d places, %d bytes", len(p.secrets), len(p.places), size)
	for _, s := range p.secrets {
		if !s.shown {
			p.Errorf("%s was planted, but nobody has seen it at work: the test tests nothing", s.name)
		}
		found := len(s.may) == 0
		for place, text := range p.places {
			allowed := slices.ContainsFunc(s.may, func(may string) bool { return strings.HasPrefix(place, may) })
			for _, needle := range s.needles {
				at := bytes.Index(text, needle)
				if found = found || allowed && at >= 0; at < 0 || allowed {
					continue
				}
				p.Errorf("%s is in %s:\n%.500q", s.name, place, text[max(0, at-200):min(len(text), at+len(needle)+50)])
				break
			}
		}
		if !found {
			p.Errorf("%s is in none of the places where it should be, %q: the test tests nothing", s.name, s.may)
		}
	}
	for _, c := range []struct {
		what *regexp.Regexp
		may  []string
	}{
		{regexp.MustCompile(`eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}`), []string{"file home/"}},
		{regexp.MustCompile(`PRIVATE KEY`), []string{"file hub.key", "file client.key", "file hub/ca/root.key", "file agent/identity/identity.json", "file late/identity/identity.json"}},
	} {
		for place, text := range p.places {
			if found := c.what.Find(text); found != nil && !slices.ContainsFunc(c.may, func(may string) bool { return strings.HasPrefix(place, may) }) {
				p.Errorf("%s has %.100q", place, found)
			}
		}
	}
}
