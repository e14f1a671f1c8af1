package dns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/center/centertest"
)

func TestWatch(t *testing.T) {
	d := centertest.NewDNS(t)
	w := &centertest.World{Center: Center, Options: fmt.Sprintf("{domain: prod.example., server: %q, allow_empty: true}", d.Address())}
	w.Change = func(made center.Registry) { made.(*registry).every = 10 * time.Millisecond }
	l := w.Look(t, "web")
	l.Sees("")
	d.Set("_web._tcp.prod.example.", centertest.SRV("b.example.", 80, 10, 5), centertest.SRV("a.example.", 81, 20, 0))
	l.Sees("a.example:81@a.example:81 priority=20 b.example:80@b.example:80 priority=10 *5")
	d.Answer(dnsmessage.RCodeServerFailure)
	l.Troubled("server misbehaving")
	l.SeesNoNews()
	d.Answer(dnsmessage.RCodeSuccess)
	l.Well()
	var many []dnsmessage.SRVResource
	var want []string
	for n := range 50 { // do not fit into a datagram
		many = append(many, centertest.SRV("a.example.", uint16(n+10), 0, 1))
		want = append(want, fmt.Sprintf("a.example:%d@a.example:%d priority=0", n+10, n+10))
	}
	d.Set("_web._tcp.prod.example.", many...)
	l.Sees(strings.Join(want, " "))
	if d.Asked("tcp") == 0 {
		t.Error("all came in a datagram")
	}
	d.Set("_web._tcp.prod.example.", centertest.SRV(".", 0, 0, 0)) // RFC 2782: it is decidedly not there
	l.Sees("")
	d.Stop()
	l.Troubled("")
	d.Start()
	l.Well()
}

func TestRegister(t *testing.T) {
	w := &centertest.World{Center: Center, Options: "{domain: prod.example}"}
	rig, _ := w.Offer(t, center.Instance{Service: "web", ID: "a", Address: "a:80"})
	rig.Troubled("nobody can register with a center dns")
}

func TestOptions(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		centertest.Refuses(t, Center, yaml, want)
	}
	f("{domain: a.example}", "holds no configuration")
	f("{}", "domain")
	f("{domain: 'http://a'}", "must be a domain")
	f("{domain: a, server: b}", "must be host:port")
}
