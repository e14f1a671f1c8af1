package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/tlsconf"
	"github.com/creelhq/creel/trace"
)

// A session is one connection of a Client.
type session struct {
	c          *Client
	at         *place
	conn       *Conn
	uid        []byte
	seq        uint64
	nonce      uint64
	heartbeat  time.Duration
	hub        string // its id; empty: it has not answered
	greeted    bool   // its first Lease was taken in
	retryAfter time.Duration

	lease chan *protobufs.ServerToAgent
	ended chan error                 // holds why the connection is over
	over  chan struct{}              // closed when nobody takes in what comes any more
	early []*protobufs.ServerToAgent // what came before it was served
	next  chan *session              // holds the session that this one is left for, or nil if there can be none; nil: it is not to be left

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
	services      []Service
	cursors       map[string]Cursor // by component
}

// open connects to a hub, and tells it everything. If that fails the session is good only to tell missed of.
func (c *Client) open(ctx context.Context, p *place, patience time.Duration) (*session, error) {
	s := &session{c: c, at: p, heartbeat: firstBeat}
	id, err := uuid.Parse(c.o.Agent.ID)
	if err != nil {
		return s, fmt.Errorf("read the agent's id: %w", err)
	}
	s.uid = id[:]
	if err := s.dial(ctx, patience); err != nil {
		return s, err
	}
	s.lease, s.sent = make(chan *protobufs.ServerToAgent, queued), make(map[uint64]time.Time)
	s.ended, s.over = make(chan error, 1), make(chan struct{})
	go func() {
		for {
			m := &protobufs.ServerToAgent{}
			if err := s.conn.Receive(m); err != nil {
				s.ended <- err
				return
			}
			select {
			case s.lease <- m:
			case <-s.over:
			}
		}
	}()
	if err := s.send(true); err != nil {
		s.close("")
		return s, err
	}
	return s, nil
}

// close ends the connection, telling the hub why.
func (s *session) close(why string) {
	close(s.over)
	s.conn.Close(websocket.CloseNormalClosure, why)
}

// goodbye tells the hub that the agent ends.
func (s *session) goodbye() {
	_ = s.conn.Send(&protobufs.AgentToServer{InstanceUid: s.uid, SequenceNum: s.seq + 1, AgentDisconnect: &protobufs.AgentDisconnect{}}) // it may be gone
	s.conn.Flush(time.Second)
	s.close("")
}

// serve keeps the connection until ctx is done, it is over, or there is one to another hub, for which this one is left.
func (s *session) serve(ctx context.Context) (next *session, err error) {
	defer func() {
		if s.next != nil && next == nil {
			next = <-s.next // whatever this one ended for
		}
		switch {
		case ctx.Err() != nil:
			s.goodbye()
		case next != nil:
			s.close("moved to " + next.hub)
		default:
			s.close("")
		}
	}()
	for _, m := range s.early {
		if err := s.answered(ctx, m); err != nil {
			return nil, err
		}
	}
	timer := time.NewTimer(s.heartbeat)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-s.ended:
			return nil, err
		case m := <-s.lease:
			if err := s.answered(ctx, m); err != nil {
				return nil, err
			}
		case next := <-s.next:
			if s.next = nil; next != nil {
				return next, nil
			}
		case <-s.c.speak:
			timer.Reset(max(0, time.Until(s.spoke.Add(breath))))
		case <-timer.C:
			if err := s.send(false); err != nil {
				return nil, err
			}
			timer.Reset(s.heartbeat)
		}
	}
}

// leave connects to another hub meanwhile, to the one with the id to unless that is AnyHub. If there is none, the agent stays.
func (s *session) leave(ctx context.Context, to string) {
	s.c.mu.Lock()
	others := s.c.places.others(s.hub, to, time.Now())
	s.c.mu.Unlock()
	if s.next != nil || len(others) == 0 {
		return
	}
	s.next = make(chan *session, 1)
	s.c.o.Log.Info("the hub asks to go to another", "hub", s.hub, "to", to)
	go func() {
		for _, p := range others {
			next, err := s.c.open(ctx, p, quickDial)
			if err == nil {
				if err = next.leased(ctx, quickDial); err == nil {
					s.next <- next
					return
				}
				next.close("")
			}
			if ctx.Err() != nil {
				break
			}
			s.c.missed(next, err)
		}
		s.next <- nil
	}()
}

// leased waits for the first Lease that lasts, and keeps what else comes meanwhile: a hub that is cut off gives others only.
func (s *session) leased(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the hub gives no lease: %w", ctx.Err())
		case err := <-s.ended:
			return err
		case m := <-s.lease:
			if e := m.GetErrorResponse(); e != nil {
				return s.refused(e)
			}
			s.early = append(s.early, m)
			l, err := LeaseOf(m.GetCustomMessage())
			switch {
			case err != nil:
				return err
			case l != nil && l.Leave != "":
				return fmt.Errorf("the hub %s is to be left itself", l.Hub)
			case l != nil && l.Expires > 0:
				s.hub = l.Hub
				return nil
			case len(s.early) == queued:
				return errors.New("the hub gives no lease, but much else")
			}
		}
	}
}

