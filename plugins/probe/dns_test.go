package probe

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A nameServer answers over UDP and TCP on one port of loopback.
type nameServer struct {
	address   string
	udp, tcp  atomic.Int64 // questions
	forgeries atomic.Int64 // answers to other questions, sent before the right one
}

func startNameServer(t *testing.T) *nameServer {
	t.Helper()
	var s nameServer
	var l net.Listener
	var conn net.PacketConn
	for range 20 { // until a port is free for both
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if conn, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			break
		}
		l.Close()
	}
	if conn == nil {
		t.Fatal("no port is free for UDP and TCP")
	}
	s.address = l.Addr().String()
	var running sync.WaitGroup
	t.Cleanup(func() { l.Close(); conn.Close(); running.Wait() })
	running.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			s.udp.Add(1)
			for _, packet := range s.answers(buf[:n], true) {
				_, _ = conn.WriteTo(packet, from)
			}
		}
	})
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var length [2]byte
			if _, err := io.ReadFull(conn, length[:]); err == nil {
				packet := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(conn, packet); err == nil {
					s.tcp.Add(1)
					for _, a := range s.answers(packet, false) {
						_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
					}
				}
			}
			conn.Close()
		}
	})
	return &s
}

// answers returns the packets that answer one: what they say depends on the name's first label.
func (s *nameServer) answers(packet []byte, udp bool) (packets [][]byte) {
	var m dnsmessage.Message
	if err := m.Unpack(packet); err != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	q := m.Questions[0]
	add := func(body dnsmessage.ResourceBody, kind dnsmessage.Type) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: kind, Class: q.Class, TTL: 60}, Body: body})
	}
	switch label, _, _ := strings.Cut(strings.ToLower(q.Name.String()), "."); {
	case label == "none":
	case label == "missing":
		m.RCode = dnsmessage.RCodeNameError
	case label == "silent":
		return nil
	case label == "long" && udp:
		m.Truncated = true
	case label == "forged":
		for _, forge := range []func(*dnsmessage.Message){
			func(f *dnsmessage.Message) { f.ID++ },
			func(f *dnsmessage.Message) { f.Response = false },
			func(f *dnsmessage.Message) { f.Questions[0].Name = dnsmessage.MustNewName("other.example.") },
			func(f *dnsmessage.Message) { f.Questions = nil },
		} {
			f := m
			f.Questions, f.RCode = append([]dnsmessage.Question(nil), q), dnsmessage.RCodeRefused
			forge(&f)
			if p, err := f.Pack(); err == nil {
				packets = append(packets, p)
			}
		}
		packets = append(packets, []byte("no message"), nil)
		s.forgeries.Add(int64(len(packets)))
		fallthrough
	default:
		target := dnsmessage.MustNewName("target.example.")
		switch q.Type {
		case dnsmessage.TypeA:
			add(&dnsmessage.CNAMEResource{CNAME: target}, dnsmessage.TypeCNAME)
			add(&dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}, dnsmessage.TypeA)
			add(&dnsmessage.AResource{A: [4]byte{192, 0, 2, 2}}, dnsmessage.TypeA)
		case dnsmessage.TypeAAAA:
			add(&dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}, q.Type)
		case dnsmessage.TypeCNAME:
			add(&dnsmessage.CNAMEResource{CNAME: target}, q.Type)
		case dnsmessage.TypeMX:
			add(&dnsmessage.MXResource{Pref: 10, MX: target}, q.Type)
		case dnsmessage.TypeNS:
			add(&dnsmessage.NSResource{NS: target}, q.Type)
		case dnsmessage.TypePTR:
			add(&dnsmessage.PTRResource{PTR: target}, q.Type)
		case dnsmessage.TypeSOA:
			add(&dnsmessage.SOAResource{NS: target, MBox: target, Serial: 7}, q.Type)
		case dnsmessage.TypeSRV:
			add(&dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 3, Target: target}, q.Type)
		case dnsmessage.TypeTXT:
			add(&dnsmessage.TXTResource{TXT: []string{"v=1 ", "a"}}, q.Type)
		}
	}
	p, err := m.Pack()
	if err != nil {
		return nil
	}
	return append(packets, p)
}

// TestDNS: every type, from a server of one's own and from this machine's.
func TestDNS(t *testing.T) {
	s := startNameServer(t)
	system := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.address)
	}}
	f := func(query, answer string, want kind, reason string) (r result) {
		t.Helper()
		servers := []string{s.address, ""}
		if strings.Contains(query, "SOA") {
			servers = servers[:1]
		}
		for _, server := range servers {
			target := Target{URL: "dns://" + server + "/" + query}
			if answer != "" {
				target.Expect.Answer = pattern(answer)
			}
			c := open(t, &names{}, Config{}, target)
			c.system = system
			r = c.check(t.Context(), c.targets[0])
			wants(t, r, want, reason)
			if r.took[phaseProcessing] < 0 {
				t.Errorf("%s of %q: no time was spent", query, server)
			}
		}
		return r
	}
	if r := f("x.example", `^192\.0\.2\.2$`, "", ""); r.answers != 2 {
		t.Errorf("%d answers", r.answers)
	}
	f("x.example?type=A", "^10", badAnswer, "none of 2 records of type A for x.example matches ^10")
	f("x.example?type=AAAA", "^2001:db8::1$", "", "")
	f("x.example?type=MX", `^10 target\.example\.$`, "", "")
	f("x.example?type=NS", `^target\.example\.$`, "", "")
	f("x.example?type=SRV", `^1 2 3 target\.example\.$`, "", "")
	f("x.example?type=TXT", `^v=1 a$`, "", "")
	f("x.example?type=SOA", `^target\.example\. target\.example\. 7 0 0 0 0$`, "", "")
	f("192.0.2.9?type=PTR", `^target\.example\.$`, "", "")
	f("2001:db8::9?type=PTR", `^target\.example\.$`, "", "")
	f("none.example", "", badAnswer, "no record of type A for none.example")
	f("missing.example", "", badAnswer, "")
	before := s.tcp.Load()
	f("long.example", `^192`, "", "")
	if s.tcp.Load()-before < 2 {
		t.Error("what is cut off is not asked for over TCP")
	}
}

// TestDNSForged: what answers another question is waited on; what does not answer times out.
func TestDNSForged(t *testing.T) {
	s := startNameServer(t)
	wants(t, checkOne(t, &names{}, Target{URL: "dns://" + s.address + "/forged.example"}), "", "")
	if s.forgeries.Load() < 5 {
		t.Errorf("only %d forgeries were sent", s.forgeries.Load())
	}
	r := checkOne(t, &names{}, Target{URL: "dns://" + s.address + "/silent.example", Timeout: 30 * time.Millisecond})
	wants(t, r, timedOut, "no answer within 30ms")
	if s.udp.Load() != 2 {
		t.Errorf("%d questions", s.udp.Load())
	}
	if got := reverse(netip.MustParseAddr("2001:db8::567:89ab")); got != "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa." { // RFC 3596 has it so, with other digits
		t.Error(got)
	}
}
