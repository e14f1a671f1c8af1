package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
)

const (
	issuer          = "creel"
	bearerAudience  = "creel"
	sessionAudience = "creel-session" // so that a cookie is no bearer token, nor the other way round
	bearerLife      = 10 * time.Minute
	sessionLife     = 12 * time.Hour
	skew            = time.Minute // by which clocks of hubs may differ
)

// claims are what a JWT says (RFC 7519). Who is behind a token is what the token says, which is looked up: those claims are
// for others who read it.
type claims struct {
	jwt.RegisteredClaims
	Name    string        `json:"name,omitempty"`
	Role    api.Role      `json:"role"`
	Within  string        `json:"within,omitempty"`
	Signals []string      `json:"signals,omitempty"`
	Token   string        `json:"token,omitempty"` // the id of the token that it was changed for
	Confirm *confirmation `json:"cnf,omitempty"`
}

// confirmation binds a JWT to a certificate (RFC 8705, section 3.1).
type confirmation struct {
	Certificate string `json:"x5t#S256"` // SHA-256 of its DER form, base64url
}

// newParser returns what parses JWTs for an audience. Clocks may differ because JWTs begin to be valid before they were made.
func newParser(audience string, now func() time.Time) *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithExpirationRequired(), jwt.WithNotBeforeRequired(),
		jwt.WithAudience(audience), jwt.WithIssuer(issuer), jwt.WithStrictDecoding(), jwt.WithTimeFunc(now))
}

// JWT returns what somebody sends as a bearer token from now on, for ten minutes, on connections that show a certificate if
// it is bound to one. Those of agents must be. It ends no later than p. The error is an *api.Error.
func (a *Access) JWT(p Principal, bound *x509.Certificate) (control.AccessToken, error) {
	if p.Agent != "" && bound == nil {
		return control.AccessToken{}, &api.Error{Code: "forbidden", Message: "an agent gets a JWT only for its certificate; connect with that over TLS"}
	}
	text, life, err := a.sign(p, bearerAudience, bearerLife, bound)
	return control.AccessToken{Token: text, Lifetime: life}, err
}

// NewSession returns a cookie's value for a person, and how long it is worth something. It ends no later than p. The error is
// an *api.Error.
func (a *Access) NewSession(p Principal) (cookie string, life time.Duration, err error) {
	if !p.Role.May(api.Viewer) {
		return "", 0, &api.Error{Code: "forbidden", Message: fmt.Sprintf("whoever has the role %s cannot sign in; that is for viewers, operators and admins", p.Role)}
	}
	return a.sign(p, sessionAudience, sessionLife, nil)
}

func (a *Access) sign(p Principal, audience string, life time.Duration, bound *x509.Certificate) (string, time.Duration, error) {
	if (p.Agent == "") == (p.Token == "") || (p.Agent != "") != (p.Role == api.Enrol) {
		return "", 0, &api.Error{Code: "forbidden", Message: "only an agent with a certificate, or somebody with a token, gets a JWT"}
	}
	now := a.o.Now()
	ends := now.Add(life)
	if !p.Ends.IsZero() && p.Ends.Before(ends) {
		ends = p.Ends
	}
	ends = ends.Truncate(jwt.TimePrecision)
	if life = ends.Sub(now); life <= 0 {
		return "", 0, unauthorized("what was shown has just ended; ask for a new one")
	}
	k := a.keys.current().signer(now)
	if k == nil {
		return "", 0, &api.Error{Code: "unavailable", Message: "there is no key to sign with: the control state has lost them, and new ones are being made; try again"}
	}
	c := claims{Name: p.Name, Role: p.Role, Within: p.Within.String(), Token: p.Token, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: issuer, Subject: p.Agent + p.Token, Audience: jwt.ClaimStrings{audience},
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-skew)), ExpiresAt: jwt.NewNumericDate(ends),
	}}
	for _, s := range p.Signals {
		c.Signals = append(c.Signals, s.String())
	}
	if audience == sessionAudience {
		c.ID = rand.Text()
	}
	if bound != nil {
		sum := sha256.Sum256(bound.Raw)
		c.Confirm = &confirmation{base64.RawURLEncoding.EncodeToString(sum[:])}
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &c)
	t.Header["kid"] = k.id
	text, err := t.SignedString(k.private)
	if err != nil {
		return "", 0, &api.Error{Code: "internal", Message: "sign a JWT: " + err.Error()}
	}
	if len(text) > maxText {
		return "", 0, &api.Error{Code: "internal", Message: fmt.Sprintf("sign a JWT: it would have %d bytes; make a token with less in it", len(text))}
	}
	if own, refusal := a.prove(&c, audience); refusal == nil { // so that this hub need not verify its own signature
		a.cache.put(digest(text), own)
	}
	return text, life, nil
}

// verify checks that a text is a JWT of ours for an audience. What the library says of a bad one is not passed on: it may
// quote it.
func (a *Access) verify(text, audience string) (*proof, *api.Error) {
	c, refusal := a.read(text, audience)
	if refusal != nil {
		return nil, refusal
	}
	return a.prove(c, audience)
}

// read returns what a JWT says whose signature, audience and times are right.
func (a *Access) read(text, audience string) (*claims, *api.Error) {
	now, ring, c := a.o.Now(), a.keys.current(), claims{}
	_, err := a.parsers[audience].ParseWithClaims(text, &c, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		if k := ring.find(id, now); k != nil {
			return k.public, nil
		}
		return nil, errNoKey
	})
	switch {
	case err == nil:
	case errors.Is(err, errNoKey):
		return nil, unauthorized("what was shown is signed with no key of this hub; " + howToSignIn)
	case errors.Is(err, jwt.ErrTokenMalformed), errors.Is(err, jwt.ErrTokenUnverifiable), errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return nil, unauthorized("what was shown is neither a token nor a JWT of this hub; " + howToSignIn)
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, unauthorized("the JWT has ended; ask for a new one")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return nil, unauthorized(notYet)
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return nil, unauthorized("the JWT is for something else: a cookie is no bearer token, nor the other way round")
	default:
		return nil, unauthorized("the JWT lacks what this hub puts into its own; ask for a new one")
	}
	return &c, nil
}

// prove returns what a JWT proves whose signature is known to be right.
func (a *Access) prove(c *claims, audience string) (*proof, *api.Error) {
	p := &proof{audience: audience, begins: c.NotBefore.Time}
	if c.Confirm != nil {
		sum, err := base64.RawURLEncoding.Strict().DecodeString(c.Confirm.Certificate)
		if err != nil || len(sum) != sha256.Size {
			return nil, unauthorized("the JWT is bound to what is no certificate; ask for a new one")
		}
		p.bound = (*[sha256.Size]byte)(sum)
	}
	switch t := a.token(c.Token); {
	case c.Role == api.Enrol:
		if uuid.Validate(c.Subject) != nil || c.Token != "" || p.bound == nil || audience != bearerAudience {
			return nil, unauthorized("the JWT is no agent's; ask for a new one")
		}
		p.principal = Principal{Name: c.Name, Role: api.Enrol, Agent: c.Subject}
	case a.o.Root != "" && c.Token == a.rootID:
		p.principal = a.rootPrincipal()
	case t == nil || t.Role != c.Role:
		return nil, unauthorized("the token that the JWT was given for was deleted, or is another hub's root token; " + howToSignIn)
	default:
		p.principal = t.principal()
	}
	p.principal.Ends = c.ExpiresAt.Time
	return p, nil
}

var errNoKey = errors.New("there is no such key")
