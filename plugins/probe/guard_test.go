package probe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// TestGuard: no form of an address that is denied gets past, and what looks alike is not denied with it.
func TestGuard(t *testing.T) {
	f := func(allow, deny, address string, want bool) {
		t.Helper()
		if got := newGuard(nil, prefixes(allow), prefixes(deny)).allows(netip.MustParseAddr(address)); got != want {
			t.Errorf("allow [%s], deny [%s]: %s is allowed: %v", allow, deny, address, got)
		}
	}
	for _, a := range strings.Fields(`
		169.254.169.254 169.254.170.2 169.254.0.1 0.0.0.0 0.1.2.3 100.100.100.200 168.63.129.16 192.0.0.192
		224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
		:: fe80::1 fe80::1%eth0 febf::1 ff02::1 ff0e::1 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:42::42
		::ffff:169.254.169.254 ::ffff:a9fe:a9fe ::ffff:0.0.0.0 ::ffff:100.100.100.200
		::169.254.169.254 ::ffff:0:169.254.169.254
		64:ff9b::169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b::0.0.0.0 64:ff9b::224.0.0.1
		64:ff9b:1::169.254.169.254 64:ff9b:1:a9fe:a9:fe00:: 64:ff9b:1:a9:fe:a9fe:: 64:ff9b:1:7:a9:fea9:fe00:0
		2002:a9fe:a9fe::1 2002:a9fe:a9fe:1:2:3:4:5 2001:0:1:2:3:4:5601:5601 2001:0:a9fe:a9fe::1
		2001:db8::5efe:169.254.169.254 2001:db8::200:5efe:a9fe:a9fe`) {
		f("", "", a, false)
		f("0.0.0.0/0 ::/0", "", a, false) // wider than what is denied
	}
	for _, a := range strings.Fields(`
		127.0.0.1 ::1 10.0.0.1 192.168.1.1 172.16.0.1 8.8.8.8 169.253.255.255 169.255.0.0 1.0.0.0 100.100.100.199
		168.63.129.15 192.0.0.191 223.255.255.255 2001:db8::1 2606:4700::1111 fec0::1 fd00::1 fd00:ec3::254
		::ffff:10.0.0.1 64:ff9b::8.8.8.8 64:ff9b:1::8.8.8.8 64:ff9b:1:808:8:800:: 2002:808:808::1 2001:0:808:808::f7f7:f7f7`) {
		f("", "", a, true)
		f("", "0.0.0.0/0 ::/0", a, false)
	}

	f("169.254.0.0/16", "", "169.254.169.254", true)
	f("169.254.0.0/16", "", "::ffff:169.254.169.254", true)
	f("::ffff:169.254.0.0/112", "", "169.254.169.254", true)
	f("64:ff9b::/96", "", "64:ff9b::169.254.169.254", false) // NAT64 is allowed, where it leads is not
	f("fe80::/10", "", "fe80::1%eth0", true)
	f("169.254.7.0/24", "", "169.254.7.1", true)
	f("169.254.7.0/24", "", "169.254.8.1", false)
	f("169.254.0.0/16", "169.254.169.254/32", "169.254.169.254", false)
	f("169.254.0.0/16", "169.254.169.254/32", "169.254.1.1", true)
	f("10.0.0.0/8", "0.0.0.0/0 ::/0", "10.1.2.3", true)
	f("10.0.0.0/8", "0.0.0.0/0 ::/0", "11.1.2.3", false)
	f("10.0.0.0/8", "10.0.0.0/8", "10.1.2.3", false)
	f("", "127.0.0.0/8", "::ffff:127.0.0.1", false)
	f("", "127.0.0.0/8", "64:ff9b::127.0.0.1", false)
	f("", "::ffff:127.0.0.0/104", "127.0.0.1", false)
}

func prefixes(list string) (ps []netip.Prefix) {
	for _, text := range strings.Fields(list) {
		ps = append(ps, netip.MustParsePrefix(text))
	}
	return ps
}

// names is a resolver in which a name has a list of answers, one for each time that it is asked for; the last one stays.
type names struct {
	mu      sync.Mutex
	answers map[string][]string // several addresses with spaces between
	asked   map[string]int
}

