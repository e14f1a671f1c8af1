package prometheus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/tlsconf"
)

// accept asks for OpenMetrics first, which has start times and exemplars, and says that names may be any UTF-8.
const accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5," +
	"application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"

// maxHead bounds the headers of an answer.
const maxHead = 64 << 10

// fetcher gets what is at a URL. It may be used concurrently.
type fetcher struct {
	options  *Config
	host     creel.Host
	shared   *http.Client
	unzipper sync.Pool
}

func newFetcher(c *Config, h creel.Host) (*fetcher, error) {
	f := &fetcher{options: c, host: h}
	var err error
	f.shared, err = f.newClient("")
	return f, err
}

func (f *fetcher) newClient(host string) (*http.Client, error) {
	secure, err := f.options.TLS.Config(host, f.host.Identity, f.host.Log)
	if err != nil {
		return nil, fmt.Errorf("set up TLS: %w", err)
	}
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Client{
		// No proxy of the environment: targets are near.
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: secure, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 2, IdleConnTimeout: 5 * time.Minute, // more than the usual time between rounds
			DisableCompression: true, MaxResponseHeaderBytes: maxHead,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if from := via[0].URL; len(via) > 5 || r.URL.Host != from.Host || r.URL.Scheme != from.Scheme {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}, nil
}

// clientOf returns the client for targets at host, a name or an IP address. A certificate for an address can be checked
// against authorities of one's own only if the client knows the address: see tlsconf.Client.Config.
func (f *fetcher) clientOf(u *url.URL) (c *http.Client, own bool, err error) {
	if o := f.options.TLS; u.Scheme == "https" && o.CAFile != "" && o.ServerName == "" && net.ParseIP(u.Hostname()) != nil {
		c, err = f.newClient(u.Hostname())
		return c, true, err
	}
	return f.shared, false, nil
}

// exposition is what a target has answered.
type exposition struct {
	text string
	open bool
}

// scrape gets the exposition of t.
func (f *fetcher) scrape(ctx context.Context, t *target) (e exposition, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.options.TargetTimeout)
	defer cancel()
	header := http.Header{"Accept": {accept}, "X-Prometheus-Scrape-Timeout-Seconds": {strconv.FormatFloat(f.options.TargetTimeout.Seconds(), 'f', -1, 64)}}
	for k, v := range f.options.Headers {
		header.Set(k, v)
	}
	switch {
	case f.options.BearerToken != "":
		header.Set("Authorization", "Bearer "+f.options.BearerToken)
	case f.options.Basic != nil:
		r := http.Request{Header: header}
		r.SetBasicAuth(f.options.Basic.Username, f.options.Basic.Password)
	}
	kind, body, err := f.get(ctx, t.client, t.url, header, t.size)
	if err != nil {
		return e, err
	}
	if e.open, err = formatOf(kind); err != nil {
		return e, err
	}
	e.text = alias(body)
	return e, nil
}

// formatOf says whether a content type is that of OpenMetrics text, else it is Prometheus' text format.
func formatOf(kind string) (open bool, err error) {
	media, params, err := mime.ParseMediaType(kind)
	switch version := params["version"]; {
	case kind == "":
		return false, nil // as simple scripts answer
	case err != nil:
	case media == "text/plain":
		return false, nil
	case media == "application/openmetrics-text" && (version == "" || version == "0.0.1" || version == "1.0.0"):
		return true, nil
	}
	return false, fmt.Errorf("read answer: its content type must be text/plain or application/openmetrics-text in version 1.0.0, got %s; is the path right?", excerpt(kind))
}

// get returns the content type and the body of what is at u. The body is nobody else's. hint is how large it may be.
func (f *fetcher) get(ctx context.Context, client *http.Client, u *url.URL, header http.Header, hint int) (kind string, body []byte, err error) {
	header.Set("Accept-Encoding", "gzip")
	header.Set("User-Agent", "creel")
	r := (&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header}).WithContext(ctx)
	answer, err := client.Do(r)
	if err != nil {
		return "", nil, f.explain(ctx, "ask", err)
	}
	defer answer.Body.Close()
	switch code := answer.StatusCode; {
	case code >= 300 && code < 400:
		return "", nil, fmt.Errorf("read answer: it is a redirect (%d) to another host, or too many, and is not followed", code)
	case code != http.StatusOK:
		return "", nil, fmt.Errorf("read answer: its status is %d %s", code, http.StatusText(code))
	}
	from := io.Reader(answer.Body)
	switch encoding := answer.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		z, _ := f.unzipper.Get().(*gzip.Reader)
		if z == nil {
			z = new(gzip.Reader)
		}
		defer f.unzipper.Put(z)
		if err := z.Reset(from); err != nil {
			return "", nil, f.explain(ctx, "unzip answer", err)
		}
		from = z
	default:
		return "", nil, fmt.Errorf("read answer: it is compressed with %s, and only gzip was asked for", excerpt(encoding))
	}
	body, err = readAll(from, hint, int(f.options.MaxSize))
	if err != nil {
		return "", nil, f.explain(ctx, "read answer", err)
	}
	return answer.Header.Get("Content-Type"), body, nil
}

// explain says what went wrong, without the URL, which may hold a secret.
func (f *fetcher) explain(ctx context.Context, doing string, err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: there was no whole answer within %v (target_timeout)", doing, f.options.TargetTimeout)
	}
	return fmt.Errorf("%s: %w%s", doing, err, tlsconf.Hint(err, "tls.ca_file", "tls.cert_file and tls.key_file"))
}

// readAll reads up to the end, but not more than most bytes.
func readAll(from io.Reader, hint, most int) ([]byte, error) {
	b := creel.NewBuffer(min(max(hint+hint/8, 4<<10), most+1))
	n := 0
	for {
		m, err := from.Read(b[n:])
		n += m
		switch {
		case n > most:
			return nil, fmt.Errorf("it is larger than %v (max_size)", config.Size(most))
		case err == io.EOF:
			return b[:n:n], nil
		case err != nil:
			return nil, err
		}
		if n == len(b) {
			larger := creel.NewBuffer(min(2*len(b), most+1))
			copy(larger, b)
			b = larger
		}
	}
}
