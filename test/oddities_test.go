package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/creelhq/creel/report"
)

// judge compares what OpenTelemetry's receiver gets with what must arrive.
type judge struct {
	consumertest.Consumer
	name  string
	every int       // one in so many lines is compared, the others are counted
	makes sync.Pool // of *oddLines

	mu       sync.Mutex
	records  int
	copies   []uint8        // by line
	nothings map[string]int // lines without a mark
	parts    map[int][]part // of long lines
	wrong    []string       // the first few
}

// part is a piece of a long line.
type part struct {
	from, to int
	which    string
}

func newJudge(name string, every int, lines *oddLines) *judge {
	j := &judge{Consumer: consumertest.NewNop(), name: name, every: every, copies: make([]uint8, lines.n), nothings: map[string]int{}, parts: map[int][]part{}}
	j.makes.New = func() any { return lines.fork() }
	return j
}

// ConsumeLogs judges one request. It is called concurrently.
func (j *judge) ConsumeLogs(_ context.Context, all plog.Logs) error {
	o := j.makes.Get().(*oddLines)
	defer j.makes.Put(o)
	for _, rl := range all.ResourceLogs().All() {
		for _, sl := range rl.ScopeLogs().All() {
			for _, l := range sl.LogRecords().All() {
				line, what, p, why := judgeRecord(o, l, j.every)
				j.mu.Lock()
				j.records++
				switch {
				case line < 0:
					j.nothings[what]++
				case p.which != "":
					j.parts[line] = append(j.parts[line], p)
				default:
					j.copies[line]++
				}
				if why != "" && len(j.wrong) < 10 {
					j.wrong = append(j.wrong, fmt.Sprintf("line %d: %s", line, why))
				}
				j.mu.Unlock()
			}
		}
	}
	return nil
}

// arrived returns how many records have, and whether something is wrong with one.
func (j *judge) arrived() (records int, wrong bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.records, len(j.wrong) > 0
}

// judgeRecord returns which line l is, or -1 and its text when it has no mark; which part of it; and what is wrong.
func judgeRecord(o *oddLines, l plog.LogRecord, every int) (line int, text string, p part, why string) {
	attrs := l.Attributes()
	take := func(name string) (s string) {
		if v, ok := attrs.Get(name); ok {
			s = v.AsString()
			attrs.Remove(name)
		}
		return s
	}
	fault, invalid, which := take("creel.parse_error"), take("creel.invalid_utf8"), take("creel.line")
	body := l.Body().AsRaw()
	if raw, ok := body.([]byte); ok && (utf8.Valid(raw) || invalid == "") {
		return -1, "", p, fmt.Sprintf("the body is bytes: %q", raw)
	}
	if id, ok := attrs.Get("id"); ok {
		text = id.Str()
	} else if raw, ok := body.([]byte); ok {
		text = string(raw)
	} else {
		text, _ = body.(string)
	}
	at := strings.Index(text, mark)
	if at < 0 || len(text) < at+markBytes {
		if fault == "" || attrs.Len() > 0 {
			why = fmt.Sprintf("%q has attributes %v, and no fault", text, attrs.AsRaw())
		}
		return -1, text, p, why
	}
	line, err := strconv.Atoi(text[at+len(mark) : at+markBytes])
	if err != nil || line < 0 || line >= o.n {
		return -1, text, p, "a mark that nobody wrote"
	}
	if line%every > 0 && which == "" {
		return line, "", p, ""
	}
	want := o.line(line)
	f := fateOf(want)
	want = bytes.TrimSuffix(want, []byte("\r"))
	if which != "" {
		unit, err := strconv.Atoi(text[at+markBytes : min(len(text), at+markBytes+7)])
		if err != nil {
			return line, "", part{which: which}, "a part that cannot be found"
		}
		p = part{from: unit*unitBytes - at, which: which}
		p.to = p.from + len(text)
		if p.from < 0 || p.to > len(want) || text != string(want[p.from:p.to]) {
			return line, "", p, "a part that is not what was written"
		}
		return line, "", p, mismatch(l, f, fault, body, text)
	}
	if (invalid != "") == utf8.Valid(want) {
		return line, "", p, fmt.Sprintf("%q: creel.invalid_utf8 is %q", short(string(want)), invalid)
	}
	return line, "", p, mismatch(l, f, fault, body, string(want))
}

