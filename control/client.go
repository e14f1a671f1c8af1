package control

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/tlsconf"
	"github.com/creelhq/creel/trace"
)

// Agent is what a Client asks the agent that it speaks for. The functions may be called from any goroutine.
type Agent struct {
	ID      string // a UUID
	Version string

	Labels     func() map[string]string // of agent.labels and of the machine, such as host.name; another map when they change
	Health     func() report.Health
	Components func() []report.Component
	Routes     func() []report.Route
	Ledger     func() report.Ledger
	Effective  func() []byte // the configuration that runs, secrets redacted, JSON

	// What is nil is not told, or not taken.
	Life          func() report.Life
	Configuration func() report.Configuration
	Remote        func() RemoteStatus // what became of the last Offer
	Done          func() string       // the ID of the last Order that was done
	Trusted       func() string       // the FingerprintOfBundle of the authorities that the agent trusts

	// Offered and Ordered are told what the hub wants, again after each connection until Remote and Done say that it is so.
	// They are called by one goroutine, which does nothing else meanwhile: they must not block.
	Offered func(*Offer)
	Ordered func(Order)

	// Leased is told, with each Lease, until when the agent has it, by its own clock. It must not block. What the hub wants is
	// Offered before, if both come in one message.
	Leased func(until time.Time)

	// Trust is told, with each Lease, the FingerprintOfBundle of what the hub says is to be trusted. It must not block.
	Trust func(authorities string)

	// Refused is told why the hub takes no connection, if it says so. It must not block.
	Refused func(*Refusal)
}

// RemoteStatus is what became of an Offer.
type RemoteStatus struct {
	Hash   string // of the Offer; empty: there was none
	Status string // Applying, Applied or Failed
	Error  string // why it failed
}

// The values of RemoteStatus.Status.
const (
	Applying = "applying"
	Applied  = "applied"
	Failed   = "failed"
)

// ClientOptions say which hub to connect to. URL and Agent are required.
type ClientOptions struct {
	URL    string      // http://host:port, https://host:port, to which Path is appended, or unix:///path/of/socket
	TLS    *tls.Config // for https; nil: the system's authorities are trusted
	Joined bool        // TLS is by the agent's identity, whose errors say themselves what to do
	Agent  Agent
	Log    *slog.Logger  // nil: none
	Tracer *trace.Tracer // of connecting, and of what is offered and ordered; nil: none
}

// A Client keeps an agent connected to its hub.
type Client struct {
	o      ClientOptions
	url    string
	socket string        // if the hub is at a Unix socket
	speak  chan struct{} // holds one when something is to be told at once

	mu    sync.Mutex
	state report.Hub
}

// NewClient returns a Client. The error says what is wrong with the URL.
func NewClient(o ClientOptions) (*Client, error) {
	u, err := HubURL(o.URL)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ws := &url.URL{Scheme: "ws", Host: "localhost"}
	if u.Scheme != unixScheme {
		*ws = *u
		ws.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	}
	return &Client{o: o, socket: socketOf(u), url: ws.JoinPath(Path).String(), speak: make(chan struct{}, 1), state: report.Hub{URL: u.String()}}, nil
}

// Notify has the hub told at once what has changed, not only with the next heartbeat. It does not block. When it is called
// often, what has changed is told together, some fifty times a second.
func (c *Client) Notify() {
	select {
	case c.speak <- struct{}{}:
	default:
	}
}

// unixScheme is how the URL of a hub at a Unix socket begins.
const unixScheme = "unix"

// socketOf returns the path of the Unix socket that a hub's URL means, or "".
func socketOf(u *url.URL) string {
	if u.Scheme != unixScheme {
		return ""
	}
	return u.Path
}

// HubURL checks the URL of a hub: http or https, a host, no more than that is needed; or unix and an absolute path. Errors do not
// repeat it: it may hold a password.
func HubURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("must be a URL such as http://127.0.0.1:4380: %w", errors.Unwrap(err))
	}
	local := u.Scheme == unixScheme && u.Host == "" && u.Path != ""
	if !local && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") || u.User != nil || u.RawQuery != "" {
		return nil, errors.New("must be a URL such as http://127.0.0.1:4380, with neither user nor password")
	}
	return u, nil
}

