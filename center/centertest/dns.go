package centertest

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A DNS is a server of SRV records, over UDP and TCP on one port of loopback. What does not fit into 512 bytes is cut over UDP.
type DNS struct {
	t       testing.TB
	address string
	done    sync.WaitGroup

	mu      sync.Mutex
	records map[string][]dnsmessage.SRVResource
	code    dnsmessage.RCode
	asked   map[string]int // by network
	udp     net.PacketConn
	tcp     net.Listener
}

// NewDNS starts a DNS, which ends with the test.
func NewDNS(t testing.TB) *DNS {
	d := &DNS{t: t, address: anyPort, records: map[string][]dnsmessage.SRVResource{}, asked: map[string]int{}}
	d.Start()
	t.Cleanup(d.Stop)
	return d
}

// Address is where it is, host:port.
func (d *DNS) Address() string { return d.address }

// Start starts it again, with what it had.
func (d *DNS) Start() {
	d.t.Helper()
	for try := 0; ; try++ {
		tcp, err := net.Listen("tcp", d.address)
		if err != nil {
			d.t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err != nil {
			tcp.Close()
			if d.address == anyPort && try < 20 { // somebody has the other half of this port
				continue
			}
			d.t.Fatal(err)
		}
		d.address, d.tcp, d.udp = tcp.Addr().String(), tcp, udp
		break
	}
	tcp, udp := d.tcp, d.udp
	d.done.Go(func() { d.serveUDP(udp) })
	d.done.Go(func() { d.serveTCP(tcp) })
}

// Stop ends it.
func (d *DNS) Stop() {
	d.tcp.Close()
	d.udp.Close()
	d.done.Wait()
}

// Set makes a name have records, none of which it has any more after. Of no records the name is not there.
func (d *DNS) Set(name string, records ...dnsmessage.SRVResource) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[name] = records
}

// SRV is a record.
func SRV(target string, port, priority, weight uint16) dnsmessage.SRVResource {
	return dnsmessage.SRVResource{Target: dnsmessage.MustNewName(target), Port: port, Priority: priority, Weight: weight}
}

// Answer has every question answered with a code, such as RCodeServerFailure; RCodeSuccess: as it should be.
func (d *DNS) Answer(code dnsmessage.RCode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.code = code
}

// Asked returns how many questions came over a network, udp or tcp.
func (d *DNS) Asked(network string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[network]
}

func (d *DNS) serveUDP(udp net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := udp.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := d.answer("udp", buf[:n]); answer != nil {
			_, _ = udp.WriteTo(answer, from) // it is asked again
		}
	}
}

func (d *DNS) serveTCP(tcp net.Listener) {
	for {
		conn, err := tcp.Accept()
		if err != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err == nil {
			question := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, question); err == nil {
				answer := d.answer("tcp", question)
				_, _ = conn.Write(slices.Concat(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer)) // likewise
			}
		}
		conn.Close()
	}
}

func (d *DNS) answer(network string, question []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[network]++
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil || len(m.Questions) != 1 {
		return nil
	}
	name := m.Questions[0].Name
	records := d.records[strings.ToLower(name.String())]
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired, RCode: d.code}, Questions: m.Questions}
	if len(records) == 0 && d.code == dnsmessage.RCodeSuccess {
		reply.RCode = dnsmessage.RCodeNameError
	}
	if reply.RCode == dnsmessage.RCodeSuccess && m.Questions[0].Type == dnsmessage.TypeSRV {
		for _, r := range records {
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 1}, Body: &r})
		}
	}
	text, err := reply.Pack()
	if err == nil && network == "udp" && len(text) > 512 {
		reply.Answers, reply.Truncated = nil, true
		text, err = reply.Pack()
	}
	if err != nil {
		d.t.Error(err)
	}
	return text
}
