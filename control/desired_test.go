package control

import (
	"reflect"
	"strings"
	"testing"
	"time"

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

// TestTenureGoesOverOpAMP: terms come as they were, and are part of what an offer is; without any it is named as ever.
func TestTenureGoesOverOpAMP(t *testing.T) {
	offer := func(terms Tenure) *Offer {
		return &Offer{Documents: []OfferedDocument{{Name: "a", Version: "1", Text: "t", Tenure: terms}}}
	}
	seen := make(map[string]Tenure)
	for _, terms := range []Tenure{
		{}, {Epoch: 1, Orphan: Forever}, {Epoch: 1}, {Epoch: 1, Exclusive: true}, {Epoch: 2, Exclusive: true}, {Epoch: 1, Exclusive: true, Orphan: Forever},
		{Epoch: 1, Orphan: 30 * time.Second}, {Epoch: 1 << 62, Exclusive: true, Orphan: 90 * time.Minute},
		{Epoch: 1, Orphan: Forever, Once: true}, {Epoch: 1, Orphan: Forever, Run: 2}, {Epoch: 1, Orphan: Forever, Cancel: 2}, {Epoch: 1, Once: true, Run: 3, Cancel: 4},
	} {
		o := offer(terms)
		m := o.Message()
		got := OfferOf(m)
		if !reflect.DeepEqual(got.Documents, o.Documents) || got.Hash() != o.Hash() {
			t.Errorf("%+v comes as %+v by %q", o.Documents, got.Documents, m.Config.ConfigMap["a@1"].ContentType)
		}
		if again := (&Offer{Documents: got.Documents}).Hash(); again != o.Hash() {
			t.Errorf("what was kept of %+v is called %s, not %s", terms, again, o.Hash())
		}
		if same, is := seen[o.Hash()]; is {
			t.Errorf("%+v has the hash of %+v", terms, same)
		}
		seen[o.Hash()] = terms
	}
	if h := offer(Tenure{}).Hash(); h != "2ea415768e4266b786f3ccefa4d62f93" {
		t.Errorf("without terms the hash is %s: all agents would be offered again what they have", h)
	}
	for text, want := range map[string]Tenure{
		"": {}, "text/yaml": {}, "application/json; charset=utf-8": {}, "; ;;": {}, "text/yaml; epoch=seven": {}, "text/yaml; epoch=-7": {}, "text/yaml; epoch=0; overlap=never": {},
		"text/yaml; epoch=1; epoch=2": {}, "text/yaml;EPOCH=7": {Epoch: 7, Orphan: Forever}, "text/plain; charset=utf-8; epoch=7; orphan=soon": {Epoch: 7},
		"text/yaml; epoch=7; orphan=-5s": {Epoch: 7, Orphan: Forever},
	} {
		got := OfferOf(&protobufs.AgentRemoteConfig{Config: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"a": {ContentType: text}}}}).Documents[0].Tenure
		if got != want {
			t.Errorf("%q is read as %+v, want %+v", text, got, want)
		}
	}
}
