package static

import (
	"testing"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/center/centertest"
)

func TestList(t *testing.T) {
	w := &centertest.World{Center: Center, Options: `{services: {web: ["b.example:80", "a.example:80"], none: []}}`}
	w.Look(t, "web").Sees("001@b.example:80 002@a.example:80")
	w.Look(t, "none").Sees("")
	w.Look(t, "unknown").Sees("")
	rig, _ := w.Offer(t, center.Instance{Service: "web", ID: "a", Address: "a:80"})
	rig.Troubled("nobody can register with a center static")
}

func TestOptions(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		centertest.Refuses(t, Center, yaml, want)
	}
	f("{}", "services")
	f("{services: {web: [a]}}", "must be host:port")
	f("{services: {web: [':80']}}", "must have a host")
	f("{services: {'a b': ['a:80']}}", "must consist of letters")
	f("{services: {web: ['a:80']}}", "holds no configuration")
}
