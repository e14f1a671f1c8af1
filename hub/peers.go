package hub

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/creelhq/creel/hub/internal/cluster"
	"github.com/creelhq/creel/hub/internal/peers"
	"github.com/creelhq/creel/tlsconf"
)

// This file is how hubs know each other when one asks another.

// openPeers makes this hub able to ask others.
func (h *hub) openPeers() {
	h.peers = peers.New(peers.Options{Hub: h.id, Cluster: clustered{h}, Sign: h.access.ForHub, TLS: h.towards})
	h.close = append(h.close, h.peers.Close)
}

// clustered is the cluster, which is opened after who asks it: before that nobody is served.
type clustered struct{ *hub }

func (c clustered) Hubs() []cluster.Hub {
	if c.cluster == nil {
		return nil
	}
	return c.cluster.Hubs()
}

// towards returns what this hub speaks to another. The other's certificate must be that hub's own, of the authority that all hubs
// share: under what name or address it was reached does not matter. One that was brought cannot say which hub it is of: it must be
// for the host that was asked, and of an authority that this hub's own is of or the system trusts.
func (h *hub) towards(id string) *tls.Config {
	t, err := tlsconf.Client{}.Config("", nil, nil) // versions and ciphers
	if err != nil {
		panic("BUG: " + err.Error())
	}
	t.InsecureSkipVerify = true // VerifyConnection does
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		peer, err := h.authority.VerifyHub(cs.PeerCertificates)
		switch {
		case err == nil && peer != id:
			return fmt.Errorf("hub %s answers where hub %s should be", peer, id)
		case err != nil && h.brought() != nil && h.verifyBrought(cs, h.hostOf(id)) == nil:
			return nil
		}
		return err
	}
	t.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		own, err := h.authority.ServerCertificate(&tls.ClientHelloInfo{})
		if err != nil || asked.SupportsCertificate(own) == nil || h.brought() == nil {
			return own, err
		}
		return h.secure.GetCertificate(&tls.ClientHelloInfo{})
	}
	return t
}

// hostOf returns the host that a hub is reached at, "" if it is gone.
func (h *hub) hostOf(id string) string {
	list := h.cluster.Hubs()
	i := slices.IndexFunc(list, func(x cluster.Hub) bool { return x.ID == id })
	if i < 0 {
		return ""
	}
	u, err := url.Parse(list[i].URL)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// verifyBrought checks a certificate as clients do, for a host.
func (h *hub) verifyBrought(cs tls.ConnectionState, host string) error {
	if host == "" || len(cs.PeerCertificates) == 0 {
		return errors.New("there is no certificate, or no host that it is for")
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if top, err := x509.ParseCertificate(h.brought()); err == nil {
		roots.AddCert(top)
	}
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err = cs.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between})
	return err
}

// shown checks that a connection shows the certificate of a hub, "" for any. Where the handshake has let in nobody without a
// certificate of an authority that was brought, it has checked that.
func (h *hub) shown(cs *tls.ConnectionState, id string) error {
	if h.secure != nil && h.secure.ClientAuth >= tls.RequireAndVerifyClientCert {
		return nil
	}
	peer, err := h.authority.VerifyHub(cs.PeerCertificates)
	if err == nil && id != "" && peer != id {
		err = fmt.Errorf("verify a hub's certificate: it is that of hub %s", peer)
	}
	return err
}
