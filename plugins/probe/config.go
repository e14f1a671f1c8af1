package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/tlsconf"
)

// Config is the collector's options.
type Config struct {
	Targets       []Target       `doc:"What to check, all of it in each round."`
	Parallel      int            `doc:"How many targets are checked at a time. Those with expect.body keep up to a MiB each." default:"10" min:"1" max:"1000"`
	TargetTimeout time.Duration  `doc:"How long the check of one target may take, redirects included." default:"5s" min:"10ms" max:"10m"`
	AllowNetworks []netip.Prefix `doc:"Networks (CIDR) that may be talked to although they are denied. Of all networks that hold an address the narrowest decides: 0.0.0.0/0 does not allow 169.254.0.0/16." optional:"true" example:"[169.254.0.0/16]"`
	DenyNetworks  []netip.Prefix `doc:"Networks (CIDR) that must not be talked to, whatever names and redirects lead there. Denied in any case, unless allowed, are unspecified, link-local, multicast and reserved addresses and the metadata services of clouds." optional:"true" example:"[127.0.0.0/8, '::1/128']"`
	TLS           TLS            `doc:"Certificates, for https and tls."`
}

// TLS is how servers prove who they are, and how a check does.
type TLS struct {
	CAFile             string `doc:"Authorities to trust instead of the system's, PEM. It is read again when it changes." optional:"true"`
	CertFile           string `doc:"A certificate to show to servers that ask for one, PEM. It is read again when it changes." optional:"true"`
	KeyFile            string `doc:"The certificate's key, PEM." optional:"true"`
	InsecureSkipVerify bool   `doc:"Believe any certificate." default:"false"`
}

func (t TLS) client() tlsconf.Client {
	return tlsconf.Client{CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile, InsecureSkipVerify: t.InsecureSkipVerify}
}

// Validate checks that what belongs together is there.
func (t TLS) Validate() error { return t.client().Validate() }

// Target is one thing to check.
type Target struct {
	URL          string            `doc:"What to check. http://HOST/PATH and https://HOST/PATH: an answer as expect says. tcp://HOST:PORT: a connection. tls://HOST:PORT: a certificate that is valid. dns://SERVER/NAME?type=A: an answer; dns:///NAME asks as this machine does. icmp://HOST: an echo of its first address." example:"https://shop.example/health"`
	Name         string            `doc:"What the target is called in records; its URL, without what follows a question mark, if left out." optional:"true" example:"shop"`
	Attributes   map[string]string `doc:"Attributes that the target's records are given." optional:"true" example:"{team: checkout}"`
	Timeout      time.Duration     `doc:"How long its check may take; 0 for target_timeout." default:"0s" min:"0s" max:"10m"`
	IPVersion    string            `doc:"Which of the host's addresses to use." default:"any" enum:"any|4|6"`
	ServerName   string            `doc:"Name that the server's certificate must have, if not the host's. For tls and https." optional:"true"`
	Method       string            `doc:"Method of the HTTP request." default:"GET"`
	Headers      map[string]string `doc:"Headers of the HTTP request. A redirect to another server goes without them." optional:"true" secret:"true" example:"{authorization: 'Bearer ${env:TOKEN}'}"`
	Body         string            `doc:"Body of the HTTP request." optional:"true" secret:"true"`
	MaxRedirects int               `doc:"How many redirects are followed; 0: an answer that redirects is the answer." default:"5" min:"0" max:"20"`
	Expect       Expect            `doc:"What the answer must be like."`
}

// Expect is what an answer must be like.
type Expect struct {
	Status   []Statuses    `doc:"Status codes of HTTP, and ranges of them." default:"200-299" example:"[200-299, 401]"`
	Body     Pattern       `doc:"A regular expression (RE2) that must match in the first MiB of the HTTP body." optional:"true" example:"\"status\":\\s*\"ok\""`
	Answer   Pattern       `doc:"A regular expression (RE2) that one of the answers of DNS must match." optional:"true" example:"^192\\.0\\.2\\."`
	ValidFor time.Duration `doc:"How long the server's certificate must be valid yet." default:"0s" min:"0s"`
}

