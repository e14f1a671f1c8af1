package http

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel/center/centertest"
)

// origin is a web server with one document.
type origin struct {
	*httptest.Server
	mu          sync.Mutex
	text, etag  string
	modified    time.Time
	fault       http.HandlerFunc // if any
	header      http.Header      // of the last request
	asked, same int              // requests, and how many of them were answered 304
}

func newOrigin(t *testing.T) *origin {
	o := &origin{text: "a: 1"}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	o.header = r.Header
	if o.fault != nil {
		o.fault(w, r)
		return
	}
	if o.etag != "" {
		w.Header().Set("ETag", o.etag)
	}
	rec := &noting{w, 0}
	http.ServeContent(rec, r, "x.yaml", o.modified, strings.NewReader(o.text))
	if rec.status == http.StatusNotModified {
		o.same++
	}
}

type noting struct {
	http.ResponseWriter
	status int
}

func (n *noting) WriteHeader(status int) {
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

// set changes what the origin does.
func (o *origin) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

// counts returns the numbers of requests, and of those that were answered 304.
func (o *origin) counts() (asked, same int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked, o.same
}

func often(s *source) { s.Every = time.Millisecond }

func TestChanges(t *testing.T) {
	for _, how := range []string{"ETag", "Last-Modified", "nothing"} {
		t.Run(how, func(t *testing.T) {
			o := newOrigin(t)
			version := 0
			change := func(text string) {
				o.set(func() {
					version++
					o.text = text
					switch how {
					case "ETag":
						o.etag = fmt.Sprintf("%q", fmt.Sprint("v", version))
					case "Last-Modified":
						o.modified = time.Unix(int64(1e9+version), 0)
					}
				})
			}
			change("a: 1")
			r := watch(t, fmt.Sprintf("{url: '%s/web.yaml?token=t', headers: {x-key: k}}", o.URL), often)
			name := o.URL + "/web.yaml"
			if s := r.Wants(name + "=a: 1"); how == "ETag" && s.Revision != `"v1"` {
				t.Errorf("the revision is %s", s.Revision)
			}
			wanted := func() bool {
				asked, same := o.counts()
				return same >= 3 || how == "nothing" && asked >= 4
			}
			r.Eventually("the same, three times", wanted)
			r.Silent()
			change("a: 2")
			r.Wants(name + "=a: 2")
			change("<html>the agent says what is wrong with that</html>")
			r.Wants(name + "=<html>the agent says what is wrong with that</html>")
			change("  \n")
			r.Troubled("is empty")
			change("a: 3")
			r.Wants(name + "=a: 3")
			r.Well()
			o.set(func() {
				if o.header.Get("X-Key") != "k" || o.header.Get("User-Agent") != "creel" {
					t.Errorf("the request has %v", o.header)
				}
			})
		})
	}
}

func TestTrouble(t *testing.T) {
	f := func(name, want string, fault http.HandlerFunc) {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // there is a pause after each trouble
			o := newOrigin(t)
			r := watch(t, fmt.Sprintf("{url: '%s/?token=secret'}", o.URL), often)
			r.Wants(o.URL + "/=a: 1")
			happened := 0
			o.set(func() {
				o.fault = func(w http.ResponseWriter, r *http.Request) {
					happened++
					o.fault = nil // answered at once, so that happened is at hand
					fault(w, r)
				}
			})
			select {
			case err := <-r.Health:
				if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
					t.Errorf("Health is told %v, not %q", err, want)
				}
			case <-time.After(centertest.Soon):
				t.Error("Health is told nothing")
			}
			r.Well()
			r.Silent()
			o.set(func() { o.text = "a: 2" })
			r.Wants(o.URL + "/=a: 2")
			if happened != 1 {
				t.Errorf("%d faults happened", happened)
			}
		})
	}
	f("missing", `it answers 404 Not Found: "404 page not found"; is url right?`, http.NotFound)
	f("down", "it answers 503 Service Unavailable", centertest.Status(503, "later"))
	f("denied", "check headers", centertest.Status(401, ""))
	f("nothing", "it answers 204 No Content", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	f("cut", "unexpected EOF", centertest.Cut)
	f("large", "the answer has more than 1048576 bytes", centertest.Text(strings.Repeat("a", 1<<20+1)))
	f("redirect", "it leads to http://127.0.0.1:1, and redirects are not followed", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/?token=secret", http.StatusFound)
	})
	f("garbage", "malformed HTTP response", func(w http.ResponseWriter, _ *http.Request) {
		conn, out, err := http.NewResponseController(w).Hijack()
		if err == nil {
			fmt.Fprint(out, "SSH-2.0-OpenSSH\r\n")
			_ = out.Flush()
			_ = conn.Close()
		}
	})
}

// TestNeverModified: a server that says 304 to one who has nothing talks nonsense.
func TestNeverModified(t *testing.T) {
	o := newOrigin(t)
	o.fault = centertest.Status(http.StatusNotModified, "")
	r := watch(t, fmt.Sprintf("{url: '%s'}", o.URL), often)
	r.Troubled("it answers 304")
	r.Silent()
}

// TestPauses: what the server says of time is a hint.
func TestPauses(t *testing.T) {
	s := &source{Config: Config{Every: time.Minute}}
	for header, want := range map[string]time.Duration{
		"": time.Minute, "no-store": time.Minute, "public, max-age=30": time.Minute, "Max-Age=\"120\"": 2 * time.Minute,
		"max-age=99999999": 10 * time.Minute, "max-age=-5": time.Minute, "s-maxage=300": time.Minute,
	} {
		if got := s.pause(header); got > want || got < want*9/10 {
			t.Errorf("after %q the next request comes in %v, not %v", header, got, want)
		}
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "120": 2 * time.Minute, "Thu, 01 Jan 2026 00:00:30 GMT": 30 * time.Second, "Wed, 31 Dec 2025 23:00:00 GMT": 0, "soon": 0, "-1": 0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("Retry-After: %s is %v, not %v", header, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	o := newOrigin(t)
	o.fault = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	}
	r := watch(t, fmt.Sprintf("{url: '%s'}", o.URL), often)
	r.Troubled("it answers 429")
	o.set(func() { o.fault = nil })
	time.Sleep(600 * time.Millisecond) // longer than it would pause by itself
	if asked, _ := o.counts(); asked != 1 {
		t.Errorf("it was asked %d times", asked)
	}
	r.Silent()
}

func TestOptions(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		if _, err := centertest.Options(Center, yaml); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, not %q", yaml, err, want)
		}
	}
	f("{}", "url")
	f("{url: 'ftp://a'}", "must begin with http://")
	f("{url: 'http://u:s3cret@a'}", "must not hold a user")
	f("{url: 'http://a', every: 1ms}", "every")
	f("{url: 'http://a', headers: {'a b': c}}", "cannot be the name of a header")
	f(`{url: 'http://a', headers: {auth: "s3cret\n"}}`, "line break")
}