// State returns how the connection is.
func (c *Client) State() report.Hub {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

const (
	dialTimeout   = 10 * time.Second
	firstBeat     = time.Second // until the hub has said how often it wants to hear
	maxReconnect  = 30 * time.Second
	maxRetryAfter = 10 * time.Minute      // that a hub can ask for
	breath        = 20 * time.Millisecond // between two messages that Notify asks for
)

// Run connects until ctx is done, for ever, with full jitter between attempts (Exponential Backoff and Jitter, AWS
// Architecture Blog, 2015). It says goodbye when ctx is done. An agent works as well without its hub.
func (c *Client) Run(ctx context.Context) {
	for failed := 0; ctx.Err() == nil; {
		s := &session{c: c, heartbeat: firstBeat}
		err := s.run(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := s.heartbeat
		if s.hub == "" { // it never answered
			failed++
			wait = min(maxReconnect, firstBeat/2<<min(failed, 10))
		} else {
			failed = 0
		}
		wait = time.Duration(rand.Int64N(int64(wait))) + time.Millisecond
		c.lost(err, max(wait, s.retryAfter))
		select {
		case <-time.After(max(wait, s.retryAfter)):
		case <-ctx.Done():
		}
	}
}

// lost notes that there is no connection, and logs it when that is new.
func (c *Client) lost(err error, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Connected || c.state.Error != err.Error() {
		c.o.Log.Warn("no connection to the hub; everything else goes on", "url", c.state.URL, "error", err, "next_attempt", wait.Round(time.Millisecond))
	}
	if c.state.Connected || c.state.Since.IsZero() {
		c.state.Since = time.Now()
	}
	c.state.Connected, c.state.Error = false, err.Error()
}

// A session is one connection of a Client.
type session struct {
	c          *Client
	conn       *Conn
	uid        []byte
	seq        uint64
	nonce      uint64
	heartbeat  time.Duration
	hub        string
	retryAfter time.Duration

	lease chan *protobufs.ServerToAgent
	sent  map[uint64]time.Time // when the Beats that were not answered yet were sent
	spoke time.Time            // when the last message was sent

	known known
}

// known is what the hub has been told.
type known struct {
	labels        map[string]string
	health        *protobufs.ComponentHealth
	effective     string
	remote        RemoteStatus
	components    []report.Component
	routes        []report.Route
	ledger        *report.Ledger
	life          *report.Life
	configuration *report.Configuration
	done          string
	authorities   string
}

func (s *session) run(ctx context.Context) error {
	id, err := uuid.Parse(s.c.o.Agent.ID)
	if err != nil {
		return fmt.Errorf("read the agent's id: %w", err)
	}
	s.uid = id[:]
	if err := s.dial(ctx); err != nil {
		return err
	}
	defer s.conn.Close(websocket.CloseNormalClosure, "")
	s.lease, s.sent = make(chan *protobufs.ServerToAgent, queued), make(map[uint64]time.Time)
	ended := make(chan error, 1)
	go func() {
		for {
			m := &protobufs.ServerToAgent{}
			if err := s.conn.Receive(m); err != nil {
				ended <- err
				return
			}
			select {
			case s.lease <- m:
			case <-ctx.Done():
			}
		}
	}()
	if err := s.send(true); err != nil {
		return err
	}
	timer := time.NewTimer(s.heartbeat)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = s.conn.Send(&protobufs.AgentToServer{InstanceUid: s.uid, SequenceNum: s.seq + 1, AgentDisconnect: &protobufs.AgentDisconnect{}}) // it may be gone
			s.conn.Flush(time.Second)
			return ctx.Err()
		case err := <-ended:
			return err
		case m := <-s.lease:
			full, err := s.answered(ctx, m)
			if err != nil {
				return err
			}
			if full {
				if err := s.send(true); err != nil {
					return err
				}
			}
		case <-s.c.speak:
			timer.Reset(max(0, time.Until(s.spoke.Add(breath))))
		case <-timer.C:
			if err := s.send(false); err != nil {
				return err
			}
			timer.Reset(s.heartbeat)
		}
	}
}

func (s *session) dial(ctx context.Context) (err error) {
	ctx, span := s.c.o.Tracer.Start(ctx, "connect to the hub", trace.Client, slog.String("component", "agent.hub"), slog.String("url.full", s.c.url))
	defer func() { span.Fail(err); span.End() }()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := websocket.Dialer{
		HandshakeTimeout: dialTimeout, ReadBufferSize: 2 << 10, WriteBufferSize: 2 << 10, WriteBufferPool: &buffers,
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: s.c.o.TLS,
	}
	if socket := s.c.socket; socket != "" {
		d.Proxy, d.NetDialContext = nil, func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	header := make(http.Header)
	span.Context().Inject(func(key, value string) { header.Set(key, value) })
	ws, resp, err := d.DialContext(ctx, s.c.url, header)
	if resp != nil && err != nil {
		return s.explain(s.turnedAway(resp))
	}
	if err != nil {
		return s.explain(fmt.Errorf("connect to hub: %w", err))
	}
	s.conn = newConn(ws, MaxMessage, 4*dialTimeout, nil)
	return nil
}

// turnedAway says why a hub answers with something else than a connection, and notes when to try again.
func (s *session) turnedAway(resp *http.Response) error {
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, MaxIdentityMessage)) // only to explain
	var refused Refusal
	if json.Unmarshal(body, &refused) == nil && refused.Text != "" {
		s.retryAfter = min(refused.After, maxRetryAfter)
		if f := s.c.o.Agent.Refused; f != nil {
			f(&refused)
		}
		return fmt.Errorf("connect to hub: it refuses this agent: %w", &refused)
	}
	text := strings.ToValidUTF8(string(body[:min(len(body), 200)]), "")
	return fmt.Errorf("connect to hub: it answers %s: %s", resp.Status, strings.TrimSpace(text))
}

