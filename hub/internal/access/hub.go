package access

import (
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
)

// This file is what a hub shows to another when it asks on behalf of somebody. All hubs of a control state have the same keys,
// so that each can verify what another has signed.

const (
	hubAudience = "creel-hub/" // and the id of the hub that is asked: it cannot use it at a third
	hubLife     = 30 * time.Second
)

// ForHub returns what this hub shows to another, which it asks on behalf of p: a JWT that is worth something for seconds, at
// that hub and at no other, and says what p may see. The error is an *api.Error.
func (a *Access) ForHub(p Principal, hub string) (string, error) {
	switch {
	case !p.Role.May(api.Viewer) || p.Hub != "":
		return "", &api.Error{Code: "forbidden", Message: "a hub asks others only for whom it knows itself, and who may look"}
	case a.o.Hub == "" || hub == "" || hub == a.o.Hub:
		return "", &api.Error{Code: "internal", Message: "a hub does not ask itself"}
	}
	now := a.o.Now()
	k := a.keys.current().signer(now)
	if k == nil {
		return "", &api.Error{Code: "unavailable", Message: "there is no key to sign with: the control state has lost them, and new ones are being made; try again"}
	}
	// The clock of the other may go before or behind.
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &claims{Name: p.Name, Role: p.Role, Within: p.Within.String(), RegisteredClaims: jwt.RegisteredClaims{
		Issuer: issuer, Subject: a.o.Hub, Audience: jwt.ClaimStrings{hubAudience + hub},
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-skew)), ExpiresAt: jwt.NewNumericDate(now.Add(skew + hubLife)),
	}})
	t.Header["kid"] = k.id
	text, err := t.SignedString(k.private)
	if err != nil {
		return "", &api.Error{Code: "internal", Message: "sign a JWT: " + err.Error()}
	}
	return text, nil
}

// FromHub returns on whose behalf another hub asks this one, and which hub that is. It says no more than the hub that asks
// knows of them: whether their token is still worth something, that hub looks. The error is an *api.Error.
func (a *Access) FromHub(text string) (Principal, error) { return a.counted(a.fromHub(text)) }

func (a *Access) fromHub(text string) (Principal, *api.Error) {
	if a.o.Hub == "" || len(text) > maxText {
		return Principal{}, unauthorized("what was shown is no JWT of a hub for this hub")
	}
	c, refusal := a.read(text, hubAudience+a.o.Hub)
	if refusal != nil {
		return Principal{}, refusal
	}
	within, err := expr.ParseSelector(c.Within)
	switch {
	case err != nil: // and not: without bounds
		return Principal{}, unauthorized(fmt.Sprintf("the JWT has a condition on labels that this hub does not understand: %v; are the hubs of different versions?", err))
	case uuid.Validate(c.Subject) != nil || c.Subject == a.o.Hub || !c.Role.May(api.Viewer):
		return Principal{}, unauthorized("the JWT is no other hub's")
	}
	return Principal{Name: c.Name, Role: c.Role, Within: within, Hub: c.Subject, Ends: c.ExpiresAt.Time}, nil
}
