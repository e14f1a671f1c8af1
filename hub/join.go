package hub

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/agent"
	enrol "github.com/creelhq/creel/agent/identity" // there is another identity in this package
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/tlsconf"
)

// This file is how hubs come to share a control state: one asks another for the secret, and for a place in its etcd.

// DefaultEtcdPort is where hubs reach each other's etcd if nothing else is said.
const DefaultEtcdPort = "2380"

// sharing is what a hub knows of the control state that it shares, in the file cluster.json of its state directory: so that it starts
// again without being told, and while the others do not run.
type sharing struct {
	Version   int       `json:"version"`             // of this format: 1
	Listen    string    `json:"listen,omitempty"`    // where other hubs reach its etcd: IP address and port
	Advertise string    `json:"advertise,omitempty"` // the URL that they are told
	Member    string    `json:"member,omitempty"`    // the id of its member
	Members   []string  `json:"members,omitempty"`   // what all members advertised when it joined
	Etcd      []string  `json:"etcd,omitempty"`      // endpoints of an etcd outside, instead
	User      string    `json:"user,omitempty"`
	Password  string    `json:"password,omitempty"`
	Token     string    `json:"token,omitempty"` // the id of the token that it has joined with, or is joining
	Key       []byte    `json:"key,omitempty"`   // what only it knows, see control.HubRequest
	Joined    bool      `json:"joined,omitempty"`
	Removed   time.Time `json:"removed,omitzero"` // when it was removed from the others
}

func (h *hub) clusterFile() string { return filepath.Join(h.Data, "cluster.json") }
func (h *hub) etcdDir() string     { return filepath.Join(h.Data, "etcd") }

// etcdTLS is where certificates lie for an etcd: those of members, or those that came with an etcd outside.
func (h *hub) etcdTLS(name string) string { return filepath.Join(h.Data, "etcd-tls", name) }

func (h *hub) loadCluster() (c sharing, err error) {
	text, err := os.ReadFile(h.clusterFile())
	if errors.Is(err, fs.ErrNotExist) {
		return sharing{Version: 1}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err == nil && c.Version != 1 {
		err = fmt.Errorf("it has version %d, which this version of creel does not know", c.Version)
	}
	if err != nil {
		return c, fmt.Errorf("read %s: %w", h.clusterFile(), err)
	}
	return c, nil
}

func (h *hub) saveCluster(c sharing) error {
	if err := agent.WriteJSON(h.clusterFile(), c); err != nil {
		return fmt.Errorf("write %s: %w", h.clusterFile(), err)
	}
	return nil
}

// openState opens the control state: in a cluster, or in an etcd within. If the hub is to join others it does that first.
func (h *hub) openState(ctx context.Context) (state.Store, error) {
	c, err := h.loadCluster()
	if err != nil {
		return nil, err
	}
	if len(h.Etcd) == 0 {
		if err := h.meet(&c); err != nil {
			return nil, err
		}
	}
	if h.Join != "" {
		if err := h.join(ctx, &c); err != nil {
			return nil, err
		}
	}
	switch {
	case len(h.Etcd) > 0 || len(c.Etcd) > 0:
		return h.dial(ctx, c)
	case !c.Removed.IsZero():
		return nil, fmt.Errorf("open control state: %w at %s; to be one of them again: creel hub --join URL --token TOKEN. To be one for itself, name another --data", state.ErrRemoved, c.Removed.Format(time.RFC3339))
	case c.Listen == "":
		return state.Embedded(ctx, state.EmbeddedOptions{Dir: h.etcdDir(), Log: h.libraries})
	}
	return h.openMember(ctx, c)
}

// meet finds out where other hubs reach this one's etcd: as the options say, else as before, and of one that joins where all else is.
func (h *hub) meet(c *sharing) error {
	listen := cmp.Or(h.EtcdListen, c.Listen)
	if listen == "" && h.Join == "" {
		return nil
	}
	if listen == "" {
		host, _, _ := net.SplitHostPort(h.Address) // checkAddresses has refused what is none
		listen = host
	}
	if net.ParseIP(strings.Trim(listen, "[]")) != nil || !strings.Contains(listen, ":") {
		listen = net.JoinHostPort(strings.Trim(listen, "[]"), DefaultEtcdPort)
	}
	host, port, err := net.SplitHostPort(listen)
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip := net.ParseIP(host)
	if host == "" {
		ip = net.IPv4zero
	}
	if err != nil || ip == nil || port == "0" {
		return fmt.Errorf("read --etcd-listen %s: must be an IP address of this machine with or without a port, such as 10.0.0.1 or 10.0.0.1:%s", listen, DefaultEtcdPort)
	}
	if listen = net.JoinHostPort(ip.String(), port); listen == c.Listen && c.Advertise != "" {
		return nil
	}
	name := ip.String()
	if ip.IsUnspecified() {
		name = h.toOthers()
	}
	c.Listen, c.Advertise = listen, "https://"+net.JoinHostPort(name, port)
	return nil
}

// toOthers is how other hubs find this machine: by the first name that the hub was given, or by the address that leads to the hub
// that it joins, or by any that is not of this machine alone.
func (h *hub) toOthers() string {
	if len(h.named) > 0 {
		return h.named[0]
	}
	if u, err := control.HubURL(h.Join); h.Join != "" && err == nil {
		if conn, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))); err == nil { // it sends nothing
			defer conn.Close()
			return conn.LocalAddr().(*net.UDPAddr).IP.String()
		}
	}
	return machine()
}

