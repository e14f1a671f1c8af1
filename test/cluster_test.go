package test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
)

const (
	probed   = 10                     // documents, each of which is a probe
	beat     = 200 * time.Millisecond // heartbeat of agents: when they miss the third, their leases are over
	interval = 200 * time.Millisecond // between probes
	mostGap  = 20 * time.Second       // that something may not be probed at all, on however slow a machine
)

// A node is a hub or an agent: a process on a host of its own.
type node struct {
	*host
	label   string
	args    []string // to start it again
	process *process

	client *api.Client // of a hub
	lines  *os.File    // that an agent collects
	wrote  int
	woken  []time.Time // when it went on after it had been stopped
}

// A fleet is hubs that keep their control state together, agents that have joined them, and a host that is probed.
type fleet struct {
	*open
	hubs, agents []*node
	copies       []*node        // of agents
	etcd         *etcd          // nil: it is within the hubs
	notes        int            // changes that were asked for
	noted        map[string]int // by document, the last that was acknowledged
	seen         *witness
	written      func() // ends the writing of lines
}

// TestCluster: three hubs and ten agents on a network. Hubs and agents are killed, stopped and cut off, from all and from one
// another, and an agent is copied; each is put right before the next. What one agent at a time is to probe is always probed again soon, and what no two agents may ever probe is never
// probed by two. Nothing that an agent has written is lost.
func TestCluster(t *testing.T) {
	ownProcess(t)
	t.Parallel() // it waits more than it works, on a network of its own
	rounds := 9  // one of each
	if *torture {
		rounds = 100
	}
	r, began := newRand(t), time.Now()
	f := newFleet(t, 3, 10, nil)
	f.place()
	f.steady()
	t.Logf("hubs and agents are there, and everything is probed, after %v", time.Since(began).Round(time.Millisecond))
	kinds := []string{"kill hub", "kill agent", "stop hub", "stop agent", "cut hub", "cut agent", "part hubs", "cut agents", "flap agent"}
	r.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	gaps := make(map[string][]time.Duration)
	for round := range rounds {
		kind, began := kinds[round%len(kinds)], time.Now()
		victim := f.fault(r, kind)
		f.steady()
		gap := f.seen.gap(began)
		gaps[kind] = append(gaps[kind], gap)
		t.Logf("round %d, %s %s: all is well after %v; at most %v without a probe", round+1, kind, victim, time.Since(began).Round(time.Millisecond), gap)
		if gap > mostGap {
			t.Errorf("round %d, %s: something was not probed for %v", round+1, kind, gap)
		}
	}
	var led []time.Duration
	for range 1 + rounds/10 {
		led = append(led, f.leaderless())
		f.steady()
	}
	slices.Sort(led)
	t.Logf("the hub that leads was killed, %d times: what was written then ran after %v in the middle, %v at most", len(led), led[len(led)/2], led[len(led)-1])
	began = time.Now()
	f.copied()
	f.steady()
	t.Logf("an agent was copied, and all is well after %v", time.Since(began).Round(time.Millisecond))
	for _, kind := range slices.Sorted(maps.Keys(gaps)) {
		list := gaps[kind]
		slices.Sort(list)
		t.Logf("%s, %d times: %v without a probe in the middle, %v at most", kind, len(list), list[len(list)/2], list[len(list)-1])
	}
	for i := 1; i < probed; i += 2 {
		f.wantOne(i)
	}
	began = time.Now()
	f.wantLines()
	t.Logf("that was found out in %v", time.Since(began).Round(time.Millisecond))
	probes, moves := f.seen.count()
	t.Logf("%d probes were seen, and %d moves", probes, moves)
	if moves < rounds/4 {
		t.Error("hardly anything has moved: the test tests nothing")
	}
}

