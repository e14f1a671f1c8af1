package journald_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/journald"
)

// journal is a directory of real journal files, written by systemd-journal-remote and read by journalctl.
type journal struct {
	t     testing.TB
	dir   string
	n     int
	files int
}

// remotes is where Debian, Fedora and Arch install it.
var remotes = []string{"/lib/systemd/systemd-journal-remote", "/usr/lib/systemd/systemd-journal-remote"}

func newJournal(t testing.TB) *journal {
	t.Helper()
	if _, err := exec.LookPath("journalctl"); err != nil {
		t.Skip("there is no journalctl here")
	}
	if remote() == "" {
		t.Skip("there is no systemd-journal-remote here, which writes journals for this test")
	}
	return &journal{t: t, dir: t.TempDir()}
}

func remote() string {
	for _, path := range remotes {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// write adds entries, each with the given fields, in a file of their own. (Journal Export Format.)
func (j *journal) write(entries ...map[string]string) error {
	var text bytes.Buffer
	for _, fields := range entries {
		j.n++
		fmt.Fprintf(&text, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=0123456789abcdef0123456789abcdef\n", 1_700_000_000_000_000+j.n, j.n)
		for k, v := range fields {
			if !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' }) {
				fmt.Fprintf(&text, "%s=%s\n", k, v)
				continue
			}
			text.WriteString(k + "\n")
			_ = binary.Write(&text, binary.LittleEndian, uint64(len(v))) // a buffer takes it
			text.WriteString(v + "\n")
		}
		text.WriteByte('\n')
	}
	j.files++
	made := filepath.Join(j.dir, fmt.Sprintf("part%d.tmp", j.files))
	cmd := exec.Command(remote(), "--output="+made+".journal", "-")
	cmd.Stdin = &text
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("write journal: %w: %s", err, out)
	}
	return nil
}

func (j *journal) mustWrite(entries ...map[string]string) {
	j.t.Helper()
	if err := j.write(entries...); err != nil {
		j.t.Fatal(err)
	}
}

func numbered(from, to int) []map[string]string {
	var list []map[string]string
	for i := from; i < to; i++ {
		list = append(list, map[string]string{"MESSAGE": fmt.Sprintf("line %d", i), "PRIORITY": "6"})
	}
	return list
}

// state is a creel.State that outlives a collector.
type state struct {
	mu      sync.Mutex
	data    []byte
	version uint64
}

func (s *state) Load() ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data, s.version, nil
}

func (s *state) Save(data []byte, version uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version != s.version {
		return 0, creel.ErrStale
	}
	s.data, s.version = data, version+1
	return s.version, nil
}

// run is one life of a collector. Its sink answers each batch with what verdict says.
type run struct {
	t       testing.TB
	logs    chan creel.Log
	cancel  context.CancelFunc
	ended   chan error
	close   func() error
	verdict func(creel.Log) error
}

func (r *run) Send(_ context.Context, b *creel.Batch) error {
	for _, l := range b.Logs() {
		err := r.verdict(l)
		if err == nil {
			r.logs <- l
			continue
		}
		creel.Settle(b, err)
		return nil
	}
	creel.Settle(b, nil)
	return nil
}

func (r *run) TrySend(b *creel.Batch) bool { return r.Send(context.Background(), b) == nil }

func start(t testing.TB, j *journal, s creel.State, more string, verdict func(creel.Log) error) *run {
	t.Helper()
	if verdict == nil {
		verdict = func(creel.Log) error { return nil }
	}
	options := fmt.Sprintf(`{"directory":%q,"priority":"debug","start_at":"beginning","last":0,"max_size":65536%s}`, j.dir, cmp.Or(more, `,"journalctl":"journalctl"`))
	c, err := journald.Plugin.Open([]byte(options), creel.Host{State: s})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &run{t: t, logs: make(chan creel.Log, 10_000), cancel: cancel, ended: make(chan error, 1), close: c.(interface{ Close() error }).Close, verdict: verdict}
	go func() { r.ended <- c.(creel.Collector).Collect(ctx, r) }()
	return r
}

// next returns the next n records.
func (r *run) next(n int) []creel.Log {
	r.t.Helper()
	var list []creel.Log
	late := time.After(20 * time.Second)
	for len(list) < n {
		select {
		case l := <-r.logs:
			list = append(list, l)
		case err := <-r.ended:
			r.t.Fatalf("the collector ended after %d of %d records: %v", len(list), n, err)
		case <-late:
			r.t.Fatalf("got %d of %d records", len(list), n)
		}
	}
	return list
}

