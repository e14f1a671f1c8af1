// Package peers is how a hub asks the others that share its control state, and makes one answer of theirs and its own: so
// whichever hub somebody asks answers for all. A hub that does not answer makes an answer partial, which says so, and no error.
//
// It knows how answers are put together, and nothing of how a hub makes its own.
package peers

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/access"
	"github.com/creelhq/creel/hub/internal/cluster"
	"github.com/creelhq/creel/hub/internal/quicklook/series"
)

// Header is the header of a request that a hub makes of another: what access.Access.ForHub returns. It says on whose behalf the
// hub asks, and that the other is to answer only for itself.
const Header = "Creel-Hub"

const (
	patience  = 3 * time.Second  // for the beginning of an answer
	sign      = time.Second      // for a sign of life, if that is all that is asked for
	work      = 12 * time.Second // for the answer of a hub that has given one: searches go on for 8 s
	maxAnswer = 64 << 20         // bytes
	idle      = 90 * time.Second // that a connection is kept without a request
	kept      = 16               // idle connections to one hub; over HTTP/2 there is one
)

// Cluster is which hubs there are: cluster.Cluster.
type Cluster interface {
	// Hubs returns the hubs that are there, this one among them or not. It is cheap.
	Hubs() []cluster.Hub
}

// Options configure Peers. All but Patience are required.
type Options struct {
	Hub     string // this hub's id
	Cluster Cluster

	// Sign returns what this hub shows to another, when it asks on behalf of somebody.
	Sign func(p access.Principal, hub string) (string, error)
	// TLS returns what this hub speaks to another. It must not accept anybody but the hub with that id.
	TLS func(hub string) *tls.Config

	Patience time.Duration // how long a hub may be silent; 0: 3 s
}

// Peers are the other hubs. A nil Peers has none. Its methods may be called concurrently.
type Peers struct {
	o Options

	mu      sync.Mutex
	clients map[string]*http.Client // by hub's id
	shared  map[string]*shared      // by what was asked, of whom and for whom
}

// New returns Peers. Close ends their connections.
func New(o Options) *Peers {
	o.Patience = cmp.Or(o.Patience, patience)
	return &Peers{o: o, clients: make(map[string]*http.Client), shared: make(map[string]*shared)}
}

// Close closes idle connections: nobody may ask any more.
func (p *Peers) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		c.CloseIdleConnections()
	}
}

// Hub returns this hub's id.
func (p *Peers) Hub() string {
	if p == nil {
		return ""
	}
	return p.o.Hub
}

// Others returns the other hubs, by id; none if this one is alone.
func (p *Peers) Others() []cluster.Hub {
	if p == nil {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(p.o.Cluster.Hubs()), func(h cluster.Hub) bool { return h.ID == p.o.Hub })
	slices.SortFunc(list, func(a, b cluster.Hub) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Knows reports whether another hub with an id is there.
func (p *Peers) Knows(id string) bool {
	return slices.ContainsFunc(p.Others(), func(h cluster.Hub) bool { return h.ID == id })
}

// Answers reports whether another hub gives a sign of life within a second. One that is not there does not.
func (p *Peers) Answers(ctx context.Context, hub string) bool {
	list := p.Others()
	i := slices.IndexFunc(list, func(h cluster.Hub) bool { return h.ID == hub })
	if i < 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, sign)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(list[i].URL, "/")+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := p.client(hub).Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10)) // so that the connection is used again
	return err == nil && resp.StatusCode == http.StatusOK
}

// A Request is what a hub is asked for: a GET.
type Request struct {
	For   access.Principal // on whose behalf
	Path  string
	Query url.Values
	Fresh time.Duration // how old an answer may be that it gave somebody else who sees the same; 0: it is asked
}

// An Answer is what a hub has answered.
type Answer[T any] struct {
	Hub   string // its id
	Value T
}

// Ask asks hubs, all at the same time, and returns what they answer and which of them do not. One that has not found what was
// asked for is in neither.
func Ask[T any](ctx context.Context, p *Peers, hubs []cluster.Hub, r Request) (answers []Answer[T], absent []api.Absent) {
	values, errs := make([]T, len(hubs)), make([]error, len(hubs))
	var wg sync.WaitGroup
	for i, h := range hubs {
		wg.Go(func() {
			var body []byte
			if body, errs[i] = p.get(ctx, h, r); errs[i] == nil {
				if err := json.Unmarshal(body, &values[i]); err != nil {
					errs[i] = fmt.Errorf("read its answer: %w; are the hubs of different versions?", err)
				}
			}
		})
	}
	wg.Wait()
	for i, h := range hubs {
		var e *api.Error
		switch {
		case errs[i] == nil:
			answers = append(answers, Answer[T]{h.ID, values[i]})
		case !errors.As(errs[i], &e) || e.Code != "not_found":
			absent = append(absent, api.Absent{Hub: h.ID, Name: h.Name, Error: errs[i].Error()})
		}
	}
	return answers, absent
}

