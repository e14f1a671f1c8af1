package full

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/tlsconf"
)

// login is what creel login keeps, in the file login.json of the user's configuration directory.
type login struct {
	Version int    `json:"version"` // of this format: 1
	URL     string `json:"url"`
	CA      string `json:"ca,omitempty"` // PEM; empty: the system's authorities
	Token   string `json:"token"`

	// What the token was changed for last, and when it was got and is to be renewed, by this machine's clock.
	JWT   string    `json:"jwt,omitempty"`
	Got   time.Time `json:"got,omitzero"`
	Renew time.Time `json:"renew,omitzero"`
}

func loginFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find where logins are kept: %w", err)
	}
	return filepath.Join(dir, "creel", "login.json"), nil
}

// readLogin returns the zero value when nobody is signed in.
func readLogin() (login, error) {
	var l login
	file, err := loginFile()
	if err != nil {
		return l, nil // who has no home has no login
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err == nil && l.Version != 1 {
		err = fmt.Errorf("it has version %d, and this program knows 1", l.Version)
	}
	if err != nil {
		return login{}, fmt.Errorf("read %s: %w; creel logout removes it", file, err)
	}
	return l, nil
}

func (l login) write() error {
	file, err := loginFile()
	if err != nil {
		return err
	}
	if err = os.MkdirAll(filepath.Dir(file), 0o700); err == nil {
		err = agent.WriteJSON(file, l)
	}
	if err != nil {
		return fmt.Errorf("keep the login: %w", err)
	}
	return nil
}

// took notes what the token was changed for, and whom to trust from now on. It is renewed at two thirds of its life.
func (l *login) took(r api.LoginResponse, now time.Time) {
	if r.Authorities != "" && l.CA != "" {
		l.CA = r.Authorities
	}
	l.JWT, l.Got, l.Renew = r.Token, now, now.Add(time.Duration(r.Seconds*2/3*float64(time.Second)))
}

// good reports whether the JWT can be shown. A clock that was set back makes it doubtful.
func (l *login) good(now time.Time) bool {
	return l.JWT != "" && !now.Before(l.Got) && now.Before(l.Renew)
}

// session sends requests in the name of somebody who is signed in.
type session struct {
	next http.RoundTripper

	mu sync.Mutex
	login
}

// token returns a JWT other than refused, changing the login's token for one at a hub if there is none that is good.
func (s *session) token(ctx context.Context, hub, refused string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.good(time.Now()) && s.JWT != refused {
		return s.JWT, nil
	}
	client := &api.Client{URL: hub, HTTP: &http.Client{Transport: s.next}}
	asked := time.Now()
	r, err := client.Login(ctx, s.Token)
	if e := (*api.Error)(nil); errors.As(err, &e) && e.Code == "unauthorized" {
		return "", &api.Error{Code: e.Code, Message: fmt.Sprintf("sign in at %s: %s; creel login signs in with another token", hub, e.Message)}
	}
	if err != nil {
		return "", err
	}
	s.took(r, asked)
	if kept, err := readLogin(); err == nil && kept.URL == s.URL && kept.Token == s.Token { // nobody has signed in anew or out meanwhile
		_ = s.write() // then the next command asks for one of its own
	}
	return s.JWT, nil
}

// RoundTrip sends a request with a JWT. If that is refused, the hub's keys may be new: then with another one.
func (s *session) RoundTrip(r *http.Request) (*http.Response, error) {
	send := func(refused string) (string, *http.Response, error) {
		jwt, err := s.token(r.Context(), r.URL.Scheme+"://"+r.URL.Host, refused)
		if e := (*api.Error)(nil); errors.As(err, &e) {
			return "", refusal(r, e), nil
		}
		if err != nil {
			return "", nil, err
		}
		again := r.Clone(r.Context())
		if r.GetBody != nil {
			if again.Body, err = r.GetBody(); err != nil {
				return "", nil, err
			}
		}
		again.Header.Set("Authorization", "Bearer "+jwt)
		resp, err := s.next.RoundTrip(again)
		return jwt, resp, err
	}
	if r.Body != nil && r.GetBody != nil {
		defer r.Body.Close() // each time another one is sent
	}
	jwt, resp, err := send("")
	if err != nil || jwt == "" || resp.StatusCode != http.StatusUnauthorized || r.Body != nil && r.GetBody == nil {
		return resp, err
	}
	resp.Body.Close()
	_, resp, err = send(jwt)
	return resp, err
}

// refusal is an error of the hub as the answer to another request, so that it is told as what it is.
func refusal(r *http.Request, e *api.Error) *http.Response {
	text, err := json.Marshal(e)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return &http.Response{
		Status: "401 Unauthorized", StatusCode: http.StatusUnauthorized, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(text)), ContentLength: int64(len(text)), Request: r,
	}
}

