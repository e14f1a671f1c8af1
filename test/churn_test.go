package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/agent/identity"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/plugins/all"
)

// A relay is how agents in this process reach a port of the hub: from a host of the network, so that to the hub they are strangers
// who must show a certificate, and so that they can be cut off.
type relay struct {
	net.Listener
	to    string
	calls chan chan net.Conn // a connection to the other side is asked for

	mu    sync.Mutex
	conns map[net.Conn]bool
	off   bool
}

func newRelay(from *host, to string) *relay {
	from.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		from.t.Fatal(err)
	}
	r := &relay{Listener: l, to: to, calls: make(chan chan net.Conn), conns: make(map[net.Conn]bool)}
	ns, err := os.Open("/run/netns/" + from.name)
	if err != nil {
		from.t.Fatal(err)
	}
	go r.dial(ns)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil: // so many agents may have all the descriptors that this process may have, for a moment
				from.t.Logf("the relay to %s: %v", to, err)
				time.Sleep(100 * time.Millisecond)
			default:
				wg.Go(func() { r.pass(conn) })
			}
		}
	})
	from.t.Cleanup(func() { l.Close(); r.cut(true); wg.Wait(); close(r.calls) })
	return r
}

// dial begins all connections on one thread, which stays on the host: to go there each time is slow. Nothing waits on it.
func (r *relay) dial(ns *os.File) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
	ns.Close()
	for call := range r.calls {
		var conn net.Conn
		if err == nil {
			conn, _ = begin(r.to) // nobody there: whoever comes is turned away
		}
		call <- conn
	}
}