// WithMetrics returns a context in which the store of metrics answers together with those of the other hubs, on behalf of who.
func (p *Peers) WithMetrics(ctx context.Context, who access.Principal) context.Context {
	var stores []series.Peer
	for _, h := range p.Others() {
		stores = append(stores, series.Peer{Hub: h.ID, Get: func(ctx context.Context, path string, q url.Values) ([]byte, error) {
			return p.get(ctx, h, Request{For: who, Path: "/prom/api/v1/" + path, Query: q})
		}})
	}
	return series.With(ctx, stores)
}

// shared is a request that several wait for, and its answer.
type shared struct {
	over chan struct{} // closed when there is one
	at   time.Time
	body []byte
	err  error
}

// get returns the body of an answer. It must not be changed.
func (p *Peers) get(ctx context.Context, h cluster.Hub, r Request) ([]byte, error) {
	if r.Fresh == 0 {
		return p.fetch(ctx, h, r)
	}
	key := strings.Join([]string{h.ID, string(r.For.Role), r.For.Within.String(), r.Path, r.Query.Encode()}, "\x00")
	p.mu.Lock()
	s := p.shared[key]
	if s == nil || s.older(r.Fresh) {
		for k, old := range p.shared {
			if old.older(r.Fresh) {
				delete(p.shared, k)
			}
		}
		s = &shared{over: make(chan struct{})}
		p.shared[key] = s
		go func() { // it goes on when who asked first goes away: others wait as well
			s.body, s.err = p.fetch(context.WithoutCancel(ctx), h, r)
			s.at = time.Now()
			close(s.over)
		}()
	}
	p.mu.Unlock()
	select {
	case <-s.over:
		return s.body, s.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// older reports whether there is an answer, of longer ago than d.
func (s *shared) older(d time.Duration) bool {
	select {
	case <-s.over:
		return time.Since(s.at) > d
	default:
		return false
	}
}

func (p *Peers) fetch(ctx context.Context, h cluster.Hub, r Request) ([]byte, error) {
	a, err := p.open(ctx, h, r)
	if err != nil {
		return nil, err
	}
	defer a.close()
	body, err := io.ReadAll(io.LimitReader(a.body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read its answer: %w", because(a.ctx, err))
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("its answer is larger than %d MiB: ask for less time, or for less", maxAnswer>>20)
	}
	return body, nil
}

// errSilent is why a hub is not waited for any longer.
var errSilent = errors.New("it has been silent for too long")

// because returns why ctx was ended if that is the reason of err.
func because(ctx context.Context, err error) error {
	if context.Cause(ctx) == errSilent {
		return errSilent
	}
	return err
}

// answering is the answer of a hub while it is read. It ends when timer does, which whoever reads may set anew.
type answering struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	body   io.ReadCloser
}

func (a *answering) close() {
	a.timer.Stop()
	a.cancel(nil)
	if a.body != nil {
		a.body.Close()
	}
}

// open sends a request, and returns the answer if it is a success, to be closed. A hub that works on an answer says so at once:
// so one that does nothing can be told from one that has much to do.
func (p *Peers) open(ctx context.Context, h cluster.Hub, r Request) (*answering, error) {
	shown, err := p.o.Sign(r.For, h.ID)
	if err != nil {
		return nil, err
	}
	u := strings.TrimRight(h.URL, "/") + r.Path
	if len(r.Query) > 0 {
		u += "?" + r.Query.Encode()
	}
	a := &answering{}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.timer = time.AfterFunc(p.o.Patience, func() { a.cancel(errSilent) })
	traced := httptrace.WithClientTrace(a.ctx, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		a.timer.Reset(work)
		return nil
	}})
	req, err := http.NewRequestWithContext(traced, http.MethodGet, u, nil)
	if err != nil {
		a.close()
		return nil, fmt.Errorf("ask it at %s: %w", h.URL, err)
	}
	req.Header.Set(Header, shown)
	resp, err := p.client(h.ID).Do(req)
	if err != nil {
		a.close()
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // without the query
		}
		return nil, fmt.Errorf("ask it at %s: %w", h.URL, because(a.ctx, err))
	}
	a.body = resp.Body
	a.timer.Reset(work)
	if resp.StatusCode == http.StatusOK {
		return a, nil
	}
	defer a.close()
	return nil, refusal(resp)
}

// refusal returns what an answer says that is no success: an *api.Error if it can be.
func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what there is of it will do
	var e api.Error
	if json.Unmarshal(text, &e) == nil && e.Message != "" {
		return &e
	}
	return fmt.Errorf("it answers %s: %s", resp.Status, bytes.TrimSpace(text[:min(len(text), 200)]))
}

// client returns what asks a hub. Connections to hubs that are gone are closed.
func (p *Peers) client(hub string) *http.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.clients[hub]; c != nil {
		return c
	}
	for id, c := range p.clients {
		if !p.Knows(id) {
			c.CloseIdleConnections()
			delete(p.clients, id)
		}
	}
	c := &http.Client{
		Transport: &http.Transport{
			DialContext:     (&net.Dialer{Timeout: p.o.Patience}).DialContext,
			TLSClientConfig: p.o.TLS(hub), TLSHandshakeTimeout: p.o.Patience, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: kept, IdleConnTimeout: idle,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // what is shown is for one hub
	}
	p.clients[hub] = c
	return c
}
