package peers

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/access"
	"github.com/creelhq/creel/hub/internal/cluster"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// TestLogPages: page after page, in either order, everything comes once and in order, however many records of several hubs have
// the same id.
func TestLogPages(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	collisions := 0
	for range 300 {
		hubs := []string{"a", "b", "c"}[:1+random.IntN(3)]
		ids := make(map[string][]int64) // ascending
		type record struct {
			id  int64
			hub string
		}
		var want []record
		seen := make(map[int64]bool)
		for _, h := range hubs {
			for id := range int64(30) {
				if random.IntN(3) == 0 {
					ids[h], want = append(ids[h], id), append(want, record{id, h})
					if seen[id] {
						collisions++
					}
					seen[id] = true
				}
			}
		}
		q := api.LogQuery{Order: []string{"", "asc", "desc"}[random.IntN(3)], Limit: 1 + random.IntN(10)}
		slices.SortFunc(want, func(a, b record) int {
			if q.Order == "asc" {
				return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.hub, b.hub))
			}
			return cmp.Or(cmp.Compare(b.id, a.id), cmp.Compare(a.hub, b.hub))
		})
		var got []string
		for pages := 0; ; pages++ {
			var answers []Answer[api.LogResult]
			for _, h := range hubs {
				one, err := LogsOf(q, h)
				if err != nil {
					t.Fatal(err)
				}
				answers = append(answers, Answer[api.LogResult]{h, search(ids[h], one)})
			}
			page := JoinLogs(q, answers)
			for _, l := range page.Logs {
				got = append(got, l.ID)
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
			if pages > 100 || len(page.Logs) != q.Limit {
				t.Fatalf("page %d has %d records of %d, and says that there are more", pages, len(page.Logs), q.Limit)
			}
		}
		var expected []string
		for _, r := range want {
			expected = append(expected, CursorOf(strconv.FormatInt(r.id, 10), r.hub))
		}
		if !slices.Equal(got, expected) {
			t.Fatalf("%+v:\n got %v\nwant %v", q, got, expected)
		}
	}
	if collisions == 0 {
		t.Error("no two hubs have had the same id")
	}
}

// search answers as one hub does that has records with these ids.
func search(ids []int64, q api.LogQuery) (r api.LogResult) {
	ids = slices.Clone(ids)
	if q.Order != "asc" {
		slices.Reverse(ids)
	}
	after, err := strconv.ParseInt(q.Cursor, 10, 64)
	for _, id := range ids {
		if err == nil && (q.Order == "asc" && id <= after || q.Order != "asc" && id >= after) {
			continue
		}
		if len(r.Logs) == q.Limit {
			r.Next = r.Logs[q.Limit-1].ID
			break
		}
		r.Logs = append(r.Logs, api.Log{ID: strconv.FormatInt(id, 10)})
	}
	return r
}

// TestJoinTraces: a trace is called after its root, wherever that is, and else after its earliest span.
func TestJoinTraces(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0).UTC() }
	part := func(hub, name string, start, seconds int, rootless bool) Answer[api.TraceList] {
		return Answer[api.TraceList]{hub, api.TraceList{Traces: []api.TraceSummary{{
			TraceID: "t", Name: name, Service: name, Start: at(start), Duration: float64(seconds) * 1000, Spans: 2, Errors: 1, Rootless: rootless, Services: map[string]int{name: 2, "db": 1},
		}}}}
	}
	parts := []Answer[api.TraceList]{part("a", "late", 5, 10, true), part("b", "root", 2, 3, false), part("c", "early", 1, 1, true)}
	for range 20 {
		rand.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		got := JoinTraces(api.TraceQuery{}, parts).Traces
		want := []api.TraceSummary{{TraceID: "t", Name: "root", Service: "root", Start: at(1), Duration: 14_000, Spans: 6, Errors: 3, Services: map[string]int{"late": 2, "root": 2, "early": 2, "db": 3}}}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		rootless := slices.DeleteFunc(slices.Clone(parts), func(a Answer[api.TraceList]) bool { return a.Hub == "b" })
		if got := JoinTraces(api.TraceQuery{}, rootless).Traces[0]; got.Name != "early" || !got.Rootless {
			t.Fatalf("without a root: %+v", got)
		}
	}
}

