package probe

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// An echo is how ICMP says ping with one version of IP.
type echo struct {
	protocol       int // number of ICMP, by IANA
	ping, raw, any string
	request, reply icmp.Type
}

var (
	echo4 = echo{protocol: 1, ping: "udp4", raw: "ip4:icmp", any: "0.0.0.0", request: ipv4.ICMPTypeEcho, reply: ipv4.ICMPTypeEchoReply}
	echo6 = echo{protocol: 58, ping: "udp6", raw: "ip6:ipv6-icmp", any: "::", request: ipv6.ICMPTypeEchoRequest, reply: ipv6.ICMPTypeEchoReply}
)

// checkICMP sends an echo request to the host's first address and waits for its reply.
func (c *collector) checkICMP(ctx context.Context, t *target, r *result) error {
	start := time.Now()
	addresses, err := c.guard.resolve(ctx, t.family(), t.address.host)
	r.spent(phaseResolve, start)
	if err != nil {
		return err
	}
	r.peer = addresses[0]
	e := &echo4
	if r.peer.Is6() {
		e = &echo6
	}
	conn, to, err := e.open(r.peer)
	if err != nil {
		return failed(local, err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(t.Timeout)) // as ctx has it; what comes next is for the end of the round
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if r.rtt, err = e.exchange(conn, to); err != nil {
		r.rtt = -1
		return failed(kindOf(err, unreachable), fmt.Errorf("ping %s: %w", r.peer, inner(err)))
	}
	return nil
}

// open returns a socket for echoes and the address as it wants it. Where the system lets anybody ping it is one for that
// alone; else a raw one, for which one has to be privileged.
func (e *echo) open(to netip.Addr) (*icmp.PacketConn, net.Addr, error) {
	conn, err := icmp.ListenPacket(e.ping, e.any)
	if err == nil {
		return conn, &net.UDPAddr{IP: to.AsSlice(), Zone: to.Zone()}, nil
	}
	conn, rawErr := icmp.ListenPacket(e.raw, e.any)
	if rawErr == nil {
		return conn, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}, nil
	}
	return nil, nil, fmt.Errorf("open a socket for ICMP: %w, and a raw one: %w; on Linux let the agent's group into net.ipv4.ping_group_range (sysctl), or give the agent CAP_NET_RAW", inner(err), inner(rawErr))
}

// exchange sends a request and returns the time until its reply. What else comes on the socket is passed over: the data
// tells the replies of this request from all others, as the system may put another identifier in.
func (e *echo) exchange(conn *icmp.PacketConn, to net.Addr) (time.Duration, error) {
	body := &icmp.Echo{ID: int(rand.Uint32() & 0xffff), Seq: 1, Data: make([]byte, 32)}
	for i := range body.Data {
		body.Data[i] = byte(rand.Uint32())
	}
	packet, err := (&icmp.Message{Type: e.request, Body: body}).Marshal(nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := conn.WriteTo(packet, to); err != nil {
		return 0, err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		took := time.Since(start)
		m, err := icmp.ParseMessage(e.protocol, buf[:n])
		if err != nil || m.Type != e.reply {
			continue
		}
		if got, ok := m.Body.(*icmp.Echo); ok && got.Seq == body.Seq && bytes.Equal(got.Data, body.Data) {
			return took, nil
		}
	}
}
