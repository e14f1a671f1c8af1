package hub

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/creelhq/creel/api"
)

// somewhere is a listener that has an address and nothing else.
type somewhere struct {
	net.Listener
	address string
}

func (s somewhere) Addr() net.Addr { a, _ := net.ResolveTCPAddr("tcp", s.address); return a }

// TestInviteHub: what is printed for a hub that is to join is all that has to be run, where this one's addresses are reached.
func TestInviteHub(t *testing.T) {
	var token api.AccessTokenCreated
	f := func(listen, etcd, want string) {
		t.Helper()
		h := &hub{Options: Options{Address: listen, OpAMP: "none", Data: t.TempDir(), EtcdListen: etcd}, listeners: []net.Listener{somewhere{address: listen}}, secure: &tls.Config{}}
		c := sharing{Version: 1}
		if etcd != "" {
			if err := h.meet(&c); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.saveCluster(c); err != nil {
			t.Fatal(err)
		}
		if got := h.inviteHub(token); got != want {
			t.Errorf("at %s, etcd at %q:\n%s\nnot\n%s", listen, etcd, got, want)
		}
	}
	token.ID, token.Text = "abc", "TOKEN"
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	etcd := taken.Addr().String() // this hub itself has it
	free, err := bind(etcd, true)
	if err != nil {
		t.Fatal(err)
	}
	next := free.Addr().String()
	free.Close()
	f("192.0.2.1:4380", "192.0.2.1", "creel hub --listen 0.0.0.0 --join https://192.0.2.1:4380 --token TOKEN")
	f("[2001:db8::1]:4380", "2001:db8::1", "creel hub --listen [::] --join https://[2001:db8::1]:4380 --token TOKEN")
	f("192.0.2.1:4380", "", "creel hub --listen 0.0.0.0 --join https://192.0.2.1:4380 --token TOKEN")
	f("127.0.0.1:4380", "", "creel up --data creel-abc --join https://127.0.0.1:4380 --token TOKEN")
	f("127.0.0.1:4380", etcd, "creel up --data creel-abc --etcd-listen "+next+" --join https://127.0.0.1:4380 --token TOKEN")
	f("192.0.2.1:4380", etcd, "creel up --data creel-abc --etcd-listen "+next+" --join https://192.0.2.1:4380 --token TOKEN")
}