// begin begins a connection, on the network of the thread, and does not wait for it: see established.
func begin(address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), address)
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil && err != unix.EINPROGRESS {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

// established waits until a connection that was begun is there, and reports whether it is.
func established(conn net.Conn) bool {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	there := false
	return err == nil && raw.Write(func(fd uintptr) bool {
		_, err := unix.Getpeername(int(fd))
		failed, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		there = err == nil
		return there || failed != 0
	}) == nil && there
}

// pass connects both sides until one of them ends.
func (r *relay) pass(in net.Conn) {
	defer in.Close()
	if !r.keep(in, true) {
		return
	}
	defer r.keep(in, false)
	call := make(chan net.Conn)
	r.calls <- call
	out := <-call
	if out == nil {
		return
	}
	defer out.Close()
	if !r.keep(out, true) {
		return
	}
	defer r.keep(out, false)
	if !established(out) {
		return
	}
	ended := make(chan struct{}, 2)
	copy := func(to, from net.Conn) { _, _ = io.Copy(to, from); ended <- struct{}{} }
	go copy(in, out)
	go copy(out, in)
	<-ended
}

// keep remembers a connection for as long as it lasts, and reports whether there may be one.
func (r *relay) keep(conn net.Conn, there bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if delete(r.conns, conn); there && !r.off {
		r.conns[conn] = true
	}
	return !r.off
}

// cut ends all connections, and lets nobody through until it is told to.
func (r *relay) cut(off bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off = off; off {
		for conn := range r.conns {
			conn.Close()
		}
	}
}

// A churned agent is either a process or in this one. It reads a file of its own.
type churned struct {
	id, dir, config string
	lines           *os.File
	written         int

	process *process           // nil: it is in this one
	busy    atomic.Bool        // it is being started again
	stop    context.CancelFunc // at once, without delivering anything
	ended   chan error
}

// churnSize is how much of it there is.
type churnSize struct {
	agents, processes int
	lines             float64 // of an agent, a second
	life, lasts       time.Duration
	heartbeat         string

	kills, restarts, cuts, unplugs, revokes, hubs int
}

func sizeOfChurn(t *testing.T) churnSize {
	t.Helper()
	if !*torture {
		return churnSize{agents: 12, processes: 2, lines: 20, life: 3 * time.Second, lasts: 8 * time.Second, heartbeat: "200ms", kills: 3, restarts: 12, cuts: 1, unplugs: 1, revokes: 4, hubs: 1}
	}
	s := churnSize{agents: 500, processes: 10, lines: 0.2, life: 10 * time.Second, lasts: 10 * time.Minute, heartbeat: "5s"}
	if text := os.Getenv("CREEL_CHURN"); text != "" {
		if _, err := fmt.Sscanf(text, "%d,%d", &s.agents, &s.lasts); err != nil {
			t.Fatalf("read CREEL_CHURN: must be how many agents, and for how many minutes, such as 100,3: %v", err)
		}
		s.lasts *= time.Minute
	}
	minutes := int(s.lasts / time.Minute)
	s.kills, s.restarts, s.cuts, s.unplugs, s.revokes, s.hubs = 30*minutes, s.agents*minutes/4, minutes, minutes, s.agents*minutes/20, 1+minutes/2
	return s
}

// A churn is a fleet of agents with one hub.
type churn struct {
	*open
	size   churnSize
	r      *rand.Rand
	relays []*relay
	served *process // the hub
	agents []*churned
	begun  sync.WaitGroup // agents that are being started again

	rotating bool
	steps    int    // in changing the authority
	undo     []undo // of what was done to agents
	kills    int

	renewed int64            // certificates, as the hubs had counted before they were killed
	knocked map[string]int64 // likewise, by reason
}

// An undo is what is to be done when it is due.
type undo struct {
	due time.Time
	f   func()
}

// TestChurn: a fleet whose certificates live for seconds is killed, stopped, cut off, revoked and admitted, its hub is killed,
// its authority changed, and its control state put back to what it was. No line is missing, none is there twice, and in the end all
// are well without anybody having had to do anything. All agents come in from the network, so that nothing works without their
// identities.
func TestChurn(t *testing.T) {
	t.Parallel() // likewise
	c := &churn{open: newOpen(t), size: sizeOfChurn(t), r: newRand(t), knocked: make(map[string]int64)}
	began := time.Now()
	step := func(what string) { t.Logf("%v: %s", time.Since(began).Round(time.Millisecond), what) }
	c.startHub()
	for _, port := range []string{"4380", "4317", "4318"} {
		c.relays = append(c.relays, newRelay(c.stranger, net.JoinHostPort(c.hub.address, port)))
	}
	c.join()
	stop := c.writes()
	defer stop()
	c.settled()
	step(fmt.Sprintf("%d agents have joined", len(c.agents)))

	fates := c.fates()
	plan := []func() bool{c.backup, c.restore, c.rotate}
	for i := range c.size.hubs {
		plan = slices.Insert(plan, min(2*i, len(plan)), c.killHub)
	}
	pace, pause := c.size.lasts/time.Duration(len(fates)), c.size.lasts/time.Duration(len(plan)+1)
	for next := time.Now().Add(pause); len(fates)+len(plan) > 0; {
		time.Sleep(time.Duration(c.r.Int64N(2 * int64(pace)))) // chance, not synchronisation
		c.undone(time.Now())
		if len(fates) > 0 {
			fate := fates[0]
			if fates = fates[1:]; !fate() {
				fates = append(fates, fate)
			}
		}
		if len(plan) > 0 && time.Now().After(next) && plan[0]() {
			plan, next = plan[1:], time.Now().Add(pause)
			step(fmt.Sprintf("the hub was seen to, %d times more to go", len(plan)))
		}
	}
	c.undone(time.Now().Add(time.Hour))
	c.admitAll()
	c.begun.Wait()
	step("nothing is done to them any more")
	c.settled()
	step("all are healthy")
	c.refuse()
	c.settled()
	step("one more was revoked, refused, and admitted")
	stop()
	lines := c.wantOnce()
	c.harvest()
	step("all is there")
	fds, _ := os.ReadDir("/proc/self/fd")
	t.Logf("%d descriptors in the end", len(fds))
	t.Logf("%d lines of %d agents; %d killed, %d stopped, %d cuts of all in this process, %d of those in others, %d revoked, the hub killed %d times beside; %d certificates renewed, refused: %v; the hub's memory: %s",
		lines, len(c.agents), c.kills, c.size.restarts, c.size.cuts, c.size.unplugs, c.size.revokes, c.size.hubs, c.renewed, c.knocked, c.memory())
	if least := int64(len(c.agents)) * int64(c.size.lasts/c.size.life) / 2; c.renewed < least {
		t.Errorf("only %d certificates were renewed, at least %d are expected: the test tests nothing", c.renewed, least)
	}
	if c.kills == 0 {
		t.Error("nobody was killed: the test tests nothing")
	}
	for i, a := range c.agents {
		id, err := identity.Open(agent.IdentityDir(a.dir), identity.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if now := id.Status(); id.Agent() != a.id || now.Generation < 2 {
			t.Errorf("the identity of agent %d is %s's, %+v", i, id.Agent(), now)
		}
	}
}

// startHub starts the hub with nothing but defaults, but for how long certificates live and how often it hears of agents.
func (c *churn) startHub() {
	c.Helper()
	os.Remove(c.path("hub/hub.json"))
	c.served = c.run(c.hub, "hub", "hub", "--listen", "0.0.0.0", "--data", c.path("hub"), "--agent-certificates", c.size.life.String(), "--heartbeat", c.size.heartbeat)
	eventually(c.T, "the hub runs", func() bool {
		_, err := os.Stat(c.path("hub/hub.json"))
		return err == nil
	})
	token, err := os.ReadFile(c.path("hub/token"))
	if err != nil {
		c.Fatal(err)
	}
	c.client = &api.Client{URL: "https://" + c.hub.address + ":4380", Token: strings.TrimSpace(string(token))}
	eventually(c.T, "the hub answers", func() bool {
		_, err := c.ask().Hub(context.Background())
		return err == nil
	})
}

// ask returns what asks the hub, whatever its authority is by now.
func (c *churn) ask() *api.Client {
	c.Helper()
	c.client.HTTP = c.web(c.stranger)
	return c.client
}

// join makes the agents and starts them. Every other one sends over HTTP.
func (c *churn) join() {
	c.Helper()
	token, err := c.ask().CreateToken(context.Background(), api.AccessTokenRequest{Name: "churn", Role: api.Enrol, Uses: c.size.agents, Labels: map[string]string{"site": "churn"}})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		c.begun.Wait()
		for _, a := range c.agents {
			if a.stop != nil {
				a.stop()
			}
		}
		for _, a := range c.agents {
			if a.ended != nil {
				<-a.ended
			}
		}
	})
	for i := range c.size.agents {
		dir := c.path(fmt.Sprintf("a%d", i))
		a := &churned{dir: dir}
		url, grpc, http := "https://"+c.relays[0].Addr().String(), c.relays[1].Addr().String(), c.relays[2].Addr().String()
		if i < c.size.processes { // these have a host of their own
			url, grpc, http = c.client.URL, net.JoinHostPort(c.hub.address, "4317"), net.JoinHostPort(c.hub.address, "4318")
		}
		endpoint := fmt.Sprintf("endpoint: %q, protocol: grpc", grpc)
		if i%2 == 1 {
			endpoint = fmt.Sprintf("endpoint: %q, protocol: http", "https://"+http)
		}
		a.config = fmt.Sprintf(`
agent: {drain: 0s}
collectors: {file: {include: [%s/app.log], start_at: beginning, poll_interval: 500ms}}
exporters: {otlp: {%s, tls: {identity: true}, delivery: {spool: {min_free: 0}, retry: {initial: 100ms, max: 2s}}}}
pipelines: {lines: {from: [file], to: [otlp]}}
`, dir, endpoint)
		if a.id, err = agent.ID(dir, false); err != nil {
			c.Fatal(err)
		}
		if a.lines, err = os.OpenFile(dir+"/app.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			c.Fatal(err)
		}
		c.Cleanup(func() { a.lines.Close() })
		c.agents = append(c.agents, a)
		if i < c.size.processes {
			c.write(fmt.Sprintf("a%d.yaml", i), a.config)
			a.process = c.run(c.far, fmt.Sprintf("a%d", i), "join", url, "--token", token.Text, "-c", dir+".yaml", "--data", dir)
			continue
		}
		if _, err := identity.Join(context.Background(), identity.JoinOptions{URL: url, Token: token.Text, Dir: agent.IdentityDir(dir), Agent: a.id, Name: filepath.Base(dir)}); err != nil {
			c.Fatal(err)
		}
		c.start(a)
	}
}

