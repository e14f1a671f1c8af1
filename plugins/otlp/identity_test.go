package otlp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	codec "github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/plugins/otlp"
)

// An identity is a hub's and an agent's at once.
type identity struct {
	server, client *tls.Config

	mu    sync.Mutex
	token string
	err   error
	asked int
}

func newIdentity(t testing.TB) *identity {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	a := (*issuer)(nil).issue(t, "authority", file("a.pem"), file("a.key"))
	pair := func(name string) tls.Certificate {
		a.issue(t, name, file(name+".pem"), file(name+".key"))
		p, err := tls.LoadX509KeyPair(file(name+".pem"), file(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	trust := x509.NewCertPool()
	trust.AddCert(a.cert)
	return &identity{
		server: &tls.Config{Certificates: []tls.Certificate{pair("hub")}, ClientAuth: tls.RequestClientCert},
		client: &tls.Config{Certificates: []tls.Certificate{pair("agent")}, RootCAs: trust},
		token:  "first",
	}
}

func (i *identity) ServerTLS() (*tls.Config, error) { return i.server, nil }
func (i *identity) ClientTLS() (*tls.Config, error) { return i.client, nil }

func (i *identity) Token(context.Context) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked++
	return i.token, i.err
}

func (i *identity) set(token string, err error) {
	i.mu.Lock()
	i.token, i.err = token, err
	i.mu.Unlock()
}

// gate is an Admission that knows callers by what they show, and writes that down.
type gate struct {
	mu     sync.Mutex
	shown  []creel.Credentials
	admits []string
	caller creel.Caller
	err    error
}

func (g *gate) Authenticate(c creel.Credentials, _ creel.Signal) (creel.Caller, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shown = append(g.shown, c)
	return g.caller, g.err
}

func (g *gate) Admit(c creel.Caller, from creel.Sender, s creel.Signal, _, _ int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.admits = append(g.admits, fmt.Sprintf("%+v %s/%s %v", c, from.Agent, from.Exporter, s))
	return nil
}

func (g *gate) Took(creel.Sender, creel.ID, creel.Signal, int) {}

func (g *gate) set(c creel.Caller, err error) {
	g.mu.Lock()
	g.caller, g.err = c, err
	g.mu.Unlock()
}

// seen returns what was shown and admitted since.
func (g *gate) seen() ([]creel.Credentials, []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shown, admits := g.shown, g.admits
	g.shown, g.admits = nil, nil
	return shown, admits
}

const both = "{grpc: {tls: {identity: true}}, http: {tls: {identity: true}}}"

// TestIdentity: an exporter with an identity shows its certificate and its token, anew when there is a new one; who that is counts,
// whatever else the request says; and who says to be another agent is refused.
func TestIdentity(t *testing.T) {
	id, g := newIdentity(t), &gate{}
	out := &sink{settle: takeAll}
	grpcAddress, httpAddress := serveOn(t, both, creel.Host{Admission: g, Identity: id}, out)
	for protocol, address := range map[string]string{"grpc": grpcAddress, "http": httpAddress} {
		t.Run(protocol, func(t *testing.T) {
			id.set("first", nil)
			options := fmt.Sprintf("{endpoint: '%s', protocol: %s, tls: {identity: true}}", address, protocol)
			x := open(t, otlp.Exporter, options, creel.Host{Identity: id, Sender: creel.Sender{Agent: "a", Exporter: "otlp/hub"}}).(creel.Exporter)
			unnamed := open(t, otlp.Exporter, options, creel.Host{Identity: id}).(creel.Exporter)
			f := func(x creel.Exporter, caller creel.Caller, token, want string) {
				t.Helper()
				g.set(caller, nil)
				err := x.Export(t.Context(), batches()[:1])
				shown, admits := g.seen()
				if want == "" {
					if outcome(err) != "again" || !strings.Contains(err.Error(), "shows the identity of") || admits != nil {
						t.Errorf("who says another id: %v, admitted %q", err, admits)
					}
				} else if err != nil || !slices.Equal(admits, []string{want}) {
					t.Errorf("%v, admitted %q, want %q", err, admits, want)
				}
				for _, c := range shown {
					if c.Authorization != "Bearer "+token || c.Forwarded || c.TLS == nil || len(c.TLS.PeerCertificates) == 0 || c.TLS.PeerCertificates[0].Subject.CommonName != "agent" ||
						c.Local == nil || c.Local.String() != address || c.Remote == nil || !strings.HasPrefix(c.Remote.String(), "127.0.0.1:") {
						t.Errorf("shown: %+v", c)
					}
				}
				if len(shown) != 1 {
					t.Errorf("%d requests were looked at", len(shown))
				}
			}
			f(x, creel.Caller{Agent: "a"}, "first", "{Agent:a Token:} a/otlp/hub logs")
			f(unnamed, creel.Caller{Agent: "b"}, "first", "{Agent:b Token:} b/ logs")
			id.set("second", nil)
			f(x, creel.Caller{Agent: "b"}, "second", "")
			f(x, creel.Caller{Token: "t"}, "second", "{Agent: Token:t} / logs")
			f(x, creel.Caller{}, "second", "{Agent: Token:} a/otlp/hub logs")
			for _, err := range []error{errors.New("the hub is away"), creel.Permanent(errors.New("the hub is away"))} {
				id.set("second", err)
				err = x.Export(t.Context(), batches()[:1])
				if shown, _ := g.seen(); outcome(err) != "again" || !strings.Contains(err.Error(), "get a token") || !strings.Contains(err.Error(), "the hub is away") || shown != nil {
					t.Errorf("without a token: %s, %v", outcome(err), err)
				}
			}
			id.set("third", nil)
			f(x, creel.Caller{Agent: "a"}, "third", "{Agent:a Token:} a/otlp/hub logs")

			// A connection that is not let in is left, once for each token: its certificate may be none any more.
			for _, token := range []string{"third", "fourth"} {
				id.set(token, nil)
				g.set(creel.Caller{}, fmt.Errorf("the certificate is of an authority that has ended: %w", creel.ErrUnauthenticated))
				var from []string
				for tries := 0; len(from) < 6; tries++ {
					err := x.Export(t.Context(), batches()[:1])
					shown, _ := g.seen()
					if outcome(err) != "again" || len(shown) > 1 || tries == 50 {
						t.Fatalf("%s, %d requests were looked at", err, len(shown))
					}
					for _, c := range shown { // none, if it was on the connection that was just being left
						from = append(from, c.Remote.String())
					}
				}
				if n := len(slices.Compact(from)); n != 2 {
					t.Errorf("refused with one token, it came from %d connections: %v", n, from)
				}
			}
			f(x, creel.Caller{Agent: "a"}, "fourth", "{Agent:a Token:} a/otlp/hub logs")
		})
	}
}

// TestAnotherHub: an agent that meets a hub with another authority, or none, says so, and tries again. What it is told to do is not
// what contradicts its options.
func TestAnotherHub(t *testing.T) {
	id, other := newIdentity(t), newIdentity(t)
	for name, c := range map[string]struct{ options, want string }{
		"another authority": {both, "creel join"}, "no TLS": {"", "creel join"},
	} {
		out := &sink{settle: takeAll}
		grpcAddress, httpAddress := serveOn(t, c.options, creel.Host{Identity: other}, out)
		for protocol, address := range map[string]string{"grpc": grpcAddress, "http": httpAddress} {
			x := open(t, otlp.Exporter, fmt.Sprintf("{endpoint: '%s', protocol: %s, tls: {identity: true}}", address, protocol), creel.Host{Identity: id}).(creel.Exporter)
			err := x.Export(t.Context(), batches()[:1])
			if outcome(err) != "again" || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "tls.ca_file") || strings.Contains(err.Error(), "insecure") || out.got() != "" {
				t.Errorf("%s over %s: %s, %v", name, protocol, outcome(err), err)
			}
		}
	}
}

// TestShown: what Authenticate sees of requests without TLS, and of those that others have passed on.
func TestShown(t *testing.T) {
	g := &gate{}
	grpcAddress, httpAddress := serveOn(t, "", creel.Host{Admission: g}, &sink{settle: takeAll})
	conn, err := grpc.NewClient(grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body, err := logsRequest(t, "x").MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		headers       []string
		authorization string
		forwarded     bool
	}{
		{nil, "", false},
		{[]string{"authorization", "Bearer x"}, "Bearer x", false},
		{[]string{"authorization", "Bearer x", "authorization", "Bearer y"}, "", false}, // whichever is meant
		{[]string{"forwarded", "for=192.0.2.1"}, "", true},
		{[]string{"x-forwarded-for", ""}, "", true},
		{[]string{"x-real-ip", "127.0.0.1", "authorization", "x"}, "x", true},
	} {
		req, err := http.NewRequest("POST", "http://"+httpAddress+"/v1/logs", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-protobuf")
		for i := 0; i < len(c.headers); i += 2 {
			req.Header.Add(c.headers[i], c.headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
		if _, err := call(metadata.AppendToOutgoingContext(t.Context(), c.headers...), conn, body); err != nil {
			t.Fatal(err)
		}
		shown, _ := g.seen()
		for i, s := range shown {
			local := []string{httpAddress, grpcAddress}[i]
			if s.Authorization != c.authorization || s.Forwarded != c.forwarded || s.TLS != nil || s.Local.String() != local || !strings.HasPrefix(s.Remote.String(), "127.0.0.1:") {
				t.Errorf("%q: shown over %s: %+v", c.headers, local, s)
			}
		}
		if len(shown) != 2 {
			t.Errorf("%d requests were looked at", len(shown))
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// call makes a call with a body, or, if that is nil, only begins one.
func call(ctx context.Context, conn *grpc.ClientConn, body []byte) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/opentelemetry.proto.collector.logs.v1.LogsService/Export", grpc.ForceCodec(asIs{}))
	if err != nil {
		return nil, err
	}
	if body != nil {
		if err := s.SendMsg(body); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if err := s.CloseSend(); err != nil {
			return nil, err
		}
	}
	var answer []byte
	err = s.RecvMsg(&answer)
	return answer, err
}

type asIs struct{}

func (asIs) Name() string                    { return "proto" }
func (asIs) Marshal(v any) ([]byte, error)   { return v.([]byte), nil }
func (asIs) Unmarshal(b []byte, v any) error { *v.(*[]byte) = bytes.Clone(b); return nil }

// TestRefusedCallers: who may not send hears why, before it has sent its body; creel's exporter says what to do, and drops nothing,
// however often.
func TestRefusedCallers(t *testing.T) {
	g := &gate{}
	out := &sink{settle: takeAll}
	grpcAddress, httpAddress := serveOn(t, "", creel.Host{Admission: g}, out)
	conn, err := grpc.NewClient(grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, c := range []struct {
		err    error
		http   int
		grpc   codes.Code
		remedy string
	}{
		{fmt.Errorf("the token ended at noon: %w", creel.ErrUnauthenticated), 401, codes.Unauthenticated, "tls.identity"},
		{fmt.Errorf("the token ended at noon: %w", creel.Permanent(creel.ErrUnauthenticated)), 401, codes.Unauthenticated, "tls.identity"},
		{errors.New("the token ended at noon for logs"), 403, codes.PermissionDenied, "tls.identity"},
		{creel.Permanent(errors.New("the token ended at noon")), 403, codes.PermissionDenied, "tls.identity"},
		{&creel.Throttled{Err: errors.New("the token ended at noon")}, 429, codes.Unavailable, ""},
	} {
		g.set(creel.Caller{}, c.err)
		for kind, parse := range map[string]func([]byte) (codec.Status, error){"application/json": codec.ParseStatusJSON, "application/x-protobuf": codec.ParseStatus} {
			resp, err := http.Post("http://"+httpAddress+"/v1/logs", kind, strings.NewReader("what is no request"))
			if err != nil {
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			st, err := parse(answer)
			if err != nil || resp.StatusCode != c.http || codes.Code(st.Code) != c.grpc || !strings.Contains(st.Message, "ended at noon") || (resp.Header.Get("WWW-Authenticate") == "Bearer") != (c.http == 401) {
				t.Errorf("%v: answered %s %v %q: %v", c.err, resp.Status, resp.Header, answer, err)
			}
		}
		for range map[bool]int{true: 150, false: 1}[c.http == 403] { // more than there may be streams: one that is refused is none
			if _, err := call(t.Context(), conn, nil); status.Code(err) != c.grpc || !strings.Contains(err.Error(), "ended at noon") {
				t.Fatalf("%v: gRPC answers %v", c.err, err)
			}
		}
		for protocol, address := range map[string]string{"grpc": grpcAddress, "http": httpAddress} {
			x := open(t, otlp.Exporter, fmt.Sprintf("{protocol: %s, endpoint: 'http://%s'}", protocol, address), creel.Host{}).(creel.Exporter)
			for range 24 { // often enough that a day would be no different
				err := x.Export(t.Context(), batches()[:1])
				if got := outcome(err); got != map[bool]string{true: "throttled", false: "again"}[c.http == 429] || !strings.Contains(err.Error(), "ended at noon") || !strings.Contains(err.Error(), c.remedy) {
					t.Fatalf("%v over %s: %s, %v", c.err, protocol, got, err)
				}
			}
			g.set(creel.Caller{}, nil)
			if err := x.Export(t.Context(), batches()[:1]); err != nil || out.got() != "log hello" {
				t.Errorf("afterwards: %v", err)
			}
			g.set(creel.Caller{}, c.err)
		}
	}
	if _, admits := g.seen(); len(admits) != 10 {
		t.Errorf("%d requests were let in", len(admits))
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestLargeHeaders: nobody is asked who sends when the headers alone are too large.
func TestLargeHeaders(t *testing.T) {
	g := &gate{}
	grpcAddress, httpAddress := serveOn(t, "", creel.Host{Admission: g}, &sink{settle: takeAll})
	large := strings.Repeat("x", 128<<10)
	req, err := http.NewRequest("POST", "http://"+httpAddress+"/v1/logs", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/x-protobuf"}, "Authorization": {large}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answered %s", resp.Status)
	}
	list := []string{":method", "POST", ":scheme", "http", ":path", "/opentelemetry.proto.collector.logs.v1.LogsService/Export", ":authority", "x", "content-type", "application/grpc"}
	for range 1000 {
		list = append(list, "authorization", strings.Repeat("x", 100)) // 100 kB, in pieces as HTTP/2 has them
	}
	conn, err := net.Dial("tcp", grpcAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &h2{conn, bufio.NewReader(conn)}
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	block := headers(list...)
	_ = c.write(frameSettings, 0, 0, nil)
	_ = c.write(frameHeaders, 0, 1, block[:16<<10])
	for block = block[16<<10:]; len(block) > 16<<10; block = block[16<<10:] {
		_ = c.write(frameContinuation, 0, 1, block[:16<<10])
	}
	_ = c.write(frameContinuation, flagEndHeaders, 1, block) // it may have hung up
	for refused := false; !refused; {
		kind, _, stream, err := c.read()
		refused = err != nil || kind == frameGoAway || stream == 1
	}
	if shown, _ := g.seen(); len(shown) != 0 {
		t.Errorf("%d requests were looked at", len(shown))
	}
}

// TestIdentityOptions: what contradicts an identity, or lacks one, is found before anything is sent.
func TestIdentityOptions(t *testing.T) {
	for _, c := range []struct {
		plugin        creel.Plugin
		options, want string
	}{
		{otlp.Exporter, "{endpoint: 'h:1', tls: {identity: true}}", ""},
		{otlp.Exporter, "{endpoint: 'h:1', tls: {identity: true}, headers: {x-other: y}}", ""},
		{otlp.Exporter, "{endpoint: 'h:1', tls: {identity: true}, headers: {Authorization: y}}", "contradicts tls.identity"},
		{otlp.Exporter, "{endpoint: 'http://h:1', tls: {identity: true}}", "over TLS only"},
		{otlp.Exporter, "{endpoint: 'h:1', tls: {identity: true, ca_file: x}}", "excludes the other options"},
		{otlp.Collector, "{grpc: {endpoint: '0.0.0.0:1', tls: {identity: true}}}", ""},
		{otlp.Collector, "{grpc: {endpoint: '0.0.0.0:1'}}", "no certificate"},
		{otlp.Collector, "{grpc: {endpoint: '0.0.0.0:1', tls: {identity: true, cert_file: x, key_file: x}}}", "excludes files"},
	} {
		n, err := config.Parse("test.yaml", []byte(c.options), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		canonical, errs := c.plugin.Config.Check(n)
		if text := fmt.Sprint(errs); (len(errs) == 0) != (c.want == "") || !strings.Contains(text, c.want) {
			t.Errorf("%s: %s", c.options, text)
		}
		if len(errs) > 0 {
			continue
		}
		if _, err := c.plugin.Open(canonical, creel.Host{Sockets: &sockets{}}); err == nil || !strings.Contains(err.Error(), "creel join") {
			t.Errorf("%s without an identity: %v", c.options, err)
		}
	}
}