// newFleet starts hubs, and agents. The hubs keep their control state together, or, if there is outside, in the etcd that it starts.
func newFleet(t *testing.T, hubs, agents int, outside func(*open, *host) *etcd) *fleet {
	t.Helper()
	hosts := newNetwork(t, hubs+agents+2)
	f := &fleet{open: &open{world: newWorld(t), hub: hosts[0], stranger: hosts[hubs+agents], far: hosts[hubs+agents+1]}, noted: make(map[string]int)}
	f.seen = watchProbes(f.stranger)
	if outside != nil {
		f.etcd = outside(f.open, f.far)
	}
	for i, h := range hosts[:hubs] {
		n := &node{host: h, label: fmt.Sprintf("hub%d", i)}
		if i == 0 {
			n.label = "hub" // where open looks for the authority
		}
		n.args = []string{"hub", "--listen", "0.0.0.0", "--data", f.path(n.label), "--heartbeat", beat.String()}
		first := append(slices.Clone(n.args), "--etcd-listen", h.address)
		if f.etcd != nil {
			n.args = append(n.args, f.etcd.args...)
			h.env, first = f.etcd.env, slices.Clone(n.args)
		}
		if i > 0 {
			first = append(first, "--join", f.hubs[0].client.URL, "--token", f.token(api.Member, 1))
		}
		n.process = f.run(h, n.label, first...)
		f.await(n)
		f.hubs = append(f.hubs, n)
	}
	token := f.token(api.Enrol, agents)
	for i, h := range hosts[hubs : hubs+agents] {
		n := &node{host: h, label: fmt.Sprintf("a%d", i)}
		config := f.write(n.label+".yaml", fmt.Sprintf(`
agent: {drain: 0s, labels: {site: north}}
collectors: {file: {include: [%s.log], start_at: beginning, poll_interval: 200ms}}
exporters: {otlp: {endpoint: hub, protocol: %s, delivery: {spool: {min_free: 0}, retry: {initial: 100ms, max: 1s}}}}
pipelines: {lines: {from: [file], to: [otlp]}}
`, f.path("lines-"+n.label), []string{"grpc", "http"}[i%2]))
		var err error
		if n.lines, err = os.Create(f.path("lines-" + n.label + ".log")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.lines.Close() })
		n.args = []string{"agent", "-c", config, "--data", f.path(n.label)}
		n.process = f.run(h, n.label, append([]string{"join", f.hubs[i%hubs].client.URL, "--token", token}, n.args[1:]...)...)
		f.agents = append(f.agents, n)
	}
	end, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-tick.C:
			case <-end:
				tick.Stop()
				return
			}
			for i, n := range f.agents {
				if _, err := fmt.Fprintf(n.lines, "clustered line %d.%d\n", i, n.wrote); err != nil {
					t.Error(err)
				}
				n.wrote++
			}
		}
	}()
	f.written = sync.OnceFunc(func() { close(end); <-over })
	t.Cleanup(f.written)
	return f
}

// token returns a new one of the first hub.
func (f *fleet) token(role api.Role, uses int) string {
	f.Helper()
	q := api.AccessTokenRequest{Name: "test", Role: role}
	if role == api.Enrol {
		q.Uses = uses
	}
	token, err := f.hubs[0].client.CreateToken(context.Background(), q)
	if err != nil {
		f.Fatal(err)
	}
	return token.Text
}

// await waits until a hub answers.
func (f *fleet) await(n *node) {
	f.Helper()
	eventually(f.T, n.label+" runs", func() bool {
		_, err := os.Stat(f.path(n.label + "/hub.json"))
		return err == nil
	})
	token, err := os.ReadFile(f.path(n.label + "/token"))
	if err != nil {
		f.Fatal(err)
	}
	n.client = &api.Client{URL: "https://" + n.address + ":4380", Token: strings.TrimSpace(string(token)), HTTP: f.web(f.stranger)}
	eventually(f.T, n.label+" answers", func() bool {
		_, err := n.client.Hub(context.Background())
		return err == nil
	})
	f.client = n.client
}

// place writes the documents that are probes, each through another hub. Of every other one no two agents may have it at a time.
func (f *fleet) place() {
	f.Helper()
	for i := range probed {
		overlap := []string{"allow", "never"}[i%2]
		_, err := f.hubs[i%len(f.hubs)].client.ApplyDocument(context.Background(), api.DocumentChange{Text: fmt.Sprintf(`
document: p%d
selector: site == "north"
place: 1
overlap: %s
collectors: {probe/p%d: {every: %v, target_timeout: 150ms, targets: [{url: "http://%s:8080/%d"}]}}
pipelines: {p%d: {from: [probe/p%d], to: [otlp]}}
`, i, overlap, i, interval, f.stranger.address, i, i, i)})
		if err != nil {
			f.Fatal(err)
		}
	}
}