// start starts an agent in this process.
func (c *churn) start(a *churned) {
	c.Helper()
	log, err := os.OpenFile(a.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.Error(err) // it may be another goroutine than the test's
		return
	}
	var ctx context.Context
	ctx, a.stop = context.WithCancel(context.Background())
	a.ended = make(chan error, 1)
	go func() {
		defer close(a.ended)
		defer log.Close()
		a.ended <- agent.Run(ctx, agent.Options{Config: "churn.yaml", Text: []byte(a.config), Data: a.dir, Plugins: all.Plugins(), Log: log})
	}()
}

// writes has lines written all the time, as many as are due, until stop is called.
func (c *churn) writes() (stop func()) {
	r, end := rand.New(rand.NewPCG(c.r.Uint64(), 0)), make(chan struct{})
	var over sync.WaitGroup
	over.Go(func() {
		last, owed := time.Now(), 0.0
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-end:
				tick.Stop()
				return
			case <-tick.C:
			}
			owed += time.Since(last).Seconds() * c.size.lines * float64(len(c.agents))
			last = time.Now()
			due := make(map[int]int)
			for ; owed >= 1; owed-- {
				due[r.IntN(len(c.agents))]++
			}
			for i, n := range due {
				c.agents[i].write(c.T, i, n)
			}
		}
	})
	return sync.OnceFunc(func() { close(end); over.Wait() })
}

