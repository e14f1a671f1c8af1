package probe

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

// patience is longer than any check of a test takes that is not to time out.
const patience = 30 * time.Second

// complete gives a target the defaults that a configuration would.
func complete(target Target) Target {
	target.Method, target.IPVersion = cmp.Or(target.Method, "GET"), cmp.Or(target.IPVersion, "any")
	target.Timeout = cmp.Or(target.Timeout, patience)
	if target.Expect.Status == nil {
		target.Expect.Status = []Statuses{{200, 299}}
	}
	return target
}

func open(t testing.TB, hosts resolver, c Config, targets ...Target) *collector {
	t.Helper()
	for _, target := range targets {
		c.Targets = append(c.Targets, complete(target))
	}
	c.Parallel = cmp.Or(c.Parallel, 10)
	col, err := newCollector(c, creel.Host{Memory: &creel.Memory{Poison: true}}.Ready(), hosts, net.DefaultResolver)
	if err != nil {
		t.Fatal(err)
	}
	return col
}

func checkOne(t *testing.T, hosts resolver, target Target) result {
	t.Helper()
	c := open(t, hosts, Config{}, target)
	return c.check(t.Context(), c.targets[0])
}

func wants(t *testing.T, r result, want kind, reason string) {
	t.Helper()
	switch {
	case r.fail == nil && want != "":
		t.Errorf("it is up; it should have failed with %s", want)
	case r.fail != nil && (r.fail.kind != want || !strings.Contains(r.reason(), reason)):
		t.Errorf("it failed with %s: %s; it should have been %q with %q", r.fail.kind, r.reason(), want, reason)
	}
}

func pattern(text string) Pattern { return Pattern{regexp.MustCompile(text)} }

// TestHTTP: what is expected of an answer, and what is asked.
func TestHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code, err := strconv.Atoi(strings.Trim(r.URL.Path, "/")); err == nil {
			w.WriteHeader(code)
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s host=%s auth=%s agent=%s body=%s", r.Method, r.URL.RawQuery, r.Host, r.Header.Get("Authorization"), r.UserAgent(), body)
	}))
	defer server.Close()
	f := func(target Target, want kind, reason string) result {
		t.Helper()
		target.URL = server.URL + target.URL
		r := checkOne(t, &names{}, target)
		wants(t, r, want, reason)
		return r
	}
	r := f(Target{URL: "/?a=b"}, "", "")
	if r.status != 200 || r.body < 10 || r.total <= 0 || r.took[phaseTLS] != -1 {
		t.Errorf("%+v", r)
	}
	for _, p := range []phase{phaseResolve, phaseConnect, phaseProcessing, phaseTransfer} {
		if r.took[p] < 0 || r.took[p] > r.total {
			t.Errorf("phase %s took %v of %v", phaseNames[p], r.took[p], r.total)
		}
	}
	f(Target{URL: "/503"}, badStatus, "status is 503, not 200-299")
	f(Target{URL: "/404", Expect: Expect{Status: []Statuses{{200, 299}, {404, 404}}}}, "", "")
	f(Target{URL: "/", Expect: Expect{Body: pattern(`^GET  host=127\S+ auth= agent=creel body=$`)}}, "", "")
	f(Target{URL: "/", Expect: Expect{Body: pattern("shop")}}, badBody, "matches shop")
	f(Target{URL: "/?x=1", Method: "PUT", Body: "in", Headers: map[string]string{"Host": "shop.example", "authorization": "Bearer t", "user-agent": "me"},
		Expect: Expect{Body: pattern(`^PUT x=1 host=shop.example auth=Bearer t agent=me body=in$`)}}, "", "")
	if r := f(Target{URL: "/", Method: "HEAD"}, "", ""); r.body != 0 {
		t.Errorf("a HEAD has a body of %d bytes", r.body)
	}
}

// answer is a TCP server that reads what comes first and then does as it is told.
func answer(t testing.TB, serve func(net.Conn)) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	t.Cleanup(func() { l.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				if n, err := conn.Read(make([]byte, 64<<10)); n > 0 || err == nil {
					serve(conn)
				}
			})
		}
	})
	return l.Addr().String()
}

