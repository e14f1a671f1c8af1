package nacos

import (
	"fmt"
	"testing"
	"time"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/center/centertest"
)

func TestRegistry(t *testing.T) {
	centertest.TestRegistry(t, func(t *testing.T, ttl time.Duration) *centertest.World {
		n := centertest.NewNacos(t)
		n.Username, n.Password, n.Second = "u", "p", ttl/15
		w := n.World()
		w.Center, w.Options = Center, fmt.Sprintf("{address: %q, namespace: prod, username: u, password: p}", n.URL())
		w.Change = func(made center.Registry) {
			r := made.(*registry)
			r.beat, r.every = ttl/3, 10*time.Millisecond
		}
		return w
	})
}