// write writes n lines.
func (a *churned) write(t *testing.T, i, n int) {
	var text []byte
	for range n {
		text = fmt.Appendf(text, "churned line %d.%d\n", i, a.written)
		a.written++
	}
	if _, err := a.lines.Write(text); err != nil {
		t.Error(err)
	}
}

// settled waits until all agents are healthy.
func (c *churn) settled() {
	c.Helper()
	n, healthy, progress := len(c.agents), -1, time.Now()
	for {
		list, err := c.ask().Agents(context.Background(), api.AgentQuery{Label: "site=churn", Status: "healthy", Limit: 1})
		switch {
		case err == nil && list.Total == n:
			return
		case err == nil && list.Total != healthy:
			healthy, progress = list.Total, time.Now()
		case time.Since(progress) > time.Minute:
			c.Fatalf("%d of %d agents are healthy, and for a minute none more: %v\n%s", healthy, n, err, c.ill())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// ill says how those are that are not healthy.
func (c *churn) ill() string {
	var s strings.Builder
	list, err := c.ask().Agents(context.Background(), api.AgentQuery{Label: "site=churn", Limit: 1000})
	if err != nil {
		return err.Error()
	}
	for _, a := range list.Agents {
		if a.Status() == "healthy" || s.Len() > 8000 {
			continue
		}
		fmt.Fprintf(&s, "%s: %s, %s\n", a.ID, a.Status(), a.Cause)
		if i := slices.IndexFunc(c.agents, func(b *churned) bool { return b.id == a.ID }); i >= 0 {
			log := process{log: c.agents[i].dir + ".log"}
			s.WriteString(log.tail()[max(0, len(log.tail())-1500):])
		}
	}
	if knocks, err := c.ask().Knocks(context.Background()); err == nil {
		for _, k := range knocks.Knocks[:min(len(knocks.Knocks), 5)] {
			fmt.Fprintf(&s, "knocks: %+v\n", k)
		}
	}
	return s.String()
}

// fates are what happens to agents, in whatever order. Each reports whether it has happened: while the authority is changed,
// nobody is kept away for long, for an agent that is not there when an authority ends has to join again.
func (c *churn) fates() (list []func() bool) {
	add := func(n int, f func() bool) { list = append(list, slices.Repeat([]func() bool{f}, n)...) }
	add(c.size.kills, c.killOne)
	add(c.size.restarts, c.restartOne)
	add(c.size.cuts, func() bool {
		return c.away(3*c.size.life/2, func() {
			for _, r := range c.relays {
				r.cut(true)
			}
		}, func() {
			for _, r := range c.relays {
				r.cut(false)
			}
		})
	})
	add(c.size.unplugs, func() bool {
		return c.away(3*c.size.life/2, func() { c.far.cut(true) }, func() { c.far.cut(false) })
	})
	add(c.size.revokes, func() bool {
		id := c.agents[c.r.IntN(len(c.agents))].id
		return c.away(2*c.size.life, func() {
			if err := c.ask().Revoke(context.Background(), id, api.Because{Cause: "churn"}); err != nil {
				c.Error(err)
			}
		}, func() { c.admit(id) })
	})
	c.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// away does what keeps agents away for a while.
func (c *churn) away(most time.Duration, do, end func()) bool {
	if c.rotating {
		return false
	}
	do()
	c.undo = append(c.undo, undo{time.Now().Add(time.Duration(c.r.Int64N(int64(most)))), end})
	return true
}

func (c *churn) killOne() bool {
	c.again(c.agents[c.r.IntN(c.size.processes)])
	c.kills++
	return true
}

// restartOne does not wait until it is done: where there are many agents that takes its time.
func (c *churn) restartOne() bool {
	a := c.agents[c.size.processes+c.r.IntN(len(c.agents)-c.size.processes)]
	if !a.busy.CompareAndSwap(false, true) {
		return false
	}
	c.begun.Go(func() {
		defer a.busy.Store(false)
		c.again(a)
	})
	return true
}

// again ends an agent without warning, and starts it again. One in this process is at least not allowed to deliver anything.
func (c *churn) again(a *churned) {
	c.Helper()
	if a.process == nil {
		a.stop()
		if err := <-a.ended; err != nil {
			c.Errorf("%s ended with %v", a.dir, err)
		}
		c.start(a)
		return
	}
	if a.process.kill(); a.process.ProcessState.ExitCode() != -1 {
		c.Fatalf("%s ended before it was killed: %v\n%s", a.dir, a.process.ProcessState, a.process.tail())
	}
	a.process = c.run(c.far, filepath.Base(a.dir), "agent", "-c", a.dir+".yaml", "--data", a.dir)
}

// undone does what is due.
func (c *churn) undone(now time.Time) {
	c.undo = slices.DeleteFunc(c.undo, func(u undo) bool {
		if u.due.After(now) {
			return false
		}
		u.f()
		return true
	})
}

// admit lets an agent in again. By itself it asks ten seconds after it was refused last; the short form has no time for that.
func (c *churn) admit(id string) {
	c.Helper()
	var asked *api.Error
	err := c.ask().Admit(context.Background(), id, api.Because{Cause: "churn"})
	switch {
	case errors.As(err, &asked) && asked.Code == "conflict": // it is admitted: a backup was restored, or it was revoked twice
	case err != nil:
		c.Error(err)
	case !*torture:
		a := c.agents[slices.IndexFunc(c.agents, func(a *churned) bool { return a.id == id })]
		if a.process != nil || a.busy.CompareAndSwap(false, true) { // else it is being started again anyway
			c.again(a)
			a.busy.Store(false)
		}
	}
}

// admitAll admits whoever is revoked: after a backup was restored these are those who were then.
func (c *churn) admitAll() {
	c.Helper()
	list, err := c.ask().Knocks(context.Background())
	if err != nil {
		c.Fatal(err)
	}
	for _, r := range list.Revoked {
		c.admit(r.Agent)
	}
}

// refuse revokes an agent, and admits it again when it was seen to have been refused.
func (c *churn) refuse() {
	c.Helper()
	id := c.agents[c.r.IntN(len(c.agents))].id
	if err := c.ask().Revoke(context.Background(), id, api.Because{Cause: "churn"}); err != nil {
		c.Fatal(err)
	}
	eventually(c.T, "who is revoked is refused", func() bool {
		list, err := c.ask().Knocks(context.Background())
		return err == nil && slices.ContainsFunc(list.Knocks, func(k api.Knock) bool { return k.Agent == id && k.Reason == control.Revoked })
	})
	c.admit(id)
}

// harvest notes what a hub has counted. It forgets that when it ends.
func (c *churn) harvest() {
	c.Helper()
	list, err := c.ask().Knocks(context.Background())
	if err != nil {
		c.Fatal(err)
	}
	for _, k := range list.Knocks {
		c.knocked[k.Reason] += k.Count
		if k.Reason != control.Revoked && k.Reason != control.Expired {
			c.Errorf("somebody knocks whom nobody expects: %+v", k)
		}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", agent.AdminSocket(c.path("hub/agent")))
	}}}
	resp, err := client.Get("http://hub/metrics")
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "creel_hub_identity_renewed_total "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				c.Fatal(err)
			}
			c.renewed += int64(n)
			return
		}
	}
	c.Fatal("the hub counts no renewals")
}

