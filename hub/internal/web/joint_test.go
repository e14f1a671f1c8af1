package web

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/access"
	"github.com/creelhq/creel/hub/internal/cluster"
	"github.com/creelhq/creel/hub/internal/peers"
	"github.com/creelhq/creel/hub/internal/quicklook/rows"
	"github.com/creelhq/creel/hub/internal/quicklook/series"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

// town is three hubs on one control state, and one that is alone and has all that they have.
type town struct {
	*testing.T
	state *state.Memory
	now   time.Time // by which logs are filed
	hubs  []*townHub
	alone *townHub
	list  hubList
}

type townHub struct {
	id     string
	access *access.Access
	rows   *rows.Store
	series *series.Store
	server *httptest.Server
	knocks api.KnockList
}

// hubList is a Cluster.
type hubList struct {
	mu   sync.Mutex
	list []cluster.Hub
}

func (l *hubList) Hubs() []cluster.Hub {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

func (l *hubList) add(id, url string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, cluster.Hub{HubAt: control.HubAt{ID: id, Addresses: control.Addresses{URL: url}, Agents: 7}, Name: "host-" + id[:1]})
}

const gone = "00000000-0000-4000-8000-000000000000" // a hub that was there once

// newTown returns a town with agents, one of five of them of a hub that is gone.
func newTown(t *testing.T, agents int) *town {
	w := &town{T: t, state: new(state.Memory), now: time.Now().Add(-10 * time.Minute).Truncate(time.Second)}
	var ids []string
	for i := range 4 {
		ids = append(ids, fmt.Sprintf("%d0000000-0000-4000-8000-000000000000", i+1))
	}
	s := w.state.Open()
	for i := range agents {
		id := fmt.Sprintf("f%07d-0000-4000-8000-000000000000", i)
		record := map[string]any{
			"id": id, "name": fmt.Sprintf("agent-%02d", i*7%agents), "type": "creel", "connection": []string{"lost", "disconnected"}[i%2],
			"hub": append(slices.Clone(ids[:3]), gone, ids[0])[i%5], "labels": map[string]string{"site": []string{"north", "south"}[i%3/2]},
			"last_seen": w.now, "first_seen": w.now, "timeline": []any{},
		}
		text, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(t.Context(), "agents/"+id, text, false, state.Always()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids[:3] {
		w.hubs = append(w.hubs, w.hub(id, &w.list))
	}
	w.alone = w.hub(ids[3], nil)
	for _, h := range w.hubs {
		w.list.add(h.id, h.server.URL)
	}
	return w
}

func (w *town) hub(id string, others *hubList) *townHub {
	w.Helper()
	h := &townHub{id: id}
	must := func(err error) {
		w.Helper()
		if err != nil {
			w.Fatal(err)
		}
	}
	store := w.state.Open()
	var err error
	h.access, err = access.Open(w.Context(), access.Options{Store: store, Secret: new(state.Secret), Hub: id, Root: testToken})
	must(err)
	dir := w.TempDir()
	h.rows, err = rows.Open(rows.Options{Dir: filepath.Join(dir, "rows"), MaxBytes: 1 << 30, MaxAge: 48 * time.Hour, Now: func() time.Time { return w.now }})
	must(err)
	h.series, err = series.Open(series.Options{Dir: filepath.Join(dir, "series"), MaxBytes: 1 << 30, MaxAge: 48 * time.Hour, Metrics: metric.NewSet()})
	must(err)
	fleet, err := registry.Open(w.Context(), registry.Options{Hub: id, Store: store})
	must(err)
	r := &room{}
	o := Options{
		Version: "1", Log: slog.New(slog.DiscardHandler), Hub: func() api.Hub { return api.Hub{ID: id, QuickLook: api.QuickLook{Bytes: 1}} },
		Fleet: fleet, Rows: h.rows, Documents: &r.papers, Prom: h.series.Handler(), Access: h.access, Gate: keeper{h}, Flood: (*dam)(r),
	}
	if others != nil {
		o.Peers = peers.New(peers.Options{
			Hub: id, Cluster: others, Sign: h.access.ForHub, TLS: func(string) *tls.Config { return nil }, Patience: 500 * time.Millisecond,
		})
	}
	s := New(o)
	h.server = httptest.NewServer(s)
	w.Cleanup(func() {
		s.Close()
		h.server.Close()
		if o.Peers != nil {
			o.Peers.Close()
		}
		fleet.Close()
		h.access.Close()
		for _, err := range []error{h.rows.Close(), h.series.Close(), store.Close()} {
			if err != nil {
				w.Error(err)
			}
		}
	})
	return h
}

// keeper is a Gate that has refused somebody.
type keeper struct{ *townHub }

func (k keeper) ServeHTTP(http.ResponseWriter, *http.Request)                 {}
func (k keeper) Revoke(context.Context, string, string, string, string) error { return nil }
func (k keeper) Admit(context.Context, string, string, string) error          { return nil }
func (k keeper) Knocks() api.KnockList                                        { return k.knocks }

// get asks a hub, and returns the answer's body and header.
func (w *town) get(h *townHub, token, path string, q url.Values) ([]byte, http.Header) {
	w.Helper()
	resp, body := request{path: path + "?" + q.Encode(), token: token}.do(w.T, h.server)
	if resp.StatusCode != http.StatusOK {
		w.Fatalf("%s: %s: %s", path, resp.Status, body)
	}
	return []byte(body), resp.Header
}

func read[T any](w *town, h *townHub, token, path string, q any) (v T) {
	w.Helper()
	body, _ := w.get(h, token, api.Prefix+path, api.EncodeQuery(q))
	if err := json.Unmarshal(body, &v); err != nil {
		w.Fatal(err)
	}
	return v
}

// store gives batches to one of the hubs, and to the one that is alone.
func (w *town) store(i int, logs []creel.Log, spans []creel.Span, points []creel.Metric) {
	w.Helper()
	for _, h := range []*townHub{w.hubs[i], w.alone} {
		for _, f := range []func() (*creel.Batch, error){
			func() (*creel.Batch, error) {
				b := creel.NewLogs(slices.Clone(logs))
				return b, h.rows.ExportLogs(w.Context(), []*creel.Batch{b})
			},
			func() (*creel.Batch, error) {
				b := creel.NewSpans(slices.Clone(spans))
				return b, h.rows.ExportSpans(w.Context(), []*creel.Batch{b})
			},
			func() (*creel.Batch, error) {
				b := creel.NewMetrics(slices.Clone(points))
				return b, h.series.Export(w.Context(), []*creel.Batch{b})
			},
		} {
			b, err := f()
			if err != nil {
				w.Fatal(err)
			}
			creel.Settle(b, nil)
		}
	}
}

func from(pairs ...string) *creel.Origin {
	o := &creel.Origin{}
	for i := 0; i < len(pairs); i += 2 {
		o.Resource.Attrs = append(o.Resource.Attrs, creel.Attr{Key: pairs[i], Value: creel.String(pairs[i+1])})
	}
	return o
}

// fill stores records of all signals, spread over the hubs: traces have spans at several, and series go from one to another.
func (w *town) fill() {
	counter := &creel.Descriptor{Name: "requests", Kind: creel.Sum, Monotonic: true, Temporality: creel.Cumulative, Description: "How many."}
	native := &creel.Descriptor{Name: "fine", Kind: creel.ExponentialKind, Temporality: creel.Cumulative}
	for i := range 60 {
		hub := i % 3
		service := []string{"cart", "shop"}[i/30]
		o := from("service.name", service, "host.name", fmt.Sprintf("h%d", i%5))
		l := creel.Log{Origin: o, Body: creel.String(fmt.Sprintf("record %d of %s", i, service)), Severity: creel.Severity(1 + i%24), Time: w.now.UnixNano()}
		s := creel.Span{
			Origin: o, TraceID: creel.TraceID{byte(1 + i/6)}, SpanID: creel.SpanID{byte(1 + i)}, Name: fmt.Sprintf("span %d", i%4), Start: w.now.UnixNano(), End: w.now.Add(time.Duration(1+i%3) * time.Second).UnixNano(),
		}
		if i%6 > 0 {
			s.Parent = creel.SpanID{byte(1 + i/6*6)}
		}
		moving := creel.Metric{Origin: from("service.name", "moving"), Desc: counter, Time: w.now.UnixNano(), Value: creel.Int(int64(i))}
		staying := creel.Metric{Origin: from("service.name", "staying", "host.name", fmt.Sprint("h", hub)), Desc: counter, Time: w.now.UnixNano(), Value: creel.Int(int64(i))}
		buckets := creel.Metric{Origin: from("service.name", "fine", "host.name", fmt.Sprint("h", hub)), Desc: native, Time: w.now.UnixNano(), Exponential: &creel.ExponentialHistogram{
			Count: uint64(i), Scale: 2, Positive: creel.Buckets{Offset: 1, Counts: []uint64{uint64(i)}},
		}}
		w.store(hub, []creel.Log{l}, []creel.Span{s}, []creel.Metric{staying, buckets})
		w.store(i/20, nil, nil, []creel.Metric{moving})
		w.now = w.now.Add(time.Second)
	}
}

// TestAnswersForAll: whichever hub is asked answers as one would that has everything.
func TestAnswersForAll(t *testing.T) {
	w := newTown(t, 43)
	w.fill()
	window := api.Window{Start: w.now.Add(-time.Hour), End: w.now.Add(time.Minute)}
	f := func(what string, ask func(h *townHub) any) {
		t.Helper()
		want, err := json.Marshal(ask(w.alone))
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range w.hubs {
			if got, err := json.Marshal(ask(h)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, asked of hub %d, %v:\n got %.2000s\nwant %.2000s", what, i, err, got, want)
			}
		}
	}
	for _, q := range []api.AgentQuery{{Limit: 7}, {Limit: 1}, {Status: "lost", Limit: 4}, {Search: "agent-1"}, {Label: "site=south", Limit: 1000}} {
		f(fmt.Sprintf("agents %+v", q), func(h *townHub) any {
			var pages []api.AgentList
			for q := q; ; {
				l := read[api.AgentList](w, h, testToken, "/agents", q)
				pages = append(pages, l)
				if q.Cursor = l.Next; q.Cursor == "" {
					return pages
				}
			}
		})
	}
	f("counts", func(h *townHub) any { return read[api.Hub](w, h, testToken, "/hub", nil).Agents })
	f("one agent", func(h *townHub) any {
		return read[api.AgentDetail](w, h, testToken, "/agents/f0000001", nil).ID
	})
	f("ledger", func(h *townHub) any { return read[api.Ledger](w, h, testToken, "/ledger", nil) })
	for _, q := range []api.LogQuery{{Limit: 7}, {Limit: 7, Order: "asc"}, {Limit: 1000}, {Query: "cart", Filters: []string{"severity>=WARN"}, Limit: 3}} {
		q.Window = window
		f(fmt.Sprintf("logs %+v", q), func(h *townHub) any {
			var pages [][]api.Log
			for q := q; ; {
				r := read[api.LogResult](w, h, testToken, "/logs", q)
				if q.Cursor = r.Next; r.Partial != "" || len(r.Absent) > 0 {
					t.Errorf("partial: %+v", r)
				}
				for i := range r.Logs {
					r.Logs[i].ID = ""
				}
				if pages = append(pages, r.Logs); q.Cursor == "" {
					return pages
				}
			}
		})
		f(fmt.Sprintf("histogram %+v", q), func(h *townHub) any {
			return read[api.Histogram](w, h, testToken, "/logs/histogram", api.LogQuery{Window: q.Window, Query: q.Query, Filters: q.Filters})
		})
	}
	for _, q := range []api.TraceQuery{{}, {Limit: 3}, {Name: "span 3"}, {Service: "shop", Filters: []string{"host.name=h2"}}} {
		q.Window = window
		f(fmt.Sprintf("traces %+v", q), func(h *townHub) any { return read[api.TraceList](w, h, testToken, "/traces", q) })
	}
	f("a trace", func(h *townHub) any {
		return read[api.Trace](w, h, testToken, "/traces/03000000000000000000000000000000", nil)
	})
	f("services", func(h *townHub) any { return read[api.ServiceList](w, h, testToken, "/services", window) })
	end := fmt.Sprint(w.now.Unix())
	for _, query := range []string{
		"sum(requests_total)", "requests_total", "rate(requests_total[30s])", `topk(2, sum by (host_name) (requests_total))`, `requests_total{service_name="moving"}`,
		"histogram_quantile(0.5, sum(fine))", "sum(requests_total) - sum(requests_total offset 20s)", "nothing_at_all", `count({__name__=~".+"})`,
	} {
		f(query, func(h *townHub) any {
			at, _ := w.get(h, testToken, "/prom/api/v1/query", url.Values{"query": {query}, "time": {end}})
			over, _ := w.get(h, testToken, "/prom/api/v1/query_range", url.Values{"query": {query}, "start": {fmt.Sprint(w.now.Unix() - 60)}, "end": {end}, "step": {"7"}})
			if query == "sum(requests_total)" && !bytes.Contains(at, []byte(`"value"`)) {
				t.Errorf("%s is nothing", query)
			}
			return sortedSeries(t, at) + sortedSeries(t, over)
		})
	}
	for path, q := range map[string]url.Values{
		"labels": nil, "label/host_name/values": {"match[]": {"requests_total"}}, "series": {"match[]": {"requests_total", "fine"}}, "metadata": nil,
	} {
		f(path, func(h *townHub) any {
			body, _ := w.get(h, testToken, "/prom/api/v1/"+path, q)
			return string(body)
		})
	}
}

// sortedSeries returns an answer of Prometheus' API with its series in order: of an instant query they have none.
func sortedSeries(t *testing.T, body []byte) string {
	var answer struct {
		Status   string
		Warnings []string
		Data     struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	slices.SortFunc(answer.Data.Result, func(a, b json.RawMessage) int { return bytes.Compare(a, b) })
	return fmt.Sprintf("%s %v %s\n", answer.Status, answer.Warnings, answer.Data.Result)
}

// TestTellsOfAll: what is not the same at a hub that is alone.
func TestTellsOfAll(t *testing.T) {
	w := newTown(t, 5)
	hub := read[api.Hub](w, w.hubs[1], testToken, "/hub", nil)
	if len(hub.Hubs) != 3 || hub.Hubs[0].ID != w.hubs[1].id || hub.Hubs[1].QuickLook == nil || hub.Hubs[1].Agents != 7 || hub.Hubs[1].URL != w.hubs[0].server.URL {
		t.Errorf("the hubs are %+v", hub.Hubs)
	}
	if alone := read[api.Hub](w, w.alone, testToken, "/hub", nil); alone.Hubs != nil {
		t.Errorf("alone, it tells of %+v", alone.Hubs)
	}
	at := func(seconds int) time.Time { return w.now.Add(time.Duration(seconds) * time.Second).UTC() }
	w.hubs[0].knocks = api.KnockList{Knocks: []api.Knock{{Agent: "x", Reason: "revoked", First: at(1), Last: at(5), Count: 3}}}
	w.hubs[2].knocks = api.KnockList{Knocks: []api.Knock{{Agent: "x", Reason: "revoked", Name: "n", First: at(2), Last: at(9), Count: 2}, {Agent: "y", Reason: "cloned", Last: at(10), Count: 1}}}
	list := read[api.KnockList](w, w.hubs[1], testToken, "/knocks", nil).Knocks
	want := []api.Knock{{Agent: "y", Reason: "cloned", Last: at(10), Count: 1}, {Agent: "x", Reason: "revoked", Name: "n", First: at(1), Last: at(9), Count: 5}}
	if fmt.Sprint(list) != fmt.Sprint(want) {
		t.Errorf("knocks are %+v", list)
	}
}

// TestTailsAll: what any hub stores is told, a hub that comes is followed, and one that does not tell is named.
func TestTailsAll(t *testing.T) {
	w := newTown(t, 0)
	warned, found := make(chan string, 100), make(chan string, 100)
	c := api.Client{URL: w.hubs[0].server.URL, Token: testToken, Warn: func(text string) { warned <- text }}
	ctx, cancel := context.WithCancel(t.Context())
	var over sync.WaitGroup
	over.Go(func() {
		_ = c.TailLogs(ctx, api.LogQuery{}, func(l api.Log) error {
			found <- l.ID[strings.Index(l.ID, "@")+1:] + string(l.Body)
			return nil
		})
	})
	defer over.Wait()
	defer cancel()
	heard := make(map[string]bool)
	for deadline := time.Now().Add(time.Minute); len(heard) < 3; { // until all follow
		if time.Now().After(deadline) {
			t.Fatalf("heard %v", heard)
		}
		for i := range w.hubs {
			w.store(i, []creel.Log{{Body: creel.String("hello"), Time: w.now.UnixNano()}}, nil, nil)
		}
		select {
		case text := <-found:
			heard[text] = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	for _, h := range w.hubs {
		if !heard[h.id+`"hello"`] {
			t.Errorf("of hub %s nothing was heard: %v", h.id, heard)
		}
	}
	w.hubs[2].server.CloseClientConnections()
	w.hubs[2].server.Listener.Close()
	select {
	case text := <-warned:
		if !strings.Contains(text, w.hubs[2].id) {
			t.Errorf("warned of %q", text)
		}
	case <-time.After(time.Minute):
		t.Error("nobody has said that a hub is gone")
	}
}

// TestAbsent: a hub that is dead, and one that is silent, make answers partial, in bounded time, and no errors.
func TestAbsent(t *testing.T) {
	w := newTown(t, 20)
	w.fill()
	stop := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(stop) })
	w.list.add("90000000-0000-4000-8000-000000000000", silent.URL)
	w.hubs[2].server.CloseClientConnections()
	w.hubs[2].server.Close()
	begun, paths := time.Now(), []string{"/hub", "/agents", "/ledger", "/configurations", "/logs", "/logs/histogram", "/traces", "/services", "/knocks"}
	var all sync.WaitGroup
	for _, path := range paths {
		all.Go(func() {
			body, header := w.get(w.hubs[0], testToken, api.Prefix+path, nil)
			var j api.Joint
			if err := json.Unmarshal(body, &j); err != nil || len(j.Absent) != 2 || fmt.Sprint(api.AbsentIn(header)) != fmt.Sprint(j.Absent) {
				t.Errorf("%s: %v, %+v, %v", path, err, j, header.Values(api.PartialHeader))
			}
		})
	}
	all.Wait()
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	// What the control state knows of agents whose hub does not answer is there.
	if l := read[api.AgentList](w, w.hubs[0], testToken, "/agents", nil); l.Total != 20 || len(l.Agents) != 20 {
		t.Errorf("%d agents of 20 are there", l.Total)
	}
	body, _ := w.get(w.hubs[0], testToken, "/prom/api/v1/query", url.Values{"query": {"sum(requests_total)"}, "time": {fmt.Sprint(w.now.Unix())}})
	if !bytes.Contains(body, []byte(`"success"`)) || bytes.Count(body, []byte("did not answer")) != 2 {
		t.Errorf("a query: %s", body)
	}
}

// TestForged: what another hub may ask for, nobody may who has not its key; and a hub may ask for nothing else.
func TestForged(t *testing.T) {
	w := newTown(t, 3)
	asked := w.hubs[0]
	viewer := access.Principal{Name: "nora", Role: api.Viewer}
	sign := func(h *townHub, p access.Principal, to string) string {
		t.Helper()
		text, err := h.access.ForHub(p, to)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	f := func(what, shown, path, method string, want int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, asked.server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(peers.Header, shown)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", what, resp.Status, want)
		}
	}
	right := sign(w.hubs[1], viewer, asked.id)
	stranger := sign(w.alone, viewer, asked.id) // it has the key, and is not in the cluster
	jwt, err := asked.access.JWT(access.Principal{Name: "root", Role: api.Admin, Token: rootOf(t, asked)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	hub := api.Prefix + "/hub"
	f("a hub", right, hub, "GET", 200)
	f("an id", w.hubs[1].id, hub, "GET", 401)
	f("nothing", " ", hub, "GET", 401)
	f("the root token", testToken, hub, "GET", 401)
	f("a person's JWT", jwt.Token, hub, "GET", 401)
	f("for another hub", sign(w.hubs[1], viewer, w.hubs[2].id), hub, "GET", 401)
	f("a hub that is not there", stranger, hub, "GET", 401)
	other := "A"
	if right[len(right)-9] == 'A' {
		other = "B"
	}
	f("with a letter changed", right[:len(right)-9]+other+right[len(right)-8:], hub, "GET", 401)
	f("documents", right, api.Prefix+"/documents", "GET", 403)
	f("tokens", sign(w.hubs[1], access.Principal{Name: "a", Role: api.Admin}, asked.id), api.Prefix+"/tokens", "GET", 403)
	f("a backup", right, api.Prefix+"/backup", "GET", 403)
	f("the way in for agents", right, control.Path, "GET", 403)
	f("a live view", right, api.Prefix+"/agents/f0000001/watch", "GET", 403)
	f("a change", right, api.Prefix+"/agents/f0000001/orders", "POST", 403)
	resp, body := request{path: hub, token: right}.do(t, asked.server)
	if resp.StatusCode != 401 {
		t.Errorf("as a bearer token: %s: %s", resp.Status, body)
	}
	for _, p := range []access.Principal{{Role: api.Enrol}, {Role: api.Ingest}, {Role: api.Viewer, Hub: w.hubs[1].id}} {
		if _, err := asked.access.ForHub(p, w.hubs[2].id); err == nil {
			t.Errorf("a hub asks on behalf of %+v", p)
		}
	}
}

func rootOf(t *testing.T, h *townHub) string {
	p, err := h.access.Bearer(testToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.Token
}

// TestWithin: who sees only some agents sees no others through another hub.
func TestWithin(t *testing.T) {
	w := newTown(t, 30)
	created, err := w.hubs[0].access.Create(t.Context(), "test", api.AccessTokenRequest{Name: "nora", Role: api.Viewer, Within: `site == "south"`})
	if err != nil {
		t.Fatal(err)
	}
	want := read[api.AgentList](w, w.hubs[0], testToken, "/agents", api.AgentQuery{Label: "site=south"})
	l := read[api.AgentList](w, w.hubs[0], created.Text, "/agents", nil)
	sum := 0
	for _, n := range l.Counts {
		sum += n
	}
	if len(l.Agents) == 0 || len(l.Agents) != len(want.Agents) || sum != len(want.Agents) || len(l.Absent) > 0 {
		t.Errorf("%d agents, %d counted, of %d; absent %v", len(l.Agents), sum, len(want.Agents), l.Absent)
	}
	for _, a := range l.Agents {
		if a.Labels["site"] != "south" {
			t.Errorf("%s is in %s", a.Name, a.Labels["site"])
		}
	}
	hub := read[api.Hub](w, w.hubs[0], created.Text, "/hub", nil)
	for _, m := range hub.Hubs {
		if m.QuickLook != nil || m.Agents > 0 { // none of them is connected
			t.Errorf("it hears %+v", m)
		}
	}
	// Another hub keeps the bounds by itself, whatever the one that asks does with what it hears.
	south, err := expr.ParseSelector(`site == "south"`)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := w.hubs[0].access.ForHub(access.Principal{Name: "nora", Role: api.Viewer, Within: south}, w.hubs[1].id)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/agents": 200, "/logs": 403, "/ledger": 403, "/agents/f0000001": 404} { // which is at hub 1, in the north
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.hubs[1].server.URL+api.Prefix+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(peers.Header, shown)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var l api.AgentList
		_ = json.NewDecoder(resp.Body).Decode(&l)
		resp.Body.Close()
		if resp.StatusCode != want || slices.ContainsFunc(l.Agents, func(a api.Agent) bool { return a.Labels["site"] != "south" || a.Hub != w.hubs[1].id }) {
			t.Errorf("%s: %s, %+v", path, resp.Status, l)
		}
	}
}
