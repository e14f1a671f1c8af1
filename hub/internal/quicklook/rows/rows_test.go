package rows

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("CREEL_TEST_WRITE_FOR_EVER"); dir != "" {
		writeForEver(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.MaxBytes, o.MaxAge = cmp.Or(o.MaxBytes, 1<<30), cmp.Or(o.MaxAge, 48*time.Hour)
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func export(t testing.TB, s *Store, logs ...creel.Log) {
	t.Helper()
	b := creel.NewLogs(logs)
	if err := s.ExportLogs(t.Context(), []*creel.Batch{b}); err != nil {
		t.Fatal(err)
	}
	creel.Settle(b, nil)
}

func text(l api.Log) string {
	var s string
	if json.Unmarshal(l.Body, &s) != nil {
		return string(l.Body)
	}
	return s
}

// TestAgainstModel asks random questions of random logs, page by page, and compares with a look at each of them.
func TestAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	now := time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)
	s := open(t, Options{Now: func() time.Time { return now }})
	vocabulary := []string{"connection", "refused", "timeout", "user", "login", "GET", "/api/cart", "err=42", "übung", "日志", "a.b.c"}
	origins := make([]*creel.Origin, 3)
	for i := range origins {
		origins[i] = &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "service.name", Value: creel.String(fmt.Sprintf("s%d", i))}, {Key: "zone", Value: creel.String([]string{"a", "b"}[i%2])}}}}
	}
	var all []creel.Log
	for range 40 {
		var logs []creel.Log
		for range random.IntN(60) {
			var body []string
			for range 1 + random.IntN(5) {
				body = append(body, vocabulary[random.IntN(len(vocabulary))])
			}
			l := creel.Log{
				Origin: origins[random.IntN(3)], Body: creel.String(strings.Join(body, " ")), Severity: creel.Severity(random.IntN(25)),
				// Few milliseconds, so that many records share one, over three hours.
				Time:  now.Add(-time.Duration(random.IntN(3))*time.Hour - time.Duration(random.IntN(40))*time.Millisecond - time.Duration(random.IntN(20))*time.Minute).UnixNano(),
				Attrs: creel.Attrs{{Key: "code", Value: creel.Int(int64(200 + random.IntN(4)*100))}, {Key: "path", Value: creel.String(fmt.Sprintf("/p%d", random.IntN(5)))}},
			}
			if random.IntN(5) == 0 {
				l.Attrs = append(l.Attrs, creel.Attr{Key: "zone", Value: creel.String("c")})
			}
			logs = append(logs, l)
		}
		all = append(all, logs...)
		export(t, s, logs...)
	}
	for i := range 100 {
		q := api.LogQuery{Window: api.Window{Start: now.Add(-3 * time.Hour).Add(time.Duration(random.IntN(60)) * time.Minute), End: now.Add(-time.Duration(random.IntN(90)) * time.Minute).Add(time.Minute)}, Limit: 1 + random.IntN(40), Order: []string{"", "asc", "desc"}[random.IntN(3)]}
		var checks []func(*creel.Log) bool
		if random.IntN(2) == 0 {
			w := vocabulary[random.IntN(5)]
			q.Query = strings.ToUpper(w)
			checks = append(checks, func(l *creel.Log) bool { return slices.Contains(strings.Fields(l.Body.Str()), w) })
		}
		if random.IntN(4) == 0 {
			q.Query += ` "connection refused"`
			checks = append(checks, func(l *creel.Log) bool { return strings.Contains(l.Body.Str(), "connection refused") })
		}
		if random.IntN(4) == 0 {
			q.Query += ` -timeout`
			checks = append(checks, func(l *creel.Log) bool { return !slices.Contains(strings.Fields(l.Body.Str()), "timeout") })
		}
		if random.IntN(4) == 0 {
			q.Query += ` /api/cart`
			checks = append(checks, func(l *creel.Log) bool { return strings.Contains(l.Body.Str(), "/api/cart") })
		}
		filters := map[string]func(*creel.Log) bool{
			"severity>=WARN": func(l *creel.Log) bool { return l.Severity >= 13 },
			"service=s1":     func(l *creel.Log) bool { return l.Origin == origins[1] },
			"service!=s1":    func(l *creel.Log) bool { return l.Origin != origins[1] },
			"code=300":       func(l *creel.Log) bool { return l.Attrs[0].Value.Int() == 300 },
			"code>=400":      func(l *creel.Log) bool { return l.Attrs[0].Value.Int() >= 400 },
			"path=/p3":       func(l *creel.Log) bool { return l.Attrs[1].Value.Str() == "/p3" },
			"path!=/p3":      func(l *creel.Log) bool { return l.Attrs[1].Value.Str() != "/p3" },
			"missing!=x":     func(*creel.Log) bool { return true },
			"missing=x":      func(*creel.Log) bool { return false },
			"zone=a": func(l *creel.Log) bool {
				return len(l.Attrs) == 2 && l.Origin != origins[1]
			},
			"zone=c": func(l *creel.Log) bool { return len(l.Attrs) == 3 },
		}
		for _, f := range slices.Sorted(func(yield func(string) bool) {
			for f := range filters {
				if !yield(f) {
					return
				}
			}
		}) {
			if random.IntN(8) == 0 {
				q.Filters = append(q.Filters, f)
				checks = append(checks, filters[f])
			}
		}
		want := 0
		for j := range all {
			at := all[j].Time / 1e6
			ok := at >= q.Start.UnixMilli() && at < q.End.UnixMilli()
			for _, c := range checks {
				ok = ok && c(&all[j])
			}
			if ok {
				want++
			}
		}
		if !q.Start.Before(q.End) {
			continue
		}
		count, err := s.CountLogs(t.Context(), api.LogQuery{Window: q.Window, Query: q.Query, Filters: q.Filters, Interval: 60})
		if err != nil || count.Total != int64(want) {
			t.Errorf("question %d, %+v: the histogram has %d, want %d; %v", i, q, count.Total, want, err)
		}
		got := 0
		seen := make(map[string]bool)
		last := int64(0)
		for page := q; ; {
			r, err := s.SearchLogs(t.Context(), page)
			if err != nil || r.Partial != "" {
				t.Fatalf("question %d, %+v: %v %s", i, q, err, r.Partial)
			}
			for _, l := range r.Logs {
				if seen[l.ID] {
					t.Fatalf("question %d: %s twice", i, l.ID)
				}
				seen[l.ID] = true
				at := l.Time.UnixMilli()
				if last != 0 && (q.Order == "asc" && at < last || q.Order != "asc" && at > last) {
					t.Fatalf("question %d: %d after %d", i, at, last)
				}
				last = at
				got++
			}
			if r.Next == "" {
				break
			}
			page.Cursor = r.Next
		}
		if got != want {
			t.Errorf("question %d, %+v: found %d, want %d", i, q, got, want)
		}
	}
}

