package probe

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// A resolver finds the addresses of a host, a name or an IP address; network is ip, ip4 or ip6. *net.Resolver is one.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A guard decides which addresses may be talked to, and is the only way to one: a name is resolved, what was found is
// checked, and exactly that is dialled, so that a name which says something else when asked again gets nowhere.
type guard struct {
	resolver resolver
	rules    []rule // the narrowest first
}

type rule struct {
	network netip.Prefix
	allow   bool
}

// dangerous are the networks that are denied unless they are listed as allowed: what answers there trusts whoever can
// reach it. Of clouds' metadata services most are link-local, the others are here one by one.
var dangerous = []string{
	"0.0.0.0/8",          // unspecified: means this machine
	"169.254.0.0/16",     // link-local, with the metadata of most clouds
	"100.100.100.200/32", // metadata of Alibaba Cloud
	"168.63.129.16/32",   // platform services of Azure
	"192.0.0.192/32",     // metadata of Oracle Cloud
	"224.0.0.0/4",        // multicast
	"240.0.0.0/4",        // reserved, and broadcast
	"::/128",             // unspecified
	"fe80::/10",          // link-local
	"ff00::/8",           // multicast
	"fd00:ec2::/32",      // metadata and other services of AWS
	"fd20:ce::254/128",   // metadata of Google Cloud
	"fd00:42::42/128",    // metadata of Scaleway
}

func newGuard(r resolver, allow, deny []netip.Prefix) *guard {
	g := &guard{resolver: r}
	for _, p := range deny { // before those allowed: of equals, the first decides
		g.rules = append(g.rules, rule{plain(p), false})
	}
	for _, p := range allow {
		g.rules = append(g.rules, rule{plain(p), true})
	}
	for _, text := range dangerous {
		g.rules = append(g.rules, rule{netip.MustParsePrefix(text), false})
	}
	slices.SortStableFunc(g.rules, func(a, b rule) int { return cmp.Compare(b.network.Bits(), a.network.Bits()) })
	return g
}

// plain returns a network of IPv4-mapped addresses as one of IPv4.
func plain(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// allows reports whether a may be talked to: it, and every IPv4 address that packets to it may end at.
func (g *guard) allows(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return g.permits(a) && !slices.ContainsFunc(embedded(a), func(v4 netip.Addr) bool { return !g.permits(v4) })
}

// permits goes by the narrowest network that holds a.
func (g *guard) permits(a netip.Addr) bool {
	i := slices.IndexFunc(g.rules, func(r rule) bool { return r.network.Contains(a) })
	return i < 0 || g.rules[i].allow
}

// embedding are IPv6 networks whose addresses lead to an IPv4 address which stands in them.
var embedding = []struct {
	network netip.Prefix
	at      [4]int // where its bytes are
	inverse bool   // each bit
	perhaps bool   // if the first byte is not 0: else it is something else
}{
	{netip.MustParsePrefix("64:ff9b::/96"), [4]int{12, 13, 14, 15}, false, false},    // NAT64, RFC 6052
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{12, 13, 14, 15}, false, true},   // NAT64, RFC 8215, when a /96 of it is used,
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{9, 10, 11, 12}, false, true},    // a /64,
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{7, 9, 10, 11}, false, true},     // a /56,
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{6, 7, 9, 10}, false, true},      // or all
	{netip.MustParsePrefix("::ffff:0:0:0/96"), [4]int{12, 13, 14, 15}, false, false}, // IPv4-translated, RFC 2765
	{netip.MustParsePrefix("::/96"), [4]int{12, 13, 14, 15}, false, true},            // IPv4-compatible, RFC 4291
	{netip.MustParsePrefix("2002::/16"), [4]int{2, 3, 4, 5}, false, false},           // 6to4, RFC 3056
	{netip.MustParsePrefix("2001::/32"), [4]int{4, 5, 6, 7}, false, false},           // Teredo's server, RFC 4380
	{netip.MustParsePrefix("2001::/32"), [4]int{12, 13, 14, 15}, true, false},        // and client
}

// embedded returns the IPv4 addresses that a leads to.
func embedded(a netip.Addr) (list []netip.Addr) {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	for _, e := range embedding {
		if !e.network.Contains(a) {
			continue
		}
		var v4 [4]byte
		for i, at := range e.at {
			if v4[i] = b[at]; e.inverse {
				v4[i] = ^v4[i]
			}
		}
		if v4[0] != 0 || !e.perhaps {
			list = append(list, netip.AddrFrom4(v4))
		}
	}
	if b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe { // ISATAP, RFC 5214, in any network
		list = append(list, netip.AddrFrom4([4]byte(b[12:])))
	}
	return list
}

// resolve returns the addresses of host that may be talked to, at least one.
func (g *guard) resolve(ctx context.Context, network, host string) ([]netip.Addr, error) {
	found, err := g.resolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, failed(kindOf(err, cannotResolve), fmt.Errorf("resolve %s: %w", host, inner(err)))
	}
	var allowed []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); g.allows(a) {
			allowed = append(allowed, a)
		}
	}
	switch {
	case len(found) == 0:
		return nil, failed(cannotResolve, fmt.Errorf("resolve %s: there is no address for %s", host, network))
	case len(allowed) == 0:
		return nil, failed(denied, fmt.Errorf("connect to %s: address %s is denied; if that is meant, list it in allow_networks", host, found[0]))
	}
	return allowed, nil
}

// dial connects to host, trying its addresses one after the other, each with its share of the time that is left.
func (g *guard) dial(ctx context.Context, r *result, network, family, host string, port uint16) (net.Conn, error) {
	start := time.Now()
	addresses, err := g.resolve(ctx, family, host)
	resolved := r.spent(phaseResolve, start)
	if err != nil {
		return nil, err
	}
	defer r.spent(phaseConnect, resolved)
	var first *failure // that says something of the target, if there is one
	for i, a := range addresses {
		conn, err := dialOne(ctx, network, netip.AddrPortFrom(a, port), len(addresses)-i)
		if err == nil {
			r.peer = a
			return conn, nil
		}
		if first == nil || first.kind == local {
			first, r.peer = err, a
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

func dialOne(ctx context.Context, network string, to netip.AddrPort, left int) (net.Conn, *failure) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	var d net.Dialer // with an IP address, it resolves nothing
	conn, err := d.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, failed(kindOf(err, unreachable), fmt.Errorf("connect to %s: %w", to, inner(err)))
	}
	return conn, nil
}
