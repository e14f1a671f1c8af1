package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/creelhq/creel/control"
)

// verifyChain checks certificates, the one in question first, as they were at a time.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage, at time.Time) error {
	if len(chain) == 0 {
		return errors.New("there is no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: at}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	return err
}

// verifyHub checks the certificates that a hub has shown, as they were at a time. One that names a hub must be of the bundle: the
// system's authorities certify names of hosts, and nothing else.
func (c *credentials) verifyHub(chain []*x509.Certificate, at time.Time) error {
	err := verifyChain(chain, c.roots, x509.ExtKeyUsageServerAuth, at)
	if err == nil || c.system == nil || len(chain) == 0 {
		return err
	}
	if _, other := control.PeerOf(chain[0]); other == nil {
		return err
	}
	return verifyChain(chain, c.system, x509.ExtKeyUsageServerAuth, at)
}

// begin is when all certificates of a chain had begun to be valid.
func begin(chain []*x509.Certificate) time.Time {
	return slices.MaxFunc(chain, func(a, b *x509.Certificate) int { return a.NotBefore.Compare(b.NotBefore) }).NotBefore
}

// hubOf returns the id of the hub that a server's certificate names; else, if the hub brings a certificate of its own, it must be
// valid for the host, and the id is "".
func hubOf(leaf *x509.Certificate, host string) (string, error) {
	p, err := control.PeerOf(leaf)
	switch {
	case err == nil && p.Hub:
		return p.ID, nil
	case err == nil:
		return "", fmt.Errorf("it is an agent's, %s", p.URI())
	}
	return "", leaf.VerifyHostname(host)
}

// verify checks the certificate that a hub has shown, at each handshake, and when a session is resumed as well.
//
// It must be of an authority that is trusted, and name a hub: which one does not matter, for the authority certifies only its
// own. Under what address the hub was reached does not matter either, so that it may have any.
//
// Whether it is valid now, this machine's clock says. If it says no, and nothing else is wrong with the certificate, it may be
// the clock that is wrong, by minutes or, where nothing keeps it going without power, by decades; to believe it would lock the
// agent out, perhaps for ever, if the right time is to be had only through the network. But to believe anything instead would
// make every key of a hub that was ever stolen good for ever. So the time that counts is then what the authority has said last:
// a certificate that it has made tells that it was no earlier than that. The one that is shown counts if it was valid once its
// chain had begun, if this hub has not shown a newer one already, and if it had not ended by the time the authority made anything
// that this agent has seen: certificates of hubs, and its own, which it gets anew every day. What was seen is on disk, for the
// agent may be started again. So an old key is of no use towards an agent that has heard of the hub since, whatever the clocks
// say; and towards one whose clock is right it is of no use in any case once that was so.
func (i *Identity) verify(cs tls.ConnectionState) error {
	c := i.current.Load()
	if len(cs.PeerCertificates) == 0 {
		return errors.New("verify the hub's certificate: it has sent none")
	}
	leaf, now := cs.PeerCertificates[0], i.o.Now()
	late := c.verifyHub(cs.PeerCertificates, now)
	if late != nil {
		if err := c.verifyHub(cs.PeerCertificates, begin(cs.PeerCertificates)); err != nil {
			return fmt.Errorf("verify the hub's certificate: %w; it is of no authority of the hub that this agent has joined: is the URL right? If the hub was made anew, join it with creel join URL --token TOKEN --again", err)
		}
	}
	var hub string
	var err error
	for _, host := range i.hostsOf(cs) {
		if hub, err = hubOf(leaf, host); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("verify the hub's certificate: %w", err)
	}
	if late != nil {
		if err := i.outdated(hub, leaf, c); err != nil {
			return fmt.Errorf("verify the hub's certificate: %w", err)
		}
		i.warnOfClock(leaf, now)
	}
	i.saw(hub, leaf.NotBefore)
	return nil
}

// hostsOf returns the name that was asked for. crypto/tls does not tell addresses: then it is one of the hubs', any of which may
// be trusted.
func (i *Identity) hostsOf(cs tls.ConnectionState) []string {
	if cs.ServerName != "" {
		return []string{cs.ServerName}
	}
	var hosts []string
	for _, text := range i.urls() {
		if u, err := url.Parse(text); err == nil {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

// outdated says why a hub's certificate is older than it may be, whatever time it is.
func (i *Identity) outdated(hub string, leaf *x509.Certificate, c *credentials) error {
	i.disk.Lock()
	newest := i.kept.Newest
	i.disk.Unlock()
	if last := newest[hub]; leaf.NotBefore.Before(last) {
		return fmt.Errorf("it is valid from %s until %s, which is not now, and the hub has shown a newer one, of %s: somebody may use an old key of the hub's",
			stamp(leaf.NotBefore), stamp(leaf.NotAfter), stamp(last))
	}
	latest := c.pair.Leaf.NotBefore
	for _, t := range newest {
		if t.After(latest) {
			latest = t
		}
	}
	if leaf.NotAfter.Before(latest) {
		return fmt.Errorf("it has expired at %s: its authority has made certificates as late as %s since; does the hub renew its own?", stamp(leaf.NotAfter), stamp(latest))
	}
	return nil
}

// saw keeps when the newest certificate of a hub begins.
func (i *Identity) saw(hub string, begin time.Time) {
	i.disk.Lock()
	news := begin.After(i.kept.Newest[hub])
	i.disk.Unlock()
	if !news {
		return
	}
	if err := i.keep(func(r *record) error { r.saw(hub, begin); return nil }); err != nil {
		i.o.Log.Warn("it is not kept when the hub's certificate began", "error", err)
	}
}

func (i *Identity) warnOfClock(leaf *x509.Certificate, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.warned.IsZero() || time.Since(i.warned) >= time.Hour {
		i.warned = time.Now()
		i.o.Log.Warn("this machine's clock seems to be wrong: the hub's certificate is not valid by it; it is believed nevertheless, for nothing else is wrong with it. Records get wrong times",
			"clock", stamp(now), "from", stamp(leaf.NotBefore), "until", stamp(leaf.NotAfter))
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// first is what is known of a hub from the first contact.
type first struct {
	hub   string // its id; "": it brings a certificate of its own
	leaf  *x509.Certificate
	clock bool // this machine's is before the certificate's time
}

// verifyFirst checks the certificate of a hub of which nothing is known but the fingerprint that came with a token.
//
// A clock that is behind is no obstacle. One by which the certificate has expired is: that its key is not an old one, which
// somebody has stolen, nothing shows yet, and who joins can set the clock.
func verifyFirst(cs tls.ConnectionState, fingerprint, host string, now time.Time) (first, error) {
	chain := cs.PeerCertificates
	if len(chain) == 0 {
		return first{}, errors.New("verify the hub's certificate: it has sent none")
	}
	at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return control.FingerprintOf(c.Raw) == fingerprint })
	if at < 0 {
		top := control.FingerprintOf(chain[len(chain)-1].Raw)
		return first{}, fmt.Errorf("verify the hub's certificate: the token is for a hub with the fingerprint %s, but who answers here shows %s: either the token is another hub's, or somebody is in between; nothing was told to them. "+
			"Look whether the URL is right, and make the token at the hub that is meant", fingerprint, top)
	}
	f := first{leaf: chain[0]}
	roots := x509.NewCertPool()
	roots.AddCert(chain[at])
	err := verifyChain(chain, roots, x509.ExtKeyUsageServerAuth, now)
	if err != nil && now.Before(f.leaf.NotBefore) {
		err = verifyChain(chain, roots, x509.ExtKeyUsageServerAuth, begin(chain))
		f.clock = err == nil
	}
	if err != nil && now.After(f.leaf.NotAfter) {
		return first{}, fmt.Errorf("verify the hub's certificate: it has expired at %s, and this machine's clock says %s; set the clock, or give the hub a new certificate", stamp(f.leaf.NotAfter), stamp(now))
	}
	if err != nil {
		return first{}, fmt.Errorf("verify the hub's certificate: it does not lead to the authority that the token is for: %w; somebody may be in between, nothing was told to them", err)
	}
	if f.hub, err = hubOf(f.leaf, host); err != nil {
		return first{}, fmt.Errorf("verify the hub's certificate: %w", err)
	}
	return f, nil
}
