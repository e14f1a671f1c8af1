package consul

import (
	"fmt"
	"testing"
	"time"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/center/centertest"
)

func TestRegistry(t *testing.T) {
	centertest.TestRegistry(t, func(t *testing.T, ttl time.Duration) *centertest.World {
		c := centertest.NewConsul(t)
		c.Token = "s3cret"
		w := c.World()
		w.Center, w.Options = Center, fmt.Sprintf("{address: %q, token: s3cret}", c.URL())
		w.Change = func(made center.Registry) {
			r := made.(*registry)
			r.ttl, r.pace.Every = ttl, time.Millisecond
		}
		return w
	})
}
