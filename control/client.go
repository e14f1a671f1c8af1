package control

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
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
)

// Agent is what a Client asks the agent that it speaks for. The functions may be called from any goroutine.
type Agent struct {
	ID      string // a UUID
	Version string
	Labels  map[string]string // of agent.labels and of the machine, such as host.name

	Health     func() report.Health
	Components func() []report.Component
	Routes     func() []report.Route
	Ledger     func() report.Ledger
	Effective  func() []byte // the configuration that runs, secrets redacted, JSON
}

// ClientOptions say which hub to connect to. URL and Agent are required.
type ClientOptions struct {
	URL   string // http://host:port or https://host:port; Path is appended
	Agent Agent
	Log   *slog.Logger // nil: none
}

// A Client keeps an agent connected to its hub.
type Client struct {
	o   ClientOptions
	url string

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
	ws := *u
	ws.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	return &Client{o: o, url: ws.JoinPath(Path).String(), state: report.Hub{URL: u.String()}}, nil
}

// HubURL checks the URL of a hub: http or https, a host, no more than that is needed.
func HubURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("must be a URL such as http://127.0.0.1:4380: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("must be a URL such as http://127.0.0.1:4380, got %q", text)
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
	dialTimeout  = 10 * time.Second
	firstBeat    = time.Second // until the hub has said how often it wants to hear
	maxReconnect = 30 * time.Second
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

	// What the hub knows already.
	health     *protobufs.ComponentHealth
	effective  string
	components []report.Component
	routes     []report.Route
	ledger     *report.Ledger
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
			full, err := s.answered(m)
			if err != nil {
				return err
			}
			if full {
				if err := s.send(true); err != nil {
					return err
				}
			}
		case <-timer.C:
			if err := s.send(false); err != nil {
				return err
			}
			timer.Reset(s.heartbeat)
		}
	}
}

func (s *session) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := websocket.Dialer{HandshakeTimeout: dialTimeout, ReadBufferSize: 2 << 10, WriteBufferSize: 2 << 10, WriteBufferPool: &buffers, Proxy: http.ProxyFromEnvironment}
	ws, resp, err := d.DialContext(ctx, s.c.url, nil)
	if resp != nil && err != nil {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // only to explain
		resp.Body.Close()
		return fmt.Errorf("connect to hub: it answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	if err != nil {
		return fmt.Errorf("connect to hub: %w", err)
	}
	s.conn = newConn(ws, MaxMessage, 4*dialTimeout, nil)
	return nil
}

// answered takes in what the hub says.
func (s *session) answered(m *protobufs.ServerToAgent) (full bool, err error) {
	if e := m.GetErrorResponse(); e != nil {
		s.retryAfter = min(time.Duration(e.GetRetryInfo().GetRetryAfterNanoseconds()), 10*time.Minute)
		return false, fmt.Errorf("the hub refuses: %s", e.GetErrorMessage())
	}
	l, err := LeaseOf(m.GetCustomMessage())
	if err != nil {
		return false, err
	}
	if l != nil {
		s.leased(l)
	} else if s.hub == "" && m.GetCapabilities() != 0 {
		s.leased(&Lease{Hub: "OpAMP server", Heartbeat: 30 * time.Second}) // not creel's: no lease
	}
	return m.GetFlags()&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState) != 0, nil
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
	a := &s.c.o.Agent
	if full {
		s.health, s.effective, s.components, s.routes, s.ledger = nil, "", nil, nil, nil
	}
	s.seq++
	m := &protobufs.AgentToServer{InstanceUid: s.uid, SequenceNum: s.seq, Capabilities: capabilities}
	h := a.Health()
	if full {
		m.AgentDescription = describe(a)
		m.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{Capability}}
	}
	components := a.Components()
	if now := componentHealth(h, components); s.health == nil || !reflect.DeepEqual(plain(s.health), plain(now)) {
		m.Health, s.health = now, now
	}
	if now := string(a.Effective()); now != s.effective {
		m.EffectiveConfig = &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{
			"": {Body: []byte(now), ContentType: "application/json"},
		}}}
		s.effective = now
	}
	s.nonce++
	m.CustomMessage = s.beat(h, components).Message()
	if len(s.sent) > queued { // a hub that gives no lease
		clear(s.sent)
	}
	s.sent[s.nonce] = time.Now()
	return s.conn.Send(m)
}

func (s *session) beat(h report.Health, components []report.Component) *Beat {
	b := &Beat{Nonce: s.nonce, Uptime: time.Since(h.Started).Seconds()}
	if !reflect.DeepEqual(components, s.components) { // they have pointers
		b.Components, s.components = components, components
	}
	if routes := s.c.o.Agent.Routes(); !reflect.DeepEqual(routes, s.routes) {
		b.Routes, s.routes = routes, routes
	}
	if ledger := s.c.o.Agent.Ledger(); s.ledger == nil || !reflect.DeepEqual(ledger, *s.ledger) {
		b.Ledger, s.ledger = &ledger, &ledger
	}
	return b
}

const capabilities = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat)

// AgentType is the service.name that creel's agents report.
const AgentType = "creel"

func describe(a *Agent) *protobufs.AgentDescription {
	d := &protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{
		stringAttr("service.name", AgentType), stringAttr("service.instance.id", a.ID), stringAttr("service.version", a.Version),
	}}
	for k, v := range a.Labels {
		d.NonIdentifyingAttributes = append(d.NonIdentifyingAttributes, stringAttr(k, v))
	}
	if _, ok := a.Labels["os.type"]; !ok {
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
