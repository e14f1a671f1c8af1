package nacos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/creelhq/creel/center"
)

// request is what is asked of Nacos.
type request struct {
	method, path string
	query, form  url.Values
	header       http.Header
	timeout      time.Duration
}

// call asks as the user, if there is one. A token that the server knows no more, restarted say, is replaced once.
func (c *client) call(ctx context.Context, r request) (*center.Answer, error) {
	if c.Username == "" {
		return c.send(ctx, r)
	}
	fresh := false
	for {
		if c.token == "" || !time.Now().Before(c.renew) {
			if err := c.login(ctx); err != nil {
				return nil, err
			}
			fresh = true
		}
		r.query = maps.Clone(r.query)
		if r.query == nil {
			r.query = url.Values{}
		}
		r.query.Set("accessToken", c.token)
		a, err := c.send(ctx, r)
		if err != nil || fresh || a.Status != http.StatusForbidden && a.Status != http.StatusUnauthorized {
			return a, err
		}
		c.token = ""
	}
}

// login gets a token, and plans to get the next one when nine tenths of its life are over.
func (c *client) login(ctx context.Context) error {
	r := request{method: http.MethodPost, path: "/v1/auth/login", form: url.Values{"username": {c.Username}, "password": {c.Password}}, timeout: c.patience}
	a, err := c.send(ctx, r)
	if err == nil && a.Status == http.StatusNotFound { // Nacos 3 without its older API
		r.path = "/v3/auth/user/login"
		a, err = c.send(ctx, r)
	}
	if err != nil {
		return fmt.Errorf("log in to Nacos: %w", err)
	}
	if a.Status != http.StatusOK {
		return fmt.Errorf("log in to Nacos: %w", a.Refused(c.hint(a.Status)))
	}
	var grant struct {
		AccessToken string `json:"accessToken"`
		TokenTTL    int64  `json:"tokenTtl"` // seconds
	}
	if err := json.Unmarshal(a.Body, &grant); err != nil {
		return fmt.Errorf("log in to Nacos: read the answer: %w", err)
	}
	if grant.AccessToken == "" {
		return errors.New("log in to Nacos: the answer has no accessToken; is that Nacos?")
	}
	ttl := time.Duration(min(max(grant.TokenTTL, 1), 1<<30)) * time.Second
	c.token, c.renew = grant.AccessToken, time.Now().Add(ttl-ttl/10)
	return nil
}

func (c *client) send(ctx context.Context, r request) (*center.Answer, error) {
	u := *c.base
	u.Path += r.path
	u.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), strings.NewReader(r.form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, center.Shown(&u), err)
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	if r.form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return c.http.Ask(req, r.timeout, center.MaxDocument)
}
