package test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/center/centertest"
	"github.com/creelhq/creel/report"
)

// This file is the test of the whole of change: an agent that works, and whoever may change its configuration.

// startEtcd returns a client of a real etcd, and where it is.
func startEtcd(t *testing.T) (*clientv3.Client, string) {
	t.Helper()
	c := embed.NewConfig()
	c.Dir, c.ZapLoggerBuilder = t.TempDir(), embed.NewZapLoggerBuilder(zap.NewNop())
	at := func() url.URL { return url.URL{Scheme: "http", Host: freeAddress(t)} }
	c.ListenPeerUrls, c.ListenClientUrls = []url.URL{at()}, []url.URL{at()}
	c.AdvertisePeerUrls, c.AdvertiseClientUrls = c.ListenPeerUrls, c.ListenClientUrls
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	<-e.Server.ReadyNotify()
	client := v3client.New(e.Server)
	t.Cleanup(func() {
		client.Close()
		e.Close()
	})
	return client, c.ListenClientUrls[0].String()
}

// A changer is one of those that may change what the agent runs.
type changer struct {
	name  string
	write func(text string) // makes text what it says
	last  string
}

// fragment is what a changer says: a processor that all lines go through.
func (c *changer) fragment(round int) string {
	return fmt.Sprintf("processors: {transform/%s: {set: {'attributes[\"%s\"]': '%d'}}}\n", c.name, c.name, round)
}

