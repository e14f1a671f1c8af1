package redact

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/plugin/plugintest"
)

const everything = "detect: [cards, mails, tokens, private_keys, passwords, ips]\npatterns: [{name: order, pattern: 'ORD-[0-9]+'}]\nkeys: [password, '*secret*']\n"

func TestConformance(t *testing.T) {
	plugintest.Run(t, Plugin, plugintest.Options{})
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{detect: [], patterns: [{name: some, pattern: 'some|GET|line'}], keys: ['n*']}"})
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{patterns: [{name: some, pattern: 'some|GET|line'}], keys: [n], replace: remove}"})
}

// open returns the processor with options in YAML.
func open(t testing.TB, yaml string, h creel.Host) *redactor {
	t.Helper()
	p, err := tryOpen(yaml, h)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryOpen(yaml string, h creel.Host) (*redactor, error) {
	n, err := config.Parse("test.yaml", []byte(yaml), config.Env{})
	if err != nil {
		return nil, err
	}
	canonical, errs := Plugin.Config.Check(n)
	if len(errs) > 0 {
		return nil, errs
	}
	p, err := Plugin.Open(canonical, h)
	if err != nil {
		return nil, err
	}
	return p.(*redactor), nil
}

func TestFinds(t *testing.T) {
	r := open(t, everything, creel.Host{})
	f := func(in, want string) {
		t.Helper()
		got := in
		if !r.clean(in) {
			got = r.rewrite(in)
		}
		if got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
		if !r.clean(got) {
			t.Errorf("something is left in %q: %q", got, r.rewrite(got))
		}
	}
	same := func(in string) { t.Helper(); f(in, in) }

	// cards
	f("4111111111111111", "[card]")
	f("4111-1111-1111-1111", "[card]")
	f("pay 4111 1111 1111 1111.", "pay [card].")
	f("amex 3782 822463 10005!", "amex [card]!")
	f("5555555555554444,2223003122003222", "[card],[card]")
	f("old visa 4222222222222", "old visa [card]")
	f("19 digits 6304000000000000000", "19 digits [card]")
	f("2026 4111111111111111", "2026 [card]")
	f("123 4111 1111 1111 1111", "123 [card]")
	f("pan4111111111111111x", "pan[card]x")
	f("4111 1111 1111 1111 17", "[card] 17")
	same("4111111111111112")
	same("0.4111111111111111")
	same("4111111111111111.5")
	same("1764110439123456789")
	same("41111111111111111111111")
	same("ab4111111111111111cd")
	same("4111 1111-1111 1111")
	same("2026-11-24 12:00:00.000 INFO started")
	// mails
	f("ann@example.com", "[mail]")
	f("<ann.b+c@mail.example.co.uk>,", "<[mail]>,")
	f("to:ann@example.com.", "to:[mail].")
	f("a@b.co@c.de", "[mail]@c.de")
	f("mail a@b.io-x", "mail [mail]-x")
	same("user@host")
	same("@types/node foo@1.2 x@.com a@b.c")
	// tokens
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	f("token "+jwt, "token [token]")
	f("x="+jwt+".", "x=[token].")
	f("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0", "[token]")
	same("eyJhbGciOiJIUzI1NiJ9")
	same("the value of heyJude.is.fine")
	f("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [token]")
	f("authorization: bearer "+jwt, "authorization: bearer [token]")
	f("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [token]")
	same("the bearer certificate is basic information")
	f("AKIAIOSFODNN7EXAMPLE", "[token]")
	same("XAKIAIOSFODNN7EXAMPLE AKIAIOSFODNN7EXAMPLEX AKIAIOSFODNN7")
	f("ghp_0123456789abcdefghijABCDEFGHIJ012345", "[token]")
	f("github_pat_11ABCDEFG0123456789_abcdefghij", "[token]")
	f("glpat-0123456789abcdefghij xoxb-123456789012-abc", "[token] [token]")
	f("sk_live_0123456789abcdef", "[token]")
	f("key AIzaSyA0123456789abcdefghijklmnopqrstuv", "key [token]")
	f("postgres://app:s3cr3t@db:5432/x", "postgres://app:[token]@db:5432/x")
	f("https://u:p@ss@host.example/a@b.example", "https://u:[token]@host.example/[mail]")
	same("http://host:80/path?at=12:30")
	// private keys
	f("key:\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nend", "key:\n[private_key]\nend")
	f("-----BEGIN PRIVATE KEY-----\nMIIE", "[private_key]")
	same("-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----")
	same("----------------------------")
	// passwords
	f("password=hunter2&x=1", "password=[password]&x=1")
	f(`{"db_password":"hun\"ter2","x":1}`, `{"db_password":"[password]","x":1}`)
	f(`{\"password\":\"hunter2\",\"x\":1}`, `{\"password\":\"[password]\",\"x\":1}`)
	f("api-key: abc, token=def", "api-key: [password], token=[password]")
	same(`{"password":null,"tokens":17} password= password: "" passwords: ["a"]`)
	// addresses
	f("from 192.168.1.10:443", "from [ip]:443")
	f("from [2001:db8::1]:443", "from [[ip]]:443")
	f("addr 2001:db8:0:0:0:0:0:1.", "addr [ip].")
	f("::1", "[ip]")
	same("12:30:45 v1.2.3.4 std::vector 256.1.1.1 1.2.3.4.5 aa:bb:cc:dd:ee:ff cafe::babe")
	// patterns, and what was replaced before
	f("ORD-17 and ORD-18", "[order] and [order]")
	same("[order] [card:0123456789abcdef] password=[password]")
	f("[card]4111111111111111[nothing]", "[card][card][nothing]")
	// other text stays as it is
	f("käse ann@example.com 日本語\xff", "käse [mail] 日本語\xff")
}

func TestHash(t *testing.T) {
	r := open(t, "{replace: hash, salt: pepper, keys: [password]}", creel.Host{})
	a, b, c := r.rewrite("4111-1111-1111-1111"), r.rewrite("x 4111111111111111"), r.rewrite("5555555555554444")
	if !regexp.MustCompile(`^\[card:[0-9a-f]{16}\]$`).MatchString(a) || b != "x "+a || c == a {
		t.Errorf("hashes are %q, %q, %q", a, b, c)
	}
	other := open(t, "{replace: hash, salt: salt}", creel.Host{})
	if got := other.rewrite("4111-1111-1111-1111"); got == a {
		t.Errorf("the salt does not matter: %q", got)
	}
	v, _ := r.entry("password", creel.Int(1), &creel.Records{})
	if again, changed := r.entry("password", v, &creel.Records{}); changed {
		t.Errorf("%q was hashed again: %q", v, again)
	}
}

// TestRemove: what is left when something has been removed may itself be something to remove.
func TestRemove(t *testing.T) {
	r := open(t, everything+"replace: remove\n", creel.Host{})
	f := func(in, want string) {
		t.Helper()
		if got := r.rewrite(in); got != want || !r.clean(got) {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
	}
	f("ann@example.com paid", " paid")
	f("password=x y", "password= y")
	f("4111 1111 a@b.io1111 1111", "")
	f("4111 1111 1111 "+"glpat-0123456789abcdefghij 1111", "4111 1111 1111  1111")
	f("OORD-1RD-2x", "x")                  // twice
	f(strings.Repeat("OORD-1RD-2", 2), "") // and next to each other
	f(strings.Repeat("ORD-", 40)+strings.Repeat("1", 40), strings.Repeat("ORD-", 39))
	nested := "ORD-1"
	for range 2 * maxRounds {
		nested = "ORD" + nested + "-1"
	}
	f(nested, "") // who does that loses the text
}

func TestRecords(t *testing.T) {
	set := metric.NewSet()
	r := open(t, everything, creel.Host{Metrics: set})
	card, none := creel.String("4111111111111111"), &creel.Origin{}
	attrs := creel.Attrs{
		{Key: "a", Value: card}, {Key: "Password", Value: creel.Int(1)}, {Key: "client_secret_2", Value: creel.Bool(true)},
		{Key: "list", Value: creel.List(creel.Int(4111111111111111), creel.Int(1), creel.Bytes([]byte("a@b.io")))},
		{Key: "map", Value: creel.Map(creel.Attr{Key: "x", Value: creel.Int(1)}, creel.Attr{Key: "password", Value: card}, creel.Attr{Key: "in", Value: creel.Map(creel.Attr{Key: "c", Value: card})})},
		{Key: "fine", Value: creel.String("fine")},
	}
	want := `{"a":"[card]","Password":"***","client_secret_2":"***","list":["[card]",1,"W21haWxd"],"map":{"x":1,"password":"***","in":{"c":"[card]"}},"fine":"fine"}`
	check := func(what string, got creel.Attrs) {
		t.Helper()
		if s := string(got.Append(nil)); s != want {
			t.Errorf("%s are\n%s, not\n%s", what, s, want)
		}
	}
	before := string(attrs.Append(nil))
	out := run(t, r, creel.NewLogs([]creel.Log{{Origin: none, Body: creel.String("fine")}, {Origin: none, Body: creel.List(card), Attrs: attrs.Clone()}}))
	check("a log's attributes", out.Logs()[1].Attrs)
	if got := out.Logs()[1].Body.String(); got != `["[card]"]` {
		t.Errorf("the body is %s", got)
	}
	out = run(t, r, creel.NewMetrics([]creel.Metric{{Origin: none, Desc: &creel.Descriptor{}, Attrs: attrs.Clone(), Exemplars: []creel.Exemplar{{Attrs: attrs.Clone()}}}}))
	check("a point's attributes", out.Metrics()[0].Attrs)
	check("an exemplar's attributes", out.Metrics()[0].Exemplars[0].Attrs)
	out = run(t, r, creel.NewSpans([]creel.Span{{Origin: none, Name: "to a@b.io", Attrs: attrs.Clone(), Status: creel.Status{Message: "no a@b.io"},
		Events: []creel.SpanEvent{{Name: "a@b.io", Attrs: attrs.Clone()}}, Links: []creel.SpanLink{{Attrs: attrs.Clone()}}}}))
	s := out.Spans()[0]
	check("a span's attributes", s.Attrs)
	check("an event's attributes", s.Events[0].Attrs)
	check("a link's attributes", s.Links[0].Attrs)
	if s.Name != "to [mail]" || s.Status.Message != "no [mail]" || s.Events[0].Name != "[mail]" {
		t.Errorf("the span is %+v", s)
	}
	if after := string(attrs.Append(nil)); after != before {
		t.Errorf("values were changed in place: %s", after)
	}
	counted := map[string]float64{}
	set.Gather(func(p metric.Point) { counted[p.Labels[len(p.Labels)-1].Value] += p.Value })
	if counted["card"] != 19 || counted["mail"] != 9 || counted["key"] != 18 || counted["token"] != 0 {
		t.Errorf("counted %v", counted)
	}

	o := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "process.command_line", Value: creel.String("serve --password=x")}}}, Scope: creel.Scope{Name: "lib"}}
	logs := run(t, r, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{}}, {Origin: o}, {Origin: o}, {Origin: &creel.Origin{}}, {Origin: o}})).Logs()
	if got := string(logs[1].Origin.Resource.Attrs.Append(nil)); got != `{"process.command_line":"serve --password=[password]"}` || logs[1].Origin.Scope.Name != "lib" {
		t.Errorf("the resource is %s", got)
	}
	if logs[1].Origin != logs[2].Origin || len(logs[3].Origin.Resource.Attrs) > 0 || logs[4].Origin == o || o.Resource.Attrs[0].Value.Str() != "serve --password=x" {
		t.Errorf("the origins are %+v", logs)
	}

	r = open(t, "{keys: [password], replace: remove}", creel.Host{})
	out = run(t, r, creel.NewLogs([]creel.Log{{Origin: none, Attrs: creel.Attrs{{Key: "password", Value: card}, {Key: "m", Value: creel.Map(creel.Attr{Key: "password"}, creel.Attr{Key: "PASSWORD", Value: card}, creel.Attr{Key: "n", Value: creel.Int(1)})}}}}))
	if got := string(out.Logs()[0].Attrs.Append(nil)); got != `{"m":{"password":null,"n":1}}` {
		t.Errorf("left is %s", got)
	}
}

