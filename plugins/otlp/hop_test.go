package otlp_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugins/otlp"
)

// hub is the far side of a hop, as pipeline and admission: it writes down what happens, in order.
type hub struct {
	mu     sync.Mutex
	events []string
	admit  error // what Admit says
	settle error // what batches are settled with
}

func (h *hub) note(format string, args ...any) {
	h.mu.Lock()
	h.events = append(h.events, fmt.Sprintf(format, args...))
	h.mu.Unlock()
}

func (h *hub) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.events
	h.events = nil
	return out
}

func describe(s creel.Sender) string {
	if s == (creel.Sender{}) {
		return "nobody"
	}
	return fmt.Sprintf("%s/%d/%s", s.Agent, s.Started.UnixNano(), s.Exporter)
}

func (h *hub) Authenticate(creel.Credentials, creel.Signal) (creel.Caller, error) {
	return creel.Caller{}, nil
}

func (h *hub) Admit(_ creel.Caller, from creel.Sender, s creel.Signal, records, bytes int) error {
	h.note("admit %s %v %d %v", describe(from), s, records, bytes > 10)
	return h.admit
}

func (h *hub) Took(from creel.Sender, id creel.ID, s creel.Signal, records int) {
	h.note("took %s %x %v %d", describe(from), id[:2], s, records)
}

func (h *hub) Send(context.Context, *creel.Batch) error {
	panic("BUG: a receiver must not wait for room")
}

func (h *hub) TrySend(b *creel.Batch) bool {
	id := b.ID()
	go func() {
		h.note("safe %x", id[:2])
		creel.Settle(b, h.settle)
	}()
	return true
}