func (c *commands) login() *cobra.Command {
	token := ""
	cmd := &cobra.Command{
		Use: "login URL", Short: "Sign in at a hub: commands then ask it, in your name.", Args: cobra.ExactArgs(1),
		Long: "Sign in at a hub with a token that somebody has made for you with creel token create. Commands that ask a hub then ask\n" +
			"this one, unless --hub, CREEL_HUB or a hub on this machine says otherwise, and show what the token was changed for,\n" +
			"which is worth something for ten minutes only.\n\n" +
			"The hub's certificate must be of the authority whose fingerprint is in the token, or else of one in --hub-ca or of\n" +
			"the system's, and be for the name in URL. What is to be trusted is kept with the token, in creel/login.json of your\n" +
			"configuration directory; nobody else can read it. Without --token it is asked for. " + cli.TokenHelp,
		Example: "  creel login https://hub.example:4380\n  creel login https://hub.example:4380 --token - < token.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := hubURL(args[0])
			if err != nil {
				return err
			}
			text, err := cli.SecretFlag(cmd, "token", first(token, os.Getenv("CREEL_TOKEN")))
			if err == nil && text == "" {
				text, err = c.AskSecret(cmd, "Token for "+u.String()+": ")
			}
			if err == nil && text == "" {
				err = errors.New("which token? Say --token -, and write it to standard input; creel token create makes one")
			}
			if err != nil {
				return err
			}
			return c.signIn(cmd.Context(), u, text)
		},
	}
	cmd.Flags().StringVar(&token, "token", "", "your `TOKEN`; - reads it from standard input (default: CREEL_TOKEN, or the terminal)")
	c.trusting(cmd)
	return cmd
}

// hubURL reads a hub's URL. A token is not sent to others than this machine without TLS.
func hubURL(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(strings.TrimRight(text, "/"))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read URL: %w", err)
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "":
		return nil, fmt.Errorf("read URL %q: must be a hub's, such as https://hub.example:4380", u.Redacted())
	case u.Scheme == "http" && !tlsconf.IsLoopback(u.Hostname()):
		return nil, fmt.Errorf("sign in at %s: it is not this machine, and a token would go there without TLS; write https://", u)
	}
	return u, nil
}

// signIn changes a token for a JWT at the hub at u, and keeps both.
func (c *commands) signIn(ctx context.Context, u *url.URL, text string) error {
	fingerprint := ""
	if strings.HasPrefix(text, "creel_") { // else it is what lies in the hub's state directory
		t, err := control.ParseToken(text)
		if err != nil {
			return fmt.Errorf("read the token: %w", err)
		}
		fingerprint = t.Fingerprint
	}
	l := login{Version: 1, URL: u.String(), Token: text}
	h, how, err := c.firstContact(u, fingerprint, &l)
	if err != nil {
		return err
	}
	client, asked := &api.Client{URL: l.URL, HTTP: h}, time.Now()
	r, err := client.Login(ctx, text)
	if err != nil {
		return failed(err)
	}
	client.Token = r.Token
	me, err := client.Me(ctx)
	if err != nil {
		return failed(err)
	}
	me.Ends = time.Time{} // that is the JWT's end
	l.took(r, asked)
	if err := l.write(); err != nil {
		return cli.Exit(cli.ExitNo, err)
	}
	fmt.Fprintf(c.Err, "signed in at %s as %s, %s\n%s", l.URL, plain(me.Name), can(me), how)
	return nil
}

// can says what somebody may do, and for how long.
func can(me api.Me) string {
	s := plain(string(me.Role))
	if me.Within != "" {
		s += " within " + plain(me.Within)
	}
	if !me.Ends.IsZero() {
		s += ", until " + stamp(me.Ends)
	}
	return s
}