// openMember opens the etcd within that others are members of as well, or can be.
func (h *hub) openMember(ctx context.Context, c sharing) (state.Store, error) {
	secret, err := h.secret()
	if err != nil {
		return nil, err
	}
	s, err := state.Embedded(ctx, state.EmbeddedOptions{
		Dir: h.etcdDir(), Log: h.libraries,
		Member: &state.MemberOptions{Name: h.id, Listen: c.Listen, Advertise: c.Advertise, Secret: secret, TLS: h.etcdTLS(""), Cluster: c.Members},
		Ended: func(err error) {
			if errors.Is(err, state.ErrRemoved) {
				c.Removed = time.Now().UTC()
				h.complain("remember that this hub was removed", h.saveCluster(c))
			}
			h.end(fmt.Errorf("the control state has ended: %w", err))
		},
	})
	if errors.Is(err, state.ErrRemoved) {
		c.Removed = time.Now().UTC()
		h.complain("remember that this hub was removed", h.saveCluster(c))
	}
	if err != nil {
		return nil, err
	}
	own := s.(state.OwnCluster)
	c.Member, c.Removed = own.ID(), time.Time{}
	if err := h.saveCluster(c); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	list, err := own.Members(ctx)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	voters := 0
	for _, m := range list {
		if !m.Learner {
			voters++
		}
	}
	h.log.Info("this hub keeps the control state together with others", "hubs", voters, "may_fail", (voters-1)/2, "etcd", c.Advertise)
	h.warnOfPairs(voters)
	return s, nil
}

// warnOfPairs says that hubs are too few, or one too many.
func (h *hub) warnOfPairs(hubs int) {
	if hubs > 1 && hubs%2 == 0 {
		h.log.Warn(fmt.Sprintf("of %d hubs that keep the control state %d must run: that is no safer than one hub less. Let another join: of %d, %d may fail", hubs, hubs/2+1, hubs+1, hubs/2))
	}
}

// dial opens the control state in an etcd outside.
func (h *hub) dial(ctx context.Context, c sharing) (state.Store, error) {
	o := h.outside(c)
	s, err := state.Dial(ctx, o)
	if err != nil {
		return nil, err
	}
	if exists(filepath.Join(h.Data, "secret")) {
		return s, nil
	}
	_, err = s.Get(ctx, "authority/current")
	switch {
	case err == nil:
		err = fmt.Errorf("open control state: other hubs keep theirs in this etcd, sealed with a secret that this one has not. Let it join: creel token create --role hub, at one of them, prints what to run; or copy the file secret from one's state directory to %s", h.Data)
	case errors.Is(err, state.ErrNotFound):
		return s, nil
	}
	return nil, errors.Join(err, s.Close())
}

// outside says where the etcd outside is: as the options say, else as the hub has learned when it joined.
func (h *hub) outside(c sharing) state.DialOptions {
	o := state.DialOptions{Endpoints: h.Etcd, TLS: h.EtcdTLS, User: h.EtcdUser, Password: h.EtcdPassword}
	if len(o.Endpoints) == 0 {
		o.Endpoints = c.Etcd
	}
	if o.User == "" {
		o.User, o.Password = c.User, c.Password
	}
	if o.TLS == (tlsconf.Client{}) && len(h.Etcd) == 0 {
		for name, file := range map[string]*string{"ca.pem": &o.TLS.CAFile, "cert.pem": &o.TLS.CertFile, "cert.key": &o.TLS.KeyFile} {
			if exists(h.etcdTLS(name)) {
				*file = h.etcdTLS(name)
			}
		}
	}
	return o
}

