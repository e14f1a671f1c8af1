package prometheus

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

func timeAt(ns int64) time.Time { return time.Unix(0, ns) }

// TestRequest: what a target is asked, and what it is told of by synthetic metrics.
func TestRequest(t *testing.T) {
	page := newPage(t, "x 1\n")
	c := open(t, "{targets: ['"+page.Listener.Addr().String()+"'], params: {module: [a, b]}, bearer_token: secret, headers: {x-a: b}, path: m}", creel.Host{ID: "prometheus/shop"})
	got := round(t, c, true)
	if len(got) != 5 || got[0] != "x gauge 1" || got[1] != "up gauge 1" || got[3] != "scrape_samples_scraped gauge 1" || got[4] != "scrape_series_added gauge 1" {
		t.Errorf("got %q", got)
	}
	r := page.asked[0]
	if r.URL.String() != "/m?module=a&module=b" || r.Header.Get("Authorization") != "Bearer secret" || r.Header.Get("X-A") != "b" || r.Header.Get("X-Prometheus-Scrape-Timeout-Seconds") != "5" {
		t.Errorf("was asked %v %v", r.URL, r.Header)
	}
	want := `{"service.name":"shop","service.instance.id":"` + r.Host + `","server.address":"127.0.0.1","server.port":` + page.URL[strings.LastIndex(page.URL, ":")+1:] + `,"url.scheme":"http"}`
	if got := string(only(c).origin.Resource.Attrs.Append(nil)); got != want {
		t.Errorf("the resource is %s, want %s", got, want)
	}
}

// TestBadTargets: each way in which a target fails leaves the others alone, makes up 0 and is told once, with its reason.
func TestBadTargets(t *testing.T) {
	zip := func(text string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		return b.Bytes()
	}
	plain := func(w http.ResponseWriter, text string) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, text)
	}
	f := func(name string, handle http.HandlerFunc, want string) {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			var happened atomic.Int32
			bad, good := newPage(t, ""), newPage(t, "x 1\n")
			c := open(t, "{targets: ['"+bad.URL+"', '"+good.URL+"'], parallel: 1, max_size: 10KiB, target_timeout: 1m}", creel.Host{Log: slog.New(slog.NewTextHandler(&log, nil))})
			round(t, c, true) // first all is well
			bad.serve(func(w http.ResponseWriter, r *http.Request) { happened.Add(1); handle(w, r) })
			up, times := "up gauge 0", 1
			if want == "" {
				up, times = "y gauge 1", 0
			}
			for range 2 {
				if got := round(t, c, true); !slices.Contains(got, "x gauge 1") || !slices.Contains(got, up) {
					t.Errorf("got %q", got)
				}
			}
			if n := strings.Count(log.String(), "cannot scrape target"); happened.Load() < 2 || n != times || !strings.Contains(log.String(), want) {
				t.Errorf("%d requests, %d entries, want %q in\n%s", happened.Load(), n, want, log.String())
			}
			bad.serve(func(w http.ResponseWriter, r *http.Request) { plain(w, "") })
			round(t, c, true)
			if n := strings.Count(log.String(), "scraping target again"); n != times {
				t.Errorf("that it works again was told %d times", n)
			}
		})
	}
	f("status", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, "status is 503")
	f("oversized", func(w http.ResponseWriter, r *http.Request) { plain(w, strings.Repeat("# x\n", 3000)) }, "larger than 10KiB (max_size)")
	f("gzip bomb", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		plain(w, string(zip(strings.Repeat("# x\n", 1<<18))))
	}, "larger than 10KiB (max_size)")
	f("gzip cut off", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		b := zip("x 1\n")
		plain(w, string(b[:len(b)-4]))
	}, "unexpected EOF")
	f("no gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		plain(w, "x 1\nx 1\nx 1\n")
	}, "unzip answer")
	f("zstd", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "zstd")
		plain(w, "x")
	}, "compressed with")
	f("cut off", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		plain(w, "x 1\n")
	}, "unexpected EOF")
	f("cut off in OpenMetrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0")
		_, _ = io.WriteString(w, "x 1\n")
	}, "line 2: # EOF is missing")
	f("HTML", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>")
	}, "content type must be text/plain")
	f("redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.2:1/metrics", http.StatusFound)
	}, "redirect (302) to another host")
	f("redirects", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, "or too many")
	f("hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF")
	f("gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		plain(w, string(zip("y 1\n")))
	}, "")
	f("one redirect", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/there" {
			http.Redirect(w, r, "/there", http.StatusFound)
			return
		}
		plain(w, "y 1\n")
	}, "")
}

