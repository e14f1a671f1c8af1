package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/agent/identity"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
)

// An open world is a hub in a network, on a host of its own, which listens there with nothing but defaults.
type open struct {
	*world
	hub, far, stranger *host
}

func newOpen(t *testing.T) *open {
	t.Helper()
	hosts := newNetwork(t, 3)
	return &open{world: newWorld(t), hub: hosts[0], far: hosts[1], stranger: hosts[2]}
}

// run starts creel on a host.
func (o *open) run(h *host, name string, args ...string) *process {
	o.Helper()
	cmd := h.command(args...)
	f, err := os.OpenFile(o.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		o.Fatal(err)
	}
	defer f.Close()
	cmd.Stderr = f
	p := &process{cmd, o.T, f.Name()}
	if err := p.Start(); err != nil {
		o.Fatal(err)
	}
	o.Cleanup(func() {
		p.kill()
		if o.Failed() {
			o.Logf("the log of %s ends so:\n%s", name, p.tail())
		}
	})
	return p
}

// says runs a command of creel on a host to its end.
func (o *open) says(h *host, args ...string) (out string, code int) {
	o.Helper()
	cmd := h.command(args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+o.path(h.name))
	text, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		o.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// asRoot runs a command on the hub's host.
func (o *open) asRoot(args ...string) string {
	o.Helper()
	out, code := o.says(o.hub, append(args, "--data", o.path("hub"))...)
	if code != 0 {
		o.Fatalf("creel %v: exit code %d:\n%s", args, code, out)
	}
	return out
}

// web returns what asks the hub from a host, by HTTP/1.1 over TLS if it is secure, trusting the hub's authority.
func (o *open) web(h *host) *http.Client {
	o.Helper()
	text, err := os.ReadFile(o.path("hub/ca.pem"))
	if err != nil {
		o.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		o.Fatal("ca.pem has no certificate")
	}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(_ context.Context, network, address string) (net.Conn, error) { return h.dial(network, address) },
	}}
}

func (o *open) startHub() *process {
	o.Helper()
	p := o.run(o.hub, "hub", "hub", "--listen", "0.0.0.0", "--data", o.path("hub"), "--agent-certificates", "5s", "--heartbeat", "200ms")
	eventually(o.T, "the hub runs", func() bool {
		_, err := os.Stat(o.path("hub/hub.json"))
		return err == nil
	})
	token, err := os.ReadFile(o.path("hub/token"))
	if err != nil {
		o.Fatal(err)
	}
	o.client = &api.Client{URL: "https://" + o.hub.address + ":4380", Token: strings.TrimSpace(string(token)), HTTP: o.web(o.stranger)}
	eventually(o.T, "the hub answers", func() bool {
		_, err := o.client.Hub(context.Background())
		return err == nil
	})
	return p
}

// restart kills the hub and starts it again.
func (o *open) restart(p *process) *process {
	o.Helper()
	p.kill()
	os.Remove(o.path("hub/hub.json"))
	return o.startHub()
}

// TestNetwork: a hub that listens on all addresses with nothing but defaults is reached by nobody but agents that have joined and
// people who have signed in. A second host joins with the line that is printed. Then its identity is copied, revoked, and cut off
// for longer than its certificate lives; the hub is killed; and each line that was written arrives once.
func TestNetwork(t *testing.T) {
	t.Parallel() // it waits more than it works, in a network of its own
	o := newOpen(t)
	hub := o.startHub()
	began := time.Now()
	step := func(what string) { t.Logf("%s after %v", what, time.Since(began).Round(time.Millisecond)) }
	o.closed(hub)
	step("closed")

	config := o.write("agent.yaml", fmt.Sprintf(`
agent: {labels: {site: north}, hub: {url: "https://%[2]s:4380"}}
collectors: {file: {include: [%[1]s], start_at: beginning, poll_interval: 20ms}}
exporters: {otlp: {endpoint: "%[2]s:4317", tls: {identity: true}, delivery: {spool: {min_free: 0}, retry: {initial: 20ms, max: 200ms}}}}
pipelines: {lines: {from: [file], to: [otlp]}}
`, o.path("app.log"), o.hub.address))
	line := o.joinLine()
	stop := o.linesOf(1)
	agent := o.run(o.far, "agent", append(line, "-c", config, "--data", o.path("agent"))...)
	id := o.waitFor("healthy").ID
	o.flows("it has joined")

	if out, code := o.says(o.stranger, append(line, "--no-run", "--data", o.path("late"))...); code == 0 || !strings.Contains(out, "token create") {
		t.Errorf("a token that was used: exit code %d:\n%s", code, out)
	}
	step("joined")
	o.revokes(id)
	step("revoked and admitted")
	o.outlives(hub)
	step("outlived")
	o.cloned(config, id)
	step("cloned")
	o.people(id)
	step("people")

	n := stop()
	o.wantLines(n)
	for text, k := range o.stored() {
		if k != 1 {
			t.Errorf("%q was stored %d times", text, k)
		}
	}
	agent.stop()
	if out := o.asRoot("audit"); !strings.Contains(out, "revokeAgent") || !strings.Contains(out, "enrol") {
		t.Errorf("the audit log:\n%s", out)
	}
}