// TestJoinTrace: a span that two hubs have is there once; two of one hub that look the same are two.
func TestJoinTrace(t *testing.T) {
	span := func(id string, seconds int64) api.Span { return api.Span{SpanID: id, Start: time.Unix(seconds, 0)} }
	got := JoinTrace([]Answer[api.Trace]{
		{"a", api.Trace{TraceID: "t", Spans: []api.Span{span("1", 1), span("3", 3), span("3", 3)}}},
		{"b", api.Trace{TraceID: "t", Spans: []api.Span{span("2", 2), span("3", 3)}, Partial: "slow"}},
	})
	var ids []string
	for _, s := range got.Spans {
		ids = append(ids, s.SpanID)
	}
	if !slices.Equal(ids, []string{"1", "2", "3", "3"}) || got.TraceID != "t" || got.Partial != "hub b: slow" {
		t.Errorf("got %v, %+v", ids, got)
	}
}

// TestJoinLedgers: totals are sums, whoever is listed.
func TestJoinLedgers(t *testing.T) {
	books := func(id string, dropped, unexplained int64) api.AgentBooks {
		return api.AgentBooks{ID: id, Name: id, Books: api.Books{Accepted: 10, Dropped: map[string]int64{"full": dropped}, Unexplained: unexplained}}
	}
	ledger := func(left int, list ...api.AgentBooks) (l api.Ledger) {
		for _, b := range list {
			l.Total.Plus(b.Books)
		}
		l.Agents, l.LeftOut = list, left
		return l
	}
	got := JoinLedgers(api.LedgerQuery{Limit: 3}, []Answer[api.Ledger]{
		{"a", ledger(0, books("1", 0, 7), books("2", 1, 0))}, {"b", ledger(4, books("3", 5, 0), books("4", 0, 0))},
	})
	var ids []string
	for _, b := range got.Agents {
		ids = append(ids, b.ID)
	}
	if want := (api.Books{Accepted: 40, Dropped: map[string]int64{"full": 6}, Unexplained: 7}); !reflect.DeepEqual(got.Total, want) || !slices.Equal(ids, []string{"1", "3", "2"}) || got.LeftOut != 5 {
		t.Errorf("got %+v of %v, %d left out", got.Total, ids, got.LeftOut)
	}
}

// hubs is a Cluster.
type hubs struct {
	mu   sync.Mutex
	list []cluster.Hub
}

func (h *hubs) Hubs() []cluster.Hub {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.list)
}

func (h *hubs) set(list ...cluster.Hub) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = list
}

func at(id, url string) cluster.Hub {
	return cluster.Hub{HubAt: control.HubAt{ID: id, Addresses: control.Addresses{URL: url}}, Name: "host-" + id}
}

// open returns Peers of hub a, and another hub that answers as f says.
func open(t *testing.T, f http.HandlerFunc) (*Peers, *hubs) {
	t.Helper()
	server := httptest.NewServer(f)
	c := &hubs{list: []cluster.Hub{at("a", "http://127.0.0.1:1"), at("b", server.URL)}}
	p := New(Options{
		Hub: "a", Cluster: c, Patience: 100 * time.Millisecond, TLS: func(string) *tls.Config { return nil },
		Sign: func(p access.Principal, hub string) (string, error) { return p.Name + " to " + hub, nil },
	})
	t.Cleanup(func() {
		p.Close()
		server.Close()
	})
	return p, c
}

func ask(t *testing.T, p *Peers, r Request) ([]Answer[string], []api.Absent) {
	t.Helper()
	return Ask[string](t.Context(), p, p.Others(), r)
}

