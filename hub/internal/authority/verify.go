package authority

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/creelhq/creel/control"
)

const (
	maxVerified = 16384 // certificates that are remembered twice over; a larger fleet's are verified more often
	maxChain    = 4     // certificates that are looked at beside the first
)

const join = "creel join URL --token TOKEN makes the agent one of this hub's"

// Verify finds out which agent a chain of certificates is for, the agent's own first, as a connection's peer has shown it. That
// the peer has the key, the handshake has proven. The error is a *control.Refusal; if its code is control.Expired, the
// certificate is authentic otherwise, and the Peer is returned too.
func (a *Authority) Verify(chain []*x509.Certificate) (control.Peer, error) {
	peer, err := a.peer(chain)
	if peer.Hub {
		return control.Peer{}, &control.Refusal{Code: control.NoCertificate, Text: "the certificate is that of hub " + peer.ID + ", and hubs are no agents", Remedy: join}
	}
	return peer, err
}

// VerifyHub finds out which hub a chain of certificates is for, as Verify does for agents. Hubs show the same certificate as
// servers and as clients.
func (a *Authority) VerifyHub(chain []*x509.Certificate) (id string, err error) {
	peer, err := a.peer(chain)
	switch {
	case err != nil:
		return "", fmt.Errorf("verify a hub's certificate: %w", err)
	case !peer.Hub:
		return "", fmt.Errorf("verify a hub's certificate: it is that of agent %s", peer.ID)
	}
	return peer.ID, nil
}

// peer finds out whom a chain is for, agent or hub.
func (a *Authority) peer(chain []*x509.Certificate) (control.Peer, error) {
	if len(chain) == 0 {
		return control.Peer{}, &control.Refusal{Code: control.NoCertificate, Text: "the connection shows no certificate", Remedy: join}
	}
	s, now := a.set.Load(), a.o.Now()
	sum := sha256.Sum256(chain[0].Raw)
	v, ok := s.verified.get(sum)
	if !ok {
		var err error
		if v, err = s.verify(chain); err != nil {
			return control.Peer{}, err
		}
		s.verified.put(sum, v)
	}
	switch {
	case now.After(v.ends):
		return v.peer, &control.Refusal{Code: control.Expired, Text: fmt.Sprintf("the agent's certificate has expired at %s, by this hub's clock", v.ends.Format(time.RFC3339)), Remedy: "the agent renews it by itself"}
	case now.Before(v.begins):
		return v.peer, &control.Refusal{Code: control.Expired, Text: fmt.Sprintf("the agent's certificate is valid only from %s on, by this hub's clock", v.begins.Format(time.RFC3339)), Remedy: "set this hub's clock right, or let the agent renew"}
	}
	return v.peer, nil
}

// verified is what a certificate says that was issued by the authority.
type verified struct {
	peer         control.Peer
	begins, ends time.Time
}

// verify looks at a certificate as of the time it was issued at: the result can be kept, and of an expired one it is known whose
// it is.
func (s *set) verify(chain []*x509.Certificate) (verified, error) {
	leaf := chain[0]
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range s.roots {
		roots.AddCert(r.root)
		between.AddCert(r.intermediate)
	}
	for _, c := range s.withdrawn {
		roots.AddCert(c)
	}
	for _, c := range chain[1:min(len(chain), maxChain+1)] {
		if c.PublicKeyAlgorithm == x509.ECDSA { // as all of ours; others may have keys that are dear to use
			between.AddCert(c)
		}
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	chains, err := leaf.Verify(o)
	if err != nil {
		return verified{}, s.refuse(leaf, o, err)
	}
	v := verified{begins: leaf.NotBefore}
	for _, c := range chains {
		ends := leaf.NotAfter
		for _, above := range c { // ours do not outlive their issuers; one that does was made by a thief
			if above.NotAfter.Before(ends) {
				ends = above.NotAfter
			}
		}
		if ends.After(v.ends) {
			v.ends = ends
		}
	}
	if v.peer, err = control.PeerOf(leaf); err != nil {
		return verified{}, &control.Refusal{Code: control.NoCertificate, Text: "the certificate is of this hub's authority, but no agent's: " + err.Error(), Remedy: join}
	}
	return v, nil
}

// refuse says why a certificate does not verify.
func (s *set) refuse(leaf *x509.Certificate, o x509.VerifyOptions, err error) error {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage {
		return &control.Refusal{Code: control.NoCertificate, Text: "the certificate is none to connect with: it is for another use", Remedy: join}
	}
	for i, c := range s.retired {
		o.Roots = x509.NewCertPool()
		o.Roots.AddCert(c)
		if _, err := leaf.Verify(o); err == nil {
			return &control.Refusal{
				Code:   control.UnknownAuthority,
				Text:   fmt.Sprintf("the agent's certificate is of an authority of this hub that was retired on %s", s.record.Retired[i].Time.Format("2006-01-02")),
				Remedy: "join again: " + join,
			}
		}
	}
	return &control.Refusal{Code: control.UnknownAuthority, Text: "the agent's certificate is of no authority of this hub: it is another hub's, or this hub's was made anew", Remedy: "let the agent connect to its own hub; or " + join}
}

// A cache remembers at least the last max certificates, and twice as many at most. It may be used concurrently.
type cache struct {
	max      int
	mu       sync.Mutex
	new, old map[[sha256.Size]byte]verified
}

func (c *cache) get(sum [sha256.Size]byte) (verified, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.new[sum]
	if !ok {
		if v, ok = c.old[sum]; ok {
			c.add(sum, v)
		}
	}
	return v, ok
}

func (c *cache) put(sum [sha256.Size]byte, v verified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(sum, v)
}

func (c *cache) add(sum [sha256.Size]byte, v verified) {
	if c.new == nil || len(c.new) >= c.max {
		c.old, c.new = c.new, make(map[[sha256.Size]byte]verified)
	}
	c.new[sum] = v
}