// TestReconfigured: an agent reads files that are written all the time. Its configuration is changed by its file, etcd,
// Consul, Nacos and the hub in turn; what is wrong, or proves to be, is refused or undone and explained. Every line arrives
// once.
func TestReconfigured(t *testing.T) {
	ownProcess(t) // before all else is started
	t.Parallel()  // it waits more than it works
	rounds := 3
	if *torture {
		rounds = 200
	}
	w, far, r := newWorld(t), newTally().started(t), newRand(t)
	w.startHub()
	etcd, etcdURL := startEtcd(t)
	consul, nacos := centertest.NewConsul(t), centertest.NewNacos(t)
	ctx := context.Background()

	own := w.path("agent.yaml")
	m := &mortal{t: t, config: own, data: w.path("agent")}
	changers := []*changer{
		{name: "file", write: func(text string) {
			// As an editor does: the new file beside the old one, and then in its place.
			if err := errors.Join(os.WriteFile(own+"~", []byte(text), 0o600), os.Rename(own+"~", own)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "etcd", write: func(text string) {
			if _, err := etcd.Put(ctx, "/creel/web", text); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "consul", write: func(text string) { consul.Put("creel/web", text) }},
		{name: "nacos", write: func(text string) { nacos.Publish("creel-web", "DEFAULT_GROUP", "", text) }},
		{name: "hub", write: func(text string) {
			_, err := w.client.ApplyDocument(ctx, api.DocumentChange{Text: "document: web\nselector: site == \"north\"\n" + text})
			if err != nil {
				t.Fatal(err)
			}
		}},
	}
	through := ""
	file := func(more string) string {
		return fmt.Sprintf(`
agent:
  labels: {site: north}
  watch: true
  probation: 1500ms
  centers:
    etcd: {endpoints: [%q], key: /creel/web}
    consul: {address: %q, key: creel/web}
    nacos: {address: %q, data_ids: [creel-web]}
collectors: {file: {include: [%q], start_at: beginning, poll_interval: 20ms}}
exporters: {otlp: {endpoint: "http://%s", protocol: http, compression: none, delivery: {retry: {initial: 20ms, max: 200ms}}}}
pipelines: {p: {from: [file], through: [%s], to: [otlp]}}
%s`, etcdURL, consul.URL(), nacos.URL(), w.path("app.log"), far.address, through, more)
	}
	changers[0].write(file(""))
	m.start("--hub", w.client.URL)
	app := &appender{path: w.path("app.log"), r: r, burst: 100, pad: 100, pause: 5 * time.Millisecond, rotates: 50}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the agent's log ends so:\n%s", m.tail())
		}
	})
	stop, _ := app.start(t)
	eventually(t, "lines come", func() bool { return far.count() > 0 })
	app.known.Store(true)

	state := func() (s agent.State) {
		if err := m.ask("/state", &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	runs := func(c *changer) bool {
		var origins []agent.Origin
		if m.ask("/config?origin=1", &origins) != nil {
			return false
		}
		return slices.ContainsFunc(origins, func(o agent.Origin) bool {
			return strings.HasPrefix(o.Path, "processors.transform/"+c.name+".set") && strings.Contains(o.Value, c.last)
		})
	}
	// Each says something; then the file leads the lines through all of it.
	for _, c := range changers[1:] {
		c.write(c.fragment(0))
		eventually(t, c.name+" is heard", func() bool {
			return slices.ContainsFunc(state().Configuration.Documents, func(d report.Document) bool { return strings.HasPrefix(d.Source, c.name) && d.Status == "running" })
		})
	}
	through = "transform/file, transform/etcd, transform/consul, transform/nacos, transform/hub"
	took := map[string][]time.Duration{}
	for round := 1; round <= rounds; round++ {
		for _, c := range changers {
			text := c.fragment(round)
			if c.last = fmt.Sprint(round); c.name == "file" {
				text = file(text)
			}
			began := time.Now()
			c.write(text)
			eventually(t, fmt.Sprintf("round %d: the change of %s runs", round, c.name), func() bool { return runs(c) })
			took[c.name] = append(took[c.name], time.Since(began))
		}
	}
	for name, list := range took {
		slices.Sort(list)
		t.Logf("%d changes of %s: from writing to running %v in the middle, %v p99, asked every 10 ms", len(list), name, list[len(list)/2], list[len(list)*99/100])
	}

	// A hundred a second: the newest wins.
	for i := range 100 {
		c := changers[0]
		c.last = fmt.Sprint(1000 + i)
		c.write(file(c.fragment(1000 + i)))
		if err := m.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // the rate
	}
	eventually(t, "the newest of a hundred changes runs", func() bool { return runs(changers[0]) })

	// What proves to be wrong is undone, what is wrong is refused; both are told.
	for i, c := range changers {
		bad, want := "processors: {transform/"+c.name+": {set: {x: 'nonsense('}}}\n", "nonsense("
		if i%2 == 0 {
			address := freeAddress(t) // of nobody
			bad = c.fragment(rounds) + fmt.Sprintf("exporters: {otlp/bad: {endpoint: \"http://%s\", protocol: http, delivery: {queue: {when_full: drop_oldest}}}}\n"+
				"collectors: {generate/bad: {rate: 50}}\npipelines: {bad: {from: [generate/bad], to: [otlp/bad]}}\n", address)
			want = "connection refused"
		}
		outcome := map[bool]string{true: report.RolledBack, false: report.Refused}[i%2 == 0]
		eventually(t, "what runs has proved good", func() bool { return state().Configuration.Probation.IsZero() })
		good := func() { c.write(c.fragment(rounds)) }
		if c.name == "file" { // a fragment beside it is the file's as well
			fragment := filepath.Join(w.dir, agent.Fragments, "bad.yaml")
			if err := errors.Join(os.MkdirAll(filepath.Dir(fragment), 0o700), os.WriteFile(fragment, []byte(strings.Replace(bad, c.fragment(rounds), "", 1)), 0o600)); err != nil {
				t.Fatal(err)
			}
			good = func() {
				if err := os.Remove(fragment); err != nil {
					t.Fatal(err)
				}
			}
		} else {
			c.write(bad)
		}
		eventually(t, "the bad change of "+c.name+" is "+outcome, func() bool {
			return slices.ContainsFunc(state().Configuration.Documents, func(d report.Document) bool {
				return strings.HasPrefix(d.Source, c.name) && d.Status == outcome && strings.Contains(d.Error, want)
			})
		})
		if out, _ := m.asks("status"); !strings.Contains(out, want) {
			t.Errorf("creel status does not explain the bad change of %s:\n%s", c.name, out)
		}
		good()
		eventually(t, c.name+" is right again", func() bool { return !strings.Contains(state().Configuration.Error, want) })
	}

	n := stop()
	arrived(t, far, n)
	m.balanced(nil)
	t.Logf("%d lines, %d rotations, %v", n, app.rotations, far)
	if far.copies > 0 {
		t.Errorf("%d lines came twice", far.copies)
	}
	if app.rotations == 0 {
		t.Error("the test tests nothing")
	}
	text, err := os.ReadFile(filepath.Join(m.data, "configuration.json"))
	if err != nil || !strings.Contains(string(text), "rolled_back") {
		t.Errorf("what was rolled back is not kept: %v", err)
	}
}

// TestCrashOnAChange: an agent that dies twice while a change has not proved good comes back with what has.
func TestCrashOnAChange(t *testing.T) {
	dir, far := shortDir(t), newTally().started(t)
	text := func(probation, more string) string {
		return fmt.Sprintf(`
agent: {probation: %s}
collectors: {generate: {rate: 10}}
exporters: {otlp: {endpoint: "http://%s", protocol: http}}
pipelines: {p: {from: [generate], through: [%s], to: [otlp]}}
processors: {transform: {set: {'attributes["a"]': '1'}}}
`, probation, far.address, more)
	}
	m := newMortal(t, dir, "agent", text("200ms", ""))
	state := func() (c report.Configuration) {
		var s agent.State
		if m.ask("/state", &s) != nil {
			return c
		}
		return s.Configuration
	}
	eventually(t, "it has proved good", func() bool { c := state(); return c.Good != "" && c.Good == c.Hash })
	good := state().Hash
	if err := os.WriteFile(m.config, []byte(text("1h", "transform")), 0o600); err != nil {
		t.Fatal(err)
	}
	m.creel("reload")
	if c := state(); c.Hash == good || c.Probation.IsZero() {
		t.Fatalf("the change is not on probation: %+v", c)
	}
	for range 2 {
		m.killed(false)
		var h report.Health
		eventually(t, "it runs again", func() bool { return m.ask("/healthz", &h) == nil && h.State == "running" })
	}
	if c := state(); c.Hash != good || !strings.Contains(c.Error, "ended 2 times") {
		t.Errorf("after two crashes: %+v", c)
	}
	if out, _ := m.asks("status"); !strings.Contains(out, "ended 2 times") || !strings.Contains(out, "--force") {
		t.Errorf("creel status says:\n%s", out)
	}
	m.creel("reload", "--force")
	if c := state(); c.Hash == good || c.Error != "" {
		t.Errorf("after reload --force: %+v", c)
	}
}
