package full

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
)

// TestServices: the services that agents offer, as a table, and one that there is not.
func TestServices(t *testing.T) {
	c := newCounter(t)
	c.set("GET /directory?kind=service", api.Directory{Entries: []api.DirectoryEntry{
		{Kind: "service", Service: "otlp", ID: "id-1", Name: "edge-1", Address: "edge-1:4317", Weight: 2, Hub: "hub-1", Tags: []string{"a", "b"},
			Meta: map[string]string{"zone": "x", "rack": "7"}, Since: time.Now().Add(-5*time.Minute - time.Second)},
		{Kind: "service", Service: "syslog", ID: "id-2", Name: "edge-2", Address: "edge-2:514", Weight: 1, Hub: "hub-1", Since: time.Now().Add(-3*time.Hour - time.Second)},
	}})
	c.run(t, 0, `
SERVICE  ADDRESS      TAGS  META           WEIGHT  AGENT   ID    HUB    SINCE
otlp     edge-1:4317  a,b   rack=7,zone=x  2       edge-1  id-1  hub-1  5m
syslog   edge-2:514                        1       edge-2  id-2  hub-1  3h
`, "get", "services")
	c.run(t, 0, "edge-1:4317\nedge-2:514\n", "get", "services", "-o", "name")
	c.set("GET /directory?kind=service&service=web", api.Directory{})
	c.run(t, 0, "no agent offers such a service, as far as you may see\n", "get", "services", "web")
	c.set("GET /directory?kind=service", api.Directory{})
	c.run(t, 0, "no agent offers a service, as far as you may see: one does with agent: {services: {NAME: {address: HOST:PORT}}} in its configuration\n", "get", "services")
}

// TestWatchServices: who watches goes on at another hub when the first dies, passes over one that does not know the token, and ends
// when a hub says that they may not.
func TestWatchServices(t *testing.T) {
	say := func(w http.ResponseWriter, e api.DirectoryEvent) {
		text, err := json.Marshal(e)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Event, text)
		w.(http.Flusher).Flush()
	}
	refuse := func(w http.ResponseWriter, status int, code string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(api.Error{Code: code, Message: "not you"})
	}
	entry := func(name string) *api.DirectoryEntry {
		return &api.DirectoryEntry{Kind: "service", Service: "otlp", ID: name, Name: name, Address: name + ":4317"}
	}
	var strangers, seconds atomic.Int32
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		strangers.Add(1)
		refuse(w, http.StatusUnauthorized, "unauthorized")
	}))
	defer stranger.Close()
	second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seconds.Add(1) > 1 {
			refuse(w, http.StatusForbidden, "forbidden")
			return
		}
		if after := r.URL.Query().Get("after"); after != "x.1" || r.Header.Get("Authorization") != "Bearer x" {
			t.Errorf("it goes on after %q, with %q", after, r.Header.Get("Authorization"))
		}
		say(w, api.DirectoryEvent{Event: api.DirectoryDelete, ID: "x.2", Entry: entry("edge-1")})
	}))
	defer second.Close()
	var first *httptest.Server
	first = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		if strings.HasSuffix(r.URL.Path, "/cluster") {
			_ = json.NewEncoder(w).Encode(api.Cluster{Hub: "1", Hubs: []api.ClusterHub{{ID: "1", URL: first.URL}, {ID: "2", URL: stranger.URL}, {ID: "3"}, {ID: "4", URL: second.URL}}})
			return
		}
		say(w, api.DirectoryEvent{Event: api.DirectoryAll, ID: "x.1", Entries: []api.DirectoryEntry{*entry("edge-1")}})
		first.Listener.Close() // it dies
	}))
	defer first.Close()
	var out strings.Builder
	code := cli.Main(cli.Program{Name: "creel", More: Commands}, []string{"get", "services", "-w", "--hub", first.URL, "--token", "x"}, &out, &out)
	got := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d`).ReplaceAllString(out.String(), "TIME")
	want := "TIME + otlp edge-1:4317 edge-1 edge-1\nTIME - otlp edge-1:4317 edge-1 edge-1\ncreel: not you\n"
	if code != cli.ExitForbidden || got != want || strangers.Load() != 1 || seconds.Load() != 2 {
		t.Errorf("exit code %d, the other was asked %d times, a stranger %d times:\n%s", code, seconds.Load(), strangers.Load(), got)
	}

	out.Reset()
	if code := cli.Main(cli.Program{Name: "creel", More: Commands}, []string{"get", "services", "-w", "--hub", first.URL, "--token", "x"}, &out, &out); code != cli.ExitUnreachable {
		t.Errorf("without a hub: exit code %d: %s", code, out.String())
	}
}
