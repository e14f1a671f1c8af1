package hub_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/center/centertest"
	"github.com/creelhq/creel/center/consul"
	"github.com/creelhq/creel/center/file"
	"github.com/creelhq/creel/center/static"
	"github.com/creelhq/creel/hub"
)

// TestRegister: a hub is where agents look for it while it runs, by its own address or the one that it was given.
func TestRegister(t *testing.T) {
	c := centertest.NewConsul(t)
	look := &centertest.World{Center: consul.Center, Options: fmt.Sprintf("{address: %q, allow_empty: true}", c.URL())}
	l := look.Look(t, "creel-hub")
	l.Sees("")
	register := func(more string) hub.Registration {
		return hub.Registration{Centers: []center.Center{consul.Center}, File: "register.yaml", Text: fmt.Appendf(nil, "%s\ncenters: {consul: {address: %q}}", more, c.URL())}
	}
	t.Run("hub", func(t *testing.T) {
		w := startHub(t, hub.Options{Register: register("tags: [north]")})
		h, err := w.client.Hub(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.Sees(fmt.Sprintf("%s@%s #north url=%s", h.ID, strings.TrimPrefix(w.client.URL, "http://"), w.client.URL))
	})
	l.Sees("")
	t.Run("behind a name", func(t *testing.T) {
		w := startHub(t, hub.Options{Register: register("url: https://hub.example/a")})
		h, err := w.client.Hub(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.Sees(h.ID + "@hub.example:443 url=https://hub.example/a")
	})
	l.Sees("")
}

func TestRegisterIsChecked(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		o := hub.Options{Data: filepath.Join(t.TempDir(), "hub"), Register: hub.Registration{Centers: []center.Center{consul.Center, file.Center, static.Center}, File: "register.yaml", Text: []byte(text)}}
		if err := hub.Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q", text, err, want)
		}
	}
	f("", "centers")
	f("centers: {}", "must name a center")
	f("centers: {etcd: }", `there is no center "etcd"`)
	f("centers: {file/x: {path: /x}}", "register.yaml:1:11: centers.file/x: nobody can register with a center file")
	f(`centers: {static: {services: {a: ["b:1"]}}}`, "nobody can register with a center static")
	f("centers: {consul: {adress: x}}", `did you mean "address"?`)
	f("{url: 'unix:///x', centers: {consul: }}", "must have a host")
	f("{service: a b, centers: {consul: }}", "must consist of letters")
}
