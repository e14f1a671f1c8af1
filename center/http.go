package center

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// HTTP asks a center's HTTP server. It follows no redirects, since headers and addresses hold secrets, and notices in
// half a minute that a connection is dead. Any number of goroutines may use it.
type HTTP struct{ client http.Client }

// NewHTTP returns an HTTP; Close closes its connections.
func NewHTTP() *HTTP {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	return &HTTP{http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second,
			ForceAttemptHTTP2: true, IdleConnTimeout: 90 * time.Second, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
			HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes connections that are not in use.
func (h *HTTP) Close() { h.client.CloseIdleConnections() }

// An Answer is what the server said, whole.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Ask sends a request and reads the answer, which must be there within timeout and have at most limit bytes. Its errors
// do not show the query of the address: there may be secrets in it.
func (h *HTTP) Ask(r *http.Request, timeout time.Duration, limit int) (*Answer, error) {
	asked := r.Method + " " + Shown(r.URL)
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", "creel")
	}
	resp, err := h.client.Do(r.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", asked, late(err, timeout))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("%s: read the answer: %w", asked, late(err, timeout))
	}
	if len(body) > limit {
		return nil, fmt.Errorf("%s: the answer has more than %d bytes", asked, limit)
	}
	return &Answer{resp.StatusCode, resp.Header, body}, nil
}

// late takes the address from an error, and says what a deadline means.
func late(err error, timeout time.Duration) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer in %v: %w", timeout, context.DeadlineExceeded)
	}
	return err
}

// Shown returns an address without what may be secret: user and query.
func Shown(u *url.URL) string { return u.Scheme + "://" + u.Host + u.EscapedPath() }

// Refused returns the answer as an error, with what the server says of it; hint, if any, is what to do.
func (a *Answer) Refused(hint string) error {
	err := error(status(a.Status))
	if to, _ := url.Parse(a.Header.Get("Location")); a.Status/100 == 3 && to != nil && to.Host != "" {
		err = fmt.Errorf("%w: it leads to %s://%s, and redirects are not followed; write the address where it really is", err, to.Scheme, to.Host)
	}
	if said := strings.TrimSpace(string(a.Body[:min(len(a.Body), 200)])); said != "" && a.Status/100 > 3 {
		err = fmt.Errorf("%w: %q", err, said)
	}
	if hint != "" {
		err = fmt.Errorf("%w; %s", err, hint)
	}
	return err
}

// status is an HTTP status that is an error.
type status int

func (s status) Error() string {
	return strings.TrimSpace(fmt.Sprintf("it answers %d %s", int(s), http.StatusText(int(s))))
}

// BaseURL reads an address such as http://host:8500 that paths are added to.
func BaseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("must be an address such as http://host:port") // the error would show what may be secret
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("must begin with http:// or https:// and a host")
	case u.User != nil:
		return nil, errors.New("must not hold a user or password: it is shown in logs; there are options for them")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("must end before the ?")
	}
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/"), ""
	return u, nil
}