// TestHostileAnswers: an answer without an end, in header or body, is read to a bound; what is none is named.
func TestHostileAnswers(t *testing.T) {
	flood := func(head, line string) (string, *atomic.Int64) {
		var sent atomic.Int64
		return answer(t, func(conn net.Conn) {
			text := []byte(head)
			for {
				n, err := conn.Write(text)
				sent.Add(int64(n))
				if err != nil {
					return
				}
				text = []byte(strings.Repeat(line, 4096))
			}
		}), &sent
	}
	f := func(head, line string, want kind, reason string) result {
		t.Helper()
		address, sent := flood(head, line)
		r := checkOne(t, &names{}, Target{URL: "http://" + address + "/"})
		wants(t, r, want, reason)
		if sent.Load() < maxHeader {
			t.Errorf("the flood was of %d bytes only", sent.Load())
		}
		return r
	}
	if r := f("HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef", "", ""); r.body != maxBody {
		t.Errorf("read %d bytes of a body", r.body)
	}
	if r := f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "10\r\n0123456789abcdef\r\n", "", ""); r.body != maxBody {
		t.Errorf("read %d bytes of a body in chunks", r.body)
	}
	f("HTTP/1.1 200 OK\r\n", "X-Header: and another one\r\n", protocol, "too large")
	f("HTTP/1.1 200 OK\r\nX: ", "0123456789abcdef", protocol, "too large")

	say := func(text string) Target {
		return Target{URL: "http://" + answer(t, func(conn net.Conn) { _, _ = io.WriteString(conn, text) }) + "/"}
	}
	wants(t, checkOne(t, &names{}, say("SSH-2.0-OpenSSH\r\n\r\n")), protocol, "malformed HTTP")
	wants(t, checkOne(t, &names{}, say("")), protocol, "hung up")
	wants(t, checkOne(t, &names{}, say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")), protocol, "hung up")
	wants(t, checkOne(t, &names{}, say(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 9))), protocol, "too many answers")
	wants(t, checkOne(t, &names{}, say("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")), "", "")
}

// TestTCP: who listens is up, who does not is refused, who does not answer times out, and a name without an address is one.
func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := Target{URL: "tcp://" + l.Addr().String()}
	wants(t, checkOne(t, &names{}, target), "", "")
	several := Target{URL: fmt.Sprintf("tcp://several.example:%d", l.Addr().(*net.TCPAddr).Port)}
	n := &names{answers: map[string][]string{"several.example": {"127.0.0.2 127.0.0.1"}, "shop.example": {""}}}
	if r := checkOne(t, n, several); r.fail != nil || r.peer.String() != "127.0.0.1" {
		t.Errorf("of two addresses the second answers: %v, %v", r.peer, r.fail)
	}
	silent := Target{URL: "http://" + l.Addr().String() + "/", Timeout: 30 * time.Millisecond}
	wants(t, checkOne(t, &names{}, silent), timedOut, "no answer within 30ms")
	silent.URL = "tls://" + l.Addr().String()
	wants(t, checkOne(t, &names{}, silent), timedOut, "no answer within 30ms")
	l.Close()
	wants(t, checkOne(t, &names{}, target), refused, "connection refused")
	wants(t, checkOne(t, &names{}, Target{URL: "tcp://shop.example:1"}), cannotResolve, "no such host")
	wants(t, checkOne(t, n, several), refused, "connect to 127.0.0.")
	wants(t, checkOne(t, n, Target{URL: "tcp://shop.example:1", IPVersion: "6"}), cannotResolve, "no address for ip6")
}

