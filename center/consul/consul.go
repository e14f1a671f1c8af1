// Package consul is the center Consul: documents are the values of a key of its KV store, or of all keys with a prefix;
// instances of services have a check with a TTL.
//
// It asks with blocking queries, by their rules (https://developer.hashicorp.com/consul/api-docs/features/blocking).
package consul

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
)

// Center is the center consul.
var Center = center.New("consul", "Consul: keys in its KV store, and services; a change is heard at once.", New, NewRegistry)

// Config says where what is to be watched is.
type Config struct {
	Address    string `doc:"Where Consul's HTTP API is. Services are registered there: it should be the Consul agent of this machine." default:"http://127.0.0.1:8500"`
	Key        string `doc:"The key whose value is the one document. Without key and prefix there are only services." optional:"true" example:"creel/web.yaml"`
	Prefix     string `doc:"What the keys of the documents begin with. Keys that end in a slash are folders, and left out." optional:"true" example:"creel/web/"`
	Token      string `doc:"The ACL token, sent as X-Consul-Token." optional:"true" secret:"true" example:"${env:CONSUL_TOKEN}"`
	Datacenter string `doc:"The datacenter to ask; left out, that of the Consul that is asked." optional:"true"`
}

// Validate checks what no tag can.
func (c Config) Validate() error {
	if _, err := center.BaseURL(c.Address); err != nil {
		return config.FieldError("address", err)
	}
	if c.Key != "" && c.Prefix != "" {
		return config.FieldError("key", errors.New("give either key or prefix"))
	}
	if strings.HasPrefix(c.Key+c.Prefix, "/") {
		return config.FieldError("key", errors.New("keys of Consul do not begin with a slash"))
	}
	if strings.HasSuffix(c.Key, "/") {
		return config.FieldError("key", errors.New("what ends in a slash is a folder; give it as prefix"))
	}
	return nil
}

const (
	patience = 10 * time.Second    // with a server that need not wait
	maxWait  = time.Minute         // that it is asked to hold a query
	answer   = 2 * center.MaxTotal // bytes of one: Base64, and what is about it
)

// client asks one Consul.
type client struct {
	Config
	host center.Host
	base *url.URL
	http *center.HTTP

	wait, patience time.Duration // maxWait and patience, but for tests
	pace           center.Pace
}

func newClient(c Config, h center.Host) (client, error) {
	base, err := center.BaseURL(c.Address)
	if err != nil {
		return client{}, fmt.Errorf("read address: %w", err)
	}
	return client{Config: c, host: h, base: base, http: center.NewHTTP(), wait: maxWait, patience: patience, pace: center.Pace{Every: time.Second, Burst: 10}}, nil
}

type source struct{ client }

// New returns the Source.
func New(c Config, h center.Host) (center.Source, error) {
	if c.Key == "" && c.Prefix == "" {
		return nil, config.FieldError("key", errors.New("give either key or prefix"))
	}
	asks, err := newClient(c, h)
	return &source{asks}, err
}

// Watch asks again and again.
func (s *source) Watch(ctx context.Context, f func(center.Snapshot)) {
	defer s.http.Close()
	f = center.Changes(f) // that a query returns does not mean that something has changed
	s.follow(ctx, func(ctx context.Context, index uint64) (uint64, error) {
		docs, now, err := s.ask(ctx, index)
		if err == nil && now >= index {
			f(center.Snapshot{Revision: strconv.FormatUint(now, 10), Documents: docs})
		}
		return now, err
	})
}

// follow calls ask again and again with the index that it has returned. What is said with an index that went backwards is
// not to be believed.
func (c *client) follow(ctx context.Context, ask func(ctx context.Context, index uint64) (uint64, error)) {
	index := uint64(0)
	center.Keep(ctx, c.host, func(worked func()) error {
		for {
			if err := c.pace.Wait(ctx); err != nil {
				return err
			}
			now, err := ask(ctx, index)
			if err != nil {
				index = 0 // whoever answers next says at once what there is
				return err
			}
			worked()
			if now < index { // restored, or another server: what it says is believed when it has said it twice
				c.host.Log.Info("Consul's index went backwards; asking anew", "index", now, "before", index)
				now = 0
			}
			index = now
		}
	})
}

// pair is an entry of the KV store.
type pair struct {
	Key   string
	Value []byte // Base64 in JSON; null if empty
}

// ask returns what there is when Consul's index is past the given one, or at once if that is 0, with the index then.
func (s *source) ask(ctx context.Context, index uint64) ([]center.Document, uint64, error) {
	q := url.Values{}
	if s.Prefix != "" {
		q.Set("recurse", "true")
	}
	a, now, err := s.query(ctx, "/v1/kv/"+s.Key+s.Prefix, q, index, "check token: its policy must allow key_prefix to be read")
	if err != nil {
		return nil, 0, err
	}
	docs, err := s.read(a)
	if err != nil {
		return nil, 0, fmt.Errorf("ask Consul: %w", err)
	}
	return docs, now, nil
}

// query makes a blocking query. What is not there is no error: that answer has an index too, and only Consul's has.
func (c *client) query(ctx context.Context, path string, q url.Values, index uint64, forbidden string) (*center.Answer, uint64, error) {
	timeout := c.patience
	if c.Datacenter != "" {
		q.Set("dc", c.Datacenter)
	}
	if index > 0 {
		q.Set("index", strconv.FormatUint(index, 10))
		q.Set("wait", c.wait.String())
		timeout += c.wait + c.wait/16 // which the server adds at random
	}
	a, err := c.call(ctx, http.MethodGet, path, q, nil, timeout)
	if err != nil {
		return nil, 0, fmt.Errorf("ask Consul: %w", err)
	}
	refused := func(err error) error { return fmt.Errorf("ask Consul: GET %s%s: %w", center.Shown(c.base), path, err) }
	switch a.Status {
	case http.StatusOK, http.StatusNotFound:
	case http.StatusForbidden, http.StatusUnauthorized:
		return nil, 0, refused(a.Refused(forbidden))
	default:
		return nil, 0, refused(a.Refused(""))
	}
	now, err := strconv.ParseUint(a.Header.Get("X-Consul-Index"), 10, 64)
	if err != nil {
		return nil, 0, refused(fmt.Errorf("the answer, %d, has no X-Consul-Index: is that Consul, or a proxy before it?", a.Status))
	}
	return a, max(now, 1), nil // with 0 the next query would not block
}

// call sends a request.
func (c *client) call(ctx context.Context, method, path string, q url.Values, body []byte, timeout time.Duration) (*center.Answer, error) {
	u := *c.base
	u.Path += path
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if c.Token != "" {
		r.Header.Set("X-Consul-Token", c.Token)
	}
	return c.http.Ask(r, timeout, answer)
}

// read reads an answer.
func (s *source) read(a *center.Answer) ([]center.Document, error) {
	if a.Status == http.StatusNotFound {
		return nil, nil
	}
	var pairs []pair
	if err := json.Unmarshal(a.Body, &pairs); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	var docs []center.Document
	for _, p := range pairs {
		switch {
		case s.Key != "" && p.Key != s.Key, !strings.HasPrefix(p.Key, s.Prefix):
			return nil, fmt.Errorf("the answer has key %q, which was not asked for", p.Key)
		case !strings.HasSuffix(p.Key, "/"):
			docs = append(docs, center.Document{Name: p.Key, Text: p.Value})
		}
	}
	slices.SortFunc(docs, func(a, b center.Document) int { return cmp.Compare(a.Name, b.Name) })
	return docs, center.Bound(docs)
}
