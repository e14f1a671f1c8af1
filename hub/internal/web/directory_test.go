package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/directory"
	"github.com/creelhq/creel/hub/internal/state"
)

// TestDirectory: who watches goes on at another hub where it was when its own has died; who sees only some agents hears of these, and
// no more when its token is deleted.
func TestDirectory(t *testing.T) {
	store := new(state.Memory).Open()
	put := func(key, text string) {
		t.Helper()
		if _, err := store.Put(t.Context(), key, []byte(text), true, state.Always()); err != nil {
			t.Fatal(err)
		}
	}
	put("hubs/h", `{"id":"h","name":"host","url":"http://h","started":"2026-01-02T03:04:05Z"}`)
	put("sessions/a", `{"hub":"h","name":"north","labels":{"host.name":"north"}}`)
	put("services/otlp/a", `{"hub":"h","name":"north","address":"north:4317","labels":{"host.name":"north"},"tags":["x"],"weight":2}`)
	var houses []*house
	for range 2 {
		d, err := directory.Open(t.Context(), directory.Options{Store: store, Batch: 5 * time.Millisecond, Still: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		houses = append(houses, newHouse(t, func(o *Options) { o.Directory = d }))
	}
	t.Cleanup(func() { store.Close() })
	first, second := houses[0], houses[1]
	heard, ended := make(chan string, 100), make(chan error, 1)
	watch := func(c *api.Client, q api.DirectoryQuery) (stop func() error) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			ended <- c.WatchDirectory(ctx, q, "", func(e api.DirectoryEvent) error {
				text := e.Event
				for _, x := range e.Entries {
					text += " " + x.Kind + "/" + x.ID
				}
				if e.Entry != nil {
					text += " " + e.Entry.Kind + "/" + e.Entry.ID + " " + e.Entry.Name
				}
				heard <- text
				return nil
			})
		}()
		return func() error { cancel(); return <-ended }
	}
	hears := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Fatalf("it hears %q, not %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("it does not hear %q", want)
		}
	}
	c := &api.Client{URL: first.server.URL, Token: testToken, Others: []string{second.server.URL}}
	if l, err := c.Directory(t.Context(), api.DirectoryQuery{Service: "otlp"}); err != nil || len(l.Entries) != 1 || l.Entries[0].Address != "north:4317" || l.Entries[0].Weight != 2 || l.Revision == 0 {
		t.Errorf("%+v, %v", l, err)
	}
	stop := watch(c, api.DirectoryQuery{})
	hears("all agent/a hub/h service/a")
	put("sessions/b", `{"hub":"h","name":"south"}`)
	hears("put agent/b south")
	first.server.CloseClientConnections() // and no more: it is the same hub that is asked, then the other
	put("sessions/c", `{"hub":"h","name":"east"}`)
	hears("put agent/c east")
	go first.server.Config.Close()
	first.server.CloseClientConnections()
	if err := store.Delete(t.Context(), "sessions/b", state.Always()); err != nil {
		t.Fatal(err)
	}
	hears("delete agent/b south")
	put("sessions/b", `{"hub":"h","name":"west"}`)
	hears("put agent/b west")
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	nora := second.token(t, api.AccessTokenRequest{Name: "nora", Role: api.Viewer, Within: `host.name == "north"`})
	watch(&api.Client{URL: second.server.URL, Token: nora.Text}, api.DirectoryQuery{})
	hears("all agent/a service/a")
	put("sessions/b", `{"hub":"h","name":"south"}`)
	put("sessions/c", `{"hub":"h","name":"c","labels":{"host.name":"north"}}`)
	hears("put agent/c c")
	put("sessions/c", `{"hub":"h","name":"c","labels":{"host.name":"south"}}`)
	hears("delete agent/c c")
	if err := (&api.Client{URL: second.server.URL, Token: testToken}).DeleteToken(t.Context(), nora.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Code != "unauthorized" {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on though the token was deleted")
	}
}

// TestDirectoryStream: what is on the wire is as the documentation shows it.
func TestDirectoryStream(t *testing.T) {
	h := newHouse(t, nil)
	put := func(name string) {
		t.Helper()
		if _, err := h.state.Put(t.Context(), "sessions/"+name, []byte(`{"hub":"h"}`), true, state.Always()); err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	read := func(last string, n int) (events []string, id string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.server.URL+api.Prefix+"/directory/watch?kind=agent&after=nonsense", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testToken)
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" {
			t.Fatal(resp.Status, kind)
		}
		lines := bufio.NewScanner(resp.Body)
		for len(events) < n && lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				id = rest
			}
			if rest, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				events = append(events, rest)
			}
		}
		return events, id
	}
	events, id := read("", 1)
	if fmt.Sprint(events) != "[all]" || id == "" {
		t.Fatalf("%v, id %q", events, id)
	}
	if events, at := read(id, 1); fmt.Sprint(events) != "[at]" || at != id {
		t.Errorf("%v, id %q after %q", events, at, id)
	}
	put("b")
	put("c")
	if events, _ := read(id, 2); fmt.Sprint(events) != "[put put]" {
		t.Errorf("%v", events)
	}
}