// TestSlow: a target that does not come to an end is left after its time, whatever it has said before.
func TestSlow(t *testing.T) {
	page := newPage(t, "")
	page.serve(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "x 1\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	var log bytes.Buffer
	c := open(t, "{targets: ['"+page.URL+"'], target_timeout: 50ms}", creel.Host{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if got := round(t, c, true); got[0] != "up gauge 0" || !strings.Contains(log.String(), "no whole answer within 50ms") {
		t.Errorf("got %q and\n%s", got, log.String())
	}
}

// TestEndOfRound: a round that is over while targets are being asked ends, and holds nothing against them.
func TestEndOfRound(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	page := newPage(t, "")
	page.serve(func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	var log bytes.Buffer
	c := open(t, "{targets: ['"+page.URL+"', '"+page.URL+"/2', '"+page.URL+"/3'], parallel: 2, target_timeout: 1h}", creel.Host{Log: slog.New(slog.NewTextHandler(&log, nil))})
	var k sink
	if err := c.Collect(ctx, &k); err != context.Canceled || len(k.batches) > 0 || log.Len() > 0 {
		t.Errorf("got %v, %d batches and %q", err, len(k.batches), log.String())
	}
}

// TestDiscovery: targets of files and of a URL come and go; of those that go it is said that they are over.
func TestDiscovery(t *testing.T) {
	dir := t.TempDir()
	one, two, list := newPage(t, "x 1\n"), newPage(t, "y 2\n"), newPage(t, "")
	a1, a2 := one.Listener.Addr().String(), two.Listener.Addr().String()
	write := func(name, text string) { must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)) }
	inList := "[]"
	list.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, inList)
	})
	c := open(t, "{file_discovery: ['"+dir+"/*.yaml', '"+dir+"/*.json'], http_discovery: {url: '"+list.URL+"'}}", creel.Host{})
	f := func(what string, want ...string) {
		t.Helper()
		got := slices.DeleteFunc(round(t, c, true), func(s string) bool { return strings.HasPrefix(s, "scrape_") })
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	f("nothing")
	write("a.yaml", "- targets: ['"+a1+"']\n  labels: {zone: a}\n")
	f("a file", `up{zone="a"} gauge 1`, `x{zone="a"} gauge 1`)
	write("a.yaml", "- targets: ['"+a1+"', '"+a2+"', 'bad address']\n  labels: {zone: b}\n")
	f("it changes", `up{zone="a"} gauge over`, `up{zone="b"} gauge 1`, `up{zone="b"} gauge 1`, `x{zone="a"} gauge over`, `x{zone="b"} gauge 1`, `y{zone="b"} gauge 2`)
	write("a.yaml", "- targets: [")
	f("it is half written", `up{zone="b"} gauge 1`, `up{zone="b"} gauge 1`, `x{zone="b"} gauge 1`, `y{zone="b"} gauge 2`)
	must(t, os.Remove(filepath.Join(dir, "a.yaml")))
	write("b.json", `[{"targets":["`+a1+`","`+a1+`"],"labels":{"__metrics_path__":"/p","__param_q":"1"}}]`)
	f("another one", `up gauge 1`, `up{zone="b"} gauge over`, `up{zone="b"} gauge over`, `x gauge 1`, `x{zone="b"} gauge over`, `y{zone="b"} gauge over`)
	if got := one.asked[len(one.asked)-1].URL.String(); got != "/p?q=1" {
		t.Errorf("was asked for %s", got)
	}
	inList = `[{"targets":["` + a2 + `"]}]`
	f("the URL is not asked before its time", `up gauge 1`, `x gauge 1`)
	c.discovery.asked = c.discovery.asked.Add(-time.Hour)
	f("but then", `up gauge 1`, `up gauge 1`, `x gauge 1`, `y gauge 2`)
	inList = `[`
	c.discovery.asked = c.discovery.asked.Add(-time.Hour)
	f("and what it cannot read leaves things as they are", `up gauge 1`, `up gauge 1`, `x gauge 1`, `y gauge 2`)
	if n := len(list.asked); n != 3 {
		t.Errorf("the URL was asked %d times, want 3", n)
	}
}

// TestShards: each target is in exactly one share, shares are about equal, and with one more share about that share moves.
func TestShards(t *testing.T) {
	const targets, shards = 5000, 8
	var sizes [shards]int
	moved := 0
	for i := range targets {
		host := fmt.Sprintf("10.0.%d.%d:9100", i/250, i%250)
		before, after := owner(host, shards), owner(host, shards+1)
		sizes[before]++
		if before != after {
			if moved++; after != shards {
				t.Fatalf("%s moved from share %d to %d, not to the new one", host, before, after)
			}
		}
	}
	for i, n := range sizes {
		if n < targets/shards*8/10 || n > targets/shards*12/10 {
			t.Errorf("share %d has %d of %d targets", i, n, targets)
		}
	}
	if want := targets / (shards + 1); moved < want*8/10 || moved > want*12/10 {
		t.Errorf("%d of %d targets moved, want about %d", moved, targets, want)
	}
	if owner("node-1:9100", 5) != 1 { // agents of all versions must agree
		t.Errorf("node-1:9100 is in share %d", owner("node-1:9100", 5))
	}

	var addresses []string
	for i := range 40 {
		addresses = append(addresses, "127.0.0.1:"+strconv.Itoa(10000+i))
	}
	seen := make(map[string]int)
	for i := range 3 {
		c := open(t, fmt.Sprintf("{targets: [%s], shard: {of: 3, index: %d}}", strings.Join(addresses, ", "), i), creel.Host{})
		c.arrange()
		for _, tg := range c.order {
			seen[tg.url.Host]++
		}
	}
	for _, a := range addresses {
		if seen[a] != 1 {
			t.Errorf("%s is scraped by %d of 3 agents", a, seen[a])
		}
	}
}

// TestOptions that contradict each other are refused.
func TestOptions(t *testing.T) {
	for yaml, want := range map[string]string{
		"targets: ['http://a b']":                           "targets",
		"targets: ['a/b']":                                  "targets",
		"targets: ['http://u:p@a']":                         "basic",
		"file_discovery: ['[']":                             "file_discovery",
		"shard: {of: 2, index: 2}":                          "shard",
		"{bearer_token: a, basic: {username: b}}":           "basic",
		"tls: {insecure: true}":                             "scheme: http",
		"tls: {identity: true}":                             "cert_file",
		"headers: {'a b': c}":                               "headers",
		"http_discovery: {url: 'ftp://a'}":                  "http_discovery",
		"{http_discovery: {url: 'http://a', every: 100ms}}": "every",
	} {
		if err := tryOptions(yaml); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, want an error with %q", yaml, err, want)
		}
	}
}