// TestAsk: what a hub answers, and each way in which it may not.
func TestAsk(t *testing.T) {
	stop := make(chan struct{})
	p, _ := open(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/well":
			_ = json.NewEncoder(w).Encode(r.Header.Get(Header) + " " + r.URL.RawQuery)
		case "/slow":
			w.WriteHeader(http.StatusProcessing)
			select {
			case <-time.After(250 * time.Millisecond): // longer than the patience
			case <-r.Context().Done():
			}
			_, _ = w.Write([]byte(`"at last"`))
		case "/silent", "/half":
			if r.URL.Path == "/half" {
				_, _ = w.Write([]byte(`"`))
				w.(http.Flusher).Flush()
				return
			}
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		case "/missing":
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(api.Error{Code: "not_found", Message: "there is none"})
		case "/elsewhere":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		default:
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(api.Error{Code: "forbidden", Message: "not for you"})
		}
	})
	defer close(stop)
	f := func(path, want, why string) {
		t.Helper()
		begun := time.Now()
		answers, absent := ask(t, p, Request{For: access.Principal{Name: "nora"}, Path: path, Query: map[string][]string{"x": {"1"}}})
		got, reason := "", ""
		if len(answers) == 1 {
			got = answers[0].Hub + ": " + answers[0].Value
		}
		if len(absent) == 1 {
			reason = absent[0].String()
		}
		if got != want || (why == "") != (reason == "") || !strings.Contains(reason, why) || time.Since(begun) > 10*time.Second {
			t.Errorf("%s: %q, %q after %v; want %q, %q", path, got, reason, time.Since(begun), want, why)
		}
	}
	f("/well", "b: nora to b x=1", "")
	f("/slow", "b: at last", "")
	f("/silent", "", "hub b (host-b) did not answer: ask it at http://127.0.0.1")
	f("/silent", "", "silent for too long")
	f("/half", "", "read its answer")
	f("/missing", "", "")
	f("/elsewhere", "", "307")
	f("/other", "", "not for you")
}

// TestAnswers: a hub that is well gives a sign of life; one that is unwell, silent, stopped, or not there gives none.
func TestAnswers(t *testing.T) {
	var how atomic.Value
	stop := make(chan struct{})
	p, c := open(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/healthz" || how.Load() == "unwell":
			w.WriteHeader(http.StatusServiceUnavailable)
		case how.Load() == "silent":
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		}
	})
	defer close(stop)
	for _, state := range []string{"well", "unwell", "silent", "well"} {
		how.Store(state)
		if got := p.Answers(t.Context(), "b"); got != (state == "well") {
			t.Errorf("%s: %t", state, got)
		}
	}
	if p.Answers(t.Context(), "c") || p.Answers(t.Context(), "a") {
		t.Error("a hub that is not there answers, or this one asks itself")
	}
	c.set(at("b", "http://127.0.0.1:1"))
	if p.Answers(t.Context(), "b") {
		t.Error("a hub that was stopped answers")
	}
}

// TestAlone: a hub without others asks nobody.
func TestAlone(t *testing.T) {
	var none *Peers
	if none.Others() != nil || none.Knows("b") || none.Hub() != "" {
		t.Error("no Peers know a hub")
	}
	p, c := open(t, nil)
	c.set(at("a", "http://127.0.0.1:1"))
	if len(p.Others()) != 0 || p.Knows("a") || p.Hub() != "a" {
		t.Errorf("alone: %v", p.Others())
	}
}

// TestShared: however many look at the same, a hub is asked once; who sees other agents hears something else.
func TestShared(t *testing.T) {
	var asked atomic.Int64
	p, _ := open(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, asked.Add(1)) })
	look := func(r Request) int64 {
		answers, absent := Ask[int64](t.Context(), p, p.Others(), r)
		if len(answers) != 1 {
			t.Errorf("absent: %v", absent)
			return 0
		}
		return answers[0].Value
	}
	same := Request{For: access.Principal{Name: "nora", Role: api.Viewer}, Path: "/x", Fresh: time.Hour}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { look(same) })
	}
	all.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
	other := same
	other.For.Role = api.Admin
	if look(other) != 2 || look(same) != 1 {
		t.Error("somebody else's answer was given")
	}
	anew := same
	if anew.Fresh = 0; look(anew) != 3 {
		t.Error("who wants to know it now hears what was")
	}
	// Who asked first goes away: the others hear nevertheless.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	gone := same
	gone.Path = "/y"
	if answers, _ := Ask[int64](ctx, p, p.Others(), gone); len(answers) > 0 && answers[0].Value != 4 {
		t.Errorf("got %v", answers)
	}
	if look(gone) != 4 {
		t.Error("it was asked again")
	}
}