// killHub and what follows is what is done to the hub. Each reports whether it is done, and is called again if it is not.
func (c *churn) killHub() bool {
	c.Helper()
	c.harvest()
	c.served.kill()
	c.startHub()
	return true
}

// rotate changes the authority. It takes each step when all agents have confirmed the last one.
func (c *churn) rotate() bool {
	c.Helper()
	if !c.rotating {
		c.rotating = true
		c.undone(time.Now().Add(time.Hour))
		c.admitAll()
	}
	a, err := c.ask().Authority(context.Background())
	if err != nil {
		c.Fatal(err)
	}
	if a.Confirmed < len(c.agents) || len(a.Behind) > 0 {
		return false
	}
	step := [...]string{"rotate", "next", "next"}[c.steps]
	var asked *api.Error
	switch _, err = c.ask().ChangeAuthority(context.Background(), api.AuthorityChange{Step: step}); {
	case err == nil:
		c.steps++
	case !errors.As(err, &asked) || asked.Code != "conflict": // somebody is behind
		c.Fatal(err)
	}
	c.rotating = c.steps < 3
	return !c.rotating
}

func (c *churn) backup() bool {
	c.Helper()
	c.asRoot("backup", c.path("backup.tar"))
	return true
}

// restore loses the hub's control state, and puts back an old one.
func (c *churn) restore() bool {
	c.Helper()
	c.harvest()
	c.served.kill()
	err := errors.Join(os.Rename(c.path("hub"), c.path("lost")), os.Mkdir(c.path("hub"), 0o700))
	for _, name := range []string{"quicklook", "agent"} { // are in no backup
		err = errors.Join(err, os.Rename(c.path("lost/"+name), c.path("hub/"+name)))
	}
	if err != nil {
		c.Fatal(err)
	}
	c.asRoot("restore", c.path("backup.tar"))
	c.startHub()
	return true
}