func TestWhatALogLooksLike(t *testing.T) {
	s := open(t, Options{})
	now := time.Now()
	o := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "service.name", Value: creel.String("cart")}}}, Scope: creel.Scope{Name: "scope"}}
	export(t, s,
		creel.Log{Origin: o, Time: now.UnixNano(), Observed: 5, Body: creel.Map(creel.Attr{Key: "a", Value: creel.Int(1)}), Severity: 14, SeverityText: "warning", Event: "e", TraceID: creel.TraceID{1}, SpanID: creel.SpanID{2}, Attrs: creel.Attrs{{Key: "k", Value: creel.String("\"quoted\"")}}},
		creel.Log{Body: creel.String("no origin, no time, \xff no UTF-8")})
	r, err := s.SearchLogs(t.Context(), api.LogQuery{Order: "asc"})
	if err != nil || len(r.Logs) != 2 {
		t.Fatalf("got %+v, %v", r, err)
	}
	for _, l := range r.Logs {
		if l.Service == "cart" {
			if string(l.Body) != `{"a":1}` || l.Severity != "WARN2" || !l.Time.Equal(now) || l.Event != "e" || l.Scope != "scope" || l.TraceID != "01000000000000000000000000000000" || string(l.Attributes) != `{"k":"\"quoted\""}` {
				t.Errorf("got %+v", l)
			}
		} else if text(l) != "no origin, no time, \uFFFD no UTF-8" || time.Since(l.Time) > time.Minute || string(l.Resource) != "{}" {
			t.Errorf("got %+v", l)
		}
	}
	for _, f := range []string{`k="quoted"`, "trace_id=01000000000000000000000000000000", "event=e", "severity=WARN2"} {
		if r, err := s.SearchLogs(t.Context(), api.LogQuery{Filters: []string{f}}); err != nil || len(r.Logs) != 1 {
			t.Errorf("%s finds %d, %v", f, len(r.Logs), err)
		}
	}
	for _, q := range []api.LogQuery{{Query: `"open`}, {Filters: []string{"nonsense"}}, {Filters: []string{"severity>LOUD"}}, {Limit: -1}, {Limit: 5001}, {Order: "up"}, {Cursor: "x"}, {Window: api.Window{Start: now, End: now.Add(-1)}}} {
		var e *api.Error
		if _, err := s.SearchLogs(t.Context(), q); !errors.As(err, &e) || e.Code != "bad_request" {
			t.Errorf("%+v is answered %v", q, err)
		}
	}
}