// TestHop: who sends, and the batch's name, arrive over every transport; admission is asked before the records are taken
// and told when they are safe; what is not known or not well formed is nobody and no name.
func TestHop(t *testing.T) {
	h := &hub{}
	grpcAddress, httpAddress := serveOn(t, "", creel.Host{Admission: h}, h)
	from := creel.Sender{Agent: "7f1e", Started: time.Unix(0, 1_790_000_000_123_456_789), Exporter: "otlp/größe;1"}
	named := creel.WithRequest(t.Context(), creel.Request{ID: creel.ID{0xab, 0xcd, 15: 1}})
	for _, options := range []string{
		"{endpoint: 'http://" + grpcAddress + "', headers: {x-other: y}}",
		"{protocol: http, endpoint: 'http://" + httpAddress + "', headers: {x-other: y}}",
		"{protocol: http, encoding: json, endpoint: 'http://" + httpAddress + "'}",
	} {
		f := func(ctx context.Context, from creel.Sender, want ...string) {
			t.Helper()
			x := open(t, otlp.Exporter, options, creel.Host{Sender: from}).(creel.Exporter)
			if err := x.Export(ctx, batches()[:1]); err != nil {
				t.Fatal(err)
			}
			if got := h.seen(); !slices.Equal(got, want) {
				t.Errorf("%s: got %q, want %q", options, got, want)
			}
		}
		who := describe(from)
		f(named, from, "admit "+who+" logs 1 true", "safe abcd", "took "+who+" abcd logs 1")
		f(t.Context(), from, "admit "+who+" logs 1 true", "safe 0000", "took "+who+" 0000 logs 1")
		f(named, creel.Sender{}, "admit nobody logs 1 true", "safe abcd", "took nobody abcd logs 1")
	}

	body, _ := logsRequest(t, "x").MarshalProto()
	id := strings.Repeat("ab", 16)
	for _, c := range []struct{ id, sender, who, name string }{
		{id, "a;1;b", "a/1/b", "abab"},
		{strings.ToUpper(id), "a;-5;", "a/-5/", "abab"},
		{id[:30], ";1;b", "nobody", "0000"},
		{id + "00", "a;b;1", "nobody", "0000"},
		{id[:31] + "g", "a;99999999999999999999;b", "nobody", "0000"},
		{id[:31] + " ", "%zz;1;b", "nobody", "0000"},
		{" ", "a;1;%", "nobody", "0000"},
		{"", strings.Repeat("a", 600) + ";1;b", "nobody", "0000"},
	} {
		req, err := http.NewRequest("POST", "http://"+httpAddress+"/v1/logs", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Content-Type": {"application/x-protobuf"}, "Creel-Batch-Id": {c.id}, "Creel-Sender": {c.sender}}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := []string{"admit " + c.who + " logs 1 true", "safe " + c.name, "took " + c.who + " " + c.name + " logs 1"}
		if got := h.seen(); resp.StatusCode != 200 || !slices.Equal(got, want) {
			t.Errorf("%+v: answered %s, got %q", c, resp.Status, got)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func logsRequest(t *testing.T, body string) plogotlp.ExportRequest {
	t.Helper()
	logs := plog.NewLogs()
	logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body().SetStr(body)
	return plogotlp.NewExportRequestFromLogs(logs)
}

// TestAdmissionRefuses: what it says is what the client hears, and creel's exporter understands; nothing is taken.
func TestAdmissionRefuses(t *testing.T) {
	h := &hub{}
	grpcAddress, httpAddress := serveOn(t, "", creel.Host{Admission: h}, h)
	conn, err := grpc.NewClient(grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body, _ := logsRequest(t, "x").MarshalProto()
	for _, c := range []struct {
		admit     error
		http      int
		after     string
		grpc      codes.Code
		delay     time.Duration
		permanent bool
	}{
		{&creel.Throttled{Err: errors.New("too much"), After: 1500 * time.Millisecond}, 429, "2", codes.Unavailable, 1500 * time.Millisecond, false},
		{&creel.Throttled{Err: errors.New("too much"), After: time.Millisecond}, 429, "1", codes.Unavailable, time.Millisecond, false},
		{errors.New("you are in quarantine"), 403, "", codes.PermissionDenied, 0, false},
		{creel.Permanent(errors.New("never")), 400, "", codes.InvalidArgument, 0, true},
	} {
		h.admit = c.admit
		resp, err := http.Post("http://"+httpAddress+"/v1/logs", "application/x-protobuf", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.http || resp.Header.Get("Retry-After") != c.after {
			t.Errorf("%v: answered %s %v", c.admit, resp.Status, resp.Header)
		}
		_, err = plogotlp.NewGRPCClient(conn).Export(t.Context(), logsRequest(t, "x"))
		st, delay := status.Convert(err), time.Duration(0)
		for _, d := range st.Details() {
			delay = d.(*errdetails.RetryInfo).GetRetryDelay().AsDuration()
		}
		if st.Code() != c.grpc || delay != c.delay {
			t.Errorf("%v: gRPC answers %v after %v", c.admit, err, delay)
		}
		rounded, _ := time.ParseDuration(cmp.Or(c.after, "0") + "s")
		for address, after := range map[string]time.Duration{"protocol: grpc, endpoint: 'http://" + grpcAddress: c.delay, "protocol: http, endpoint: 'http://" + httpAddress: rounded} {
			x := open(t, otlp.Exporter, "{"+address+"'}", creel.Host{}).(creel.Exporter)
			err := x.Export(t.Context(), batches()[:1])
			heard := time.Duration(0)
			if throttled := (*creel.Throttled)(nil); errors.As(err, &throttled) {
				heard = throttled.After
			}
			if err == nil || creel.IsPermanent(err) != c.permanent || heard != after || strings.Count(err.Error(), "asked to wait") > 1 {
				t.Errorf("%v: the exporter at %s hears %v", c.admit, address, err)
			}
		}
		for _, e := range h.seen() {
			if !strings.HasPrefix(e, "admit ") {
				t.Errorf("%v: %s", c.admit, e)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()

	x := open(t, otlp.Exporter, "{endpoint: 'http://"+grpcAddress+"'}", creel.Host{}).(creel.Exporter)
	h.admit = &creel.Throttled{Err: errors.New("too much")} // it does not know when
	if throttled := (*creel.Throttled)(nil); !errors.As(x.Export(t.Context(), batches()[:1]), &throttled) || throttled.After < time.Second {
		t.Errorf("without a hint of its own: %v", throttled)
	}
	h.seen()

	h.admit, h.settle = nil, creel.ErrAbandoned // admitted, but not safe
	if err := x.Export(t.Context(), batches()[:1]); err == nil || creel.IsPermanent(err) {
		t.Errorf("abandoned: %v", err)
	}
	if got := h.seen(); len(got) != 2 || strings.HasPrefix(got[1], "took") {
		t.Errorf("abandoned: got %q", got)
	}
}
