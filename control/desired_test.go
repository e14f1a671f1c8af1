package control

import (
	"reflect"
	"strings"
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"
)

func TestOfferGoesOverOpAMP(t *testing.T) {
	o := &Offer{Documents: []OfferedDocument{{Name: "a", Version: "12", Text: "document: a"}, {Name: "b-c.d", Version: "3", Text: ""}, {Name: "web", Version: "1", Text: "document: web"}}}
	got := OfferOf(o.Message())
	if !reflect.DeepEqual(got.Documents, o.Documents) || got.Hash() != o.Hash() {
		t.Errorf("what comes is %+v, hash %s, want %+v, %s", got, got.Hash(), o, o.Hash())
	}
	other := &Offer{Documents: []OfferedDocument{{Name: "a", Version: "12", Text: "document: a"}, {Name: "b-c.d", Version: "4", Text: ""}, {Name: "web", Version: "1", Text: "document: web"}}}
	if other.Hash() == o.Hash() {
		t.Error("another version has the same hash")
	}
	if empty := OfferOf((&Offer{}).Message()); len(empty.Documents) != 0 || empty.Hash() != (&Offer{}).Hash() {
		t.Errorf("an empty offer comes as %+v", empty)
	}
}

// TestForeignHash: another server's hash may be any bytes, and must go back as it came.
func TestForeignHash(t *testing.T) {
	for _, hash := range []string{"", "text", "\xff\x00\x80", "0xzz", "0x12"} {
		o := OfferOf(&protobufs.AgentRemoteConfig{ConfigHash: []byte(hash), Config: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: []byte("x")}}}})
		if hash == "" {
			if o.Hash() == "" {
				t.Error("an offer without a hash has none")
			}
			continue
		}
		s := RemoteStatus{Hash: o.Hash(), Status: Failed, Error: "why"}
		if strings.ToValidUTF8(s.Hash, "?") != s.Hash {
			t.Errorf("%q becomes %q, which is no text", hash, s.Hash)
		}
		m := s.message()
		if string(m.LastRemoteConfigHash) != hash {
			t.Errorf("%q goes back as %q", hash, m.LastRemoteConfigHash)
		}
		if back := RemoteStatusOf(m); back != s {
			t.Errorf("%+v comes as %+v", s, back)
		}
	}
	if s := RemoteStatusOf(nil); s != (RemoteStatus{}) {
		t.Errorf("no status is %+v", s)
	}
}