// TestStrangeTimes: what comes with a time far from now is found by it all the same.
func TestStrangeTimes(t *testing.T) {
	now := time.Now()
	s := open(t, Options{})
	for i, at := range []time.Time{time.Unix(1, 0), now.Add(-1000 * time.Hour), now, now.Add(1000 * time.Hour)} {
		export(t, s, creel.Log{Time: at.UnixNano(), Body: creel.String(fmt.Sprint("log ", i))})
		r, err := s.SearchLogs(t.Context(), api.LogQuery{Window: api.Window{Start: at.Add(-time.Second), End: at.Add(time.Second)}})
		if err != nil || len(r.Logs) != 1 || !r.Logs[0].Time.Equal(at) {
			t.Errorf("at %v: %+v, %v", at, r, err)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(s.o.Dir, "*"+suffix)); len(files) != 1 {
		t.Errorf("there are files %v", files)
	}
}

func TestTail(t *testing.T) {
	s := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	found := make(chan string)
	ended := make(chan error, 1)
	go func() {
		ended <- s.TailLogs(ctx, api.LogQuery{Query: "wanted", Filters: []string{"k=v"}}, func(l api.Log) error {
			found <- text(l)
			return nil
		})
	}()
	for s.watched() == 0 {
		time.Sleep(time.Millisecond) // until it listens
	}
	k := creel.Attrs{{Key: "k", Value: creel.String("v")}}
	export(t, s, creel.Log{Body: creel.String("not this"), Attrs: k}, creel.Log{Body: creel.String("wanted one"), Attrs: k}, creel.Log{Body: creel.String("wanted, but not so")})
	if got := <-found; got != "wanted one" {
		t.Errorf("got %q", got)
	}
	var many []creel.Log // more than waits, while nobody reads
	for i := range 3 * backlog {
		many = append(many, creel.Log{Body: creel.String(fmt.Sprint("wanted ", i)), Attrs: k})
	}
	export(t, s, many...)
	last := ""
	for last != fmt.Sprint("wanted ", 3*backlog-1) { // the newest are there
		last = <-found
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func (s *Store) watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tails)
}

func TestTraces(t *testing.T) {
	s := open(t, Options{})
	now := time.Now()
	service := func(name string) *creel.Origin {
		return &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "service.name", Value: creel.String(name)}}}}
	}
	web, db := service("web"), service("db")
	var spans []creel.Span
	for i := range 50 {
		start := now.Add(-time.Duration(i) * time.Minute).UnixNano()
		id := creel.TraceID{1, byte(i)}
		spans = append(spans,
			creel.Span{Origin: db, TraceID: id, SpanID: creel.SpanID{2}, Parent: creel.SpanID{1}, Name: "SELECT", Kind: creel.SpanClient, Start: start + 1e6, End: start + int64(i)*1e6, Status: creel.Status{Code: creel.StatusCode(i % 3), Message: "m"}},
			creel.Span{Origin: web, TraceID: id, SpanID: creel.SpanID{1}, Name: "GET /", Kind: creel.SpanServer, Start: start, End: start + 100e6, Attrs: creel.Attrs{{Key: "http.route", Value: creel.String(fmt.Sprintf("/r%d", i%4))}},
				Events: []creel.SpanEvent{{Time: start, Name: "event"}}, Links: []creel.SpanLink{{TraceID: creel.TraceID{9}}}})
	}
	b := creel.NewSpans(spans)
	if err := s.ExportSpans(t.Context(), []*creel.Batch{b}); err != nil {
		t.Fatal(err)
	}
	creel.Settle(b, nil)
	trace, err := s.Trace(t.Context(), "0105"+strings.Repeat("0", 28))
	if err != nil || len(trace.Spans) != 2 {
		t.Fatalf("got %+v, %v", trace, err)
	}
	if sp := trace.Spans[0]; sp.Name != "GET /" || sp.Service != "web" || sp.Kind != "server" || sp.Duration != 100 || len(sp.Events) != 1 || len(sp.Links) != 1 || sp.ParentID != "" {
		t.Errorf("the root is %+v", sp)
	}
	if sp := trace.Spans[1]; sp.Status != "error" || sp.ParentID != "0100000000000000" || sp.Service != "db" {
		t.Errorf("the child is %+v", sp)
	}
	day := api.Window{Start: now.Add(-24 * time.Hour)}
	for _, c := range []struct {
		q    api.TraceQuery
		want int
	}{
		{api.TraceQuery{}, 20},
		{api.TraceQuery{Limit: 500, Window: day}, 50},
		{api.TraceQuery{Limit: 500, Window: day, Service: "db"}, 50},
		{api.TraceQuery{Limit: 500, Window: day, Service: "nobody"}, 0},
		{api.TraceQuery{Limit: 500, Window: day, Error: true}, 16},
		{api.TraceQuery{Limit: 500, Window: day, Name: "SELECT", MinDuration: 30}, 19},
		{api.TraceQuery{Limit: 500, Window: day, Name: "SELECT", MaxDuration: 10}, 12},
		{api.TraceQuery{Limit: 500, Window: day, Filters: []string{"http.route=/r1"}}, 13},
	} {
		list, err := s.SearchTraces(t.Context(), c.q)
		if err != nil || len(list.Traces) != c.want {
			t.Errorf("%+v finds %d, want %d; %v %s", c.q, len(list.Traces), c.want, err, list.Partial)
		}
		if len(list.Traces) > 0 {
			if x := list.Traces[0]; x.Service != "web" || x.Name != "GET /" || x.Spans != 2 || x.Duration != 100 || x.Services["db"] != 1 {
				t.Errorf("a row is %+v", x)
			}
		}
	}
	services, err := s.Services(t.Context(), api.Window{})
	if err != nil || len(services.Services) != 2 || !slices.Equal(services.Services[1].Operations, []string{"GET /"}) {
		t.Errorf("services are %+v, %v", services, err)
	}
	var e *api.Error
	if _, err := s.Trace(t.Context(), strings.Repeat("f", 32)); !errors.As(err, &e) || e.Code != "not_found" {
		t.Errorf("a trace that is not there: %v", err)
	}
	if _, err := s.Trace(t.Context(), "x"); !errors.As(err, &e) || e.Code != "bad_request" {
		t.Errorf("no id: %v", err)
	}
}