// steady waits until every hub says that all hubs and agents are there and well and that every document runs, and all are probed.
func (f *fleet) steady() {
	f.Helper()
	why := ""
	defer func() {
		if f.Failed() {
			f.Log(why)
		}
	}()
	for _, n := range f.hubs {
		eventually(f.T, n.label+" says that all is well", func() bool {
			why = f.ill(n.client)
			return why == ""
		})
	}
	now := time.Now()
	eventually(f.T, "everything is probed", func() bool { return f.seen.all(now) })
}

// ill returns what is not as it should be, as a hub says.
func (f *fleet) ill(hub *api.Client) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	x, err := hub.Cluster(ctx)
	if err != nil || len(x.Hubs) != len(f.hubs) || x.Leader == "" {
		return fmt.Sprintf("the cluster is %+v, %v", x, err)
	}
	list, err := hub.Agents(ctx, api.AgentQuery{Label: "site=north", Status: "healthy", Limit: 100})
	if err != nil || list.Total != len(f.agents) || len(list.Absent) > 0 {
		return fmt.Sprintf("%d agents are healthy of %v, absent: %+v, %v", list.Total, list.Counts, list.Absent, err)
	}
	tasks, err := hub.Tasks(ctx)
	if err != nil || len(tasks.Tasks) != probed {
		return fmt.Sprintf("the tasks are %+v, %v", tasks, err)
	}
	for _, x := range tasks.Tasks {
		if x.Status != "running" {
			return fmt.Sprintf("a task is %+v", x)
		}
	}
	return ""
}

// fault does something to a hub or an agent, and puts it right a while later. It returns to which.
func (f *fleet) fault(r *rand.Rand, kind string) string {
	f.Helper()
	how, what, _ := strings.Cut(kind, " ")
	n := f.hubs[r.IntN(len(f.hubs))]
	if what == "agent" { // one that has something to do
		n = f.at(f.seen.last(r.IntN(probed)))
	}
	a := 300*time.Millisecond + time.Duration(r.Int64N(int64(3*time.Second))) // for how long: chance, not synchronisation
	switch {
	case kind == "part hubs":
		return f.part(n, a)
	case kind == "cut agents":
		for _, n := range f.agents {
			n.cut(true)
		}
		time.Sleep(a)
		for _, n := range f.agents {
			n.cut(false)
		}
		return "all"
	}
	switch how {
	case "kill":
		n.process.kill()
		time.Sleep(a)
		if what == "hub" {
			os.Remove(f.path(n.label + "/hub.json"))
		}
		n.process = f.run(n.host, n.label, n.args...)
		if what == "hub" {
			f.await(n)
		}
	case "stop":
		if err := n.process.Process.Signal(syscall.SIGSTOP); err != nil {
			f.Fatal(err)
		}
		time.Sleep(a)
		n.woken = append(n.woken, time.Now())
		if err := n.process.Process.Signal(syscall.SIGCONT); err != nil {
			f.Fatal(err)
		}
	case "cut":
		n.cut(true)
		time.Sleep(a)
		n.cut(false)
	case "flap":
		for range 8 {
			n.cut(true)
			time.Sleep(time.Duration(r.Int64N(int64(2 * beat)))) // it may be lost in between, or not
			n.cut(false)
			time.Sleep(time.Duration(r.Int64N(int64(4 * beat))))
		}
	}
	return n.label
}

// part cuts the line between a hub and the next one; all others reach both. It lasts longer than a hub's lease.
func (f *fleet) part(a *node, more time.Duration) string {
	f.Helper()
	b := f.hubs[(slices.Index(f.hubs, a)+1)%len(f.hubs)]
	for _, h := range [][2]*node{{a, b}, {b, a}} { // what it sends goes to nobody
		ip(f.T, fmt.Sprintf("-n %s neigh replace %s lladdr 02:00:00:00:00:01 dev eth0 nud permanent", h[0].name, h[1].address))
	}
	if err := a.inside(func() {
		if conn, err := net.DialTimeout("tcp", b.address+":4380", 200*time.Millisecond); err == nil {
			conn.Close()
			f.Errorf("%s reaches %s though they are parted", a.label, b.label)
		}
	}); err != nil {
		f.Fatal(err)
	}
	time.Sleep(2*time.Second + more)
	for _, h := range [][2]*node{{a, b}, {b, a}} {
		ip(f.T, fmt.Sprintf("-n %s neigh del %s dev eth0", h[0].name, h[1].address))
	}
	return a.label + " from " + b.label
}

