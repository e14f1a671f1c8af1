// Package http is the center HTTP: one document, at an address that is asked for it again and again.
package http

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
)

// Center is the center http.
var Center = center.New("http", "A document on an HTTP server, which is asked for it at an interval.", New, nil)

// Config says where what is to be watched is.
type Config struct {
	URL     string            `doc:"Where the document is. It is YAML, or JSON if the path ends in .json. Redirects are not followed." example:"https://config.example.com/creel/web.yaml"`
	Headers map[string]string `doc:"Headers that are added to each request." optional:"true" secret:"true" example:"{authorization: 'Bearer ${env:TOKEN}'}"`
	Every   time.Duration     `doc:"How often to ask. A server that says Cache-Control: max-age is asked less often, but not less than a tenth as often. What has not changed since is not sent again, if the server knows ETag or Last-Modified." default:"30s" min:"1s"`
}

// Validate checks what no tag can.
func (c Config) Validate() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return config.FieldError("url", errors.New("must begin with http:// or https:// and a host"))
	case u.User != nil:
		return config.FieldError("url", errors.New("must not hold a user or password: it is shown; put them into headers, as authorization"))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) }) {
			return config.FieldError("headers", fmt.Errorf("%q cannot be the name of a header", name))
		}
		if strings.ContainsFunc(c.Headers[name], func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) { // it is a secret
			return config.FieldError("headers", fmt.Errorf("the value of %s has a control character; does a file that it comes from end in a line break?", name))
		}
	}
	return nil
}

const (
	patience = 10 * time.Second
	lazy     = 10 // times every is what max-age can do
)

type source struct {
	Config
	host center.Host
	url  *url.URL
	http *center.HTTP

	known              bool // something was answered
	etag, lastModified string
}

// New returns the Source.
func New(c Config, h center.Host) (center.Source, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, errors.New("read url: must begin with http:// or https:// and a host")
	}
	return &source{Config: c, host: h, url: u, http: center.NewHTTP()}, nil
}

// Watch asks again and again.
func (s *source) Watch(ctx context.Context, f func(center.Snapshot)) {
	defer s.http.Close()
	f = center.Changes(f)
	center.Keep(ctx, s.host, func(worked func()) error {
		for {
			snapshot, pause, err := s.ask(ctx)
			if err != nil {
				return fmt.Errorf("get the document: %w", err)
			}
			worked()
			if snapshot != nil {
				f(*snapshot)
			}
			if err := center.Sleep(ctx, pause); err != nil {
				return err
			}
		}
	})
}

// ask returns what the server says, nil if that is the same as before, and for how long to leave it alone.
func (s *source) ask(ctx context.Context) (*center.Snapshot, time.Duration, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return nil, 0, err
	}
	for name, value := range s.Headers {
		r.Header.Set(name, value)
		if strings.EqualFold(name, "host") {
			r.Host = value
		}
	}
	if s.etag != "" {
		r.Header.Set("If-None-Match", s.etag)
	}
	if s.lastModified != "" {
		r.Header.Set("If-Modified-Since", s.lastModified)
	}
	a, err := s.http.Ask(r, patience, center.MaxDocument)
	if err != nil {
		return nil, 0, err
	}
	pause := s.pause(a.Header.Get("Cache-Control"))
	switch {
	case a.Status == http.StatusNotModified && s.known:
		return nil, pause, nil
	case a.Status != http.StatusOK:
		return nil, 0, &center.Later{After: retryAfter(a.Header.Get("Retry-After"), time.Now()), Err: fmt.Errorf("GET %s: %w", center.Shown(s.url), a.Refused(hint(a.Status)))}
	}
	s.known, s.etag, s.lastModified = true, a.Header.Get("ETag"), a.Header.Get("Last-Modified")
	sum := sha256.Sum256(a.Body)
	revision := hex.EncodeToString(sum[:8])
	if s.etag != "" {
		revision = s.etag
	} else if s.lastModified != "" {
		revision = s.lastModified
	}
	return &center.Snapshot{Revision: revision, Documents: []center.Document{{Name: center.Shown(s.url), Text: a.Body}}}, pause, nil
}

func hint(status int) string {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "check headers: may whoever they name read it?"
	case http.StatusNotFound:
		return "is url right? A document that is not there changes nothing"
	}
	return ""
}

// pause returns the time to the next request, a little at random lest many agents ask together.
func (s *source) pause(cacheControl string) time.Duration {
	pause := s.Every
	for directive := range strings.SplitSeq(cacheControl, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if age, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil && strings.EqualFold(name, "max-age") {
			pause = min(max(pause, time.Duration(age)*time.Second), lazy*s.Every)
		}
	}
	return pause - rand.N(pause/10+1)
}

// retryAfter reads a header Retry-After: seconds, or a date.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
