package etcd

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/center/centertest"
)

func TestRegistry(t *testing.T) {
	centertest.TestRegistry(t, func(t *testing.T, ttl time.Duration) *centertest.World {
		s := start(t, t.TempDir(), nil)
		var mute, muted atomic.Bool
		farewell := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if mute.Load() && strings.HasSuffix(method, "/LeaseRevoke") {
				muted.Store(true)
				return errors.New("it is not heard")
			}
			return call(ctx, method, req, reply, cc, opts...)
		}
		return &centertest.World{
			Center: Center, Options: s.options("services: /test"),
			Change: func(made center.Registry) {
				r := made.(*registry)
				r.ttl, r.dial = max(time.Second, ttl), []grpc.DialOption{grpc.WithChainUnaryInterceptor(farewell)}
			},
			Stop:   func() { s.stop() },
			Start:  func() { s = start(t, s.dir, s) },
			Forget: func() { s.delete("/test/", clientv3.WithPrefix()) },
			Mute: func() func() {
				mute.Store(true)
				return func() {
					if mute.Store(false); !muted.Load() {
						t.Error("nobody has said farewell")
					}
				}
			},
			Garbage: func() func() {
				s.put("/test/web/0", "<html>")
				s.put("/test/web/1", "{}")
				return func() {} // a watch sees them in order
			},
		}
	})
}

func TestRegistryOptions(t *testing.T) {
	if _, err := centertest.Options(Center, "{}"); err != nil {
		t.Errorf("nothing has to be said where etcd is on this machine: %v", err)
	}
	centertest.Refuses(t, Center, "{services: /}", "keys of services would be everywhere")
}