func (s *session) dial(ctx context.Context, patience time.Duration) (err error) {
	hub, err := HubURL(s.at.URL)
	if err != nil {
		return fmt.Errorf("connect to hub: %w", err)
	}
	address := websocketURL(hub)
	ctx, span := s.c.o.Tracer.Start(ctx, "connect to the hub", trace.Client, slog.String("component", "agent.hub"), slog.String("url.full", address))
	defer func() { span.Fail(err); span.End() }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d := websocket.Dialer{
		HandshakeTimeout: patience, ReadBufferSize: 2 << 10, WriteBufferSize: 2 << 10, WriteBufferPool: &buffers,
		Proxy: http.ProxyFromEnvironment,
	}
	joined := false
	if s.c.o.TLS != nil && hub.Scheme == "https" {
		if d.TLSClientConfig, joined, err = s.c.o.TLS(hub); err != nil {
			return fmt.Errorf("connect to hub: %w", err)
		}
	}
	if socket := socketOf(hub); socket != "" {
		d.Proxy, d.NetDialContext = nil, func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	header := make(http.Header)
	span.Context().Inject(func(key, value string) { header.Set(key, value) })
	ws, resp, err := d.DialContext(ctx, address, header)
	if resp != nil && err != nil {
		return explain(s.turnedAway(resp), joined)
	}
	if err != nil {
		return explain(fmt.Errorf("connect to hub: %w", err), joined)
	}
	s.conn = newConn(ws, MaxMessage, 4*patience, nil)
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
func explain(err error, joined bool) error {
	var refused *Refusal
	if errors.As(err, &refused) || joined && strings.Contains(err.Error(), "certificate") {
		return err
	}
	return fmt.Errorf("%w%s", err, tlsconf.Hint(err, "agent.hub.tls.ca_file", "agent.hub.tls.cert_file and key_file"))
}

// refused is the error of a hub that takes no connection, or not now.
func (s *session) refused(e *protobufs.ServerErrorResponse) error {
	s.retryAfter = min(time.Duration(e.GetRetryInfo().GetRetryAfterNanoseconds()), maxRetryAfter)
	return fmt.Errorf("the hub refuses: %s", e.GetErrorMessage())
}

// answered takes in what the hub says, and tells it everything if it asks for that.
func (s *session) answered(ctx context.Context, m *protobufs.ServerToAgent) error {
	if e := m.GetErrorResponse(); e != nil {
		return s.refused(e)
	}
	l, err := LeaseOf(m.GetCustomMessage())
	if err != nil {
		return err
	}
	if err := s.wanted(ctx, m); err != nil {
		return err
	}
	if l != nil {
		s.take(l)
		if trust := s.c.o.Agent.Trust; trust != nil && l.Authorities != "" {
			trust(l.Authorities)
		}
		if l.Leave != "" && !s.c.o.Stay {
			s.leave(ctx, l.Leave)
		}
	} else if !s.greeted && m.GetCapabilities() != 0 {
		s.take(&Lease{Hub: "OpAMP server", Heartbeat: 30 * time.Second}) // not creel's: no lease
	}
	if m.GetFlags()&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState) != 0 {
		return s.send(true)
	}
	return nil
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

// take takes in a Lease.
func (s *session) take(l *Lease) {
	c := s.c
	c.mu.Lock()
	alone := !c.places.alternatives(s.at)
	c.mu.Unlock()
	if l.Heartbeat > 0 {
		s.heartbeat = l.Heartbeat
		patience := 3*l.Heartbeat + dialTimeout
		if !alone { // there is another to go to, before this one calls the agent lost
			patience = 2*l.Heartbeat + quickDial
		}
		s.conn.SetPatience(patience)
	}
	sent, known := s.sent[l.Nonce]
	for n := range s.sent {
		if n <= l.Nonce {
			delete(s.sent, n)
		}
	}
	first := !s.greeted
	s.hub, s.greeted = l.Hub, true
	if told := c.o.Agent.Leased; told != nil && known && l.Expires > 0 {
		told(sent.Add(l.Expires))
	}
	c.mu.Lock()
	if known && l.Expires > 0 {
		c.state.Leased = sent.Add(l.Expires)
	}
	if first {
		c.state.URL, c.state.ID, c.state.Connected, c.state.Since, c.state.Error = s.at.URL, l.Hub, true, time.Now(), ""
		c.places.reached(s.at, l.Hub)
		c.o.Log.Info("connected to the hub", "url", c.state.URL, "hub", l.Hub, "heartbeat", s.heartbeat)
	}
	if len(l.Hubs) > 0 && !c.o.Stay {
		c.hubs = slices.Clone(l.Hubs)
		for i := range c.hubs {
			if h := &c.hubs[i]; h.ID == l.Hub {
				h.URL = s.at.URL // there it is reached for certain
			}
		}
		c.places.learn(c.hubs, s.at.URL)
	}
	hubs := c.hubs
	c.mu.Unlock()
	if tell := c.o.Agent.Hubs; tell != nil && (first || len(l.Hubs) > 0) && !c.o.Stay {
		tell(hubs, l.Hub)
	}
}
