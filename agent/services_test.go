package agent_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/center/centertest"
	"github.com/creelhq/creel/center/consul"
	"github.com/creelhq/creel/center/file"
	"github.com/creelhq/creel/center/static"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/report"
)

const somePipeline = `
collectors: {tick: }
exporters: {sink: }
pipelines: {p: {from: [tick], to: [sink]}}
`

// TestServices: what an agent offers is registered while it runs, as its configuration has it now.
func TestServices(t *testing.T) {
	c := centertest.NewConsul(t)
	text := func(port int) string {
		return fmt.Sprintf(`agent: {centers: {consul/main: {address: %q}}, services: {otlp: {center: consul/main, address: "gateway:%d", tags: [north], meta: {zone: "1"}, weight: 2}}}`, c.URL(), port) + somePipeline
	}
	w := &centertest.World{Center: consul.Center, Options: fmt.Sprintf("{address: %q, allow_empty: true}", c.URL())}
	l := w.Look(t, "otlp")
	l.Sees("")
	r := start(t, text(4317), agent.Options{Centers: []center.Center{consul.Center}})
	id := r.id()
	at := func(port int) string { return fmt.Sprintf("%s@gateway:%d #north zone=1 *2", id, port) }
	l.Sees(at(4317))
	r.order("pause")
	l.Sees("")
	r.order("resume")
	l.Sees(at(4317))
	r.write(text(4318))
	if code, body := r.request("POST", "/-/reload"); code != 200 {
		t.Fatal(body)
	}
	l.Sees(at(4318))
	c.Stop()
	r.write(text(4319))
	if code, body := r.request("POST", "/-/reload"); code != 200 { // an agent works as well without
		t.Fatal(body)
	}
	await(t, func() bool {
		_, body := r.request("GET", "/healthz")
		return strings.Contains(body, `"agent.services.otlp"`)
	})
	c.Start()
	l.Sees(at(4319))
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	l.Sees("")
}

func TestDiscover(t *testing.T) {
	c := centertest.NewConsul(t)
	w := &centertest.World{Center: consul.Center, Options: fmt.Sprintf("{address: %q}", c.URL())}
	w.Offer(t, center.Instance{Service: "creel-hub", ID: "a", Address: "hub-a:4380"})
	text := fmt.Sprintf(`agent: {centers: {consul/main: {address: %q}}, hub: {discover: {center: consul/main}}}`, c.URL()) + somePipeline
	r := start(t, text, agent.Options{Centers: []center.Center{consul.Center}})
	await(t, func() bool { return strings.Contains(r.log.String(), "[https://hub-a:4380]") })
	w.Offer(t, center.Instance{Service: "creel-hub", ID: "b", Address: "hub-b:4380", Meta: map[string]string{"url": "http://hub-b:1"}})
	await(t, func() bool { return strings.Contains(r.log.String(), "[https://hub-a:4380 http://hub-b:1]") })
	w.Offer(t, center.Instance{Service: "creel-hub", ID: "c", Address: "hub-c:4380", Meta: map[string]string{"url": "gopher://hub-c"}})
	await(t, func() bool { return strings.Contains(r.log.String(), "a hub is left out") })
}

// TestUseOfCenters: what the settings want of centers is there, and each center is there for something.
func TestUseOfCenters(t *testing.T) {
	p := agent.Parts{Plugins: plugins(nil), Centers: []center.Center{consul.Center, static.Center, file.Center}}
	f := func(text, want string) {
		t.Helper()
		_, err := p.Parse("agent.yaml", []byte("agent: "+text+somePipeline), config.Env{})
		if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, not %q", text, err, want)
		}
	}
	const list = `static: {services: {creel-hub: ["hub:4380"]}}`
	f(`{centers: {consul: {key: a}}}`, "")
	f(`{centers: {consul: }, services: {web: {center: consul, address: "a:80"}}}`, "")
	f(`{centers: {consul: {key: a}}, services: {web: {center: consul, address: "a:80"}}}`, "")
	f(`{centers: {`+list+`}, hub: {discover: {center: static}}}`, "")
	f(`{centers: {consul: }}`, "agent.centers.consul: key: give either key or prefix; name it in agent.services or in agent.hub.discover")
	f(`{centers: {`+list+`}}`, "agent.centers.static: a center static holds no configuration: it only knows who offers a service; name it in")
	f(`{centers: {`+list+`}, services: {web: {center: static, address: "a:80"}}}`, "agent.services.web.center: nobody can register with a center static")
	f(`{centers: {file/x: {path: /x}}, services: {web: {center: file/x, address: "a:80"}}}`, "it only holds configuration")
	f(`{centers: {file/x: {path: /x}}, hub: {discover: {center: file/x}}}`, "agent.hub.discover.center: a center file does not know")
	f(`{centers: {consul/main: {key: a}}, services: {web: {center: consul/mian, address: "a:80"}}}`, `there is no center "consul/mian" in agent.centers; did you mean "consul/main"?`)
	f(`{services: {web: {address: "a:80"}}}`, "")
	f(`{services: {web: {center: hub, address: "a:80"}}}`, "")
	f(`{services: {web: {address: ":80"}}}`, "agent.services.web: address \":80\" must have a host")
	f(`{centers: {consul: }, services: {web: {center: consul, address: ":80"}}}`, "agent.services.web: address \":80\" must have a host")
	f(`{centers: {consul: }, services: {"a b": {center: consul, address: "a:80"}}}`, "must consist of letters")
	f(`{centers: {`+list+`}, hub: {url: "http://hub:4380", discover: {center: static}}}`, "exclude each other")
	f(`{hub: {discover: {center: static}}}`, `there is no center "static" in agent.centers`)
}

func (r *running) id() string {
	r.t.Helper()
	var h report.Health
	if code, body := r.request("GET", "/healthz"); code != 200 || json.Unmarshal([]byte(body), &h) != nil {
		r.t.Fatalf("health answers %d %s", code, body)
	}
	return h.ID
}