// certify returns a certificate for name or an IP address, signed by itself, and its PEM.
func certify(t *testing.T, name string, until time.Time) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestTLS: certificates are checked, and when they expire is known whether they are believed or not.
func TestTLS(t *testing.T) {
	n := &names{answers: map[string][]string{"shop.example": {"127.0.0.1"}, "other.example": {"127.0.0.1"}}}
	f := func(certified string, left time.Duration, host string, trust bool, target Target, want kind, reason string) {
		t.Helper()
		pair, text := certify(t, certified, time.Now().Add(left))
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		server.Config.ErrorLog = discard()
		server.StartTLS()
		defer server.Close()
		c := Config{}
		if trust {
			c.TLS.CAFile = filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(c.TLS.CAFile, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, scheme := range []string{"tls", "https"} {
			target.URL = fmt.Sprintf("%s://%s:%d", scheme, host, server.Listener.Addr().(*net.TCPAddr).Port)
			target.Expect.Status = []Statuses{{404, 404}}
			col := open(t, n, c, target)
			r := col.check(t.Context(), col.targets[0])
			wants(t, r, want, reason)
			if off := time.Until(r.expires) - left; off.Abs() > time.Hour {
				t.Errorf("%s: it expires at %v, not in %v", scheme, r.expires, left)
			}
			if r.took[phaseTLS] < 0 {
				t.Errorf("%s: no time was spent on TLS", scheme)
			}
		}
	}
	day := 24 * time.Hour
	f("shop.example", 30*day, "shop.example", true, Target{}, "", "")
	f("127.0.0.1", 30*day, "127.0.0.1", true, Target{}, "", "")
	f("shop.example", 30*day, "127.0.0.1", true, Target{ServerName: "shop.example"}, "", "")
	f("shop.example", -3*day, "shop.example", true, Target{}, badTLS, "expired")
	f("shop.example", 30*day, "other.example", true, Target{}, badTLS, "valid for shop.example")
	f("shop.example", 30*day, "127.0.0.1", true, Target{}, badTLS, "")
	f("shop.example", 30*day, "shop.example", false, Target{}, badTLS, "ca_file")
	f("shop.example", 5*day, "shop.example", true, Target{Expect: Expect{ValidFor: 14 * day}}, badTLS, "in less than")

	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	wants(t, checkOne(t, n, Target{URL: "tls://" + plain.Listener.Addr().String()}), badTLS, "without TLS")
}

// TestICMP asks this machine for an echo, where that is allowed.
func TestICMP(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		r := checkOne(t, &names{}, Target{URL: "icmp://" + host})
		if r.fail != nil && r.fail.kind == local {
			t.Logf("not tested: %v", r.fail)
			if !strings.Contains(r.reason(), "ping_group_range") {
				t.Error("the reason does not say what to do")
			}
			continue
		}
		if host == "[::1]" && r.fail != nil && r.fail.kind == unreachable {
			t.Logf("not tested: this machine has no IPv6: %v", r.fail)
			continue
		}
		wants(t, r, "", "")
		if r.fail == nil && (r.rtt <= 0 || r.rtt > r.total) {
			t.Errorf("it took %v of %v", r.rtt, r.total)
		}
	}
}

// kept is a Sink that keeps what it gets.
type kept struct {
	metrics [][]creel.Metric
	logs    []creel.Log
	fail    int // so many logs are refused
}

func (k *kept) Send(_ context.Context, b *creel.Batch) error {
	switch b.Signal() {
	case creel.Metrics:
		var points []creel.Metric
		for _, m := range b.Metrics() {
			m.Attrs = m.Attrs.Clone()
			points = append(points, m)
		}
		k.metrics = append(k.metrics, points)
	case creel.Logs:
		if k.fail > 0 {
			k.fail--
			return context.Canceled
		}
		for _, l := range b.Logs() {
			l.Attrs = l.Attrs.Clone()
			k.logs = append(k.logs, l)
		}
	}
	creel.Settle(b, nil)
	return nil
}

func (k *kept) TrySend(b *creel.Batch) bool { return k.Send(context.Background(), b) == nil }

// texts returns the last round's points.
func (k *kept) texts() (list []string) {
	for _, m := range k.metrics[len(k.metrics)-1] {
		value := m.Value.String()
		if m.Value.Kind() == creel.ValueDouble {
			value = "?"
		}
		list = append(list, fmt.Sprintf("%s%s=%s", m.Desc.Name, m.Attrs.Append(nil), value))
	}
	return list
}

// TestRecords: the points of a round, and a log record for each change and for no more.
func TestRecords(t *testing.T) {
	status := 200
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	c := open(t, &names{}, Config{}, Target{URL: server.URL + "/health?key=secret", Name: "shop", Attributes: map[string]string{"team": "a", "probe.target": "x", "b": "c"}})
	var k kept
	round := func(code int) {
		t.Helper()
		status = code
		if err := c.Collect(t.Context(), &k); err != nil {
			t.Fatal(err)
		}
	}
	round(200)
	attrs := fmt.Sprintf(`"probe.target":"shop","probe.type":"http","server.address":"127.0.0.1","server.port":%d,"b":"c","team":"a"`, port)
	want := []string{"probe.success{" + attrs + "}=1", "probe.duration{" + attrs + "}=?"}
	for _, p := range []string{"resolve", "connect", "processing", "transfer"} {
		want = append(want, "probe.phase.duration{"+attrs+`,"probe.phase":"`+p+`"}=?`)
	}
	want = append(want, "probe.http.status_code{"+attrs+"}=200", "probe.http.body.size{"+attrs+"}=0")
	if got := k.texts(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(k.logs) != 0 {
		t.Errorf("at first it is up: %v", k.logs)
	}
	round(503)
	if got := k.texts(); got[0] != "probe.failure{"+attrs+`,"error.type":"status"}=1` || got[1] != "probe.success{"+attrs+"}=0" {
		t.Errorf("when it is down: %q", got)
	}
	round(500)
	round(200)
	round(200)
	if len(k.logs) != 2 {
		t.Fatalf("%d log records: %v", len(k.logs), k.logs)
	}
	down, up := k.logs[0], k.logs[1]
	if down.Event != "probe.down" || down.Severity != creel.SeverityError || down.Body.Str() != "shop is down: the answer's status is 503, not 200-299" {
		t.Errorf("down: %+v, %s", down, down.Body)
	}
	if e, _ := down.Attrs.Get("error.type"); e.Str() != "status" {
		t.Errorf("down: %s", down.Attrs.Append(nil))
	}
	if up.Event != "probe.up" || up.Severity != creel.SeverityInfo || !strings.HasPrefix(up.Body.Str(), "shop is up again after ") {
		t.Errorf("up: %+v, %s", up, up.Body)
	}

	// A change whose record was not taken is told by the next round.
	k.fail, status = 1, 503
	if err := c.Collect(t.Context(), &k); err == nil || k.fail != 0 {
		t.Fatalf("sending failed, but the round says %v", err)
	}
	round(503)
	if len(k.logs) != 3 || k.logs[2].Event != "probe.down" {
		t.Errorf("after a record that was not taken: %v", k.logs)
	}
}

// TestUnable: when this machine cannot check, nothing is said of the target, and a round in which it could check nothing
// fails.
func TestUnable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	good := Target{URL: "tcp://" + l.Addr().String()}
	c := open(t, broken{}, Config{}, Target{URL: "tcp://shop.example:1"}, good)
	var k kept
	for range 2 {
		if err := c.Collect(t.Context(), &k); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range k.texts() {
		if strings.Contains(p, "shop.example") && (!strings.HasPrefix(p, "probe.failure") || !strings.Contains(p, `"error.type":"local"`)) {
			t.Errorf("of what could not be checked it is said: %s", p)
		}
	}
	if len(k.logs) != 0 {
		t.Errorf("logs: %v", k.logs)
	}
	c = open(t, broken{}, Config{}, Target{URL: "tcp://shop.example:1"})
	if err := c.Collect(t.Context(), &k); err == nil || !strings.Contains(err.Error(), "BUG: broken") {
		t.Errorf("a round that could check nothing says %v", err)
	}
}

// TestCheckConfig: what is wrong is said where it stands.
func TestCheckConfig(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		n, err := config.Parse("x.yaml", []byte(yaml), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		canonical, errs := Plugin.Config.Check(n)
		switch text := errs.Error(); {
		case want == "" && len(errs) > 0, want != "" && !strings.Contains(text, want):
			t.Errorf("%s: %v; want %q", yaml, errs, want)
		case strings.Contains(text, "hush"), len(errs) == 0 && strings.Contains(string(Plugin.Config.Redact(canonical)), "hush"):
			t.Errorf("%s: a secret is told", yaml)
		}
	}
	f("{targets: []}", "at least one")
	for _, good := range []string{"http://x/", "https://x:8443/a?b=c", "tcp://[::1]:5", "tls://x", "dns://192.0.2.1/x?type=mx", "dns:///x", "dns:///192.0.2.1?type=PTR", "icmp://x"} {
		f("{targets: [{url: '"+good+"'}]}", "")
	}
	for _, bad := range []string{"x", "x:80", "ftp://x/", "tcp://x", "tcp://x:1/a", "tcp://x:0", "tcp://x:99999", "http://", "http://:80/", "http://u:hush@x/", "http://%zzhush", "icmp://x:1", "dns://x", "dns://x/a/b", "dns://x/a?type=Z", "dns://x/a?typ=A", "dns:///x?type=SOA", "dns:///x?type=PTR", "dns://x/a..b"} {
		f("{targets: [{url: '"+bad+"'}]}", "targets[0].url: must")
	}
	f("{targets: [{url: 'http://x/?a=1'}, {url: 'http://x/?a=2'}]}", `two targets are called "http://x/"`)
	f("{targets: [{url: 'http://x/?a=1'}, {url: 'http://x/?a=2', name: b}]}", "")
	f("{targets: [{url: 'http://x', headers: {a: hush}, body: hush}]}", "")
	f(`{targets: [{url: 'http://x', headers: {a: "hush\n"}}]}`, "line break")
	f("{targets: [{url: 'http://x', headers: {'a b': hush}}]}", "no header's name")
	f("{targets: [{url: 'http://x', method: 'GET /'}]}", "no method")
	f("{targets: [{url: 'tcp://x:1', body: hush}]}", "means nothing for tcp")
	f("{targets: [{url: 'tcp://x:1', expect: {valid_for: 7d}}]}", "valid_for, which https and tls have")
	f("{targets: [{url: 'http://x', expect: {status: [20]}}]}", "must be a status")
	f("{targets: [{url: 'http://x', expect: {status: [299-200]}}]}", "must be a status")
	f("{targets: [{url: 'http://x', expect: {body: '('}}]}", "must be a regular expression")
	f("{targets: [{url: 'http://x'}], allow_networks: [10.0.0.0/8], deny_networks: [10.1.0.0/8]}", "in deny_networks, too")
	f("{targets: [{url: 'http://x'}], allow_networks: [10.0.0.0]}", "allow_networks")
	f("{targets: [{url: 'http://x'}], tls: {cert_file: x}}", "key")
}