// join has the hub that Join names let this one share its control state. However often it is interrupted, it can be done again; when it
// is done, doing it again does nothing.
func (h *hub) join(ctx context.Context, c *sharing) error {
	token, err := control.ParseToken(h.JoinToken)
	if err != nil {
		return fmt.Errorf("join the hub at %s: read --token: %w", h.Join, err)
	}
	has := state.HasMember(h.etcdDir())
	if c.Joined && c.Token == token.ID && c.Removed.IsZero() && (has || len(c.Etcd) > 0) {
		return nil
	}
	if has && c.Member == "" && !c.Joined {
		return fmt.Errorf("join the hub at %s: in %s there is a control state of this hub's own, with agents and documents; name an empty --data, or move etcd, secret and ca away from there", h.Join, h.Data)
	}
	if c.Token != token.ID || len(c.Key) == 0 {
		c.Token, c.Key, c.Joined = token.ID, make([]byte, 32), false
		_, _ = rand.Read(c.Key) // it never fails
		if err := h.saveCluster(*c); err != nil {
			return err
		}
	}
	name, _ := os.Hostname() // it is for people
	q := control.HubRequest{Token: h.JoinToken, Hub: h.id, Name: name, Key: c.Key, Peer: c.Advertise}
	if has {
		q.Member = c.Member
	}
	var g control.HubGrant
	if err := enrol.AskFirst(ctx, h.Join, h.JoinToken, control.HubPath, q, &g); err != nil {
		return fmt.Errorf("join the hub at %s: %w", h.Join, err)
	}
	if err := h.accept(c, has, g); err != nil {
		return fmt.Errorf("join the hub at %s: %w", h.Join, err)
	}
	h.log.Info("joined", "hub", h.Join, "members", len(g.Members), "etcd", c.Etcd)
	return nil
}

// accept keeps what the other hub has answered. The last thing that is written makes it count.
func (h *hub) accept(c *sharing, has bool, g control.HubGrant) error {
	var s state.Secret
	if len(g.Secret) != len(s) || g.Etcd == nil && (g.Member == "" || len(g.Members) < 2) {
		return errors.New("its answer is of no use; are both of the same version of creel?")
	}
	file := filepath.Join(h.Data, "secret")
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	secret := hex.EncodeToString(g.Secret) + "\n"
	if err == nil && string(old) != secret {
		if has && c.Removed.IsZero() {
			return fmt.Errorf("this hub shares a control state with others already, and this one is another; name an empty --data, or let it leave those first: creel hub leave")
		}
		if err := os.Rename(file, fmt.Sprintf("%s.before-join-%d", file, time.Now().UnixNano())); err != nil {
			return err
		}
	}
	if has && (g.Etcd != nil || g.Member != c.Member) { // it is of a member that was removed
		if err := os.Rename(h.etcdDir(), fmt.Sprintf("%s.before-join-%d", h.etcdDir(), time.Now().UnixNano())); err != nil {
			return err
		}
	}
	if err := agent.WriteFile(file, []byte(secret)); err != nil {
		return err
	}
	c.Member, c.Members, c.Joined, c.Removed, c.Etcd, c.User, c.Password = g.Member, g.Members, true, time.Time{}, nil, "", ""
	if e := g.Etcd; e != nil {
		c.Etcd, c.User, c.Password, c.Listen, c.Advertise = e.Endpoints, e.User, e.Password, "", ""
		if err := os.MkdirAll(h.etcdTLS(""), 0o700); err != nil {
			return err
		}
		for name, text := range map[string][]byte{"ca.pem": e.CA, "cert.pem": e.Cert, "cert.key": e.Key} {
			if len(text) == 0 {
				continue
			}
			if err := agent.WriteFile(h.etcdTLS(name), text); err != nil {
				return err
			}
		}
	}
	return h.saveCluster(*c)
}

// joined is what the control state remembers of a hub that has joined.
type joined struct {
	Token string    `json:"token"` // its id
	Proof []byte    `json:"proof"` // SHA-256 of the token and of what only that hub knows
	Peer  string    `json:"peer,omitempty"`
	Name  string    `json:"name"`
	Time  time.Time `json:"time"`
	Ends  time.Time `json:"ends"` // until then an answer is repeated
}

const joinedPrefix = "joined/" // and a hub's id