func TestRetention(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	s := open(t, Options{Now: func() time.Time { return now }, MaxAge: 10 * time.Hour})
	body := creel.String(strings.Repeat("x", 1000))
	for range 20 {
		logs := make([]creel.Log, 100)
		for i := range logs {
			logs[i] = creel.Log{Time: now.UnixNano(), Body: body}
		}
		export(t, s, logs...)
		now = now.Add(time.Hour)
	}
	if err := s.Retain(); err != nil {
		t.Fatal(err)
	}
	if files := s.all(); len(files) < 9 || len(files) > 11 {
		t.Errorf("%d files are kept for ten hours", len(files))
	}
	bytes, _, _ := s.Stats()
	s.o.MaxBytes = bytes / 3
	if err := s.Retain(); err != nil {
		t.Fatal(err)
	}
	if bytes, oldest, _ := s.Stats(); bytes > s.o.MaxBytes || bytes == 0 || oldest.Before(now.Add(-6*time.Hour)) {
		t.Errorf("%d bytes since %v are kept of %d", bytes, oldest, s.o.MaxBytes)
	}
	if r, err := s.SearchLogs(t.Context(), api.LogQuery{Window: api.Window{Start: now.Add(-30 * time.Hour), End: now}}); err != nil || len(r.Logs) == 0 {
		t.Errorf("the rest: %d, %v", len(r.Logs), err)
	}
}

