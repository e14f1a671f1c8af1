package probe

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"time"
)

const (
	maxBody   = 1 << 20   // bytes of an answer's body that are read
	maxHeader = 256 << 10 // bytes of an answer before its body
	maxCoded  = 2 << 20   // bytes that a body of maxBody may be on the wire, in chunks
)

// A hop is one request of a check, of which redirects make several.
type hop struct {
	url     *url.URL
	address address
	method  string
	body    string
	own     bool // to the target's own server, which may see its headers
}

// checkHTTP asks, and follows redirects. There is no http.Client: it would use the environment's proxies, connections that
// stand, and connections that outlive the check.
func (c *collector) checkHTTP(ctx context.Context, t *target, r *result) error {
	h := hop{url: t.address.url, address: t.address, method: t.Method, body: t.Body, own: true}
	for redirects := 0; ; redirects++ {
		location, err := c.ask(ctx, t, h, r)
		if err != nil {
			return err
		}
		if location == "" || t.MaxRedirects == 0 {
			return nil
		}
		if redirects == t.MaxRedirects {
			return failed(redirected, fmt.Errorf("follow redirects: there are more than %d; raise max_redirects if that is meant", t.MaxRedirects))
		}
		if h, err = h.next(t, location, r.status); err != nil {
			return err
		}
	}
}

// ask sends one request and reads its answer. location is where it redirects to, "" if this was the last.
func (c *collector) ask(ctx context.Context, t *target, h hop, r *result) (location string, err error) {
	conn, err := c.guard.dial(ctx, r, "tcp", t.family(), h.address.host, h.address.port)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if h.address.scheme == "https" {
		if conn, err = c.handshake(ctx, t, r, conn, h.address.host); err != nil {
			return "", err
		}
		if err := t.lasting(r); err != nil {
			return "", err
		}
	}
	stop := interrupt(ctx, conn)
	defer stop()
	req := h.request(t)
	start := time.Now()
	wrote := req.Write(conn) // an answer may come before the request was read whole, and the connection go
	in := &countdown{r: conn, left: maxHeader}
	buffered := bufio.NewReader(in)
	if _, err := buffered.Peek(1); err != nil {
		if wrote != nil {
			err = wrote
		}
		return "", failed(kindOf(err, protocol), fmt.Errorf("read the answer of %s: %w", h.url.Host, inner(err)))
	}
	first := r.spent(phaseProcessing, start)
	defer r.spent(phaseTransfer, first)
	res, err := readResponse(buffered, req)
	if err != nil {
		return "", failed(kindOf(err, protocol), fmt.Errorf("read the answer of %s: %w", h.url.Host, inner(err)))
	}
	in.left = maxCoded
	r.status, r.body = res.StatusCode, -1
	if location = redirect(res); location != "" && t.MaxRedirects > 0 {
		return location, nil
	}
	return "", t.judge(res, r)
}

// judge reads the last answer's body and says what is not as expected.
func (t *target) judge(res *http.Response, r *result) error {
	var kept bytes.Buffer
	to := io.Discard
	if t.Expect.Body.re != nil {
		to = &kept
	}
	var err error
	r.body, err = io.Copy(to, io.LimitReader(res.Body, maxBody))
	expected := false
	for _, s := range t.Expect.Status {
		expected = expected || s.least <= res.StatusCode && res.StatusCode <= s.most
	}
	switch {
	case !expected:
		return failed(badStatus, fmt.Errorf("the answer's status is %d, not %s", res.StatusCode, joined(t.Expect.Status)))
	case err != nil:
		return failed(kindOf(err, protocol), fmt.Errorf("read the answer's body: %w", inner(err)))
	case t.Expect.Body.re != nil && !t.Expect.Body.re.Match(kept.Bytes()):
		return failed(badBody, fmt.Errorf("nothing in the %d bytes of the answer's body matches %s", r.body, t.Expect.Body.re))
	}
	return nil
}

func joined(list []Statuses) string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = s.String()
	}
	return strings.Join(texts, ", ")
}

// readResponse passes over answers that announce another.
func readResponse(in *bufio.Reader, req *http.Request) (*http.Response, error) {
	for range 5 {
		res, err := http.ReadResponse(in, req)
		if err != nil || res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			return res, err
		}
	}
	return nil, textproto.ProtocolError("there are too many answers before the last")
}

func (h hop) request(t *target) *http.Request {
	req := &http.Request{
		Method: h.method, URL: h.url, Host: h.url.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Close: true,
		Header: http.Header{"User-Agent": {"creel"}, "Accept": {"*/*"}},
	}
	if h.own {
		for key, value := range t.Headers {
			if req.Header.Set(key, value); strings.EqualFold(key, "host") {
				req.Host = value
			}
		}
	}
	if h.body != "" {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(h.body)), int64(len(h.body))
	}
	return req
}

// redirect returns where an answer leads to, "" if it is no redirect.
func redirect(res *http.Response) string {
	switch res.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return res.Header.Get("Location")
	}
	return ""
}

// next returns the hop that an answer to h leads to. What is told of location in errors holds no path: there may be
// secrets in it.
func (h hop) next(t *target, location string, status int) (hop, error) {
	u, err := h.url.Parse(location)
	if err != nil {
		return hop{}, failed(redirected, fmt.Errorf("follow a redirect of %s: it leads to no URL", h.url.Host))
	}
	u.User = nil
	if u.Scheme != "http" && u.Scheme != "https" {
		return hop{}, failed(redirected, fmt.Errorf("follow a redirect of %s: it leads to %.20q, neither http nor https", h.url.Host, u.Scheme))
	}
	a, err := parseURL(u)
	if err != nil {
		return hop{}, failed(redirected, fmt.Errorf("follow a redirect of %s to %.100q: the URL %w", h.url.Host, u.Host, err))
	}
	next := hop{url: u, address: a, method: h.method, body: h.body}
	next.own = a.scheme == t.address.scheme && a.port == t.address.port && strings.EqualFold(a.host, t.address.host)
	if status != http.StatusTemporaryRedirect && status != http.StatusPermanentRedirect {
		if next.body = ""; next.method != http.MethodHead {
			next.method = http.MethodGet
		}
	}
	if next.body != "" && !next.own {
		return hop{}, failed(redirected, fmt.Errorf("follow a redirect of %s to %s: it would take the request's body to another server", h.url.Host, u.Host))
	}
	return next, nil
}

// countdown is a reader that fails after so many bytes.
type countdown struct {
	r    io.Reader
	left int
}

func (c *countdown) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, textproto.ProtocolError("it is too large")
	}
	n, err := c.r.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// interrupt makes conn's reads and writes fail when ctx is done. It returns what undoes that.
func interrupt(ctx context.Context, conn net.Conn) (stop func() bool) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // else what comes next does
	}
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}
