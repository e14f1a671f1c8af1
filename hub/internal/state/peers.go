package state

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// peerName is the name that certificates of members are for: whose they are and where they run does not matter.
const peerName = "member.creel"

// member configures an etcd that takes part in a cluster, or can.
func (s *embedded) member(c *embed.Config) error {
	m := s.o.Member
	host, port, err := net.SplitHostPort(m.Listen)
	if err != nil || net.ParseIP(host) == nil && host != "localhost" {
		return fmt.Errorf("listen for other hubs at %q: must be an IP address of this machine and a port", m.Listen)
	}
	own, err := url.Parse(m.Advertise)
	if err != nil || own.Scheme != "https" || own.Port() == "" {
		return fmt.Errorf("tell other hubs the address %q: must be https://host:port", m.Advertise)
	}
	info, err := m.certify()
	if err != nil {
		return fmt.Errorf("make a certificate for other hubs: %w", err)
	}
	client, err := info.ClientConfig()
	if err != nil {
		return fmt.Errorf("make a certificate for other hubs: %w", err)
	}
	s.peers = &http.Client{Transport: &http.Transport{TLSClientConfig: client}, Timeout: 2 * time.Second}
	c.Name, c.PeerTLSInfo = m.Name, info
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{{Scheme: "https", Host: net.JoinHostPort(host, port)}}, []url.URL{*own}
	c.InitialCluster = m.Name + "=" + m.Advertise
	for i, peer := range m.Cluster {
		if peer != m.Advertise {
			c.InitialCluster += "," + strconv.Itoa(i) + "=" + peer // how it is called, it says itself
		}
	}
	if m.Cluster != nil {
		c.ClusterState = embed.ClusterStateFlagExisting
	}
	// Members are added as learners, which put nothing at risk, and Remove looks itself at what is left: etcd's own checks would
	// want five quiet seconds between two hubs that join.
	c.StrictReconfigCheck, c.MaxLearners = false, learners
	c.TickMs, c.ElectionMs = 100, 1000
	return nil
}

// certify writes a certificate by which other members know this one. Its authority's key is made from the secret: so whoever has
// that is a member, no agent is one, and nothing has to be handed around or renewed.
func (m *MemberOptions) certify() (transport.TLSInfo, error) {
	seed, err := hkdf.Key(sha256.New, m.Secret[:], nil, "creel: authority of etcd members", ed25519.SeedSize)
	if err != nil {
		return transport.TLSInfo{}, err
	}
	authority := ed25519.NewKeyFromSeed(seed)
	// They are valid whatever a clock says: who loses the secret has lost more than these.
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "creel etcd members"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(0, 0).AddDate(200, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	root, err := x509.CreateCertificate(rand.Reader, ca, ca, authority.Public(), authority)
	if err != nil {
		return transport.TLSInfo{}, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return transport.TLSInfo{}, err
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(public[:16]), Subject: pkix.Name{CommonName: m.Name}, DNSNames: []string{peerName}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca, public, authority)
	if err != nil {
		return transport.TLSInfo{}, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return transport.TLSInfo{}, err
	}
	if err := os.MkdirAll(m.TLS, 0o700); err != nil {
		return transport.TLSInfo{}, err
	}
	info := transport.TLSInfo{
		CertFile: filepath.Join(m.TLS, "member.pem"), KeyFile: filepath.Join(m.TLS, "member.key"), TrustedCAFile: filepath.Join(m.TLS, "members.pem"),
		ClientCertAuth: true, ServerName: peerName, AllowedHostnames: []string{peerName}, SkipClientSANVerify: true, MinVersion: tls.VersionTLS13,
	}
	for file, block := range map[string]pem.Block{info.CertFile: {Type: "CERTIFICATE", Bytes: leaf}, info.KeyFile: {Type: "PRIVATE KEY", Bytes: key}, info.TrustedCAFile: {Type: "CERTIFICATE", Bytes: root}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(&block), 0o600); err != nil {
			return transport.TLSInfo{}, err
		}
	}
	return info, nil
}