// copied starts a copy of an agent that has what no two may have, on another host and at another hub, and ends it when somebody was
// told of it and the agent has gone on for a while.
func (f *fleet) copied() {
	f.Helper()
	original := f.at(f.seen.last(1))
	err := filepath.WalkDir(f.path(original.label), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		to := f.path("copy" + strings.TrimPrefix(path, f.path(original.label)))
		if d.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o600)
	})
	if err != nil {
		f.Fatal(err)
	}
	c := &node{host: f.far, label: "copy"}
	f.copies = append(f.copies, c)
	config := f.write("copy.yaml", fmt.Sprintf("agent: {drain: 0s, labels: {site: north}, hub: {url: %q}}\nexporters: {otlp: {endpoint: hub}}\n", f.elsewhere(original).URL))
	c.process = f.run(c.host, c.label, "agent", "-c", config, "--data", f.path("copy"))
	eventually(f.T, "one of two agents with one identity is refused, and somebody is told", func() bool {
		list, err := f.client.Knocks(context.Background())
		return err == nil && slices.ContainsFunc(list.Knocks, func(k api.Knock) bool { return k.Reason == control.Cloned && k.Remedy != "" })
	})
	now := time.Now()
	eventually(f.T, "the original goes on", func() bool {
		list := f.seen.of(1)
		last := list[len(list)-1]
		return last.from == original.address && last.at.Sub(now) > 2*interval
	})
	c.process.kill()
}

// leaderless kills the hub that places documents, writes one more through another hub at once, and returns how long it took from then
// until that ran. All is put right afterwards.
func (f *fleet) leaderless() time.Duration {
	f.Helper()
	x, err := f.client.Cluster(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	at := slices.IndexFunc(x.Hubs, func(h api.ClusterHub) bool { return h.ID == x.Leader })
	i := slices.IndexFunc(f.hubs, func(n *node) bool { return n.client.URL == x.Hubs[at].URL })
	leads, other := f.hubs[i], f.hubs[(i+1)%len(f.hubs)].client
	killed := time.Now()
	leads.process.kill()
	eventually(f.T, "a document is written without the hub that led", func() bool {
		_, err = other.ApplyDocument(context.Background(), api.DocumentChange{Text: "document: late\nselector: site == \"north\"\nplace: 1\nexporters: {debug/late: {}}"})
		return err == nil
	})
	eventually(f.T, "it runs", func() bool {
		t, err := other.Task(context.Background(), "late")
		return err == nil && len(t.Tasks) == 1 && t.Tasks[0].Status == "running"
	})
	took := time.Since(killed).Round(time.Millisecond)
	os.Remove(f.path(leads.label + "/hub.json"))
	leads.process = f.run(leads.host, leads.label, leads.args...)
	f.await(leads)
	if err := other.DeleteDocument(context.Background(), "late", api.DocumentDeletion{}); err != nil {
		f.Fatal(err)
	}
	return took
}

// elsewhere returns a hub at which an agent is not.
func (f *fleet) elsewhere(n *node) *api.Client {
	f.Helper()
	list, err := f.client.Agents(context.Background(), api.AgentQuery{Label: "site=north", Limit: 100})
	if err != nil {
		f.Fatal(err)
	}
	id, err := agent.ID(f.path(n.label), false)
	if err != nil {
		f.Fatal(err)
	}
	hub := list.Agents[slices.IndexFunc(list.Agents, func(a api.Agent) bool { return a.ID == id })].Hub
	for _, h := range f.hubs {
		if x, err := h.client.Hub(context.Background()); err != nil {
			f.Fatal(err)
		} else if x.ID != hub {
			return h.client
		}
	}
	f.Fatalf("%s is at hub %s, and there is no other", n.label, hub)
	return nil
}

// at returns the agent with an address.
func (f *fleet) at(address string) *node {
	all := slices.Concat(f.agents, f.copies)
	return all[slices.IndexFunc(all, func(n *node) bool { return n.address == address })]
}

// wantOne wants that no two agents have probed something at the same time. An agent that probes does so every interval; while
// it does not miss two it is at it. What it had begun when it was stopped it may end when it goes on: no fence can prevent that.
func (f *fleet) wantOne(document int) {
	f.Helper()
	type spell struct {
		agent    *node
		from, to time.Time
		probes   int
	}
	var spells []spell
	last := make(map[string]int) // the latest spell of an agent
	for _, p := range f.seen.of(document) {
		if i, ok := last[p.from]; ok && p.at.Sub(spells[i].to) < 5*interval/2 {
			spells[i].to = p.at
			spells[i].probes++
			continue
		}
		last[p.from] = len(spells)
		spells = append(spells, spell{f.at(p.from), p.at, p.at, 1})
	}
	late := 0
	spells = slices.DeleteFunc(spells, func(s spell) bool {
		begun := s.probes == 1 && slices.ContainsFunc(s.agent.woken, func(w time.Time) bool { return s.from.Sub(w) >= 0 && s.from.Sub(w) < interval })
		if begun {
			late++
		}
		return begun
	})
	if late > 0 {
		f.Logf("p%d: %d probes had been begun when the agent was stopped", document, late)
	}
	for i, s := range spells {
		for _, o := range spells[i+1:] {
			if o.agent != s.agent && o.from.Before(s.to) {
				f.Errorf("p%d was probed by %s from %s to %s, %d times, and by %s from %s to %s, %d times", document,
					s.agent.label, s.from.Format(time.StampMilli), s.to.Format(time.StampMilli), s.probes,
					o.agent.label, o.from.Format(time.StampMilli), o.to.Format(time.StampMilli), o.probes)
			}
		}
	}
}

// wantLines wants each line to be stored at some hub. Some may be there twice: an agent that has had no answer of one hub sends
// to another.
func (f *fleet) wantLines() {
	f.Helper()
	f.written()
	written := 0
	for _, n := range f.agents {
		written += n.wrote
	}
	var seen map[string]int
	eventually(f.T, "all lines are stored", func() bool {
		h, err := f.client.CountLogs(context.Background(), api.LogQuery{Query: `"clustered line"`})
		if err != nil || h.Total < int64(written) {
			return false
		}
		seen = f.search(`"clustered line"`)
		return len(seen) >= written
	})
	twice := 0
	for i, n := range f.agents {
		for k := range n.wrote {
			switch seen[fmt.Sprintf("clustered line %d.%d", i, k)] {
			case 0:
				f.Errorf("line %d.%d is missing", i, k)
			case 1:
			default:
				twice++
			}
		}
	}
	f.Logf("%d lines, %d of them more than once", written, twice)
}

// A witness is what is probed: it notes by whom, and when.
type witness struct {
	mu     sync.Mutex
	probes [probed][]probe
}

type probe struct {
	from string // address
	at   time.Time
}

// watchProbes serves at a host.
func watchProbes(h *host) *witness {
	h.t.Helper()
	l, err := h.listen(h.address + ":8080")
	if err != nil {
		h.t.Fatal(err)
	}
	w := &witness{}
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr) // it is one
		came := time.Now()
		select { // a host that was cut off sends again what a process on it has given up long ago
		case <-time.After(50 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
		if i, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/")); err == nil && i < probed {
			w.mu.Lock()
			w.probes[i] = append(w.probes[i], probe{from, came})
			w.mu.Unlock()
		}
	})}
	over := make(chan struct{})
	go func() { defer close(over); _ = server.Serve(l) }() // until it is closed
	h.t.Cleanup(func() { server.Close(); <-over })
	return w
}

