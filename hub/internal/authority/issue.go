package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/control"
)

const (
	rootLife         = 20 * 365 * 24 * time.Hour
	intermediateLife = 5 * 365 * 24 * time.Hour

	// backdate is how much earlier certificates begin than they are made: clocks differ.
	backdate = time.Hour

	birth = 2026 // the year before which there was no creel
)

// A freshRoot is a root that was just made, and its key, which goes nowhere but into a file.
type freshRoot struct {
	root root
	key  rootKey
}

// newRoot makes a root and its intermediate.
func newRoot(now time.Time) (freshRoot, error) {
	if now.Year() < birth { // as machines without a battery have it when they start: the root would end long ago
		return freshRoot{}, fmt.Errorf("make an authority: this machine's clock says %s; set it right first", now.Format(time.RFC3339))
	}
	k, err := newKey()
	if err != nil {
		return freshRoot{}, err
	}
	t := authority("creel root", k, now, rootLife)
	r := freshRoot{key: k}
	if r.root.Certificate, err = sign(t, t, &k.PublicKey, k, now); err != nil {
		return freshRoot{}, err
	}
	return r, r.root.renew(k, now)
}

// renew makes the root's intermediate anew.
func (r *root) renew(k rootKey, now time.Time) error {
	parent, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return err
	}
	own, err := newKey()
	if err != nil {
		return err
	}
	t := authority("creel intermediate", own, now, intermediateLife)
	t.NotBefore = parent.NotBefore // so that a clock that was too fast for a while does no harm: when it is right again, this is valid
	t.MaxPathLenZero = true
	// It certifies clients and servers, no programs and no mail. There are no constraints on names: those of hubs are anything,
	// and browsers take offence at constraints on URIs.
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := sign(t, parent, &own.PublicKey, k, now)
	if err != nil {
		return err
	}
	text, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		return err
	}
	r.Intermediate, r.Key = der, text
	return nil
}

// crossSign lets who trusts the root before, whose key is k, trust r.
func (r *root) crossSign(before *x509.Certificate, k rootKey, now time.Time) error {
	own, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		Subject: own.Subject, SubjectKeyId: own.SubjectKeyId, NotBefore: own.NotBefore, NotAfter: own.NotAfter,
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: own.KeyUsage,
	}
	r.Cross, err = sign(t, before, own.PublicKey, k, now)
	return err
}

// authority returns what certificates of authorities have in common. The name has a piece of the key's hash: those of
// different keys differ.
func authority(name string, k *ecdsa.PrivateKey, now time.Time, life time.Duration) *x509.Certificate {
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	sum := sha256.Sum256(der)
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: fmt.Sprintf("%s %x", name, sum[:8])},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func newKey() (*ecdsa.PrivateKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return k, nil
}

// sign makes a certificate that does not outlive its issuer, nor begin before it: so it was certainly valid when it began.
func sign(t, issuer *x509.Certificate, key crypto.PublicKey, by *ecdsa.PrivateKey, now time.Time) ([]byte, error) {
	if !now.Before(issuer.NotAfter) {
		return nil, fmt.Errorf("make a certificate: %s has ended at %s", issuer.Subject.CommonName, issuer.NotAfter.Format(time.RFC3339))
	}
	if t.NotBefore.Before(issuer.NotBefore) {
		t.NotBefore = issuer.NotBefore
	}
	t.NotAfter = t.NotAfter.Truncate(time.Second) // as it will be in the certificate
	if t.NotAfter.After(issuer.NotAfter) {
		t.NotAfter = issuer.NotAfter
	}
	if now.Before(issuer.NotBefore) {
		return nil, fmt.Errorf("make a certificate: %s begins only at %s; is this hub's clock right?", issuer.Subject.CommonName, issuer.NotBefore.Format(time.RFC3339))
	}
	serial := make([]byte, 16)
	rand.Read(serial)
	t.SerialNumber = new(big.Int).SetBytes(serial)
	der, err := x509.CreateCertificate(rand.Reader, t, issuer, key, by)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return der, nil
}

// IssueAgent makes an agent's certificate for its key. It returns that with the intermediate, PEM, and how long it is valid
// from now on. See Bundle for what to ask first.
func (a *Authority) IssueAgent(key crypto.PublicKey, p control.Peer) (chainPEM []byte, life time.Duration, err error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return nil, 0, errors.New("make an agent's certificate: its key is of a curve that is not P-256 or P-384")
		}
	case ed25519.PublicKey:
	default:
		return nil, 0, fmt.Errorf("make an agent's certificate: its key is a %T; it must be ECDSA or Ed25519", key)
	}
	if id, err := uuid.Parse(p.ID); err != nil || id.String() != p.ID || p.Hub || p.Generation == 0 {
		return nil, 0, fmt.Errorf("make an agent's certificate: %s is no agent's name", p.URI())
	}
	s, now := a.set.Load(), a.o.Now()
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: p.ID}, URIs: []*url.URL{p.URI()},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(a.o.AgentLife),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := s.issues.sign(t, key, now)
	if err != nil {
		return nil, 0, err
	}
	return encode(der, s.issues.intermediate.Raw), t.NotAfter.Sub(now), nil
}

func (i *issuer) sign(t *x509.Certificate, key crypto.PublicKey, now time.Time) ([]byte, error) {
	der, err := sign(t, i.intermediate, key, i.key, now)
	if err != nil && !now.Before(i.intermediate.NotAfter) {
		err = fmt.Errorf("%w; put root.key back where it was and ask for the step renew, or rotate the authority", err)
	}
	return der, err
}
