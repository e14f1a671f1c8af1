// Package tlsconf makes configurations for crypto/tls of the options that users write: TLS 1.3, and 1.2 with forward secrecy
// only, and files of certificates that are read again when they change.
//
// It must not know who presents the certificates, nor to whom.
package tlsconf

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"

	"github.com/creelhq/creel/config"
)

// Server is how a server proves who it is, and asks clients to.
type Server struct {
	CertFile     string `doc:"The server's certificate and those that lead to its authority, PEM. It is read again when it changes." optional:"true"`
	KeyFile      string `doc:"The certificate's key, PEM." optional:"true"`
	ClientCAFile string `doc:"Authorities of clients, PEM; clients without a certificate of theirs are refused." optional:"true"`
	Identity     bool   `doc:"Show the certificate of the hub that this agent belongs to, and ask clients for theirs. It renews itself. A hub's own agent has one." default:"false"`
	Insecure     bool   `doc:"Allow an address that is not loopback without TLS." default:"false"`
}

// IsLoopback reports whether a host, a name or an IP address, is this machine alone: what listens there needs no TLS.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Identity is what the option identity means: creel.Identity has its documentation.
type Identity interface {
	ServerTLS() (*tls.Config, error)
	ClientTLS() (*tls.Config, error)
}

// Enabled says whether there is to be TLS.
func (s Server) Enabled() bool { return s.CertFile != "" || s.Identity }

// Validate checks that what belongs together is there. It does not look at the files.
func (s Server) Validate() error {
	if s.Identity && (s.CertFile != "" || s.KeyFile != "" || s.ClientCAFile != "") {
		return config.FieldError("identity", errors.New("excludes files of certificates: it brings its own"))
	}
	if s.ClientCAFile != "" && s.CertFile == "" {
		return config.FieldError("client_ca_file", errors.New("needs cert_file and key_file: only a server with TLS can ask for certificates"))
	}
	return pairOf(s.CertFile, s.KeyFile)
}

func pairOf(cert, key string) error {
	switch {
	case cert != "" && key == "":
		return config.FieldError("cert_file", errors.New("needs the certificate's key; set key_file"))
	case cert == "" && key != "":
		return config.FieldError("key_file", errors.New("needs the key's certificate; set cert_file"))
	}
	return nil
}

// Config returns the configuration of a listener, nil for no TLS. id is who this agent is, nil if it has no identity. Handshakes see changed files after a second at most;
// connections that stand are left alone. Files that are wrong, half written or expired change nothing, and log, which may be
// nil, is told once.
//
// The configuration may be cloned and be given NextProtos. Clients are verified by VerifyConnection, so ConnectionState has
// PeerCertificates but no VerifiedChains. It is called for resumed sessions too: a ticket is worth nothing any more when the
// authority of its client is gone.
func (s Server) Config(id Identity, log *slog.Logger) (*tls.Config, error) {
	if err := s.Validate(); err != nil || !s.Enabled() {
		return nil, err
	}
	switch {
	case s.Identity && id == nil:
		return nil, config.FieldError("identity", errNoIdentity)
	case s.Identity:
		return id.ServerTLS()
	}
	pair, err := newPair(s.CertFile, s.KeyFile, log)
	if err != nil {
		return nil, err
	}
	t := secure()
	t.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.get(), nil }
	if s.ClientCAFile == "" {
		return t, nil
	}
	authorities, err := newAuthorities(s.ClientCAFile, log)
	if err != nil {
		return nil, err
	}
	// Not ClientCAs, which could not change, and with which clients are told whose certificates to send: an old list would keep
	// them from sending new ones.
	t.ClientAuth = tls.RequireAnyClientCert
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		return verify(cs.PeerCertificates, x509.VerifyOptions{Roots: authorities.get(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	}
	return t, nil
}

// Client is how a client finds out whom it talks to, and proves who it is.
type Client struct {
	Insecure           bool   `doc:"Talk without TLS. An endpoint that begins with http:// means the same." default:"false"`
	Identity           bool   `doc:"Be who this agent is to its hub: show its certificate, trust the hub's authorities, and send a token of its. They renew themselves. creel join gives an agent an identity." default:"false"`
	CAFile             string `doc:"Authorities to trust instead of the system's, PEM. It is read again when it changes." optional:"true"`
	CertFile           string `doc:"The client's certificate, PEM. It is read again when it changes." optional:"true"`
	KeyFile            string `doc:"The certificate's key, PEM." optional:"true"`
	ServerName         string `doc:"Name that the server's certificate must have, if not the endpoint's." optional:"true"`
	InsecureSkipVerify bool   `doc:"Believe any certificate. Whoever is in between can read and change everything." default:"false"`
}

// Validate checks that what belongs together is there. It does not look at the files.
func (c Client) Validate() error {
	if rest := c; c.Identity {
		if rest.Identity = false; rest != (Client{}) {
			return config.FieldError("identity", errors.New("excludes the other options of TLS: it says whom to trust and what to show"))
		}
	}
	return pairOf(c.CertFile, c.KeyFile)
}

var errNoIdentity = errors.New("is set, but this agent belongs to no hub; creel join URL --token TOKEN makes it one of a hub's")

// Config returns the configuration of a client of the server at host, a name or an IP address without a port: crypto/tls
// does not tell what address was dialled. An empty host will do for servers that are reached by name. It is for clients that
// set the configuration's ServerName to what they dial, as net/http and grpc-go do. Files are as for Server.Config.
func (c Client) Config(host string, id Identity, log *slog.Logger) (*tls.Config, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	switch {
	case c.Identity && id == nil:
		return nil, config.FieldError("identity", errNoIdentity)
	case c.Identity:
		return id.ClientTLS()
	}
	t := secure()
	t.ServerName, t.InsecureSkipVerify = c.ServerName, c.InsecureSkipVerify
	if c.CertFile != "" {
		pair, err := newPair(c.CertFile, c.KeyFile, log)
		if err != nil {
			return nil, err
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.get(), nil }
	}
	if c.CAFile == "" {
		return t, nil
	}
	authorities, err := newAuthorities(c.CAFile, log)
	if err != nil || c.InsecureSkipVerify {
		return t, err
	}
	// RootCAs could not change. What crypto/tls is told to skip, VerifyConnection does.
	t.InsecureSkipVerify = true
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		name := cmp.Or(c.ServerName, host, cs.ServerName) // the last is empty for an IP address
		if name == "" {
			return errors.New("verify the server's certificate: it is not known for which name; set server_name")
		}
		return verify(cs.PeerCertificates, x509.VerifyOptions{Roots: authorities.get(), DNSName: name})
	}
	return t, nil
}

// secure returns what all configurations have. TLS 1.2 is allowed the suites of RFC 9325 (section 4.2): ephemeral keys, and
// ciphers that authenticate. Those of 1.3 are all so.
func secure() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}}
}

// verify checks a peer's certificates as crypto/tls would.
func verify(peer []*x509.Certificate, o x509.VerifyOptions) error {
	if len(peer) == 0 {
		return errors.New("verify the other side's certificate: it has sent none")
	}
	o.Intermediates = x509.NewCertPool()
	for _, c := range peer[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := peer[0].Verify(o); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: peer, Err: err}
	}
	return nil
}
