package access

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
)

// Authenticate finds out who sends records of a signal: an agent with its JWT, an application with its token, or a person who
// tries something. Somebody on this machine need not show anything. An error wraps creel.ErrUnauthenticated unless it is of
// somebody known who may not send these.
func (a *Access) Authenticate(c creel.Credentials, s creel.Signal) (creel.Caller, error) {
	scheme, text, _ := strings.Cut(c.Authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		text = ""
	}
	p, refusal := a.open(strings.TrimSpace(text), bearerAudience, c.TLS)
	switch {
	case refusal != nil && (c.Verified || Local(c.Local, c.Remote, c.Forwarded)):
		a.counts[local].Inc()
		return creel.Caller{}, nil
	case refusal != nil:
		a.counts[refused].Inc()
		return creel.Caller{}, fmt.Errorf("%w: %w", creel.ErrUnauthenticated, refusal)
	case !slices.Contains(sending, p.Role):
		a.counts[forbidden].Inc()
		return creel.Caller{}, fmt.Errorf("%s has the role %s, which may not send data; use a token of the role ingest", p.Name, p.Role)
	case len(p.Signals) > 0 && !slices.Contains(p.Signals, s):
		a.counts[forbidden].Inc()
		return creel.Caller{}, fmt.Errorf("the token %s of %s is not for %s; use one whose signals have it", p.Token, p.Name, s)
	}
	a.counts[accepted].Inc()
	return creel.Caller{Agent: p.Agent, Token: p.Token}, nil
}

// Limit takes records from a caller's token, as many as that allows at this hub in any ten seconds (see window), or returns a
// *creel.Throttled. Callers without a limit are not counted.
func (a *Access) Limit(c creel.Caller, records int) error {
	if c.Token == "" {
		return nil
	}
	t := a.token(c.Token)
	if t == nil || t.window == nil {
		return nil
	}
	wait := t.window.take(a.o.Now().Sub(a.begun), t.Records, int64(records))
	if wait == 0 {
		return nil
	}
	a.counts[throttled].Inc()
	return &creel.Throttled{Err: fmt.Errorf("the token %s of %s is for %d records in ten seconds", t.ID, t.Name, t.Records), After: wait}
}

// Local reports whether a connection is from this machine to this machine, so that whoever opened it need not show who it is:
// over a Unix socket, or from a loopback address to one, and not passed on by a proxy for somebody else. Both ends count,
// because a packet filter can turn the address that somebody else has asked for into a loopback address.
func Local(local, remote net.Addr, forwarded bool) bool {
	if forwarded {
		return false
	}
	switch l := local.(type) {
	case *net.UnixAddr:
		return l != nil
	case *net.TCPAddr:
		r, ok := remote.(*net.TCPAddr)
		return ok && l != nil && r != nil && l.IP.IsLoopback() && r.IP.IsLoopback()
	}
	return false
}

var sending = []api.Role{api.Enrol, api.Ingest, api.Operator, api.Admin}
