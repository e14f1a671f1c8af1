package authority

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel/control"
)

// maxServed is how many addresses of the machine have a certificate at once.
const maxServed = 64

// served are a hub's certificates, by the address of the machine that a connection has come to; the zero Addr has one with the
// configured names alone. Each address has its own, so that who reaches the hub at one does not learn the others.
type served struct {
	mu   sync.Mutex
	list map[netip.Addr]*servedOne
}

type servedOne struct {
	certificate *tls.Certificate
	made, renew time.Time
}

// ServerCertificate returns what the hub shows on a connection: its certificate, the intermediate and the root, and during a
// change the way to the root before. It has the names of the options, that of the machine, and the address that the client has
// reached, if hello has a connection. For other names that the client asks for there is the same one. It is made when it is
// needed, and anew at two thirds of its life or when the authority has changed; a GetCertificate of crypto/tls.
func (a *Authority) ServerCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	local := reached(hello)
	if slices.Contains(a.addresses, local) {
		local = netip.Addr{}
	}
	s, now := a.set.Load(), a.o.Now()
	s.served.mu.Lock() // also while one is made: the others need it too
	defer s.served.mu.Unlock()
	one := s.served.list[local]
	if one != nil && now.Before(one.renew) && !now.Before(one.made) {
		return one.certificate, nil
	}
	c, err := a.certify(s, local, now)
	if err != nil {
		if one != nil && now.Before(one.certificate.Leaf.NotAfter) {
			return one.certificate, nil // Describe warns
		}
		return nil, err
	}
	if s.served.list == nil || len(s.served.list) >= maxServed {
		s.served.list = make(map[netip.Addr]*servedOne)
	}
	s.served.list[local] = &servedOne{certificate: c, made: now, renew: now.Add(c.Leaf.NotAfter.Sub(now) * 2 / 3)}
	return c, nil
}

// reached returns the address of this machine that a client has connected to. The kernel vouches for it: there is no way to
// have the hub certify an address that the machine does not answer to.
func reached(hello *tls.ClientHelloInfo) netip.Addr {
	if hello.Conn == nil {
		return netip.Addr{}
	}
	local, ok := hello.Conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return local.AddrPort().Addr().Unmap().WithZone("")
}

// certify makes a certificate of this hub, with a key of its own.
func (a *Authority) certify(s *set, local netip.Addr, now time.Time) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: a.o.Hub}, URIs: []*url.URL{control.Peer{Hub: true, ID: a.o.Hub}.URI()}, DNSNames: a.names,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(a.o.HubLife),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, // the latter towards other hubs
	}
	for _, ip := range a.addresses {
		t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
	}
	if local.IsValid() {
		t.IPAddresses = append(t.IPAddresses, local.AsSlice())
	}
	der, err := s.issues.sign(t, &key.PublicKey, now)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, s.chain(now)...), PrivateKey: key, Leaf: leaf}, nil
}
