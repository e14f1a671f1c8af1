package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/peers"
)

// This file is operations about who may come in.

// Gate makes identities of agents, and knows who was refused.
type Gate interface {
	http.Handler // under /v1/identity/
	Revoke(ctx context.Context, by, agent, name, cause string) error
	Admit(ctx context.Context, by, agent, cause string) error
	Knocks() api.KnockList
}

// Authority is what certificates come from.
type Authority interface {
	// Describe tells all but Confirmed, Behind and TLS.
	Describe() api.Authority
	// Change takes a step. behind is how many connected agents do not trust what they are to trust by now.
	Change(ctx context.Context, c api.AuthorityChange, behind int) error
	Bundle() (pem []byte, fingerprint string) // what is to be trusted
}

// Members are the hubs that keep one control state. Errors are an *api.Error where the request is to blame.
type Members interface {
	Joinable() error // why no hub can join
	// Remove removes the only hub whose id begins so, and returns its id. If it is this one, that is noted in the audit log
	// before: afterwards nothing can be written.
	Remove(ctx context.Context, by, id string) (removed string, noted bool, err error)
}

func (s *Server) removeHub(ctx context.Context, c *call, _ none) (none, error) {
	id, noted, err := s.Members.Remove(ctx, c.Name, c.path("id"))
	if id != "" {
		c.target = id
	}
	c.trial = noted
	return none{}, err
}

func (s *Server) me(_ context.Context, c *call, _ none) (api.Me, error) {
	return api.Me{Name: c.Name, Role: c.Role, Within: c.Within.String(), Ends: c.Ends}, nil
}

func (s *Server) createToken(ctx context.Context, c *call, r api.AccessTokenRequest) (api.AccessTokenCreated, error) {
	if r.Role == api.Member {
		if err := s.Members.Joinable(); err != nil {
			return api.AccessTokenCreated{}, err
		}
	}
	t, err := s.Access.Create(ctx, c.Name, r)
	if err != nil {
		return t, err
	}
	if t.Role == api.Enrol || t.Role == api.Member {
		t.Join = s.Join(t)
	}
	c.target, c.detail = t.ID, told(t.AccessToken)
	return t, nil
}

func (s *Server) deleteToken(ctx context.Context, c *call, _ none) (none, error) {
	t, err := s.Access.Delete(ctx, c.path("id"))
	if err == nil {
		c.detail = told(t)
	}
	return none{}, err
}

// told says whose a token is, and what it is worth.
func told(t api.AccessToken) string {
	text := fmt.Sprintf("%s, %s", t.Name, t.Role)
	if t.Within != "" {
		text += ", within " + t.Within
	}
	if t.Role == api.Enrol {
		text += fmt.Sprintf(", for %d", t.Uses)
	}
	return text
}

func (s *Server) knocks(ctx context.Context, c *call, _ none) (api.KnockList, error) {
	return together(s, "/knocks", plain(func(context.Context, *call, none) (api.KnockList, error) {
		return s.Gate.Knocks(), nil
	}), bare(peers.JoinKnocks))(ctx, c, none{})
}

func (s *Server) revoke(ctx context.Context, c *call, b api.Because) (none, error) {
	id, name, err := s.stranger(ctx, c, b)
	if err == nil {
		err = s.Gate.Revoke(ctx, c.Name, id, name, b.Cause)
	}
	return none{}, err
}

func (s *Server) admitAgent(ctx context.Context, c *call, b api.Because) (none, error) {
	id, _, err := s.stranger(ctx, c, b)
	if err == nil {
		err = s.Gate.Admit(ctx, c.Name, id, b.Cause)
	}
	return none{}, err
}

const maxCause = 1000 // characters

// stranger returns which agent is meant that is in the fleet, or has been refused and never was.
func (s *Server) stranger(ctx context.Context, c *call, b api.Because) (id, name string, err error) {
	if len([]rune(b.Cause)) > maxCause {
		return "", "", &api.Error{Code: "bad_request", Message: fmt.Sprintf("cause may have %d characters", maxCause)}
	}
	c.detail = b.Cause
	asked := c.path("id")
	d, err := s.Fleet.Agent(c.Within, asked)
	if notFound(err) {
		id, name = s.knocking(ctx, c, asked)
	} else if err == nil {
		id, name = d.ID, d.Name
	}
	if id == "" {
		return "", "", err
	}
	c.target = id
	return id, name, nil
}

// knocking returns the only one who was refused, or is revoked, and whose id begins so. If one such is in the fleet, what was
// asked for means several agents.
func (s *Server) knocking(ctx context.Context, c *call, asked string) (id, name string) {
	found := make(map[string]string)
	list, err := s.knocks(ctx, c, none{})
	if err != nil {
		return "", ""
	}
	add := func(agent, name string) {
		if agent == asked || len(asked) >= 4 && strings.HasPrefix(agent, asked) {
			found[agent] = name
		}
	}
	for _, k := range list.Knocks {
		add(k.Agent, k.Name)
	}
	for _, r := range list.Revoked {
		add(r.Agent, r.Name)
	}
	if len(found) != 1 {
		return "", ""
	}
	for id, name = range found {
		if _, err := s.Fleet.Agent(c.Within, id); err == nil {
			return "", ""
		}
	}
	return id, name
}

func (s *Server) audit(ctx context.Context, _ *call, q api.AuditQuery) (api.AuditList, error) {
	return s.Audit.List(ctx, q)
}

const maxBehind = 100 // agents that are named

func (s *Server) authority() (api.Authority, error) {
	a := s.Authority.Describe()
	a.Confirmed, a.Behind = s.Fleet.Confirmed()
	a.Behind = a.Behind[:min(len(a.Behind), maxBehind)]
	a.TLS = s.Certificate()
	return a, nil
}

func (s *Server) changeAuthority(ctx context.Context, c *call, a api.AuthorityChange) (api.Authority, error) {
	_, behind := s.Fleet.Confirmed()
	if c.target = a.Step; a.Force {
		c.detail = fmt.Sprintf("forced, with %d agents behind", len(behind))
	}
	if err := s.Authority.Change(ctx, a, len(behind)); err != nil {
		return api.Authority{}, err
	}
	return s.authority()
}
