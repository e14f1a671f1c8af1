package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/creelhq/creel/tlsconf"
)

// secured is what speaks TLS with members of a cluster: with each by the name or address of its endpoint, which is what its certificate
// must be for.
type secured struct {
	credentials.TransportCredentials // for what no handshake is needed
	options                          tlsconf.Client
	log                              *slog.Logger
}

// newSecured reads the files once, so that what is wrong with them is told before anybody is asked.
func newSecured(o tlsconf.Client, log *slog.Logger) (credentials.TransportCredentials, error) {
	c, err := o.Config("", nil, log)
	if err != nil {
		return nil, err
	}
	return &secured{credentials.NewTLS(c), o, log}, nil
}

// ClientHandshake implements credentials.TransportCredentials. The authority is the host, and maybe the port, that was dialled.
func (s *secured) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority
	}
	c, err := s.options.Config(host, nil, s.log)
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("speak TLS with %s: %w", host, err)
	}
	return credentials.NewTLS(c).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (s *secured) Clone() credentials.TransportCredentials {
	return &secured{s.TransportCredentials.Clone(), s.options, s.log}
}