// joinLine returns the arguments of the command that the hub prints for a host that is to join.
func (o *open) joinLine() []string {
	o.Helper()
	for line := range strings.Lines(o.asRoot("token", "create", "--role", "agent")) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "creel" && f[1] == "join" {
			return f[1:]
		}
	}
	o.Fatal("no line is printed that lets a host join")
	return nil
}

// flows waits until more lines are stored than were.
func (o *open) flows(what string) {
	o.Helper()
	n := len(o.stored())
	eventually(o.T, what+", and lines flow", func() bool { return len(o.stored()) > n })
}

// knocks waits until somebody was refused for a reason, and returns who.
func (o *open) knocks(reason string) (k api.Knock) {
	o.Helper()
	eventually(o.T, "somebody knocks and is refused: "+reason, func() bool {
		list, err := o.client.Knocks(context.Background())
		if err != nil {
			return false
		}
		i := slices.IndexFunc(list.Knocks, func(k api.Knock) bool { return k.Reason == reason })
		if i >= 0 {
			k = list.Knocks[i]
		}
		return i >= 0
	})
	return k
}

// closed looks at the hub from another host, without anything to show.
func (o *open) closed(hub *process) {
	o.Helper()
	ports := []int{4317, 4318, 4320, 4380}
	eventually(o.T, "the hub listens at its ports, and at no others", func() bool { return slices.Equal(listening(o.T, hub.Process.Pid), ports) })
	client := o.web(o.stranger)
	ask := func(method, url, body string, header http.Header) (int, string) {
		o.Helper()
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			o.Fatal(err)
		}
		req.Header = header
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // it is closed anyway
		return resp.StatusCode, string(text)
	}
	for _, port := range ports {
		if code, text := ask("GET", fmt.Sprintf("http://%s:%d/", o.hub.address, port), "", nil); code/100 == 2 {
			o.Errorf("port %d answers without TLS: %d %s", port, code, text)
		}
	}
	for _, port := range []int{4380, 4320} {
		base := fmt.Sprintf("https://%s:%d", o.hub.address, port)
		for _, op := range api.Operations() {
			path := api.Prefix + strings.NewReplacer("{id}", "x", "{name}", "x").Replace(op.Path)
			code, text := ask(op.Method, base+path, "{}", http.Header{"Content-Type": {"application/json"}})
			if code != http.StatusUnauthorized {
				o.Errorf("%s %s without a token: %d %s", op.Method, path, code, text)
			}
		}
		for _, path := range []string{"/prom/api/v1/query?query=up", api.Prefix + "/backup"} {
			if code, text := ask("GET", base+path, "", nil); code != http.StatusUnauthorized {
				o.Errorf("%s without a token: %d %s", path, code, text)
			}
		}
		upgrade := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
		if code, text := ask("GET", base+control.Path, "", upgrade); code != http.StatusUnauthorized || !strings.Contains(text, control.NoCertificate) {
			o.Errorf("an agent without a certificate: %d %s", code, text)
		}
		if code, text := ask("POST", base+control.TokenPath, "{}", http.Header{"Content-Type": {"application/json"}}); code != http.StatusUnauthorized {
			o.Errorf("a token for nobody: %d %s", code, text)
		}
	}
	for _, path := range []string{"/v1/logs", "/v1/metrics", "/v1/traces"} {
		if code, text := ask("POST", "https://"+o.hub.address+":4318"+path, "{}", http.Header{"Content-Type": {"application/json"}}); code != http.StatusUnauthorized {
			o.Errorf("OTLP %s without a token: %d %s", path, code, text)
		}
	}
	o.closedGRPC(client)
	if k := o.knocks(control.NoCertificate); k.Address != o.stranger.address || k.Remedy == "" {
		o.Errorf("the knocking list has %+v", k)
	}
}

// closedGRPC calls OTLP over gRPC without anything to show.
func (o *open) closedGRPC(client *http.Client) {
	o.Helper()
	t := client.Transport.(*http.Transport).Clone()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP2(true)
	req, err := http.NewRequest("POST", "https://"+o.hub.address+":4317/opentelemetry.proto.collector.logs.v1.LogsService/Export", bytes.NewReader(make([]byte, 5)))
	if err != nil {
		o.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		o.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // the trailers come behind it
	resp.Body.Close()
	if status := resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status"); status != "16" { // UNAUTHENTICATED
		o.Errorf("OTLP over gRPC without a token: status %q", status)
	}
}