// firstContact returns what asks a hub that was not spoken to before, with how its certificate is verified. Once it has
// answered, l has what to trust.
func (c *commands) firstContact(u *url.URL, fingerprint string, l *login) (h *http.Client, how string, err error) {
	switch file := first(c.tls.CAFile, os.Getenv("CREEL_HUB_CA")); {
	case u.Scheme == "http":
		return http.DefaultClient, "", nil
	case file != "":
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, "", fmt.Errorf("read --hub-ca: %w", err)
		}
		l.CA, how = string(text), fmt.Sprintf("its certificate was verified by the authorities in %s\n", file)
	case fingerprint == "":
		how = "its certificate was verified by this machine's authorities\n"
	default:
		how = "its authority has the fingerprint that is in the token\n"
	}
	secure, err := c.secure(u.Hostname(), l.CA)
	if err != nil {
		return nil, "", err
	}
	if l.CA == "" && fingerprint != "" {
		secure.InsecureSkipVerify = true // crypto/tls knows no fingerprints: VerifyConnection does it
		secure.VerifyConnection = func(cs tls.ConnectionState) error {
			root, err := verify(cs.PeerCertificates, fingerprint, u.Hostname())
			if err == nil && !public(cs.PeerCertificates, u.Hostname()) { // else nobody knows who issues the next one
				l.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))
			}
			return err
		}
	}
	return &http.Client{Transport: transport(secure)}, how, nil
}

// public reports whether this machine's authorities vouch for a chain of certificates.
func public(chain []*x509.Certificate, host string) bool {
	o := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(o)
	return err == nil
}

// verify checks a chain of certificates of the hub at host by its authority's fingerprint, and returns the authority's.
func verify(chain []*x509.Certificate, fingerprint, host string) (*x509.Certificate, error) {
	o := x509.VerifyOptions{DNSName: host, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	var root *x509.Certificate
	for _, cert := range chain {
		if control.FingerprintOf(cert.Raw) == fingerprint {
			root = cert
			o.Roots.AddCert(cert)
		} else {
			o.Intermediates.AddCert(cert)
		}
	}
	if root == nil {
		return nil, errOtherHub
	}
	if _, err := chain[0].Verify(o); err != nil {
		return nil, fmt.Errorf("verify the hub's certificate: %w", err)
	}
	return root, nil
}

var errOtherHub = errors.New("it is not the hub that the token is for: its authority has another fingerprint. The token is of another hub, was made before the authority was changed, or somebody is in between; it was not sent")

// secure returns how to talk TLS with the hub at host, trusting the authorities in ca (PEM) if it is not empty.
func (c *commands) secure(host, ca string) (*tls.Config, error) {
	o := tlsconf.Client{CertFile: first(c.tls.CertFile, os.Getenv("CREEL_HUB_CERT")), KeyFile: first(c.tls.KeyFile, os.Getenv("CREEL_HUB_KEY"))}
	secure, err := o.Config(host, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("read --hub-cert and --hub-key: %w", err)
	}
	if ca != "" {
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("read the authorities to trust: there is no certificate, PEM")
		}
	}
	return secure, nil
}

func transport(secure *tls.Config) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig, t.ForceAttemptHTTP2 = secure, false // HTTP/2 would not say why a certificate is refused
	return t
}

func (c *commands) logout() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget what creel login has kept.", Args: cobra.NoArgs,
		Long: "Forget what creel login has kept. The token itself is worth something until it ends, or creel token delete ends it.",
		RunE: func(*cobra.Command, []string) error {
			file, err := loginFile()
			if err != nil {
				return cli.Exit(cli.ExitNo, err)
			}
			switch err := os.Remove(file); {
			case errors.Is(err, fs.ErrNotExist):
				fmt.Fprintln(c.Err, "nobody was signed in")
			case err != nil:
				return cli.Exit(cli.ExitNo, fmt.Errorf("forget the login: %w", err))
			default:
				fmt.Fprintln(c.Err, "signed out")
			}
			return nil
		},
	}
}

func (c *commands) whoami() *cobra.Command {
	cmd := &cobra.Command{
		Use: "whoami", Short: "Say who you are to the hub, and what you may do.", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			me, err := client.Me(cmd.Context())
			if err != nil {
				return failed(err)
			}
			return c.Print(c.output, me, []string{me.Name}, func(w *tabwriter.Writer) {
				if _, signedIn := client.HTTP.Transport.(*session); signedIn {
					me.Ends = time.Time{} // that is the JWT's end, which is renewed
				}
				fmt.Fprintf(w, "%s at %s: %s\n", plain(me.Name), client.URL, can(me))
			})
		},
	}
	return c.answering(cmd)
}
