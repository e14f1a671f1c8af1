package hub

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/access"
	"github.com/creelhq/creel/hub/internal/admission"
	"github.com/creelhq/creel/hub/internal/audit"
	"github.com/creelhq/creel/hub/internal/authority"
	"github.com/creelhq/creel/hub/internal/gate"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/hub/internal/web"
	"github.com/creelhq/creel/tlsconf"
)

// This file is who may do what at a hub: it opens what decides that, and ties it to the rest.

// secret returns what keys in the control state are sealed with.
func (h *hub) secret() (*state.Secret, error) {
	file := filepath.Join(h.Data, "secret")
	text, err := keep(file, func() string {
		var s state.Secret
		_, _ = rand.Read(s[:]) // it never fails
		return hex.EncodeToString(s[:])
	})
	if err != nil {
		return nil, err
	}
	raw, err := hex.DecodeString(text)
	var s state.Secret
	if err != nil || len(raw) != len(s) {
		return nil, fmt.Errorf("read %s: it must be %d hexadecimal digits", file, 2*len(s))
	}
	copy(s[:], raw)
	return &s, nil
}

// openSecurity opens all but the gate, which needs the registry.
func (h *hub) openSecurity(ctx context.Context) error {
	secret, err := h.secret()
	if err != nil {
		return err
	}
	h.authority, err = authority.Open(ctx, authority.Options{
		Store: h.state, Secret: secret, Dir: filepath.Join(h.Data, "ca"), Hub: h.id, Names: h.Hosts, AgentLife: h.AgentLife, Log: h.log,
	})
	if err != nil {
		return err
	}
	h.close = append(h.close, h.authority.Close)
	if h.TLS.Identity {
		if err := h.keepBundle(); err != nil {
			return err
		}
	}
	if h.audit, err = audit.Open(ctx, audit.Options{Store: h.state, Hub: h.id, Log: h.log}); err != nil {
		return err
	}
	h.close = append(h.close, h.audit.Close)
	h.access, err = access.Open(ctx, access.Options{
		Store: h.state, Secret: secret, Hub: h.id, Root: h.token, Fingerprint: h.fingerprint, Log: h.log, Metrics: h.metrics,
		Revoked: func(agent string) bool { return h.gate.Revoked(agent) }, Holder: h.holder,
	})
	if err != nil {
		return err
	}
	h.close = append(h.close, h.access.Close)
	return nil
}

func (h *hub) openGate(ctx context.Context) error {
	var err error
	h.gate, err = gate.Open(ctx, gate.Options{
		Store: h.state, Authority: trusted{h}, Tokens: h.access, System: h.public, Addresses: h.addresses, Expel: h.registry.Expel, Log: h.log, Metrics: h.metrics,
		Audit: func(ctx context.Context, e api.AuditEntry) { _ = h.audit.Add(ctx, e) }, // it has logged why not
		Join:  h.admit,
	})
	if err == nil {
		h.close = append(h.close, h.gate.Close)
	}
	return err
}

// everybody reports whether whoever reaches the hub may report as an agent and send data: because that was asked for, or because
// the handshake has let in nobody else.
func (h *hub) everybody() bool {
	return h.Insecure || h.secure != nil && h.secure.ClientAuth >= tls.RequireAnyClientCert
}

// entry returns who decides about agents, nil for nobody. It may be asked once the gate is open.
func (h *hub) entry() registry.Gate {
	if h.everybody() {
		return nil
	}
	return entry{h}
}

// holder returns the agent that a certificate is or was for.
func (h *hub) holder(chain []*x509.Certificate) string {
	peer, err := h.authority.Verify(chain)
	if r := (*control.Refusal)(nil); err != nil && (!errors.As(err, &r) || r.Code != control.Expired) {
		return ""
	}
	return peer.ID
}

// entry is the gate, which is opened after the registry that asks it.
type entry struct{ *hub }

func (e entry) Enter(r *http.Request) (control.Peer, map[string]string, error) {
	return e.gate.Enter(r)
}

func (e entry) Refused(id, name, address string, r *control.Refusal) {
	e.gate.Refused(id, name, address, r)
}

// trusted is the authority, and what agents must trust beside it: whoever has issued the certificate that was brought.
type trusted struct{ *hub }

func (t trusted) IssueAgent(key crypto.PublicKey, p control.Peer) ([]byte, time.Duration, error) {
	return t.authority.IssueAgent(key, p)
}

func (t trusted) Verify(chain []*x509.Certificate) (control.Peer, error) {
	return t.authority.Verify(chain)
}