// listening returns the ports at which a process's network can be reached from other machines.
func listening(t *testing.T, pid int) (ports []int) {
	t.Helper()
	for _, file := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 4 || fields[3] != "0A" { // LISTEN
				continue
			}
			host, port, _ := strings.Cut(fields[1], ":")
			if raw, err := hex.DecodeString(host); err == nil && len(raw) == 4 && raw[3] == 127 {
				continue
			}
			var n int
			if _, err := fmt.Sscanf(port, "%X", &n); err != nil {
				t.Fatal(err)
			}
			ports = append(ports, n)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// revokes takes the agent's access away and gives it back.
func (o *open) revokes(id string) {
	o.Helper()
	o.asRoot("revoke", id[:13], "--cause", "a test")
	eventually(o.T, "the agent that was revoked is not connected", func() bool {
		a, there := o.second()
		return there && a.Connection != api.Connected
	})
	o.knocks(control.Revoked)
	var n int
	eventually(o.T, "nothing of it is taken any more", func() bool {
		before := n
		n = len(o.stored())
		return n == before
	})
	o.asRoot("admit", id[:13])
	o.waitFor("healthy")
	o.flows("it was admitted again")
}

// outlives cuts the agent off for longer than its certificate lives, and kills the hub meanwhile.
func (o *open) outlives(hub *process) {
	o.Helper()
	o.far.cut(true)
	eventually(o.T, "the agent is lost", func() bool {
		a, there := o.second()
		return there && a.Connection != api.Connected
	})
	id, err := identity.Open(agent.IdentityDir(o.path("agent")), identity.Options{})
	if err != nil {
		o.Fatal(err)
	}
	ends, generation := id.Status().Expires, id.Status().Generation
	o.restart(hub)
	eventually(o.T, "its certificate has ended", func() bool { return time.Now().After(ends) })
	o.far.cut(false)
	o.waitFor("healthy")
	o.flows("it came back with a certificate that had ended")
	if id, err = identity.Open(agent.IdentityDir(o.path("agent")), identity.Options{}); err != nil || id.Status().Generation <= generation {
		o.Errorf("the certificate is the same, or %v", err)
	}
}

// cloned copies the agent's state directory to another host. One of the two is refused; which of them is right somebody says.
func (o *open) cloned(config, id string) {
	o.Helper()
	if err := os.MkdirAll(o.path("clone/identity"), 0o700); err != nil {
		o.Fatal(err)
	}
	for _, name := range []string{"identity.json", "identity/identity.json"} {
		text, err := os.ReadFile(o.path("agent/" + name))
		if err != nil {
			o.Fatal(err)
		}
		o.write("clone/"+name, string(text))
	}
	text, err := os.ReadFile(config)
	if err != nil {
		o.Fatal(err)
	}
	empty := o.write("clone.yaml", strings.ReplaceAll(string(text), o.path("app.log"), o.path("none.log")))
	clone := o.run(o.stranger, "clone", "agent", "-c", empty, "--data", o.path("clone"))
	k := o.knocks(control.Cloned)
	if k.Agent != id || k.Remedy == "" {
		o.Errorf("the knocking list has %+v", k)
	}
	clone.kill()
	if k.Address == o.far.address { // the copy was first: somebody has to say who is right
		o.asRoot("admit", id)
	}
	o.waitFor("healthy")
	o.flows("the clone is gone")
}

// people sign in from another host, and may do what their role says.
func (o *open) people(id string) {
	o.Helper()
	url := "https://" + o.hub.address + ":4380"
	token := func(role string, more ...string) string {
		out := o.asRoot(append([]string{"token", "create", "--role", role, "--name", role, "-o", "name"}, more...)...)
		return strings.Fields(out)[0]
	}
	viewer := token("viewer")
	if out, code := o.says(o.stranger, "login", url, "--token", viewer); code != 0 {
		o.Fatalf("sign in: exit code %d:\n%s", code, out)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"get", "agents"}, 0, id},
		{[]string{"whoami"}, 0, "viewer"},
		{[]string{"pause", id}, 4, "operator"},
		{[]string{"revoke", id}, 4, "admin"},
		{[]string{"token", "list"}, 4, "admin"},
		{[]string{"backup", o.path("stolen.tar")}, 4, "admin"},
	} {
		if out, code := o.says(o.stranger, c.args...); code != c.code || !strings.Contains(out, c.want) {
			o.Errorf("a viewer says creel %v: exit code %d, want %d and %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
	wrong := viewer[:len(viewer)-4] + "aaaa"
	if out, code := o.says(o.stranger, "login", url, "--token", wrong); code == 0 {
		o.Errorf("a token for another hub signs in:\n%s", out)
	}
	app := token("ingest", "--signals", "logs")
	for path, want := range map[string]int{"/v1/logs": http.StatusOK, "/v1/traces": http.StatusForbidden} {
		req, err := http.NewRequest("POST", "https://"+o.hub.address+":4318"+path, strings.NewReader("{}"))
		if err != nil {
			o.Fatal(err)
		}
		req.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + app}}
		resp, err := o.web(o.stranger).Do(req)
		if err != nil {
			o.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			o.Errorf("an application's token for logs at %s: %s", path, resp.Status)
		}
	}
}