func (n *names) LookupNetIP(_ context.Context, _, host string) (found []netip.Addr, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list, ok := n.answers[host]
	if !ok {
		if a, err := netip.ParseAddr(host); err == nil {
			return []netip.Addr{a}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if n.asked == nil {
		n.asked = make(map[string]int)
	}
	i := n.asked[host]
	n.asked[host]++
	for _, text := range strings.Fields(list[min(i, len(list)-1)]) {
		found = append(found, netip.MustParseAddr(text))
	}
	return found, nil
}

// TestForms: what a resolver of the system may make of a host that looks harmless is looked at, not the host.
func TestForms(t *testing.T) {
	hosts := []string{"2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0xa9.254.0xa9fe", "metadata.google.internal", "metadata.google.internal.", "169.254.169.254.nip.example", "a9fea9fe.example"}
	n := &names{answers: map[string][]string{}}
	for _, h := range hosts {
		n.answers[h] = []string{"169.254.169.254"}
	}
	urls := []string{"http://169.254.169.254/latest/meta-data/", "http://[::ffff:169.254.169.254]/", "http://[::ffff:a9fe:a9fe]:80/", "http://[fe80::1%25lo]/", "http://0.0.0.0:1/", "http://[::]:1/"}
	for _, h := range hosts {
		urls = append(urls, "http://"+h+"/", "https://"+h+"/", "tcp://"+h+":80", "tls://"+h+":443", "icmp://"+h, "dns://"+h+"/shop.example")
	}
	for _, u := range urls {
		if r := checkOne(t, n, Target{URL: u}); r.fail == nil || r.fail.kind != denied {
			t.Errorf("%s: %v", u, r.fail)
		}
	}
}

// TestRebinding: a name that says something else the second time does not get what was checked the first time used for
// it, in a check, a round later, and after a redirect to itself.
func TestRebinding(t *testing.T) {
	hits := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		if r.URL.Path == "/again" {
			http.Redirect(w, r, "/", http.StatusFound)
		}
	}))
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	n := &names{answers: map[string][]string{"rebind.example": {"127.0.0.1", "169.254.169.254"}}}

	url := fmt.Sprintf("http://rebind.example:%d", port)
	if r := checkOne(t, n, Target{URL: url + "/"}); r.fail != nil || n.asked["rebind.example"] != 1 || r.peer.String() != "127.0.0.1" {
		t.Errorf("one check asked %d times, talked to %v, and got %v", n.asked["rebind.example"], r.peer, r.fail)
	}
	if r := checkOne(t, n, Target{URL: url + "/"}); r.fail == nil || r.fail.kind != denied || n.asked["rebind.example"] != 2 {
		t.Errorf("after the name had changed: %v", r.fail)
	}
	n.asked["rebind.example"] = 0
	if r := checkOne(t, n, Target{URL: url + "/again", MaxRedirects: 5}); r.fail == nil || r.fail.kind != denied || n.asked["rebind.example"] != 2 {
		t.Errorf("a redirect to the same name: %v", r.fail)
	}
	if hits != 2 {
		t.Errorf("the server was asked %d times", hits)
	}
	n.answers["mixed.example"] = []string{"169.254.169.254 fe80::1 127.0.0.1"}
	if r := checkOne(t, n, Target{URL: fmt.Sprintf("tcp://mixed.example:%d", port)}); r.fail != nil || r.peer.String() != "127.0.0.1" {
		t.Errorf("a name with allowed and denied addresses: talked to %v, %v", r.peer, r.fail)
	}
}

// TestRedirects: each is checked like a target, there are not too many, and secrets stay with the target's server.
func TestRedirects(t *testing.T) {
	var seen []http.Header
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = append(seen, r.Header.Clone()) }))
	defer other.Close()
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bodies = append(bodies, fmt.Sprint(r.Method, " ", r.ContentLength, " ", r.Header.Get("X-Key")))
		if to := r.URL.Query().Get("to"); to != "" {
			w.Header().Set("Location", to)
		}
		code := http.StatusFound
		if r.URL.Path == "/same" {
			code = http.StatusTemporaryRedirect
		}
		if r.URL.Path != "/" {
			w.WriteHeader(code)
		}
	}))
	defer server.Close()
	f := func(path, to string, want kind) result {
		t.Helper()
		r := checkOne(t, &names{}, Target{URL: server.URL + path + "?to=" + to, Headers: map[string]string{"X-Key": "secret"}, Method: "POST", Body: "secret", MaxRedirects: 5})
		if got := r.fail; want == "" && got != nil || want != "" && (got == nil || got.kind != want) {
			t.Errorf("%s to %s: %v", path, to, got)
		}
		return r
	}
	for _, to := range []string{"http://169.254.169.254/latest/", "http://[::ffff:169.254.169.254]/", "http://[64:ff9b::a9fe:a9fe]/", "http://0.0.0.0:80/", "//169.254.169.254/"} {
		f("/found", to, denied)
	}
	for _, to := range []string{"file:///etc/passwd", "gopher://127.0.0.1:70/", "http://127.0.0.1:0/", "http://", "unix:/run/x"} {
		f("/found", to, redirected)
	}
	bodies = nil
	f("/found", "/", "")
	f("/same", "/", "")
	if got := strings.Join(bodies, ", "); got != "POST 6 secret, GET 0 secret, POST 6 secret, POST 6 secret" {
		t.Error(got)
	}
	f("/found", other.URL, "")
	f("/same", other.URL, redirected) // it would take the body along
	if len(seen) != 1 || seen[0].Get("X-Key") != "" {
		t.Errorf("another server saw %v", seen)
	}
	if r := f("/found", "", badStatus); r.status != 302 { // it says not where to
		t.Errorf("the status is %d", r.status)
	}
	loop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, nil)
		http.Redirect(w, r, "/", http.StatusPermanentRedirect)
	}))
	defer loop.Close()
	seen = nil
	if r := checkOne(t, &names{}, Target{URL: loop.URL, MaxRedirects: 3}); r.fail == nil || r.fail.kind != redirected || len(seen) != 4 {
		t.Errorf("%d requests, %v", len(seen), r.fail)
	}
	if r := checkOne(t, &names{}, Target{URL: loop.URL, Expect: Expect{Status: []Statuses{{308, 308}}}}); r.fail != nil || r.status != 308 {
		t.Errorf("without redirects: %v", r.fail)
	}
}

// TestProxy: the environment's proxies are not used.
func TestProxy(t *testing.T) {
	proxied := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied++ }))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	n := &names{answers: map[string][]string{"shop.example": {"169.254.169.254"}}}
	if r := checkOne(t, n, Target{URL: "http://shop.example/"}); r.fail == nil || r.fail.kind != denied || proxied != 0 {
		t.Errorf("%v; a proxy was asked %d times", r.fail, proxied)
	}
}