// admit lets another hub share the control state. To ask again with the same token and key costs no other token.
func (h *hub) admit(ctx context.Context, address string, q control.HubRequest) (*control.HubGrant, error) {
	malformed := func(text string) error {
		return &control.Refusal{Code: control.Malformed, Text: text, Remedy: "use creel hub --join, of the version of this hub"}
	}
	id, err := uuid.Parse(q.Hub)
	switch {
	case err != nil || id.String() != q.Hub || len(q.Key) != 32:
		return nil, malformed("the request must have the id of a hub and 32 random bytes")
	case q.Hub == h.id:
		return nil, malformed("the one that joins has the id of this hub: was its state directory copied? Remove the file id in the copy")
	}
	if err := h.joinable(); err != nil {
		return nil, err
	}
	if err := h.reachable(q.Peer); err != nil {
		return nil, err
	}
	secret, err := h.secret()
	if err != nil {
		return nil, err
	}
	was, err := h.paid(ctx, address, q)
	if err != nil {
		return nil, err
	}
	own, ok := h.state.(state.OwnCluster)
	if !ok {
		outside, err := h.tell()
		if err != nil {
			return nil, err
		}
		return &control.HubGrant{Secret: secret[:], Etcd: outside}, nil
	}
	member, peers, err := own.Add(ctx, state.Joiner{Name: q.Hub, Peer: q.Peer, Before: was, ID: q.Member})
	if err != nil {
		return nil, &control.Refusal{Code: control.Busy, Text: fmt.Sprintf("the hub cannot be added now: %v", err), Remedy: "start it with the same command again: that costs no other token", After: 5 * time.Second}
	}
	h.log.Info("a hub joins", "hub", q.Hub, "name", q.Name, "etcd", q.Peer)
	h.warnOfPairs(len(peers))
	return &control.HubGrant{Secret: secret[:], Member: member, Members: peers}, nil
}

// paid sees to it that a hub has a token for what it asks, and returns where it was to be reached when it asked before.
func (h *hub) paid(ctx context.Context, address string, q control.HubRequest) (was string, err error) {
	key := joinedPrefix + q.Hub
	var r joined
	e, err := h.state.Get(ctx, key)
	if err == nil {
		err = json.Unmarshal(e.Value, &r)
	}
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return "", err
	}
	was = r.Peer
	sum := sha256.New()
	sum.Write([]byte(q.Token))
	sum.Write(q.Key)
	proof := sum.Sum(nil)
	again := bytes.Equal(r.Proof, proof) && time.Now().Before(r.Ends)
	if !again {
		token, err := h.access.SpendAs(ctx, api.Member, q.Token)
		if err != nil {
			return "", err
		}
		r = joined{Token: token.ID, Proof: proof, Name: q.Name, Time: time.Now().UTC(), Ends: token.Ends}
		_ = h.audit.Add(ctx, api.AuditEntry{Who: token.Name, Role: api.Member, Address: address, Action: "joinHub", Target: q.Hub, Outcome: "done", Detail: "host " + q.Name + ", token " + token.ID}) // it has logged why not
	}
	if again && r.Peer == q.Peer {
		return was, nil
	}
	r.Peer = q.Peer
	text, err := json.Marshal(r)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	if _, err := h.state.Put(ctx, key, text, false, state.Unchanged(e.Revision)); err != nil {
		return "", fmt.Errorf("remember that hub %s joins; its token is spent, so that it needs another: %w", q.Hub, err)
	}
	return was, nil
}

// joinable says why no hub can join.
func (h *hub) joinable() error {
	if _, ok := h.state.(state.OwnCluster); !ok {
		return nil // in an etcd outside
	}
	if c, err := h.loadCluster(); err != nil || c.Listen != "" {
		return err
	}
	return &control.Refusal{Code: control.NotJoinable, Text: state.ErrAlone.Error(), Remedy: "start it with --etcd-listen ADDRESS, an address of this machine that the other hub reaches"}
}

// inviteHub returns what to run where a hub is to be that joins with a token: on another machine one that listens to all; if this one
// can be reached on its own machine alone, one there, for a trial, at whatever ports are free.
func (h *hub) inviteHub(t api.AccessTokenCreated) string {
	name := h.name()
	join := " --join " + h.addresses(name).URL + " --token " + t.Text
	c, err := h.loadCluster()
	etcd, _ := url.Parse(c.Advertise) // it was made by meet; empty in an etcd outside
	switch {
	case err == nil && h.exposed() && (etcd.Host == "" || !tlsconf.IsLoopback(etcd.Hostname())):
		all := "0.0.0.0"
		if strings.Contains(name, ":") {
			all = "[::]"
		}
		return "creel hub --listen " + all + join
	case err == nil && c.Listen != "":
		if l, err := bind(c.Listen, true); err == nil {
			defer l.Close()
			join = " --etcd-listen " + l.Addr().String() + join
		}
	}
	return "creel up --data creel-" + t.ID + join
}

