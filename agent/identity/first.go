package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/tlsconf"
)

// AskFirst posts a message to a hub of which nothing is known but what a token says, and reads the answer into out. The hub is
// verified by the token's fingerprint before it is told anything; only one on this machine need have no TLS. When the hub refuses, the
// error is a *control.Refusal.
func AskFirst(ctx context.Context, address, token, path string, in, out any) error {
	t, err := control.ParseToken(token)
	if err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	u, err := control.HubURL(strings.TrimSpace(address))
	if err != nil {
		return fmt.Errorf("read the hub's URL: %w", err)
	}
	switch {
	case u.Scheme == "http" && tlsconf.IsLoopback(u.Hostname()):
	case u.Scheme != "https":
		return fmt.Errorf("ask %s: it is not https, so that everybody on the way could read the answer; write https://, and give the hub an address with TLS if it has none", u)
	case t.Fingerprint == "":
		return fmt.Errorf("ask %s: the token has no fingerprint, by which to know the hub: a hub that has no TLS has made it; make one at the hub while that has TLS", u)
	}
	secure, err := base(func(cs tls.ConnectionState) error {
		_, err := verifyFirst(cs, t.Fingerprint, u.Hostname(), time.Now())
		return err
	})
	if err != nil {
		return err
	}
	_, err = post(ctx, nil, secure, u, path, in, out)
	if r := (*control.Refusal)(nil); err != nil && !errors.As(err, &r) {
		return fmt.Errorf("ask %s: %w", u, err)
	}
	return err
}