func (t trusted) Bundle() (text []byte, fingerprint string) {
	text, fingerprint = t.authority.Bundle()
	top := t.brought()
	if top == nil {
		return text, fingerprint
	}
	text = append(slices.Clone(text), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: top})...)
	var ders [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		ders = append(ders, block.Bytes)
	}
	return text, control.FingerprintOfBundle(ders)
}

// brought returns the last certificate in the file of a certificate that was brought, nil if none was.
func (h *hub) brought() []byte {
	if h.TLS.CertFile == "" {
		return nil
	}
	pair, err := h.secure.GetCertificate(nil)
	if err != nil || len(pair.Certificate) == 0 {
		return nil
	}
	return pair.Certificate[len(pair.Certificate)-1]
}

// public reports whether the certificate that was brought is of an authority that this machine's system trusts.
func (h *hub) public() bool {
	if h.brought() == nil {
		return false
	}
	pair, err := h.secure.GetCertificate(nil)
	if err != nil {
		return false
	}
	o := x509.VerifyOptions{Intermediates: x509.NewCertPool()}
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			o.Intermediates.AddCert(c)
		}
	}
	_, err = pair.Leaf.Verify(o)
	return err == nil
}

// fingerprint returns that of what new tokens say is to be found at the hub.
func (h *hub) fingerprint() string {
	switch top := h.brought(); {
	case h.secure == nil:
		return ""
	case top != nil:
		return control.FingerprintOf(top)
	}
	return h.authority.Fingerprint()
}

// loadTLS makes what the hub's addresses and those of its agent's collectors speak: with certificates that were brought, or of its
// own authority where it can be reached from the network. The names in a certificate that was brought are names of the hub: whoever
// lets one of them lead here by a trick cannot show the certificate.
func (h *hub) loadTLS() error {
	var err error
	h.TLS.Identity = h.TLS.Identity || !h.TLS.Enabled() && !h.Insecure && h.exposed()
	switch {
	case h.TLS.Identity:
		if name, err := os.Hostname(); err == nil {
			h.Hosts = append(slices.Clone(h.Hosts), strings.ToLower(name))
		}
		h.secure, err = h.TLS.Config(certified{h}, h.log)
		return err
	case !h.TLS.Enabled():
		return nil
	}
	if h.secure, err = h.TLS.Config(nil, h.log); err != nil {
		return fmt.Errorf("read the hub's TLS: %w", err)
	}
	if h.TLS.ClientCAFile == "" {
		h.secure.ClientAuth = tls.RequestClientCert
	}
	h.Hosts = append(slices.Clone(h.Hosts), h.leaf().DNSNames...)
	return nil
}

// leaf returns the certificate that the hub shows now, nil without TLS.
func (h *hub) leaf() *x509.Certificate {
	if h.secure == nil {
		return nil
	}
	pair, err := h.secure.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		return nil
	}
	return pair.Leaf
}

// certificate says what the hub shows.
func (h *hub) certificate() api.Certificate {
	leaf := h.leaf()
	if leaf == nil {
		return api.Certificate{}
	}
	c := api.Certificate{Names: slices.Clone(leaf.DNSNames), Ends: leaf.NotAfter.UTC(), Own: h.TLS.Identity}
	for _, ip := range leaf.IPAddresses {
		c.Names = append(c.Names, ip.String())
	}
	return c
}

// bundleFile is where commands on this machine find what to trust.
func (h *hub) bundleFile() string { return filepath.Join(h.Data, "ca.pem") }

// keepBundle writes the authorities, now and whenever they change.
func (h *hub) keepBundle() error {
	write := func() error {
		text, _ := h.authority.Bundle()
		return agent.WriteFile(h.bundleFile(), text)
	}
	changed := h.authority.Changed()
	if err := write(); err != nil {
		return fmt.Errorf("write the authorities: %w", err)
	}
	stop, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-changed:
				changed = h.authority.Changed()
				h.complain("write the authorities", write())
			case <-stop:
				return
			}
		}
	}()
	h.close = append(h.close, func() { close(stop); <-over })
	return nil
}

// certified is who the hub is, by its own authority, once that is open.
type certified struct{ *hub }

func (c certified) ServerTLS() (*tls.Config, error) {
	t, err := tlsconf.Client{}.Config("", nil, nil) // versions and ciphers are the same for both sides
	if err != nil {
		return nil, err
	}
	t.ClientAuth = tls.RequestClientCert
	t.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return c.authority.ServerCertificate(hello)
	}
	return t, nil
}

func (certified) ClientTLS() (*tls.Config, error) { return nil, errHubsAgent }