// TestDamage spoils the file of an hour: it is set aside, and the others serve.
func TestDamage(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Now: clock})
	for i := range 3 {
		export(t, s, creel.Log{Time: now.Add(-time.Duration(i) * time.Hour).UnixNano(), Body: creel.String("x")})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, garbage := range []string{"this is no database at all, but long enough to look at", strings.Repeat("\x00", 5000)} {
		file := filepath.Join(dir, now.Add(-time.Duration(i)*time.Hour).Format(hourLayout)+suffix)
		if err := os.WriteFile(file, []byte(garbage), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, Options{Dir: dir, Now: clock})
	window := api.Window{Start: now.Add(-10 * time.Hour), End: now.Add(time.Second)}
	r, err := s.SearchLogs(t.Context(), api.LogQuery{Window: window})
	if err != nil || len(r.Logs) != 1 {
		t.Errorf("found %d, %v, %s", len(r.Logs), err, r.Partial)
	}
	b := creel.NewLogs([]creel.Log{{Time: now.UnixNano(), Body: creel.String("again")}})
	for range 3 { // the exporter's framework tries again
		if err = s.ExportLogs(t.Context(), []*creel.Batch{b}); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if r, err = s.SearchLogs(t.Context(), api.LogQuery{Window: window}); err != nil || len(r.Logs) != 2 || r.Partial != "" {
		t.Errorf("found %d, %v, %s", len(r.Logs), err, r.Partial)
	}
	if _, _, damaged := s.Stats(); len(damaged) != 2 {
		t.Errorf("set aside are %v", damaged)
	}
}

// TestKilled kills a process that writes: all that it was told is stored, is.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CREEL_TEST_WRITE_FOR_EVER="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	lines := bufio.NewScanner(out)
	for acknowledged < 50 && lines.Scan() {
		acknowledged++
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		acknowledged++
	}
	_ = cmd.Wait() // it was killed
	if acknowledged < 50 {
		t.Fatalf("it wrote %d batches", acknowledged)
	}
	s := open(t, Options{Dir: dir})
	h, err := s.CountLogs(t.Context(), api.LogQuery{})
	if err != nil || h.Total < int64(acknowledged)*10 || h.Total > int64(acknowledged+1)*10 {
		t.Errorf("%d records are there, %d were acknowledged; %v", h.Total, acknowledged*10, err)
	}
}

func writeForEver(dir string) {
	s, err := Open(Options{Dir: dir, MaxBytes: 1 << 30, MaxAge: time.Hour})
	if err != nil {
		panic(err)
	}
	for {
		logs := make([]creel.Log, 10)
		for i := range logs {
			logs[i] = creel.Log{Time: time.Now().UnixNano(), Body: creel.String("written")}
		}
		if err := s.ExportLogs(context.Background(), []*creel.Batch{creel.NewLogs(logs)}); err != nil {
			panic(err)
		}
		fmt.Println("ok")
	}
}
