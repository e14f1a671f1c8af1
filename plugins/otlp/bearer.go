package otlp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/creelhq/creel"
)

// A bearer shows requests' far side the token of this agent's identity. A nil bearer shows none. It may be used concurrently.
type bearer struct {
	identity creel.Identity
	last     atomic.Pointer[shownToken]
	refused  atomic.Pointer[string] // the token that was refused last
}

// shownToken is a token as requests carry it.
type shownToken struct {
	token  string
	header []string // of which nobody changes anything
}

// header returns the values of the header authorization. While the token is the same it allocates nothing. An error is never
// permanent, whatever the identity says: the records can do nothing for it.
func (b *bearer) header(ctx context.Context) ([]string, error) {
	if b == nil {
		return nil, nil
	}
	token, err := b.identity.Token(ctx)
	if err != nil {
		if creel.IsPermanent(err) {
			err = errors.New(err.Error())
		}
		return nil, fmt.Errorf("get a token from this agent's hub, to show it who sends: %w", err)
	}
	last := b.last.Load()
	if last == nil || last.token != token {
		last = &shownToken{token, []string{"Bearer " + token}}
		b.last.Store(last)
	}
	return last.header, nil
}

// stale is told that a connection on which a token was shown is not let in. It reports whether to try another connection: once for
// each token. For one that stands goes on to show the certificate that it began with, and if that is of an authority which the hub
// has done with since, no token helps.
func (b *bearer) stale(header []string) bool {
	if b == nil || len(header) == 0 {
		return false
	}
	last := b.refused.Swap(&header[0])
	return last == nil || *last != header[0]
}

// newBearer returns nil for requests that show no token of the agent's.
func newBearer(c ExporterConfig, h creel.Host) *bearer {
	if !c.TLS.Identity || c.authorized() {
		return nil
	}
	return &bearer{identity: h.Identity}
}

// authorized returns whether the options have a header that says who sends.
func (c ExporterConfig) authorized() bool {
	for key := range c.Headers {
		if strings.EqualFold(key, "authorization") {
			return true
		}
	}
	return false
}

// remedy returns what to do when the far side does not take what it was shown of the sender, to be put behind an error.
func (c ExporterConfig) remedy() string {
	switch {
	case c.TLS.Identity:
		return "; nothing is lost, it is tried again: the hub's list of those whom it has refused says why, and creel admit lets an agent in again"
	case c.authorized():
		return "; nothing is lost, it is tried again: is what headers.authorization shows still good there, and for this signal?"
	}
	return "; nothing is lost, it is tried again: set tls.identity: true if that is this agent's hub, else headers.authorization if it wants a token"
}
