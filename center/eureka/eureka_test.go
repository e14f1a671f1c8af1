package eureka

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/center/centertest"
)

// often makes a Registry that is not patient.
func often(ttl time.Duration) func(center.Registry) {
	return func(made center.Registry) {
		r := made.(*registry)
		r.renew, r.every = ttl/3, 10*time.Millisecond
	}
}

func TestRegistry(t *testing.T) {
	centertest.TestRegistry(t, func(t *testing.T, ttl time.Duration) *centertest.World {
		e := centertest.NewEureka(t)
		e.Username, e.Password, e.Second, e.NoList = "u", "p", ttl/90, ttl < time.Second
		w := e.World()
		w.Center, w.Options, w.Change = Center, fmt.Sprintf("{addresses: [%q], username: u, password: p}", e.URL()+"/eureka"), often(ttl)
		return w
	})
}

// TestFailover: of two servers one is away, or ill.
func TestFailover(t *testing.T) {
	bad, good := centertest.NewEureka(t), centertest.NewEureka(t)
	w := good.World()
	w.Center, w.Options, w.Change = Center, fmt.Sprintf("{addresses: [%q, %q]}", bad.URL()+"/eureka", good.URL()+"/eureka"), often(time.Hour)
	bad.Stop()
	rig, _ := w.Offer(t, center.Instance{Service: "web", ID: "a", Address: "10.0.0.1:80"})
	l := w.Look(t, "web")
	l.Sees("a@10.0.0.1:80")
	select {
	case err := <-rig.Health:
		t.Errorf("that one of two is away is trouble: %v", err)
	default:
	}
	good.Stop()
	l.Troubled("connection refused\nGET http://") // both are told of
}

// TestOthers: what others have registered, as they write it; and a path that is wrong is not taken for a service that is not there.
func TestOthers(t *testing.T) {
	e := centertest.NewEureka(t)
	e.Put("WEB", `{"instanceId":"down","hostName":"a","status":"OUT_OF_SERVICE","port":{"$":1,"@enabled":"true"}}`)
	e.Put("WEB", `{"instanceId":"host:web:80","hostName":"b","ipAddr":"10.0.0.2","status":"UP","port":{"$":"80","@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},"metadata":{"@class":"java.util.Collections$EmptyMap"}}`)
	e.Put("WEB", `{"instanceId":"none","hostName":"c","status":"UP","port":{"$":"x"}}`)
	e.Put("WEB", `{"instanceId":"secure","ipAddr":"10.0.0.4","status":"UP","port":{"$":80,"@enabled":"false"},"securePort":{"$":443,"@enabled":"true"},"metadata":{"zone":"1"}}`)
	w := e.World()
	w.Center, w.Options, w.Change = Center, fmt.Sprintf("{addresses: %q}", e.URL()+"/eureka"), often(time.Hour)
	w.Look(t, "web").Sees("host:web:80@b:80 secure@10.0.0.4:443 zone=1")
	w.Options = fmt.Sprintf("{addresses: %q}", e.URL())
	w.Look(t, "web").Troubled("is the path in addresses right")
	other := centertest.NewEureka(t) // whom nobody else asks
	other.Fail(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"application":{"name":"OTHER","instance":[]}}`)
	})
	w.Options = fmt.Sprintf("{addresses: %q}", other.URL()+"/eureka")
	w.Look(t, "web").Troubled("it is not of this application")
}

func TestOptions(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		centertest.Refuses(t, Center, yaml, want)
	}
	f("{}", "holds no configuration")
	f("{addresses: []}", "give at least one")
	f("{addresses: ['eureka:8761']}", "must begin with http://")
	f("{username: u}", "go together")
}