func (r *run) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.ended; !errors.Is(err, context.Canceled) {
		r.t.Errorf("the collector ended with %v", err)
	}
	if err := r.close(); err != nil {
		r.t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	j := newJournal(t)
	j.mustWrite(numbered(0, 10)...)
	plugintest.Run(t, journald.Plugin, plugintest.Options{
		Config: "{start_at: beginning, directory: " + j.dir + "}",
		Feed:   func() error { return j.write(numbered(0, 10)...) },
	})
}

// TestFields: an entry becomes a record as the semantic conventions have it.
func TestFields(t *testing.T) {
	j := newJournal(t)
	j.mustWrite(map[string]string{
		"MESSAGE": "two\nlines", "PRIORITY": "3", "_SYSTEMD_UNIT": "nginx.service", "SYSLOG_IDENTIFIER": "nginx", "_PID": "17", "_EXE": "/usr/sbin/nginx",
		"_SOURCE_REALTIME_TIMESTAMP": "1600000000000001", "CODE_LINE": "12", "REQUEST_ID": "r1", "_HOSTNAME": "here",
	}, map[string]string{"MESSAGE": "raw \x01\xff", "PRIORITY": "0", "SYSLOG_IDENTIFIER": "cron", "_SYSTEMD_UNIT": "user@1000.service"})
	r := start(t, j, nil, "", nil)
	defer r.stop()
	logs := r.next(2)
	l := logs[0]
	if l.Time != 1600000000000001000 || l.Body.Str() != "two\nlines" || l.Severity != creel.SeverityError || l.SeverityText != "err" {
		t.Errorf("got time %d, body %q, severity %v %q", l.Time, l.Body.Str(), l.Severity, l.SeverityText)
	}
	if s, _ := l.Origin.Resource.Attrs.Get("service.name"); s.Str() != "nginx" {
		t.Errorf("service.name is %q", s.Str())
	}
	want := `{"code.line.number":12,"journald.request_id":"r1","journald.syslog_identifier":"nginx","journald.systemd_unit":"nginx.service","process.executable.path":"/usr/sbin/nginx","process.pid":17}`
	var got, expected any
	if json.Unmarshal(l.Attrs.Append(nil), &got) != nil || json.Unmarshal([]byte(want), &expected) != nil {
		t.Fatalf("attributes are %s", l.Attrs.Append(nil))
	}
	delete(got.(map[string]any), "journald.boot_id")
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Errorf("attributes are\n%v, not\n%v", got, expected)
	}
	l = logs[1]
	if l.Body.Kind() != creel.ValueBytes || string(l.Body.Bytes()) != "raw \x01\xff" || l.Severity != creel.SeverityFatal {
		t.Errorf("the raw body is %v, severity %v", l.Body, l.Severity)
	}
	if s, _ := l.Origin.Resource.Attrs.Get("service.name"); s.Str() != "cron" {
		t.Errorf("service.name is %q, not what the entry calls itself", s.Str())
	}
}

// TestRestart: the next life goes on behind the last entry that was acknowledged, and what comes meanwhile is not missed.
func TestRestart(t *testing.T) {
	j, s := newJournal(t), &state{}
	j.mustWrite(numbered(0, 1000)...)
	r := start(t, j, s, "", nil)
	r.next(1000)
	r.stop()
	j.mustWrite(numbered(1000, 1010)...)
	r = start(t, j, s, "", nil)
	defer r.stop()
	for i, l := range r.next(10) {
		if want := fmt.Sprintf("line %d", 1000+i); l.Body.Str() != want {
			t.Fatalf("got %q, not %q", l.Body.Str(), want)
		}
	}
}

// TestAbandoned: entries that the framework gave back are read again, and no cursor runs ahead of them.
func TestAbandoned(t *testing.T) {
	j, s := newJournal(t), &state{}
	j.mustWrite(numbered(0, 2000)...)
	var mu sync.Mutex
	abandoned := 0
	r := start(t, j, s, "", func(l creel.Log) error {
		mu.Lock()
		defer mu.Unlock()
		if abandoned < 3 && l.Body.Str() == fmt.Sprintf("line %d", 600*(abandoned+1)) {
			abandoned++
			return creel.ErrAbandoned
		}
		return nil
	})
	seen := map[string]bool{}
	for len(seen) < 2000 {
		for _, l := range r.next(1) {
			seen[l.Body.Str()] = true
		}
	}
	r.stop()
	if abandoned != 3 {
		t.Errorf("%d batches were abandoned, not 3", abandoned)
	}
}