// mismatch says what is wrong with a record, "" for nothing. text is its line, or its part of it.
func mismatch(l plog.LogRecord, f fate, fault string, body any, text string) string {
	wantBody := f.body
	if wantBody == nil {
		wantBody = any(text)
		if !utf8.ValidString(text) {
			if raw, ok := body.([]byte); !ok || string(raw) != text {
				return fmt.Sprintf("%q: the body is %q", short(text), body)
			}
			wantBody = string([]rune(text))
		}
	}
	got := l.Attributes().AsRaw()
	wantAttrs := f.attrs
	if wantAttrs == nil {
		wantAttrs = map[string]any{}
	}
	switch trace := l.TraceID().String(); {
	case f.filtered:
		return fmt.Sprintf("%q: it is not filtered", short(text))
	case (fault != "") != f.failed:
		return fmt.Sprintf("%q: it failed: %v; the fault is %q", short(text), f.failed, fault)
	case !same(body, wantBody):
		return fmt.Sprintf("%q: the body is %q, not %q", short(text), short(fmt.Sprint(body)), short(fmt.Sprint(wantBody)))
	case !same(got, wantAttrs):
		return fmt.Sprintf("%q: the attributes are %q, not %q", short(text), short(fmt.Sprint(got)), short(fmt.Sprint(wantAttrs)))
	case int(l.SeverityNumber()) != f.severity || l.SeverityText() != f.text || l.Timestamp() != pcommon.Timestamp(f.time) || trace != f.trace:
		return fmt.Sprintf("%q: severity %d %q, time %d, trace %q", short(text), l.SeverityNumber(), l.SeverityText(), l.Timestamp(), trace)
	}
	return ""
}

func short(s string) string { return s[:min(len(s), 500)] }