// reachable says why this hub would not find the etcd of one that joins.
func (h *hub) reachable(peer string) error {
	if _, ok := h.state.(state.OwnCluster); !ok {
		return nil
	}
	c, err := h.loadCluster()
	if err != nil {
		return err
	}
	theirs, err := url.Parse(peer)
	if err != nil || theirs.Scheme != "https" || theirs.Port() == "" {
		return &control.Refusal{Code: control.Malformed, Text: "the one that joins must say at what https://host:port its etcd is reached", Remedy: "use creel hub --join, of the version of this hub"}
	}
	ours, err := url.Parse(c.Advertise)
	if err != nil {
		return err
	}
	if tlsconf.IsLoopback(ours.Hostname()) != tlsconf.IsLoopback(theirs.Hostname()) {
		return &control.Refusal{Code: control.NotJoinable, Text: fmt.Sprintf("hubs reach each other's etcd, and this one's is at %s, that of the one that joins at %s: they cannot be on one machine and on two", c.Advertise, peer),
			Remedy: "give both an address that the other reaches: --etcd-listen ADDRESS"}
	}
	return nil
}

// tell says where the etcd outside is, and how this hub comes in.
func (h *hub) tell() (*control.EtcdAddress, error) {
	c, err := h.loadCluster()
	if err != nil {
		return nil, err
	}
	o := h.outside(c)
	e := &control.EtcdAddress{Endpoints: o.Endpoints, User: o.User, Password: o.Password}
	read := func(file string) (text []byte) {
		if file != "" && err == nil {
			text, err = os.ReadFile(file)
		}
		return text
	}
	e.CA, e.Cert, e.Key = read(o.TLS.CAFile), read(o.TLS.CertFile), read(o.TLS.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read what the etcd outside is trusted by: %w", err)
	}
	return e, nil
}

// members is the hub as web.Members.
type members struct{ *hub }

// Joinable says why no hub can join.
func (m members) Joinable() error {
	err := m.joinable()
	if err == nil && m.secure == nil && m.exposed() {
		err = &control.Refusal{Code: control.NotJoinable, Text: "this hub is reached from the network without TLS, and what one that joins is told must be read by nobody else", Remedy: "start it without --insecure"}
	}
	if r := (*control.Refusal)(nil); errors.As(err, &r) {
		return &api.Error{Code: "conflict", Message: r.Error()}
	}
	return err
}

// Remove removes a hub's member for good.
func (m members) Remove(ctx context.Context, by, asked string) (id string, noted bool, err error) {
	own, ok := m.state.(state.OwnCluster)
	if !ok {
		return "", false, &api.Error{Code: "conflict", Message: "the control state is in an etcd outside, of which hubs keep no part: to take a hub away, stop it"}
	}
	list, err := own.Members(ctx)
	if err != nil {
		return "", false, err
	}
	for _, one := range list {
		if len(asked) < 4 || !strings.HasPrefix(one.Name, asked) {
			continue
		}
		if id != "" {
			return "", false, &api.Error{Code: "bad_request", Message: fmt.Sprintf("%q means several hubs; say more of the id", asked)}
		}
		id = one.Name
	}
	switch {
	case id == "":
		return "", false, &api.Error{Code: "not_found", Message: fmt.Sprintf("of the hubs that keep the control state together none has the id %q", asked)}
	case id == m.id && len(list) > 1:
		if err := m.audit.Add(ctx, api.AuditEntry{Who: by, Role: api.Admin, Action: "removeHub", Target: id, Outcome: "done", Detail: "it leaves"}); err != nil {
			return id, false, err
		}
		noted = true
	}
	if err := own.Remove(ctx, id); err != nil {
		return id, false, &api.Error{Code: "conflict", Message: fmt.Sprintf("hub %s cannot be removed: %v", id, err)}
	}
	if id != m.id {
		m.complain("forget a hub that was removed", m.state.Delete(ctx, joinedPrefix+id, state.Always()))
	}
	return id, noted, nil
}

// shared reports whether other hubs may have the same control state.
func (h *hub) shared() bool {
	if _, ok := h.state.(state.OwnCluster); !ok {
		return true
	}
	c, err := h.loadCluster()
	return err != nil || c.Listen != ""
}
