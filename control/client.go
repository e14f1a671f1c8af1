package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"

	"github.com/creelhq/creel/report"
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
	Services      func() []Service    // that the hub is to tell others of
	Cursors       func() []Cursor     // of placed documents, by component

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

	// Hubs is told which hubs there are, as far as one has said, and which of them the agent is connected to, when either has
	// changed. It must not block, nor change the list.
	Hubs func(hubs []HubAt, at string)
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
	// URLs are of hubs that share a control state: http://host:port, https://host:port, to which Path is appended, or
	// unix:///path/of/socket. There may be none until Find tells of some.
	URLs    []string
	Known   []HubAt // hubs that Agent.Hubs was told of before, if the URLs were the same
	Balance Balance // which hub the agent chooses
	Stay    bool    // with the hub of URLs, whatever that says of others

	// TLS returns the configuration for a hub with https. joined: it is by the agent's identity, whose errors say themselves
	// what to do. nil: the system's authorities are trusted.
	TLS    func(hub *url.URL) (c *tls.Config, joined bool, err error)
	Agent  Agent
	Log    *slog.Logger  // nil: none
	Tracer *trace.Tracer // of connecting, and of what is offered and ordered; nil: none
}

// A Client keeps an agent connected to one of its hubs.
type Client struct {
	o     ClientOptions
	speak chan struct{} // holds one when something is to be told at once

	mu     sync.Mutex
	state  report.Hub
	places places
	hubs   []HubAt       // as the hub has told, and Agent.Hubs
	pause  time.Time     // nothing is tried before that
	found  chan struct{} // closed when there are other places
}

// NewClient returns a Client. The error says what is wrong with a URL.
func NewClient(o ClientOptions) (*Client, error) {
	c := &Client{o: o, speak: make(chan struct{}, 1), hubs: o.Known, found: make(chan struct{})}
	c.places = places{agent: o.Agent.ID, balance: o.Balance}
	if c.o.Log == nil {
		c.o.Log = slog.New(slog.DiscardHandler)
	}
	return c, c.Find(o.URLs)
}

// Find replaces ClientOptions.URLs, unless there are none: then those before are as good as any. A connection that there is stays.
// The error says what is wrong with a URL; then nothing is replaced.
func (c *Client) Find(urls []string) error {
	seeds := make([]string, len(urls))
	for i, text := range urls {
		u, err := HubURL(text)
		if err != nil {
			return err
		}
		seeds[i] = u.String()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(seeds) == 0 {
		seeds = c.places.seeds
	} else if c.state.URL == "" {
		c.state.URL = seeds[0]
	}
	c.places.seeds = seeds
	c.places.learn(c.hubs, c.state.URL)
	close(c.found)
	c.found = make(chan struct{})
	return nil
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
	quickDial     = 2 * time.Second        // where there are other hubs
	hop           = 500 * time.Millisecond // over which agents come that have lost one of several hubs
	firstBeat     = time.Second            // until the hub has said how often it wants to hear
	maxReconnect  = 30 * time.Second
	maxRetryAfter = 10 * time.Minute      // that a hub can ask for
	breath        = 20 * time.Millisecond // between two messages that Notify asks for
)

// Run connects until ctx is done, for ever, with full jitter between attempts (Exponential Backoff and Jitter, AWS
// Architecture Blog, 2015). It says goodbye when ctx is done. An agent works as well without its hub.
//
// Where there are several hubs each has its own pauses, so that one that is gone delays nothing. A hub that asks to be left is
// left when another has given a Lease.
func (c *Client) Run(ctx context.Context) {
	var s *session
	for ctx.Err() == nil {
		if s == nil {
			s = c.connect(ctx)
			continue
		}
		next, err := s.serve(ctx)
		if next == nil && ctx.Err() == nil {
			c.lost(s, err)
		}
		s = next
	}
	if s != nil { // it has just been opened
		s.goodbye()
	}
}

// connect tries once to connect to the hub whose turn it is, when it is. It returns nil if that fails.
func (c *Client) connect(ctx context.Context) *session {
	c.mu.Lock()
	found := c.found
	if len(c.places.list) == 0 {
		c.mu.Unlock()
		select {
		case <-found:
		case <-ctx.Done():
		}
		return nil
	}
	p, at := c.places.next(time.Now())
	wait := time.Until(at)
	wait = max(wait, time.Until(c.pause))
	c.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-found: // another may be tried at once
		return nil
	case <-ctx.Done():
		return nil
	}
	patience := dialTimeout
	c.mu.Lock()
	if c.places.alternatives(p) {
		patience = min(dialTimeout, quickDial<<min(p.failed, 10))
	}
	c.places.first = ""
	c.state.URL = p.URL
	c.mu.Unlock()
	s, err := c.open(ctx, p, patience)
	if err != nil {
		if ctx.Err() == nil {
			c.missed(s, err)
		}
		return nil
	}
	return s
}

// missed notes that a connection did not come about.
func (c *Client) missed(s *session, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.at.failed++
	c.away(s, err, jitter(min(maxReconnect, firstBeat/2<<min(s.at.failed, 10))))
}

// lost notes that a connection is over. If there are other hubs, the next one is tried at once, or nearly: many may have lost
// theirs at the same time. One that is started again is tried first.
func (c *Client) lost(s *session, err error) {
	if s.hub == "" { // it never answered
		c.missed(s, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := jitter(s.heartbeat)
	if c.places.alternatives(s.at) {
		c.pause = time.Now().Add(jitter(hop))
		if goingAway(err) {
			c.places.first, wait = s.at.URL, 0
		}
	}
	c.away(s, err, wait)
}

// jitter returns a duration up to most, by chance.
func jitter(most time.Duration) time.Duration {
	return time.Duration(rand.Int64N(int64(most))) + time.Millisecond
}

// away notes that a hub cannot be reached, and is left alone for a while, and logs it when that is new. c.mu is held.
func (c *Client) away(s *session, err error, wait time.Duration) {
	now := time.Now()
	c.places.put(s.at, now.Add(max(wait, s.retryAfter)))
	current := s.hub != "" || !c.state.Connected // else the agent has a hub, and has tried another
	if current && c.state.Connected || s.at.err != err.Error() {
		p, at := c.places.next(now)
		c.o.Log.Warn("no connection to the hub; everything else goes on", "url", s.at.URL, "error", err, "next_attempt", max(at.Sub(now), c.pause.Sub(now), 0).Round(time.Millisecond), "at", p.URL)
	}
	s.at.err = err.Error()
	if !current {
		return
	}
	if c.state.Connected || c.state.Since.IsZero() {
		c.state.Since = now
	}
	c.state.Connected, c.state.Error = false, err.Error()
}
