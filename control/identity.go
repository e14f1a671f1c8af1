package control

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Where a hub makes identities, by POST of JSON over TLS. Answers that are not 200 are a Refusal.
const (
	EnrolPath = "/v1/identity/enrol" // an EnrolRequest, answered by a Grant
	RenewPath = "/v1/identity/renew" // a RenewRequest, answered by a Grant
	TokenPath = "/v1/identity/token" // nothing, answered by an AccessToken
	HubPath   = "/v1/identity/hub"   // a HubRequest, answered by a HubGrant
)

// MaxIdentityMessage is the largest of these requests, and of their answers, in bytes.
const MaxIdentityMessage = 64 << 10

// EnrolRequest asks for an identity. The connection need not show a certificate.
type EnrolRequest struct {
	Token string `json:"token"` // the text of an enrolment token
	Agent string `json:"agent"` // the id that the agent has: a UUID
	Name  string `json:"name"`  // of its host, for people
	CSR   []byte `json:"csr"`   // PKCS #10, DER (RFC 2986); only its key and signature count
}

// RenewRequest asks for the next certificate of an identity: that of the certificate which the connection shows, and which
// may have expired; the handshake has proven its key. To ask again with the same CSR is answered with the same generation.
type RenewRequest struct {
	CSR []byte `json:"csr"`
}

// Grant is an identity.
type Grant struct {
	Certificate []byte        `json:"certificate"` // PEM: the agent's, and those that lead to its authority
	Authorities []byte        `json:"authorities"` // PEM: what to trust, instead of what was trusted before
	Lifetime    time.Duration `json:"lifetime"`    // nanoseconds, from now on: whatever the agent's clock says

	// System says that the hub shows a certificate for its host's name that the agent's machine may trust as well, by the
	// authorities of its system: who of them issues the next one nobody knows.
	System bool      `json:"system,omitempty"`
	Hub    Addresses `json:"hub"`
}

// Addresses is where a hub is reached by whoever has reached it at URL's host.
type Addresses struct {
	URL      string `json:"url"`
	OTLPGRPC string `json:"otlp_grpc,omitempty"` // host:port; empty: it takes none
	OTLPHTTP string `json:"otlp_http,omitempty"` // likewise
}

// AccessToken is what requests for data and of the API carry as a bearer token: a JWT, bound to the certificate of the
// connection that has asked for it.
type AccessToken struct {
	Token    string        `json:"token"`
	Lifetime time.Duration `json:"lifetime"` // nanoseconds, from now on
}

// Refusal is why a hub makes no identity. It never means that what an agent has is to be thrown away.
type Refusal struct {
	Code   string        `json:"code"`
	Text   string        `json:"text"`            // what is wrong and why
	Remedy string        `json:"remedy"`          // what whoever runs the hub or the agent can do
	After  time.Duration `json:"after,omitempty"` // nanoseconds: try again so much later; 0: whenever
}

// The values of Refusal.Code.
const (
	TokenUnknown     = "token_unknown"
	TokenExpired     = "token_expired"
	TokenSpent       = "token_spent"
	Malformed        = "malformed"
	NoCertificate    = "no_certificate"
	UnknownAuthority = "unknown_authority" // the certificate is of no authority of this hub
	Expired          = "expired"           // it must be renewed first
	Revoked          = "revoked"
	Cloned           = "cloned" // somebody else has renewed this identity
	IdentityTaken    = "identity_taken"
	OtherIdentity    = "other_identity" // who connects says another id than its certificate
	NotJoinable      = "not_joinable"   // hubs cannot join this one
	Busy             = "busy"
)

func (r *Refusal) Error() string {
	if r.Remedy == "" {
		return r.Text
	}
	return r.Text + "; " + r.Remedy
}

// A Peer is who a certificate of a hub's authority is for.
type Peer struct {
	Hub        bool   // a hub; else an agent
	ID         string // a UUID
	Generation uint64 // of an agent's certificate: from 1, each renewal makes the next
}

const peerScheme = "creel"

// URI returns the name of a peer, for the subject alternative names of its certificate.
func (p Peer) URI() *url.URL {
	u := &url.URL{Scheme: peerScheme, Host: "hub", Path: "/" + p.ID}
	if !p.Hub {
		u.Host, u.RawQuery = "agent", "generation="+strconv.FormatUint(p.Generation, 10)
	}
	return u
}

// PeerOf returns who a certificate is for. It believes the certificate: verify it first.
func PeerOf(c *x509.Certificate) (Peer, error) {
	for _, u := range c.URIs {
		if u.Scheme != peerScheme {
			continue
		}
		id, err := uuid.Parse(strings.TrimPrefix(u.Path, "/"))
		if err != nil {
			return Peer{}, fmt.Errorf("read the name %s of a certificate: %w", u, err)
		}
		p := Peer{Hub: u.Host == "hub", ID: id.String()}
		if !p.Hub {
			if p.Generation, err = strconv.ParseUint(u.Query().Get("generation"), 10, 64); err != nil || u.Host != "agent" {
				return Peer{}, fmt.Errorf("read the name %s of a certificate: it is no agent's", u)
			}
		}
		return p, nil
	}
	return Peer{}, errors.New("the certificate is no agent's and no hub's: it has no name that begins with " + peerScheme + "://")
}

// A Token is what whoever wants to come in has been given, in parts. Its text is creel_ID_SECRET_FINGERPRINT, or without the
// last where there is no TLS.
type Token struct {
	ID          string // public: it names the token
	Secret      string // 26 letters and digits
	Fingerprint string // of an authority that whoever is asked with this token must have; empty: of none
}

var tokenText = regexp.MustCompile(`^creel_([a-z2-7]{8})_([a-z2-7]{26})(?:_([a-z2-7]{26}))?$`)

var tokenDigits = base32.StdEncoding.WithPadding(base32.NoPadding)

// ParseToken reads a token's text.
func ParseToken(text string) (Token, error) {
	m := tokenText.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return Token{}, errors.New("it is no token of creel's: they look like creel_… with letters and digits, and creel token create makes them")
	}
	return Token{ID: m[1], Secret: m[2], Fingerprint: m[3]}, nil
}

// String returns the token's text, which is a secret.
func (t Token) String() string {
	s := "creel_" + t.ID + "_" + t.Secret
	if t.Fingerprint != "" {
		s += "_" + t.Fingerprint
	}
	return s
}

// FingerprintOf returns the fingerprint of a certificate for tokens: 128 bits of the SHA-256 of its DER form.
func FingerprintOf(der []byte) string {
	sum := sha256.Sum256(der)
	return strings.ToLower(tokenDigits.EncodeToString(sum[:16]))
}

// FingerprintOfBundle returns the fingerprint of certificates that are trusted together, in whatever order: DER each.
func FingerprintOfBundle(ders [][]byte) string {
	sums := make([][]byte, len(ders))
	for i, der := range ders {
		sum := sha256.Sum256(der)
		sums[i] = sum[:]
	}
	slices.SortFunc(sums, bytes.Compare)
	return FingerprintOf(slices.Concat(sums...))
}
