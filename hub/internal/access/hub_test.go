package access

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/state"
)

const (
	hubA = "a0000000-0000-4000-8000-000000000000"
	hubB = "b0000000-0000-4000-8000-000000000000"
)

// TestForHub: another hub hears on whose behalf it is asked and with which bounds, for as long as that takes, and from nobody else.
func TestForHub(t *testing.T) {
	memory, c := new(state.Memory), newClock()
	named := func(id string) func(*Options) {
		return func(o *Options) { o.Hub = id }
	}
	a, b := open(t, memory.Open(), c, named(hubA)), open(t, memory.Open(), c, named(hubB), func(o *Options) { o.Root = "another" })
	nameless := open(t, memory.Open(), c)
	south, err := expr.ParseSelector(`site == "south" && (rack != "r1" || creel.role == "hub")`)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Principal{
		{Name: "root", Role: api.Admin, Token: a.rootID}, // whom b does not know
		{Name: "nora", Role: api.Viewer, Within: south, Token: "12345678", Ends: c.now().Add(time.Second)},
	} {
		shown, err := a.ForHub(p, hubB)
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.FromHub(shown)
		if err != nil || got.Name != p.Name || got.Role != p.Role || got.Within.String() != p.Within.String() || got.Hub != hubA || got.Token != "" {
			t.Errorf("%+v came as %+v, %v", p, got, err)
		}
		for what, x := range map[string]*Access{"itself": a, "a hub without an id": nameless} {
			if p, err := x.FromHub(shown); err == nil {
				t.Errorf("%s takes it for %+v", what, p)
			}
		}
		if _, err := b.Bearer(shown, nil); err == nil {
			t.Error("it is a bearer token")
		}
		if _, err := b.Session(shown); err == nil {
			t.Error("it is a cookie")
		}
	}
	for what, f := range map[string]func() (string, error){
		"itself":           func() (string, error) { return a.ForHub(Principal{Role: api.Viewer}, hubA) },
		"for an agent":     func() (string, error) { return a.ForHub(Principal{Role: api.Enrol, Agent: hubB}, hubB) },
		"for another hub":  func() (string, error) { return a.ForHub(Principal{Role: api.Viewer, Hub: hubB}, hubB) },
		"without an id":    func() (string, error) { return nameless.ForHub(Principal{Role: api.Viewer}, hubB) },
		"for an applicant": func() (string, error) { return a.ForHub(Principal{Role: api.Ingest}, hubB) },
	} {
		if text, err := f(); err == nil {
			t.Errorf("%s: %s", what, text)
		}
	}

	// What is forged, changed or too old is worth nothing.
	shown, err := a.ForHub(Principal{Name: "nora", Role: api.Viewer, Within: south}, hubB)
	if err != nil {
		t.Fatal(err)
	}
	signer := a.keys.current().signer(c.now())
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	header := object{"alg": "EdDSA", "typ": "JWT", "kid": signer.id}
	body := object{"iss": issuer, "sub": hubA, "aud": hubAudience + hubB, "role": "viewer", "nbf": c.now().Add(-time.Minute).Unix(), "exp": c.now().Add(time.Minute).Unix()}
	if p, err := b.FromHub(forge(t, header, body, with(signer.private))); err != nil || p.Hub != hubA {
		t.Fatalf("what is right is refused: %v", err)
	}
	for what, text := range map[string]string{
		"another key":           forge(t, header, body, with(other)),
		"no signature":          forge(t, header.with("alg", "none"), body, func(string) []byte { return nil }),
		"a condition of ours":   forge(t, header, body.with("within", "site =="), with(signer.private)),
		"an agent's role":       forge(t, header, body.with("role", "agent"), with(signer.private)),
		"no role":               forge(t, header, body.with("role", nil), with(signer.private)),
		"no id of a hub":        forge(t, header, body.with("sub", "12345678"), with(signer.private)),
		"this hub's own id":     forge(t, header, body.with("sub", hubB), with(signer.private)),
		"for a person":          forge(t, header, body.with("aud", bearerAudience), with(signer.private)),
		"for any hub":           forge(t, header, body.with("aud", hubAudience), with(signer.private)),
		"without an end":        forge(t, header, body.with("exp", nil), with(signer.private)),
		"cut":                   shown[:len(shown)-3],
		"much":                  strings.Repeat("x", maxText+1),
		"nothing":               "",
		"with something behind": shown + "x",
	} {
		if p, err := b.FromHub(text); err == nil {
			t.Errorf("%s: %+v", what, p)
		}
	}
	c.add(skew + hubLife - time.Second) // the other's clock may go before by a minute
	if _, err := b.FromHub(shown); err != nil {
		t.Errorf("after a minute and a half: %v", err)
	}
	c.add(2 * time.Second)
	if p, err := b.FromHub(shown); err == nil {
		t.Errorf("it is still good for %+v", p)
	}
}