// of returns the probes of a document, as they came.
func (w *witness) of(document int) []probe {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.probes[document])
}

// last returns who has probed a document last.
func (w *witness) last(document int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.probes[document]
	return list[len(list)-1].from
}

// all reports whether all documents have been probed since a moment.
func (w *witness) all(since time.Time) bool {
	for i := range probed {
		if list := w.of(i); len(list) == 0 || list[len(list)-1].at.Before(since) {
			return false
		}
	}
	return true
}

// gap returns for how long some document has not been probed at most, since a moment.
func (w *witness) gap(since time.Time) (most time.Duration) {
	for i := range probed {
		last := since
		for _, p := range w.of(i) {
			if p.at.After(since) {
				most, last = max(most, p.at.Sub(last)), p.at
			}
		}
		most = max(most, time.Since(last))
	}
	return most.Round(time.Millisecond)
}

// count returns how many probes there were, and how often another agent took over.
func (w *witness) count() (probes, moves int) {
	for i := range probed {
		list := w.of(i)
		probes += len(list)
		for k := range list[1:] {
			if list[k].from != list[k+1].from {
				moves++
			}
		}
	}
	return probes, moves
}

// listen listens at the host.
func (h *host) listen(address string) (l net.Listener, err error) {
	if failed := h.inside(func() { l, err = net.Listen("tcp", address) }); failed != nil {
		return nil, failed
	}
	return l, err
}
