package access

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/state"
)

// object is the header or the claims of a JWT that is made by hand.
type object map[string]any

func (o object) with(name string, v any) object {
	c := object{}
	for k, old := range o {
		c[k] = old
	}
	if c[name] = v; v == nil {
		delete(c, name)
	}
	return c
}

func segment(t testing.TB, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// forge makes a JWT with a key, without the library.
func forge(t testing.TB, header, claims object, sign func(text string) []byte) string {
	text := segment(t, header) + "." + segment(t, claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(sign(text))
}

func with(k ed25519.PrivateKey) func(string) []byte {
	return func(text string) []byte { return ed25519.Sign(k, []byte(text)) }
}

// parts reads a JWT.
func partsOf(t testing.TB, text string) (header, claims object, signature []byte) {
	t.Helper()
	three := strings.Split(text, ".")
	if len(three) != 3 {
		t.Fatal("a JWT has three parts")
	}
	for i, to := range []*object{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(three[i])
		if err == nil {
			err = json.Unmarshal(b, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(three[2])
	if err != nil {
		t.Fatal(err)
	}
	return header, claims, signature
}

// TestTricks shows JWTs that are not quite ours.
func TestTricks(t *testing.T) {
	c := newClock()
	a := open(t, new(state.Memory).Open(), c)
	made := create(t, a, api.AccessTokenRequest{Role: api.Operator})
	p := bearer(t, a, made.Text)
	good, err := a.JWT(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	cookie, life, err := a.NewSession(p)
	if err != nil || life != sessionLife {
		t.Fatal(life, err)
	}
	signer := a.keys.current().signer(c.now())
	sign := with(signer.private)
	header, claims, _ := partsOf(t, good.Token)
	_, other, _ := partsOf(t, cookie)
	if len(fmt.Sprint(other["jti"])) < 20 || other["jti"] == nil {
		t.Errorf("the cookie has no jti: %v", other)
	}
	now := c.now().Unix()
	ours := forge(t, header, claims, sign)
	if got, err := a.Bearer(ours, nil); err != nil || got.Token != made.ID || got.Role != api.Operator || got.Ends.Unix() != now+600 {
		t.Fatalf("what is forged right: %+v, %v", got, err)
	}
	n := 0
	f := func(name, text, want string) {
		t.Helper()
		n++
		for range 2 { // nothing of it is remembered
			got, err := a.Bearer(text, nil)
			if code(err) != "unauthorized" || !strings.Contains(err.Error(), want) || got.Role != "" || quotes(err.Error(), text) {
				t.Errorf("%s: %+v, %v, not %q", name, got, err, want)
			}
		}
	}
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	strangers := newKey("", keyRecord{Seed: stranger.Seed()}, 1)
	hs256 := func(text string) []byte {
		mac := hmac.New(sha256.New, signer.public)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	none := func(string) []byte { return nil }
	const neither, nokey, lacks = "neither a token nor a JWT", "no key of this hub", "lacks what this hub"
	f("alg none", forge(t, header.with("alg", "none"), claims, none), neither)
	f("alg None", forge(t, header.with("alg", "None"), claims, none), neither)
	f("no alg", forge(t, header.with("alg", nil), claims, sign), neither)
	f("HS256 with the public key", forge(t, header.with("alg", "HS256"), claims, hs256), neither)
	f("ES256", forge(t, header.with("alg", "ES256"), claims, sign), neither)
	f("no signature", forge(t, header, claims, none), neither)
	f("two parts", ours[:strings.LastIndex(ours, ".")], neither)
	f("four parts", ours+".x", neither)
	f("padded", ours+"==", neither)
	f("another signature", ours[:len(ours)-10]+strings.Repeat("A", 10), neither)
	f("other claims", segment(t, header)+"."+segment(t, claims.with("role", "admin"))+ours[strings.LastIndex(ours, "."):], neither)
	f("no kid", forge(t, header.with("kid", nil), claims, sign), nokey)
	f("a kid that is a number", forge(t, header.with("kid", 7), claims, sign), nokey)
	f("a kid that is a path", forge(t, header.with("kid", "../../dev/null"), claims, sign), nokey)
	f("a key that is not published", forge(t, header.with("kid", strangers.id), claims, with(stranger)), nokey)
	f("a key of its own", forge(t, header.with("kid", strangers.id).with("jwk", object{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(strangers.public)}), claims, with(stranger)), nokey)
	f("a stranger with our kid", forge(t, header, claims, with(stranger)), neither)
	f("the other key's kid", forge(t, header.with("kid", a.keys.current()[1].id), claims, sign), neither)
	f("no exp", forge(t, header, claims.with("exp", nil), sign), lacks)
	f("exp 0", forge(t, header, claims.with("exp", 0), sign), "ended")
	f("exp that is a text", forge(t, header, claims.with("exp", "never"), sign), neither)
	f("exp now", forge(t, header, claims.with("exp", now), sign), "has ended")
	f("nbf", forge(t, header, claims.with("nbf", now+2), sign), "not yet valid")
	f("no nbf", forge(t, header, claims.with("nbf", nil), sign), lacks)
	f("another audience", forge(t, header, claims.with("aud", "grafana"), sign), "something else")
	f("no audience", forge(t, header, claims.with("aud", nil), sign), lacks)
	f("a session", cookie, "something else")
	f("another issuer", forge(t, header, claims.with("iss", "somebody"), sign), lacks)
	f("another role than the token's", forge(t, header, claims.with("role", "admin"), sign), "deleted")
	f("no token", forge(t, header, claims.with("token", nil), sign), "deleted")
	f("another hub's root", forge(t, header, claims.with("token", "root-0011223344556677").with("role", "admin"), sign), "another hub's root token")
	f("an agent that is not bound", forge(t, header, claims.with("role", "agent").with("sub", agentID).with("token", nil), sign), "no agent's")
	f("an agent that is none", forge(t, header, claims.with("role", "agent").with("token", nil).with("cnf", object{"x5t#S256": strings.Repeat("A", 43)}), sign), "no agent's")
	f("bound to no certificate", forge(t, header, claims.with("cnf", object{"x5t#S256": "AAAA"}), sign), "no certificate")
	f("too long", ours+strings.Repeat("A", maxText), "longer")
	f("too long a header", strings.Repeat("A", maxText+1-len(ours))+ours, "longer")
	f("deep JSON", base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("[", 2000)))+"."+segment(t, claims)+".AAAA", neither)
	if got := a.counts[refused].Load(); got != uint64(2*n) {
		t.Errorf("%d refusals are counted, of %d", got, 2*n)
	}

	sessions := func(name, text, want string) {
		t.Helper()
		if _, err := a.Session(text); code(err) != "unauthorized" || !strings.Contains(err.Error(), want) || text != "" && quotes(err.Error(), text) {
			t.Errorf("%s as a cookie: %v, not %q", name, err, want)
		}
	}
	for range 2 { // from the cache as well
		sessions("a bearer JWT", good.Token, "something else")
		f("a session", cookie, "something else")
		if got, err := a.Session(cookie); err != nil || got.Token != made.ID {
			t.Errorf("a cookie: %+v, %v", got, err)
		}
		bearer(t, a, good.Token)
	}
	sessions("a token", made.Text, "neither")
	sessions("the root token", rootToken, "neither")
	sessions("nothing", "", "nothing was shown")
	sessions("an agent", forge(t, header, claims.with("role", "agent").with("sub", agentID).with("token", nil).with("aud", sessionAudience).with("cnf", object{"x5t#S256": strings.Repeat("A", 43)}), sign), "no agent's")

	c.add(bearerLife)
	f("after ten minutes, from the cache", good.Token, "has ended")
	c.add(sessionLife)
	sessions("after half a day", cookie, "ended")
}

// TestBound shows a JWT on connections that it is not for.
func TestBound(t *testing.T) {
	a := open(t, new(state.Memory).Open(), newClock())
	mine, others := certificate(t), certificate(t)
	jwt, err := a.JWT(Principal{Role: api.Enrol, Agent: agentID}, mine)
	if err != nil {
		t.Fatal(err)
	}
	_, claims, _ := partsOf(t, jwt.Token)
	sum := sha256.Sum256(mine.Raw)
	if cnf, _ := claims["cnf"].(map[string]any); cnf["x5t#S256"] != base64.RawURLEncoding.EncodeToString(sum[:]) || claims["sub"] != agentID || claims["role"] != "agent" {
		t.Errorf("claims are %v", claims)
	}
	for range 2 {
		if _, err := a.Bearer(jwt.Token, nil); code(err) != "unauthorized" || !strings.Contains(err.Error(), "does not show") {
			t.Errorf("without TLS: %v", err)
		}
		if _, err := a.Bearer(jwt.Token, showing(others)); code(err) != "unauthorized" || !strings.Contains(err.Error(), "another certificate") {
			t.Errorf("another certificate: %v", err)
		}
		if p, err := a.Bearer(jwt.Token, showing(mine)); err != nil || p.Agent != agentID {
			t.Errorf("its certificate: %+v, %v", p, err)
		}
	}
	for _, p := range []Principal{{Role: api.Enrol, Agent: agentID}, {Role: api.Admin, Agent: agentID}, {Role: api.Enrol, Token: "aaaaaaaa"}, {Role: api.Admin}} {
		if _, err := a.JWT(p, nil); code(err) != "forbidden" {
			t.Errorf("%+v gets a JWT: %v", p, err)
		}
	}
	if _, _, err := a.NewSession(Principal{Role: api.Ingest, Token: "aaaaaaaa"}); code(err) != "forbidden" {
		t.Errorf("an application signs in: %v", err)
	}
}

// TestNothingOutlivesWhatItWasChangedFor changes a JWT for JWTs, for ever.
func TestNothingOutlivesWhatItWasChangedFor(t *testing.T) {
	c := newClock()
	a := open(t, new(state.Memory).Open(), c)
	begun, text := c.now(), rootToken
	for {
		p, err := a.Bearer(text, nil)
		if err != nil {
			break
		}
		jwt, err := a.JWT(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		if text = jwt.Token; jwt.Lifetime > bearerLife {
			t.Fatal(jwt.Lifetime)
		}
		c.add(time.Minute)
	}
	if d := c.now().Sub(begun); d != bearerLife {
		t.Errorf("it has lived %v", d)
	}
	cookie, life, err := a.NewSession(bearer(t, a, rootToken))
	if err != nil || life != sessionLife {
		t.Fatal(life, err)
	}
	other := open(t, a.o.Store, c, func(o *Options) { o.Root = "a new root token" })
	if _, err := other.Session(cookie); code(err) != "unauthorized" {
		t.Errorf("a session of a root token that was changed: %v", err)
	}
	if p, err := a.Session(cookie); err != nil || p.Name != "root" || p.Role != api.Admin {
		t.Errorf("root's session: %+v, %v", p, err)
	}
}

// FuzzBearer shows anything: whoever is not known is nobody, and no message quotes what was shown.
func FuzzBearer(f *testing.F) {
	fuzz(f, func(a *Access, text string) (Principal, error) { return a.Bearer(text, nil) })
}

// FuzzSession is FuzzBearer for cookies.
func FuzzSession(f *testing.F) {
	fuzz(f, func(a *Access, text string) (Principal, error) { return a.Session(text) })
}

func fuzz(f *testing.F, show func(*Access, string) (Principal, error)) {
	a := open(f, new(state.Memory).Open(), newClock())
	made := create(f, a, api.AccessTokenRequest{Role: api.Admin})
	p := bearer(f, a, made.Text)
	jwt, err1 := a.JWT(p, nil)
	cookie, _, err2 := a.NewSession(p)
	if err1 != nil || err2 != nil {
		f.Fatal(err1, err2)
	}
	known := map[string]bool{made.Text: true, jwt.Token: true, cookie: true, rootToken: true}
	for text := range known {
		f.Add(text)
		f.Add(text[:len(text)-1])
		f.Add(strings.Replace(text, ".", ".e30.", 1))
	}
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("creel_aaaaaaaa_")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := show(a, text)
		if err == nil && !known[strings.TrimSpace(text)] { // of a token's text, blanks around it do not count
			t.Errorf("%q is %+v", text, p)
		}
		if err != nil && (code(err) != "unauthorized" || p.Role != "" || strings.Contains(text, "_") && quotes(err.Error(), text) && !quotes(phrases, text)) {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	})
}

// phrases is what messages say anyway.
const phrases = howToSignIn