// wantOnce wants each line to be stored once, and returns how many there are.
func (c *churn) wantOnce() (written int) {
	c.Helper()
	for _, a := range c.agents {
		if written += a.written; a.written == 0 {
			c.Errorf("%s has written nothing: the test tests nothing", a.dir)
		}
	}
	last, progress := int64(-1), time.Now()
	for {
		h, err := c.ask().CountLogs(context.Background(), api.LogQuery{Query: `"churned line"`})
		if err == nil && h.Total >= int64(written) {
			break
		}
		if err == nil && h.Total != last {
			last, progress = h.Total, time.Now()
		}
		if time.Since(progress) > time.Minute {
			c.Errorf("%d of %d lines are stored, and for a minute none more: %v", last, written, err)
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	seen, lost, twice := c.search(`"churned line"`), 0, 0
	for i, a := range c.agents {
		for n := range a.written {
			switch k := seen[fmt.Sprintf("churned line %d.%d", i, n)]; {
			case k == 0:
				if lost++; lost < 10 {
					c.Errorf("line %d.%d is missing", i, n)
				}
			case k > 1:
				if twice++; twice < 10 {
					c.Errorf("line %d.%d is there %d times", i, n, k)
				}
			}
		}
	}
	if lost+twice > 0 || len(seen) > written {
		c.Errorf("of %d lines %d are lost, %d are there more than once, and %d different ones are stored", written, lost, twice, len(seen))
	}
	return written
}

// memory is what the hub has, and has had at most.
func (c *churn) memory() string {
	c.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.served.Process.Pid))
	if err != nil {
		c.Fatal(err)
	}
	var s []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "VmHWM") || strings.HasPrefix(line, "VmRSS") {
			s = append(s, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(s, ", ")
}
