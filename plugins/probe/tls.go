package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/creelhq/creel/tlsconf"
)

func (c *collector) checkTLS(ctx context.Context, t *target, r *result) error {
	conn, err := c.guard.dial(ctx, r, "tcp", t.family(), t.address.host, t.address.port)
	if err != nil {
		return err
	}
	defer conn.Close()
	secure, err := c.handshake(ctx, t, r, conn, t.address.host)
	if err != nil {
		return err
	}
	_ = secure.Close() // says goodbye; the handshake was what counts
	return t.lasting(r)
}

// handshake talks TLS on conn. Of a certificate that is not believed, it is noted when it expires all the same.
func (c *collector) handshake(ctx context.Context, t *target, r *result, conn net.Conn, host string) (*tls.Conn, error) {
	start := time.Now()
	defer r.spent(phaseTLS, start)
	name := cmp.Or(t.ServerName, host)
	config, err := c.tlsFor(name)
	if err != nil {
		return nil, failed(local, err)
	}
	secure := tls.Client(conn, config)
	err = secure.HandshakeContext(ctx)
	peers := secure.ConnectionState().PeerCertificates
	if bad := (*tls.CertificateVerificationError)(nil); errors.As(err, &bad) {
		peers = bad.UnverifiedCertificates
	}
	if len(peers) > 0 {
		r.expires = peers[0].NotAfter
	}
	if err != nil {
		hint := tlsconf.Hint(err, "tls.ca_file", "tls.cert_file and tls.key_file")
		if expired := (x509.CertificateInvalidError{}); errors.As(err, &expired) && expired.Reason == x509.Expired {
			hint = ""
		}
		return nil, failed(kindOf(err, badTLS), fmt.Errorf("talk TLS with %s: %w%s", host, inner(err), hint))
	}
	return secure, nil
}

// tlsFor returns the configuration for a server of that name. An IP address cannot be found out in a handshake, so that a
// configuration that checks certificates itself is made for each.
func (c *collector) tlsFor(name string) (*tls.Config, error) {
	config := c.named
	if _, err := netip.ParseAddr(name); err == nil && c.tls.CAFile != "" {
		if config, err = c.tls.client().Config(name, nil, c.host.Log); err != nil {
			return nil, err
		}
	}
	config = config.Clone()
	config.ServerName, config.NextProtos = name, []string{"http/1.1"}
	return config, nil
}

// lasting checks how long the server's certificate is valid yet.
func (t *target) lasting(r *result) error {
	if left := time.Until(r.expires); t.Expect.ValidFor > 0 && !r.expires.IsZero() && left < t.Expect.ValidFor {
		return failed(badTLS, fmt.Errorf("the certificate expires at %s, in less than %v", r.expires.UTC().Format(time.RFC3339), t.Expect.ValidFor))
	}
	return nil
}