// explain adds to an error of connecting what to do next, if it has to do with TLS.
func (s *session) explain(err error) error {
	var refused *Refusal
	if errors.As(err, &refused) || s.c.o.Joined && strings.Contains(err.Error(), "certificate") {
		return err
	}
	return fmt.Errorf("%w%s", err, tlsconf.Hint(err, "agent.hub.tls.ca_file", "agent.hub.tls.cert_file and key_file"))
}

// answered takes in what the hub says.
func (s *session) answered(ctx context.Context, m *protobufs.ServerToAgent) (full bool, err error) {
	if e := m.GetErrorResponse(); e != nil {
		s.retryAfter = min(time.Duration(e.GetRetryInfo().GetRetryAfterNanoseconds()), maxRetryAfter)
		return false, fmt.Errorf("the hub refuses: %s", e.GetErrorMessage())
	}
	l, err := LeaseOf(m.GetCustomMessage())
	if err != nil {
		return false, err
	}
	if err := s.wanted(ctx, m); err != nil {
		return false, err
	}
	if l != nil {
		s.leased(l)
		if trust := s.c.o.Agent.Trust; trust != nil && l.Authorities != "" {
			trust(l.Authorities)
		}
	} else if s.hub == "" && m.GetCapabilities() != 0 {
		s.leased(&Lease{Hub: "OpAMP server", Heartbeat: 30 * time.Second}) // not creel's: no lease
	}
	return m.GetFlags()&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState) != 0, nil
}

// wanted passes on what the hub wants the agent to run and to do.
func (s *session) wanted(ctx context.Context, m *protobufs.ServerToAgent) error {
	a, component := &s.c.o.Agent, slog.String("component", "agent.hub")
	if r := m.GetRemoteConfig(); r != nil && a.Offered != nil {
		o := OfferOf(r)
		_, span := s.c.o.Tracer.Start(ctx, "offer of the hub", trace.Consumer, component, slog.String("hash", o.Hash()), slog.Int("documents", len(o.Documents)))
		a.Offered(o)
		span.End()
	}
	o, err := OrderOf(m.GetCustomMessage())
	if o != nil && a.Ordered != nil {
		_, span := s.c.o.Tracer.Start(ctx, "order of the hub", trace.Consumer, component, slog.String("id", o.ID), slog.String("do", o.Do))
		a.Ordered(*o)
		span.End()
	}
	return err
}

func (s *session) leased(l *Lease) {
	if l.Heartbeat > 0 {
		s.heartbeat = l.Heartbeat
		s.conn.SetPatience(3*l.Heartbeat + dialTimeout)
	}
	sent, known := s.sent[l.Nonce]
	for n := range s.sent {
		if n <= l.Nonce {
			delete(s.sent, n)
		}
	}
	c := s.c
	if told := c.o.Agent.Leased; told != nil && known && l.Expires > 0 {
		told(sent.Add(l.Expires))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known && l.Expires > 0 {
		c.state.Leased = sent.Add(l.Expires)
	}
	if s.hub == "" {
		s.hub = l.Hub
		c.state.ID, c.state.Connected, c.state.Since, c.state.Error = l.Hub, true, time.Now(), ""
		c.o.Log.Info("connected to the hub", "url", c.state.URL, "hub", l.Hub, "heartbeat", s.heartbeat)
	}
}

// send tells the hub everything, or what has changed; a Beat always.
func (s *session) send(full bool) error {
	a, k := &s.c.o.Agent, &s.known
	if full {
		*k = known{}
	}
	s.seq++
	m := &protobufs.AgentToServer{InstanceUid: s.uid, SequenceNum: s.seq, Capabilities: a.capabilities()}
	if labels := a.Labels(); full || !maps.Equal(labels, k.labels) {
		m.AgentDescription, k.labels = describe(a, labels), labels
	}
	if full {
		m.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{Capability}}
	}
	h, components := a.Health(), a.Components()
	if now := componentHealth(h, components); k.health == nil || !reflect.DeepEqual(plain(k.health), plain(now)) {
		m.Health, k.health = now, now
	}
	if now := string(a.Effective()); now != k.effective {
		m.EffectiveConfig = &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{
			"": {Body: []byte(now), ContentType: "application/json"},
		}}}
		k.effective = now
	}
	if a.Remote != nil {
		if now := a.Remote(); now != k.remote {
			m.RemoteConfigStatus, k.remote = now.message(), now
		}
	}
	s.nonce++
	m.CustomMessage = s.beat(h, components).Message()
	if len(s.sent) > queued { // a hub that gives no lease
		clear(s.sent)
	}
	s.spoke = time.Now()
	s.sent[s.nonce] = s.spoke
	return s.conn.Send(m)
}

