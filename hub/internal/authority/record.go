package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
)

const (
	recordKey = "authority/current" // a record, sealed whole: who can write the control state, but has not the secret, makes no root
	version   = 1
)

// The phases of a record.
const (
	steady    = "steady"
	announced = "announced"
	issuing   = "issuing"
)

// A record is the authority in the control state. Certificates are DER.
type record struct {
	Version   int       `json:"version"`
	Phase     string    `json:"phase"`
	Roots     []root    `json:"roots"`               // trusted: one, or during a change two, the older first
	Withdrawn [][]byte  `json:"withdrawn,omitempty"` // roots of changes that were taken back. Agents may have certificates of theirs
	Retired   []retired `json:"retired,omitempty"`   // the newest last
}

type root struct {
	Certificate  []byte `json:"certificate"`
	Intermediate []byte `json:"intermediate"`
	Key          []byte `json:"key"`             // the intermediate's, PKCS #8
	Cross        []byte `json:"cross,omitempty"` // of the root's key, by the root before: who trusts only that can follow. None if that root's key was not there
}

type retired struct {
	Certificate []byte    `json:"certificate"`
	Time        time.Time `json:"time"`
}

// How many old roots are remembered.
const (
	maxWithdrawn = 8
	maxRetired   = 16
)

func (a *Authority) seal(r *record) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write the authority: %w", err)
	}
	return a.o.Secret.Seal(recordKey, text), nil
}

// read reads what the control state has.
func (a *Authority) read(e state.Entry) (*set, error) {
	text, err := a.o.Secret.Open(recordKey, e.Value)
	if err != nil {
		return nil, err
	}
	s := &set{revision: e.Revision, verified: cache{max: maxVerified}}
	if err := json.Unmarshal(text, &s.record); err != nil {
		return nil, fmt.Errorf("read the authority: %w", err)
	}
	if s.record.Version > version {
		return nil, errors.New("it was written by a newer version of creel: update this hub")
	}
	if err := s.parse(); err != nil {
		return nil, fmt.Errorf("read the authority: %w", err)
	}
	return s, nil
}

// A set is a record that was read, with what was made of it since. But for that it does not change.
type set struct {
	revision    int64
	record      record
	roots       []*issuer
	issues      *issuer // one of roots
	withdrawn   []*x509.Certificate
	retired     []*x509.Certificate // as in the record
	bundle      []byte
	fingerprint string

	verified cache
	served   served
}

type issuer struct {
	root, intermediate *x509.Certificate
	key                *ecdsa.PrivateKey // the intermediate's
	cross              *x509.Certificate // may be nil
}

func (s *set) parse() error {
	for i := range s.record.Roots {
		r := &s.record.Roots[i]
		one := &issuer{}
		var err error
		if one.root, err = x509.ParseCertificate(r.Certificate); err != nil {
			return err
		}
		if one.intermediate, err = x509.ParseCertificate(r.Intermediate); err != nil {
			return err
		}
		if r.Cross != nil {
			if one.cross, err = x509.ParseCertificate(r.Cross); err != nil {
				return err
			}
		}
		k, err := x509.ParsePKCS8PrivateKey(r.Key)
		if err != nil {
			return err
		}
		var ok bool
		if one.key, ok = k.(*ecdsa.PrivateKey); !ok || !one.key.PublicKey.Equal(one.intermediate.PublicKey) {
			return errors.New("the key of an intermediate is not its key")
		}
		s.roots = append(s.roots, one)
	}
	for _, der := range s.record.Withdrawn {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		s.withdrawn = append(s.withdrawn, c)
	}
	for _, r := range s.record.Retired {
		c, err := x509.ParseCertificate(r.Certificate)
		if err != nil {
			return err
		}
		s.retired = append(s.retired, c)
	}
	switch n := len(s.roots); {
	case s.record.Phase == steady && n == 1, s.record.Phase == announced && n == 2:
		s.issues = s.roots[0]
	case s.record.Phase == issuing && n == 2:
		s.issues = s.roots[1]
	default:
		return fmt.Errorf("it has %d roots in phase %q, which this version of creel does not know", n, s.record.Phase)
	}
	s.bind()
	return nil
}

// bind makes the bundle. That of the phase issuing has the new intermediate as well. Nothing more is trusted by that, but it is
// another bundle than that of the phase announced: so agents renew at once, and whoever has confirmed it has a certificate of
// the new root.
func (s *set) bind() {
	var ders [][]byte
	for _, r := range s.roots {
		ders = append(ders, r.root.Raw)
	}
	if s.record.Phase == issuing {
		ders = append(ders, s.issues.intermediate.Raw)
	}
	s.bundle, s.fingerprint = encode(ders...), control.FingerprintOfBundle(ders)
}

// issuerOf returns the issuer with a root's key, nil if there is none.
func (s *set) issuerOf(k rootKey) *issuer {
	i := slices.IndexFunc(s.roots, func(r *issuer) bool { return k.PublicKey.Equal(r.root.PublicKey) })
	if i < 0 {
		return nil
	}
	return s.roots[i]
}

// farewell is how long the hub can still be verified by a root that was retired, so that agents which are left behind hear what
// to do.
const farewell = 30 * 24 * time.Hour

// chain returns what a hub's certificate is sent with: the intermediate first, the root last. In between is the way to the
// root before, if there is one. It comes before the root, because not everybody looks for another way after a dead end.
func (s *set) chain(now time.Time) [][]byte {
	list := [][]byte{s.issues.intermediate.Raw}
	if cross := s.issues.cross; cross != nil && now.Before(cross.NotAfter) {
		for _, r := range s.roots {
			if bytes.Equal(r.root.RawSubject, cross.RawIssuer) {
				list = append(list, cross.Raw, r.root.Raw)
			}
		}
		for i, c := range s.retired {
			if bytes.Equal(c.RawSubject, cross.RawIssuer) && now.Before(s.record.Retired[i].Time.Add(farewell)) {
				list = append(list, cross.Raw, c.Raw)
			}
		}
	}
	return append(list, s.issues.root.Raw)
}

func fingerprint(der []byte) string { return control.FingerprintOf(der) }

func encode(ders ...[]byte) []byte {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}
