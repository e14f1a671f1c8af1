package transform_test

import (
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/transform"
)

func TestConformance(t *testing.T) {
	for _, text := range []string{
		`set: ['attributes.cluster = "prod"', 'resource.zone = upper("eu")', 'name = "x"', 'severity = ERROR']`,
		`{rename: [attributes.number = attributes.n], hash: [attributes.text], delete: [body], limit: 1, truncate: 1B}`,
		`steps: [{where: attributes.n == 1, set: [attributes.a = attributes]}, {where: attributes.a != nil, delete: [resource]}]`,
	} {
		plugintest.Run(t, transform.Plugin, plugintest.Options{Config: text})
	}
}

// options checks options as a configuration's are.
func options(text string) ([]byte, error) {
	n, err := config.Parse("x.yaml", []byte(text), config.Env{})
	if err != nil {
		return nil, err
	}
	canonical, errs := transform.Plugin.Config.Check(n)
	if len(errs) > 0 {
		return nil, errs
	}
	return canonical, nil
}

func open(t testing.TB, text string, h creel.Host) creel.Processor {
	t.Helper()
	canonical, err := options(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := transform.Plugin.Open(canonical, h)
	if err != nil {
		t.Fatal(err)
	}
	return p.(creel.Processor)
}

func attrs() creel.Attrs {
	return creel.Attrs{{Key: "user", Value: creel.String("ann")}, {Key: "status", Value: creel.Int(503)}, {Key: "k", Value: creel.Map(creel.Attr{Key: "a", Value: creel.Int(1)})}}
}

var shared = &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "zone", Value: creel.String("eu")}}}}

func log() creel.Log {
	return creel.Log{Origin: shared, Body: creel.String("Grüße, hello"), Attrs: attrs(), Severity: creel.SeverityInfo}
}