// run returns what the processor sends on.
func run(t testing.TB, r *redactor, b *creel.Batch) (out *creel.Batch) {
	t.Helper()
	if err := r.Process(context.Background(), b, creel.NextFunc(func(b *creel.Batch) { out = b })); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFieldsAndWhere(t *testing.T) {
	log := func() *creel.Batch {
		return creel.NewLogs([]creel.Log{{Origin: &creel.Origin{}, Body: creel.String("a@b.io"), Severity: 9, Attrs: creel.Attrs{{Key: "x", Value: creel.String("a@b.io")}, {Key: "y", Value: creel.String("a@b.io")}}}})
	}
	f := func(yaml, want string) {
		t.Helper()
		l := run(t, open(t, yaml, creel.Host{}), log()).Logs()[0]
		if got := l.Body.Str() + string(l.Attrs.Append(nil)); got != want {
			t.Errorf("%s gives %s, not %s", yaml, got, want)
		}
	}
	f("{fields: [body]}", `[mail]{"x":"a@b.io","y":"a@b.io"}`)
	f("{fields: [attributes]}", `a@b.io{"x":"[mail]","y":"[mail]"}`)
	f(`{fields: ['attributes["y"]']}`, `a@b.io{"x":"a@b.io","y":"[mail]"}`)
	f("{where: severity >= ERROR}", `a@b.io{"x":"a@b.io","y":"a@b.io"}`)
	f("{where: severity < ERROR}", `[mail]{"x":"[mail]","y":"[mail]"}`)
}

// TestWirePassesOn: a batch in which there is nothing to replace keeps its bytes.
func TestWirePassesOn(t *testing.T) {
	r := open(t, everything, creel.Host{})
	f := func(body string, want bool) {
		t.Helper()
		wire := otlp.Append(nil, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{}, Body: creel.String("x")}, {Origin: &creel.Origin{}, Body: creel.String(body)}}))
		b, err := otlp.Parse(creel.Logs, wire, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := run(t, r, b).Wire() != nil; got != want {
			t.Errorf("with %q, the bytes passed on is %v", body, got)
		}
	}
	f("nothing [card] here", true)
	f("a@b.io", false)
}