func (certified) Token(context.Context) (string, error) { return "", errHubsAgent }

var errHubsAgent = errors.New("a hub's own agent belongs to no other hub; let an agent of its own send there")

// identity is who the hub's own agent is: its collectors show what the hub shows.
type identity struct{ certified }

func (i identity) ServerTLS() (*tls.Config, error) {
	if i.secure == nil {
		return i.certified.ServerTLS()
	}
	return i.secure.Clone(), nil
}

// inviting returns what a listener of web pages speaks: it names the authorities whose certificates it asks for, so that browsers
// do not offer others.
func (h *hub) inviting() *tls.Config {
	base := h.secure.Clone()
	base.NextProtos = []string{"h2", "http/1.1"}
	if base.ClientAuth != tls.RequestClientCert {
		return base
	}
	var mu sync.Mutex
	var last string
	var current *tls.Config
	c := base.Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		text, fingerprint := h.authority.Bundle()
		mu.Lock()
		defer mu.Unlock()
		if fingerprint != last {
			current, last = base.Clone(), fingerprint
			current.ClientCAs = x509.NewCertPool()
			current.ClientCAs.AppendCertsFromPEM(text)
		}
		return current, nil
	}
	return c
}

// senders returns who decides about data, nil for nobody.
func (h *hub) senders() admission.Access {
	if h.Insecure {
		return nil
	}
	return h.access
}

// exposed reports whether an address of the hub can be reached from the network.
func (o *Options) exposed() bool {
	return slices.ContainsFunc([]string{o.Address, o.OpAMP}, func(address string) bool {
		host, _, err := net.SplitHostPort(address) // checkAddresses has refused what is none
		return err == nil && !tlsconf.IsLoopback(host)
	})
}

// addresses says where the hub is for who has reached it at a host.
func (h *hub) addresses(host string) control.Addresses {
	scheme := "http"
	if h.secure != nil {
		scheme = "https"
	}
	_, port, _ := net.SplitHostPort(h.listeners[0].Addr().String()) // it is one
	a := control.Addresses{URL: scheme + "://" + net.JoinHostPort(host, port)}
	text, err := os.ReadFile(filepath.Join(AgentData(h.Data), "endpoints.json"))
	var e agent.Endpoints
	if err != nil || json.Unmarshal(text, &e) != nil {
		return a // its agent does not run yet, or not any more
	}
	for _, l := range e.Listen {
		at, port, err := net.SplitHostPort(l.Address)
		if err != nil || tlsconf.IsLoopback(at) && !tlsconf.IsLoopback(host) {
			continue
		}
		switch address := net.JoinHostPort(host, port); {
		case l.Protocol == creel.OTLPGRPC && a.OTLPGRPC == "":
			a.OTLPGRPC = address
		case l.Protocol == creel.OTLPHTTP && a.OTLPHTTP == "":
			a.OTLPHTTP = address
		}
	}
	return a
}

// invite returns what to run on a host that is to join with a token: "" if none can.
func (h *hub) invite(t api.AccessTokenCreated) string {
	if t.Role == api.Member {
		return h.inviteHub(t)
	}
	if !h.exposed() || h.secure == nil {
		return ""
	}
	return "creel join " + h.addresses(h.name()).URL + " --token " + t.Text
}

// name returns the best guess at how others call this machine.
func (h *hub) name() string {
	host, _, _ := net.SplitHostPort(h.listeners[0].Addr().String())
	ip := net.ParseIP(host)
	if ip != nil && !ip.IsUnspecified() && !ip.IsLoopback() {
		return host
	}
	if ip != nil && ip.IsLoopback() {
		return host
	}
	if len(h.named) > 0 {
		return h.named[0]
	}
	return machine()
}

// machine returns an address of this machine that others may reach, or its name.
func machine() string {
	list, _ := net.InterfaceAddrs() // without them there is still the name
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	name, err := os.Hostname()
	if err != nil {
		return "HUB"
	}
	return name
}

// backup writes all that a hub must not lose.
func (h *hub) backup(ctx context.Context, w io.Writer) error {
	return backupSource{h.state, h.Data, h.id, h.Version, time.Now}.writeTo(ctx, w)
}

// secured are the parts of the web server that this file is about.
func (h *hub) secured(o web.Options) web.Options {
	o.Access, o.Audit, o.Gate, o.Authority, o.Members, o.Flood = h.access, h.audit, h.gate, h.authority, members{h}, h.flood
	o.Certificate, o.Backup, o.Join = h.certificate, h.backup, h.invite
	o.Peers, o.HubShown = h.peers, h.shown
	return o
}