// TestAbandonedWhileMoreWaits: what journalctl had already written when a batch was abandoned is sent and answered before
// reading starts again.
func TestAbandonedWhileMoreWaits(t *testing.T) {
	dir := t.TempDir()
	entries, written, script := filepath.Join(dir, "entries"), filepath.Join(dir, "written"), filepath.Join(dir, "journalctl")
	line := fmt.Sprintf(`{"MESSAGE":%q,"__CURSOR":"c","__REALTIME_TIMESTAMP":"1700000000000000"}`+"\n", strings.Repeat("x", 20))
	if err := os.WriteFile(entries, []byte(strings.Repeat(line, 600)), 0o600); err != nil { // more than a batch, less than a pipe holds
		t.Fatal(err)
	}
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\ncat %q; touch %q; exec sleep 1000\n", entries, written), 0o700); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf(`,"journalctl":%q`, script)
	first, again := true, 0
	r := start(t, &journal{dir: dir}, nil, options, func(creel.Log) error {
		if !first {
			again++
			return nil
		}
		first = false
		for { // until all of it is in the pipe
			if _, err := os.Stat(written); err == nil {
				return creel.ErrAbandoned
			}
			runtime.Gosched()
		}
	})
	r.next(600)
	r.stop()
	if first || again < 600 {
		t.Errorf("abandoned: %v, answered: %d", !first, again)
	}
}

// TestLast: at the end of a journal, with the newest entries.
func TestLast(t *testing.T) {
	j := newJournal(t)
	j.mustWrite(numbered(0, 100)...)
	c, err := journald.Plugin.Open(fmt.Appendf(nil, `{"directory":%q,"priority":"debug","start_at":"end","last":7,"max_size":65536,"journalctl":"journalctl"}`, j.dir), creel.Host{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &run{t: t, logs: make(chan creel.Log, 1000), cancel: cancel, ended: make(chan error, 1), close: c.(interface{ Close() error }).Close, verdict: func(creel.Log) error { return nil }}
	go func() { r.ended <- c.(creel.Collector).Collect(ctx, r) }()
	defer r.stop()
	for i, l := range r.next(7) {
		if want := fmt.Sprintf("line %d", 93+i); l.Body.Str() != want {
			t.Fatalf("got %q, not %q", l.Body.Str(), want)
		}
	}
}

// TestTooLarge: what is too large is skipped and counted, and what follows comes.
func TestTooLarge(t *testing.T) {
	j := newJournal(t)
	j.mustWrite(map[string]string{"MESSAGE": strings.Repeat("x", 200_000)}, map[string]string{"MESSAGE": "after"})
	set := metric.NewSet()
	c, err := journald.Plugin.Open(fmt.Appendf(nil, `{"directory":%q,"priority":"debug","start_at":"beginning","last":0,"max_size":65536,"journalctl":"journalctl"}`, j.dir), creel.Host{Metrics: set})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &run{t: t, logs: make(chan creel.Log, 10), cancel: cancel, ended: make(chan error, 1), close: c.(interface{ Close() error }).Close, verdict: func(creel.Log) error { return nil }}
	go func() { r.ended <- c.(creel.Collector).Collect(ctx, r) }()
	if l := r.next(1)[0]; l.Body.Str() != "after" {
		t.Errorf("got %.20q", l.Body.Str())
	}
	r.stop()
	skipped := 0.0
	set.Gather(func(p metric.Point) {
		if p.Name == "creel.journald.skipped" {
			skipped = p.Value
		}
	})
	if skipped != 1 {
		t.Errorf("%v entries were skipped", skipped)
	}
}

// TestNoJournalctl: the error says what to look at.
func TestNoJournalctl(t *testing.T) {
	c, err := journald.Plugin.Open([]byte(`{"priority":"debug","start_at":"end","last":0,"max_size":65536,"journalctl":"/nowhere/journalctl"}`), creel.Host{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.(creel.Collector).Collect(t.Context(), &run{}); err == nil || !strings.Contains(err.Error(), "is this a machine with systemd") {
		t.Errorf("got %v", err)
	}
}