// process sends b through the processor, and returns what comes out.
func process(t testing.TB, p creel.Processor, b *creel.Batch) (out *creel.Batch) {
	t.Helper()
	if err := p.Process(t.Context(), b, creel.NextFunc(func(b *creel.Batch) { out = b })); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTransform(t *testing.T) {
	f := func(text, body, attributes, resource string) {
		t.Helper()
		l := process(t, open(t, text, creel.Host{}), creel.NewLogs([]creel.Log{log()})).Logs()[0]
		if got := string(l.Body.Append(nil)); got != body {
			t.Errorf("%s: the body is %s, not %s", text, got, body)
		}
		if got := string(l.Attrs.Append(nil)); got != attributes {
			t.Errorf("%s: attributes are %s, not %s", text, got, attributes)
		}
		if got := string(l.Origin.Resource.Attrs.Append(nil)); got != resource {
			t.Errorf("%s: the resource is %s, not %s", text, got, resource)
		}
	}
	const body, resource, same = `"Grüße, hello"`, `{"zone":"eu"}`, `{"user":"ann","status":503,"k":{"a":1}}`
	f(`set: ['attributes.user = upper(attributes.user)', 'attributes.new = attributes.user + "!"']`, body, `{"user":"ANN","status":503,"k":{"a":1},"new":"ANN!"}`, resource)
	f(`set: ['attributes.user = attributes.nobody', 'body = nil']`, body, same, resource)
	f(`set: ['resource.cluster = "prod"', 'attributes.k.b = resource.cluster']`, body, `{"user":"ann","status":503,"k":{"a":1,"b":"prod"}}`, `{"zone":"eu","cluster":"prod"}`)
	f(`set: ['body = attributes']`, same, same, resource)
	f(`rename: [attributes.name = attributes.user]`, body, `{"name":"ann","status":503,"k":{"a":1}}`, resource)
	f(`rename: [attributes.status = attributes.user]`, body, `{"status":"ann","k":{"a":1}}`, resource)
	f(`rename: [attributes.user = attributes.user]`, body, `{"status":503,"k":{"a":1},"user":"ann"}`, resource)
	f(`rename: ['attributes["a=\"b"] = attributes.user']`, body, `{"a=\"b":"ann","status":503,"k":{"a":1}}`, resource)
	f(`rename: ['attributes["user"]["name"] = attributes.user']`, body, `{"status":503,"k":{"a":1},"user":{"name":"ann"}}`, resource)
	f(`rename: [attributes = attributes.k]`, body, `{"a":1}`, resource)
	f(`rename: [body = attributes.user, resource.user = attributes.status]`, `"ann"`, `{"k":{"a":1}}`, `{"zone":"eu","user":503}`)
	f(`rename: [attributes.x = attributes.nobody]`, body, same, resource)
	f(`rename: [severity = attributes.user]`, body, `{"status":503,"k":{"a":1},"user":"ann"}`, resource) // it cannot be stored there
	f(`delete: [attributes.user, attributes.k.a, body, resource.zone]`, `null`, `{"status":503,"k":{}}`, `{}`)
	f(`{hash: [attributes.user], salt: s}`, body, `{"user":"6f34d909c9ac2fed85bba4533efd44e6631e9fd06ce9c82ba984b3462b4a8cfb","status":503,"k":{"a":1}}`, resource)
	f(`{hash: [attributes.nobody]}`, body, same, resource)
	f(`truncate: 3B`, `"Gr"`, same, resource)
	f(`truncate: 4B`, `"Grü"`, same, resource)
	f(`truncate: 2B`, `"Gr"`, `{"user":"an","status":503,"k":{"a":1}}`, resource)
	f(`limit: 1`, body, `{"user":"ann"}`, resource)
	f(`{where: attributes.status >= 500, set: [attributes.bad = true]}`, body, `{"user":"ann","status":503,"k":{"a":1},"bad":true}`, resource)
	f(`{where: attributes.status < 500, set: [attributes.bad = true]}`, body, same, resource)
	f(`{where: 'name == "x"', set: [attributes.bad = true]}`, body, same, resource)
	f(`{set: [attributes.x = 1, name = "x"]}`, body, `{"user":"ann","status":503,"k":{"a":1},"x":1}`, resource)
	f(`steps: [{set: [attributes.x = 1]}, {where: attributes.x == 1, rename: [attributes.y = attributes.x], set: [attributes.y = attributes.y + 1]}]`, body, `{"user":"ann","status":503,"k":{"a":1},"y":2}`, resource)
	if v, _ := shared.Resource.Attrs.Get("zone"); len(shared.Resource.Attrs) != 1 || v.Str() != "eu" {
		t.Error("an origin was changed in place")
	}
}

// TestDropped: attributes beyond the limit are counted.
func TestDropped(t *testing.T) {
	p := open(t, `limit: 2`, creel.Host{})
	if l := process(t, p, creel.NewLogs([]creel.Log{log()})).Logs()[0]; l.Dropped != 1 {
		t.Errorf("%d attributes of a log were dropped", l.Dropped)
	}
	if s := process(t, p, creel.NewSpans([]creel.Span{{Origin: shared, Attrs: attrs()}})).Spans()[0]; s.Dropped != 1 {
		t.Errorf("%d attributes of a span were dropped", s.Dropped)
	}
	if m := process(t, p, creel.NewMetrics([]creel.Metric{{Origin: shared, Desc: &creel.Descriptor{}, Attrs: attrs()}})).Metrics()[0]; len(m.Attrs) != 2 {
		t.Errorf("a data point has %d attributes", len(m.Attrs))
	}
}

// TestRefused: what cannot be stored is counted, and changes nothing.
func TestRefused(t *testing.T) {
	h := creel.Host{Metrics: metric.NewSet()}
	p := open(t, `{rename: [severity = attributes.k], set: [severity = attributes.status, body.x = 1]}`, h)
	if l := process(t, p, creel.NewLogs([]creel.Log{log()})).Logs()[0]; l.Severity != creel.SeverityInfo || l.Body.Str() != "Grüße, hello" {
		t.Errorf("the log is %v", l)
	}
	if n := h.Metrics.Counter("creel.transform.refused", "Values that could not be stored where they should be, such as a map as severity.", "{value}").Load(); n != 3 {
		t.Errorf("%d values were refused, not 3", n)
	}
}

// TestWireIsKept: a batch in which nothing changes goes on as the bytes that it came in.
func TestWireIsKept(t *testing.T) {
	wire := otlp.Append(nil, creel.NewLogs([]creel.Log{log(), log()}))
	f := func(config string, kept bool) {
		t.Helper()
		b, err := otlp.Parse(creel.Logs, wire, nil)
		if err != nil {
			t.Fatal(err)
		}
		if out := process(t, open(t, config, creel.Host{}), b); (out.Wire() != nil) != kept {
			t.Errorf("%s: the bytes are kept: %v", config, !kept)
		}
	}
	f(`{where: severity > ERROR, set: [attributes.x = 1]}`, true)
	f(`set: [attributes.user = "ann", attributes.x = attributes.nobody]`, true)
	f(`{rename: [attributes.a = attributes.b], delete: [attributes.c, severity_text], hash: [attributes.d], limit: 3, truncate: 100B}`, true)
	f(`set: [name = "x"]`, true)
	f(`set: [attributes.user = "bob"]`, false)
	f(`limit: 2`, false)
	f(`truncate: 10B`, false)
	f(`delete: [attributes.user]`, false)
}

func TestErrors(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		canonical, err := options(text)
		if err == nil {
			_, err = transform.Plugin.Open(canonical, creel.Host{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, not %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the salt: %v", text, err)
		}
	}
	f(`{}`, "a step needs at least one of")
	f(`steps: [{where: 'true'}]`, "a step needs at least one of")
	f(`{steps: [{limit: 1}], limit: 1}`, "steps stands alone")
	f(`set: [severity = body contains "x"]`, "severity is a string or a severity, but")
	f(`set: [attributes.x == 1]`, "an assignment has one =")
	f(`set: [attributes.x]`, "is no assignment")
	f(`set: [signal = "x"]`, "signal cannot be changed")
	f(`set: ['attributes.x = lowr(body)']`, "did you mean lower?")
	f("set:\n  - attributes.x = lowr(body)", "x.yaml:2")
	f("set:\n  - attributes.x = lowr(body)", "\n | ...............^")
	f(`{hash: [time], salt: secret}`, "time cannot hold a hash")
}