// Statuses is a range of status codes, written as 200 or 200-299.
type Statuses struct{ least, most int }

// UnmarshalText reads a range.
func (s *Statuses) UnmarshalText(text []byte) error {
	from, to, more := strings.Cut(string(text), "-")
	if !more {
		to = from
	}
	least, err := strconv.Atoi(strings.TrimSpace(from))
	most, err2 := strconv.Atoi(strings.TrimSpace(to))
	if err != nil || err2 != nil || least < 100 || most > 999 || least > most {
		return fmt.Errorf("must be a status such as 200, or a range such as 200-299, got %q", text)
	}
	*s = Statuses{least, most}
	return nil
}

// String returns the range as UnmarshalText reads it.
func (s Statuses) String() string {
	if s.least == s.most {
		return strconv.Itoa(s.least)
	}
	return fmt.Sprintf("%d-%d", s.least, s.most)
}

// MarshalText returns what String does.
func (s Statuses) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Pattern is a regular expression (RE2). The zero Pattern matches everything.
type Pattern struct{ re *regexp.Regexp }

const maxPattern = 4 << 10 // bytes

// UnmarshalText compiles a pattern.
func (p *Pattern) UnmarshalText(text []byte) error {
	if p.re = nil; len(text) == 0 {
		return nil
	}
	if len(text) > maxPattern {
		return fmt.Errorf("must be at most %d bytes long", maxPattern)
	}
	re, err := regexp.Compile(string(text))
	if err != nil {
		return fmt.Errorf("must be a regular expression: %w", err)
	}
	p.re = re
	return nil
}

// MarshalText returns the pattern's text.
func (p Pattern) MarshalText() ([]byte, error) {
	if p.re == nil {
		return nil, nil
	}
	return []byte(p.re.String()), nil
}

// Validate refuses to check nothing, one name twice, and a network that is both allowed and denied.
func (c Config) Validate() error {
	if len(c.Targets) == 0 {
		return config.FieldError("targets", errors.New("must name at least one"))
	}
	seen := make(map[string]bool, len(c.Targets))
	for _, t := range c.Targets {
		name := t.name()
		if seen[name] {
			return config.FieldError("targets", fmt.Errorf("two targets are called %q; give them different names", name))
		}
		seen[name] = true
	}
	for _, a := range c.AllowNetworks {
		for _, d := range c.DenyNetworks {
			if plain(a) == plain(d) {
				return config.FieldError("allow_networks", fmt.Errorf("%s is in deny_networks, too", a))
			}
		}
	}
	return nil
}

// name returns what the target is called: without a query of HTTP, which may hold secrets.
func (t Target) name() string {
	switch {
	case t.Name != "":
		return t.Name
	case strings.HasPrefix(t.URL, "dns:"):
		return t.URL
	}
	name, _, _ := strings.Cut(t.URL, "#")
	name, _, _ = strings.Cut(name, "?")
	return name
}

