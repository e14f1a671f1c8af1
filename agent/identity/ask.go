package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/tlsconf"
)

// A hub may take as long to answer; while there is another to ask, less.
const (
	askTimeout = 30 * time.Second
	askQuickly = 2 * time.Second
)

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// ask posts a message to the hub at a URL, on a connection of its own, and reads the answer into out. It returns the
// certificates that the hub has shown. When the hub refuses, the error is a *control.Refusal.
func ask(ctx context.Context, dial dialer, secure *tls.Config, address, path string, in, out any) ([]*x509.Certificate, error) {
	u, err := control.HubURL(address)
	if err != nil {
		return nil, fmt.Errorf("read the hub's URL: %w", err)
	}
	if u.Scheme != "https" {
		return nil, fmt.Errorf("ask %s for an identity: it is not https, so that nobody can prove anything there; write https://", address)
	}
	return post(ctx, dial, secure, u, path, in, out)
}

// post is ask at any URL. Without TLS no certificates are shown.
func post(ctx context.Context, dial dialer, secure *tls.Config, u *url.URL, path string, in, out any) (shown []*x509.Certificate, err error) {
	body := []byte{}
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("encode a request: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dial, TLSClientConfig: secure, TLSHandshakeTimeout: askTimeout / 2, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, explain(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, control.MaxIdentityMessage+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the hub's answer: %w", err)
	case len(text) > control.MaxIdentityMessage:
		return nil, fmt.Errorf("read the hub's answer: it is larger than %d bytes", control.MaxIdentityMessage)
	case resp.StatusCode != http.StatusOK:
		return nil, refusalOf(resp.Status, text)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("read the hub's answer: %w", err)
	}
	if resp.TLS != nil {
		shown = resp.TLS.PeerCertificates
	}
	return shown, nil
}

// ask asks the hub, or if that does not answer the next one, for all share who their agents are.
func (i *Identity) ask(ctx context.Context, path string, in, out any) (shown []*x509.Certificate, err error) {
	secure, err := i.ClientTLS()
	if err != nil {
		return nil, err
	}
	urls := i.urls()
	for n, u := range urls {
		within, cancel := ctx, context.CancelFunc(func() {})
		if n < len(urls)-1 {
			within, cancel = context.WithTimeout(ctx, askQuickly)
		}
		shown, err = ask(within, i.o.dial, secure.Clone(), u, path, in, out)
		cancel()
		var refused *control.Refusal
		if err == nil || errors.As(err, &refused) || ctx.Err() != nil {
			break
		}
	}
	return shown, err
}

// refusalOf reads an answer that is not 200.
func refusalOf(status string, text []byte) error {
	r := &control.Refusal{}
	if json.Unmarshal(text, r) == nil && r.Code != "" {
		r.Text, r.Remedy, r.After = printable(r.Text), printable(r.Remedy), max(0, r.After)
		return r
	}
	const few = 200
	if len(text) > few {
		text = text[:few]
	}
	return fmt.Errorf("the hub answers %s: %s; is it a creel hub, and its address that of its pages and API?", status, strings.TrimSpace(printable(string(text))))
}

// printable takes away what could do something to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// explain adds to an error what to do, if it is that the other side has no TLS. What is wrong with certificates says so itself.
func explain(err error) error {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) || strings.Contains(err.Error(), "certificate") {
		return err
	}
	return fmt.Errorf("%w%s", err, tlsconf.Hint(err, "", ""))
}

// base returns the configuration of a client that verifies with f alone.
func base(f func(tls.ConnectionState) error) (*tls.Config, error) {
	t, err := tlsconf.Client{}.Config("", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("make a configuration of TLS: %w", err)
	}
	t.InsecureSkipVerify, t.VerifyConnection = true, f // what crypto/tls is told to skip, f does
	return t, nil
}