// listen runs OpenTelemetry's receiver, and returns its addresses.
func (j *judge) listen(t *testing.T) (grpcAddress, httpAddress string) {
	t.Helper()
	grpcAddress, httpAddress = freePort(t), freePort(t)
	factory := otlpreceiver.NewFactory()
	cfg := factory.CreateDefaultConfig()
	if err := confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{
		"grpc": map[string]any{"endpoint": grpcAddress, "max_recv_msg_size_mib": 64}, "http": map[string]any{"endpoint": httpAddress},
	}}).Unmarshal(cfg); err != nil {
		t.Fatal(err)
	}
	logs, err := factory.CreateLogs(t.Context(), receivertest.NewNopSettings(factory.Type()), cfg, j)
	if err != nil {
		t.Fatal(err)
	}
	if err := logs.Start(context.Background(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := logs.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return grpcAddress, httpAddress
}

// verdict says what is wrong when all that w wrote should have arrived.
func (j *judge) verdict(w *writer) {
	t := w.t
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, w := range j.wrong {
		t.Errorf("%s: %s", j.name, w)
	}
	bad := 0
	for i := 0; i < len(w.copies) && bad < 10; i++ {
		if got, want := j.copies[i], w.copies[i]; got != want {
			bad++
			t.Errorf("%s: line %d arrived %d times, not %d: %q", j.name, i, got, want, short(string(w.lines.line(i))))
		}
	}
	for line, size := range w.long {
		j.whole(t, line, (size+longest-1)/longest, size)
	}
	if !maps.Equal(j.nothings, w.nothings) {
		t.Errorf("%s: lines without a mark: got %v, not %v", j.name, j.nothings, w.nothings)
	}
}

// whole wants the parts of a long line to be all of it, in their order whatever way they came.
func (j *judge) whole(t *testing.T, line, parts, size int) {
	t.Helper()
	at := 0
	for n := 0; n < parts; n++ {
		found := false
		for _, p := range j.parts[line] {
			which := "middle"
			switch {
			case p.from == 0:
				which = "start"
			case p.to == size:
				which = "end"
			}
			if p.from == at && p.which == which {
				at, found = p.to, true
				break
			}
		}
		if !found {
			break
		}
	}
	if at != size || len(j.parts[line]) != parts {
		t.Errorf("%s: line %d of %d bytes arrived as %v", j.name, line, size, j.parts[line])
	}
}

// writer writes lines as a program does that its log is rotated under, and adds up what must become of them.
type writer struct {
	t     *testing.T
	lines *oddLines
	path  string
	f     *os.File
	out   *bufio.Writer

	accepted, filtered, failed int // records
	bytes                      int64
	copies                     []uint8 // of each line with a mark, as many as must arrive whole
	long                       map[int]int
	nothings                   map[string]int
}

func (w *writer) open() {
	w.t.Helper()
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	w.f, w.out = f, bufio.NewWriterSize(f, 1<<16)
}

// note adds a line to the sums.
func (w *writer) note(i int, line []byte) {
	f := fateOf(line)
	w.accepted += f.parts
	if f.failed {
		w.failed += f.parts
	}
	switch {
	case f.parts > 1:
		w.long[i] = len(line)
	case f.filtered:
		w.filtered++
	case bytes.Contains(line, []byte(mark)):
		w.copies[i]++
	default:
		w.nothings[string(bytes.TrimSuffix(line, []byte("\r")))]++
	}
	w.bytes += int64(len(line)) + 1
}

// write writes lines from on, up to but not with to.
func (w *writer) write(from, to int) {
	w.t.Helper()
	for i := from; i < to; i++ {
		line := w.lines.line(i)
		w.note(i, line)
		w.out.Write(line)
		w.out.WriteByte('\n')
	}
	if err := w.out.Flush(); err != nil {
		w.t.Fatal(err)
	}
}

// caughtUp waits until all that was written has arrived, as it must be.
func (w *writer) caughtUp(judges ...*judge) {
	w.t.Helper()
	want := w.accepted - w.filtered
	vain := w.until(func() string {
		for _, j := range judges {
			if got, wrong := j.arrived(); got != want && !wrong {
				return fmt.Sprintf("%s: %d of %d records have arrived", j.name, got, want)
			}
		}
		return ""
	})
	for _, j := range judges {
		j.verdict(w)
	}
	if vain != "" {
		w.t.Error(vain)
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// until waits until nothing is missing, or nothing has changed for half a minute: then it returns what is missing.
func (w *writer) until(missing func() string) (last string) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		now := missing()
		if now == "" {
			return ""
		}
		if now != last {
			last, end = now, time.Now().Add(30*time.Second)
		}
	}
	return last
}

// rename is what logrotate does by default.
func (w *writer) rename() {
	w.t.Helper()
	if err := errors.Join(os.Rename(w.path, w.path+".1"), w.f.Close()); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

// copyTruncate is what it does for programs that cannot open their log anew.
func (w *writer) copyTruncate() {
	w.t.Helper()
	from, err := os.Open(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(w.path + ".2")
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close(), os.Truncate(w.path, 0)); err != nil {
		w.t.Fatal(err)
	}
}

// TestOddities: a file with every oddity goes through file, parse, filter and otlp, while it is rotated in both ways. What
// arrives at OpenTelemetry's receiver is, line by line, what encoding/json says; the ledger has these very numbers.
func TestOddities(t *testing.T) {
	n := 300_000
	switch {
	case *torture:
		n = 1_000_000
	case testing.Short():
		n = 50_000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	began := time.Now()
	lines := newOddLines(seed, n)
	overGRPC, overHTTP := newJudge("grpc", 1, lines), newJudge("http", 4, lines) // comparing is what takes time
	grpcAddress, _ := overGRPC.listen(t)
	_, httpAddress := overHTTP.listen(t)
	dir, err := os.MkdirTemp("", "creel")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	w := &writer{
		t: t, lines: lines, path: filepath.Join(dir, "app.log"), copies: make([]uint8, n), long: map[int]int{}, nothings: map[string]int{},
	}
	w.open()
	defer func() { w.f.Close() }()
	admin := startAgent(t, fmt.Sprintf(`
collectors: {file: {include: [%s], start_at: beginning, poll_interval: 20ms, max_line_size: 1MiB}}
processors:
  parse: {format: json}
  filter: {drop: [severity < INFO]}
exporters:
  otlp/grpc: {endpoint: "http://%s", compression: none}
  otlp/http: {endpoint: "http://%s", protocol: http, compression: none}
pipelines: {odd: {from: [file], through: [parse, filter], to: [otlp/grpc, otlp/http]}}
`, w.path, grpcAddress, httpAddress)).Admin

	w.write(0, 1)
	w.caughtUp(overGRPC, overHTTP) // so the file is known, and will be found when it has another name
	w.write(1, n/4)
	w.rename()
	w.write(n/4, 3*n/4)
	w.caughtUp(overGRPC, overHTTP) // what it has not read by then is lost, whoever reads
	w.copyTruncate()
	w.write(3*n/4, 3*n/4+1)
	w.caughtUp(overGRPC, overHTTP) // it has seen that the file is shorter
	w.write(3*n/4+1, n-1)

	// The last line, which is all there is to wait for, comes in two pieces.
	last := lines.line(n - 1)
	for half, text := range [][]byte{last[:len(last)/2], append(last[len(last)/2:], '\n')} {
		if half == 1 {
			w.caughtUp(overGRPC, overHTTP)
			w.note(n-1, last)
		}
		if _, err := w.f.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	w.caughtUp(overGRPC, overHTTP)

	passed := int64(w.accepted - w.filtered)
	want := report.Pipeline{Pipeline: "odd", Accepted: int64(w.accepted), Filtered: int64(w.filtered), Passed: passed, Exporters: []report.Exporter{
		{Exporter: "otlp/grpc", In: passed, Delivered: passed}, {Exporter: "otlp/http", In: passed, Delivered: passed},
	}}
	if vain := w.until(func() string {
		var books report.Ledger
		if err := json.Unmarshal(ask(t, admin, "/ledger"), &books); err != nil || len(books.Pipelines) != 1 {
			return fmt.Sprint(err, books)
		}
		if got, want := fmt.Sprintf("%+v", books.Pipelines[0]), fmt.Sprintf("%+v", want); got != want {
			return fmt.Sprintf("\n\t%s, not\n\t%s", got, want)
		}
		return ""
	}); vain != "" {
		t.Errorf("the books are %s", vain)
	}
	if line := fmt.Sprintf(" %d\n", w.failed); !failedIs(string(ask(t, admin, "/metrics")), line) {
		t.Errorf("creel.parse.failed is not%s", line)
	}
	overGRPC.verdict(w)
	overHTTP.verdict(w)
	t.Logf("%d lines, %d MB, in %v: %d records, %d filtered, %d not parsed", n, w.bytes>>20, time.Since(began).Round(time.Millisecond), w.accepted, w.filtered, w.failed)
	if w.filtered == 0 || w.failed == 0 || w.accepted == n {
		t.Error("the test tests nothing")
	}
}

// ask gets one path of an agent's admin endpoint.
func ask(t *testing.T, socket, path string) []byte {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	resp, err := c.Get("http://agent" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// failedIs reports whether the counter of parse has this value.
func failedIs(metrics, value string) bool {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "creel_parse_failed") {
			return strings.HasSuffix(line, value)
		}
	}
	return false
}