func (s *session) beat(h report.Health, components []report.Component) *Beat {
	a, k := &s.c.o.Agent, &s.known
	b := &Beat{Nonce: s.nonce, Uptime: time.Since(h.Started).Seconds()}
	if !reflect.DeepEqual(components, k.components) { // they have pointers
		b.Components, k.components = components, components
	}
	if routes := a.Routes(); !reflect.DeepEqual(routes, k.routes) {
		b.Routes, k.routes = routes, routes
	}
	if ledger := a.Ledger(); k.ledger == nil || !reflect.DeepEqual(ledger, *k.ledger) {
		b.Ledger, k.ledger = &ledger, &ledger
	}
	if a.Life != nil {
		if life := a.Life(); k.life == nil || !reflect.DeepEqual(life, *k.life) {
			b.Life, k.life = &life, &life
		}
	}
	if a.Configuration != nil {
		if c := a.Configuration(); k.configuration == nil || !reflect.DeepEqual(c, *k.configuration) {
			b.Configuration, k.configuration = &c, &c
		}
	}
	if a.Done != nil {
		if done := a.Done(); done != k.done {
			b.Done, k.done = done, done
		}
	}
	if a.Trusted != nil {
		if now := a.Trusted(); now != k.authorities {
			b.Authorities, k.authorities = now, now
		}
	}
	return b
}

// capabilities says what the agent reports and takes.
func (a *Agent) capabilities() uint64 {
	c := protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat
	if a.Offered != nil {
		c |= protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig
	}
	if a.Remote != nil {
		c |= protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig
	}
	return uint64(c)
}

// AgentType is the service.name that creel's agents report.
const AgentType = "creel"

func describe(a *Agent, labels map[string]string) *protobufs.AgentDescription {
	d := &protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{
		stringAttr("service.name", AgentType), stringAttr("service.instance.id", a.ID), stringAttr("service.version", a.Version),
	}}
	for k, v := range labels {
		d.NonIdentifyingAttributes = append(d.NonIdentifyingAttributes, stringAttr(k, v))
	}
	if _, ok := labels["os.type"]; !ok {
		d.NonIdentifyingAttributes = append(d.NonIdentifyingAttributes, stringAttr("os.type", runtime.GOOS))
	}
	slices.SortFunc(d.NonIdentifyingAttributes, func(x, y *protobufs.KeyValue) int { return cmp.Compare(x.Key, y.Key) })
	return d
}

func stringAttr(key, value string) *protobufs.KeyValue {
	return &protobufs.KeyValue{Key: key, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: value}}}
}

// componentHealth is health as OpAMP puts it: a tree of the agent and its components.
func componentHealth(h report.Health, components []report.Component) *protobufs.ComponentHealth {
	root := &protobufs.ComponentHealth{
		Healthy: h.Health == report.Healthy, Status: h.State, StartTimeUnixNano: uint64(h.Started.UnixNano()),
		ComponentHealthMap: make(map[string]*protobufs.ComponentHealth, len(components)),
	}
	for _, c := range components {
		one := &protobufs.ComponentHealth{Healthy: c.Healthy, LastError: c.Error, Status: c.Plugin}
		if !c.Since.IsZero() {
			one.StatusTimeUnixNano = uint64(c.Since.UnixNano())
		}
		if !c.Healthy && root.LastError == "" {
			root.LastError = c.Component + ": " + c.Error
		}
		root.ComponentHealthMap[c.Component] = one
	}
	return root
}

// plainHealth is the part of a ComponentHealth whose change is worth a message.
type plainHealth struct {
	healthy     bool
	status, err string
	components  map[string]plainHealth
}

func plain(h *protobufs.ComponentHealth) plainHealth {
	p := plainHealth{healthy: h.Healthy, status: h.Status, err: h.LastError}
	if len(h.ComponentHealthMap) > 0 {
		p.components = make(map[string]plainHealth, len(h.ComponentHealthMap))
		for k, v := range h.ComponentHealthMap {
			p.components[k] = plain(v)
		}
	}
	return p
}