func TestWrongOptions(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		if _, err := tryOpen(yaml, creel.Host{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, not %q", yaml, err, want)
		}
	}
	f("{detect: [card]}", "cards")
	f("{patterns: [{name: x, pattern: '('}]}", "regular expression")
	f("{patterns: [{name: x, pattern: '((a{100}){10}){10}'}]}", "")
	f("{patterns: [{name: x, pattern: '(abcdefghij){900}'}]}", "too large")
	f("{patterns: [{name: x, pattern: 'a*'}]}", "nothing at all")
	f("{patterns: [{name: card, pattern: a}]}", "taken")
	f("{patterns: [{name: 'a b', pattern: a}]}", "must be made of")
	f("{replace: hash}", "salt")
}

// TestLinear: texts that were made to be expensive take about as long for each byte as others do.
func TestLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("what is tested is the time that it takes")
	}
	r := open(t, everything, creel.Host{})
	for _, unit := range []string{"eyJ", "eyJaaaaaaaaa.", "a@", "://", "://a:", "1 ", "123-", "411 ", "::", "a:", "-----BEGIN ", "password=", `password="\`, "bearer ", "basic ", "AKIA", "ghp_", "[card", "[card]", "-", "a"} {
		r.rewrite(strings.Repeat(unit, 1_000_000/len(unit))) // minutes, were it quadratic
	}
}

func FuzzRedact(f *testing.F) {
	for _, s := range []string{
		"", "a@b.io", "4111 1111 1111 1111", "https://u:p@h", "[card]", "[card:0123456789abcdef]", "password=\"x\\\"y\"", "::1", "1.2.3.4",
		"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x", "Bearer abcdefgh12345678", "ORD-1ORD-2", "-----BEGIN PRIVATE KEY-----", "AKIAIOSFODNN7EXAMPLE", "ghp_0123456789abcdefghijABCDEFGHIJ012345",
		"\xff@b.io", "ä@b.io", "password: 'ä\\ä", "4111 1111 ORD-11111 1111", "passwd:password=x",
	} {
		f.Add(s)
	}
	var rs []*redactor
	for _, mode := range []string{"mask", "hash", "remove"} {
		rs = append(rs, open(f, everything+"salt: x\nreplace: "+mode+"\n", creel.Host{}))
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range rs {
			out := r.rewrite(s)
			if r.clean(s) != (out == s) {
				t.Fatalf("%s: clean is %v, but %q becomes %q", r.replace, r.clean(s), s, out)
			}
			if !r.clean(out) {
				t.Fatalf("%s: something is left in %q, which was %q", r.replace, out, s)
			}
			if again := r.rewrite(out); again != out {
				t.Fatalf("%s: %q becomes %q, and then %q", r.replace, s, out, again)
			}
			if utf8.ValidString(s) && !utf8.ValidString(out) {
				t.Fatalf("%s: %q becomes %q", r.replace, s, out)
			}
		}
	})
}

func TestGlob(t *testing.T) {
	f := func(g glob, s string, want bool) {
		t.Helper()
		if g.match(s) != want {
			t.Errorf("%q matching %q is %v", g, s, !want)
		}
	}
	f("password", "Password", true)
	f("password", "passwords", false)
	f("*secret*", "my.SECRET", true)
	f("*secret*", "sec.ret", false)
	f("a*b*c", "aXbXbc", true)
	f("a*b*c", "aXbXb", false)
	f("*", "", true)
	f("", "", true)
	f("", "a", false)
	f("http.*.authorization", "http.request.header.authorization", true)
}