// Validate checks the URL, and that no option is set that would change nothing.
func (t Target) Validate() error {
	a, err := t.parse()
	if err != nil {
		return config.FieldError("url", err)
	}
	http, tls := a.scheme == "http" || a.scheme == "https", a.scheme == "tls" || a.scheme == "https"
	useless := func(field string, set bool, scheme string) error {
		if !set {
			return nil
		}
		return config.FieldError(field, fmt.Errorf("means nothing for %s; it is for %s", a.scheme, scheme))
	}
	if err := errors.Join(
		useless("headers", len(t.Headers) > 0 && !http, "http and https"),
		useless("body", t.Body != "" && !http, "http and https"),
		useless("method", t.Method != "GET" && !http, "http and https"),
		useless("server_name", t.ServerName != "" && !tls, "https and tls"),
		useless("expect", t.Expect.Body.re != nil && !http, "body, which http and https have"),
		useless("expect", t.Expect.Answer.re != nil && a.scheme != "dns", "answer, which dns has"),
		useless("expect", t.Expect.ValidFor > 0 && !tls, "valid_for, which https and tls have"),
	); err != nil {
		return err
	}
	if !isToken(t.Method) {
		return config.FieldError("method", fmt.Errorf("%q is no method of HTTP", t.Method))
	}
	for key, value := range t.Headers {
		if !isToken(key) {
			return config.FieldError("headers", fmt.Errorf("%q is no header's name", key))
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' }) { // it may be a secret
			return config.FieldError("headers", fmt.Errorf("the value of %s must be printable ASCII; is there a line break at its end?", key))
		}
	}
	return nil
}

// isToken reports whether s is a token of RFC 9110.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// An address is what a URL says.
type address struct {
	scheme string
	url    *url.URL
	host   string // a name or an IP address; "" only for dns
	port   uint16 // 0 for icmp
	query  string // dns: the name to ask for
	record string // dns: the type
}

const schemes = "must be http://HOST/PATH, https://HOST/PATH, tcp://HOST:PORT, tls://HOST:PORT, dns://SERVER/NAME?type=A or icmp://HOST"

var defaultPorts = map[string]uint16{"http": 80, "https": 443, "tls": 443, "dns": 53}

func (t Target) parse() (address, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return address{}, fmt.Errorf("%s: %w", schemes, errors.Unwrap(err)) // the whole may hold a secret
	}
	return parseURL(u)
}

func parseURL(u *url.URL) (address, error) {
	a := address{scheme: u.Scheme, url: u, host: u.Hostname(), port: defaultPorts[u.Scheme]}
	switch {
	case u.User != nil:
		return a, errors.New("must not hold a user or password; set the header authorization")
	case u.Host == "" && u.Scheme != "dns" || u.Host != "" && a.host == "":
		return a, errors.New(schemes)
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return a, fmt.Errorf("must have a port from 1 to 65535, got %q", p)
		}
		a.port = uint16(n)
	}
	bare := u.Path == "" || u.Path == "/"
	switch u.Scheme {
	case "http", "https":
		return a, nil
	case "tcp", "tls":
		if a.port == 0 || !bare || u.RawQuery != "" {
			return a, fmt.Errorf("must be %s://HOST:PORT", u.Scheme)
		}
	case "icmp":
		if u.Port() != "" || !bare || u.RawQuery != "" {
			return a, errors.New("must be icmp://HOST, without a port")
		}
	case "dns":
		return a.dns()
	default:
		return a, errors.New(schemes)
	}
	return a, nil
}

// dns reads the question.
func (a address) dns() (address, error) {
	a.query, a.record = strings.TrimPrefix(a.url.Path, "/"), "A"
	options := a.url.Query()
	if t := options.Get("type"); t != "" {
		a.record = strings.ToUpper(t)
	}
	options.Del("type")
	if a.query == "" || strings.Contains(a.query, "/") || len(options) > 0 {
		return a, errors.New("must be dns://SERVER/NAME?type=A, or dns:///NAME?type=A to ask as this machine does")
	}
	if _, ok := recordTypes[a.record]; !ok {
		return a, fmt.Errorf("must ask for one of %s, got %q", recordNames, a.record)
	}
	if _, err := questionName(a.query); err != nil {
		return a, fmt.Errorf("must ask for a name: %w", err)
	}
	if a.record == "SOA" && a.host == "" {
		return a, errors.New("must name a server to ask for a SOA")
	}
	if a.record == "PTR" && a.host == "" && net.ParseIP(a.query) == nil {
		return a, errors.New("must have an IP address as its name when this machine is to ask for a PTR")
	}
	return a, nil
}
