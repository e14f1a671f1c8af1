package http

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/center/centertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watch watches a center until the test ends. change, if not nil, is given the source before.
func watch(t testing.TB, yaml string, change func(*source)) *centertest.Rig {
	t.Helper()
	return centertest.Watch(t, Center, yaml, func(s center.Source) {
		if change != nil {
			change(s.(*source))
		}
	})
}
