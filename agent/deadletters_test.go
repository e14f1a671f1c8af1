package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/otlp"
)

// letterDesk serves dead letters, and decides about what is sent again.
type letterDesk struct {
	t      *testing.T
	store  *deadletter.Store
	client http.Client

	mu   sync.Mutex
	sent []sentLetter
	wake chan struct{} // one for each of sent
}

type sentLetter struct {
	exporter string
	letter   deadletter.Letter
	safe     chan error
}

func newLetterDesk(t *testing.T, network string, letters int) *letterDesk {
	t.Helper()
	store, err := deadletter.Open(t.TempDir(), deadletter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := &letterDesk{t: t, store: store, wake: make(chan struct{}, 1000)}
	for n := range letters {
		d.put(n)
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(shortDir(t), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	(&agent.DeadLetters{Store: store, Log: slog.New(slog.DiscardHandler), Resend: d.resend}).Register(mux)
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	d.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
	}}
	t.Cleanup(func() {
		s.Close()
		store.Close()
	})
	return d
}

// put puts letter n: of one log, of otlp/0 or otlp/1.
func (d *letterDesk) put(n int) {
	d.t.Helper()
	log := creel.Log{Body: creel.String(fmt.Sprintf("record %d <&>", n))}
	if err := d.store.Put(deadletter.Letter{
		Exporter: fmt.Sprintf("otlp/%d", n%2), Pipeline: "p", Signal: creel.Logs, Records: 1, Reason: "refused", Answer: "no",
		Payload: otlp.Append(nil, creel.NewLogs([]creel.Log{log})),
	}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *letterDesk) resend(_ context.Context, exporter string, l deadletter.Letter) (<-chan error, error) {
	if exporter == "otlp/gone" {
		return nil, errors.New("there is no exporter otlp/gone")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	safe := make(chan error, 1)
	d.sent = append(d.sent, sentLetter{exporter, l, safe})
	d.wake <- struct{}{}
	return safe, nil
}

// nextSent waits for the next letter that is sent again.
func (d *letterDesk) nextSent() sentLetter {
	d.t.Helper()
	select {
	case <-d.wake:
	case <-time.After(time.Minute):
		d.t.Fatal("nothing is sent again")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sent[0]
	d.sent = d.sent[1:]
	return s
}

func (d *letterDesk) open(method, path, body string, header ...string) *http.Response {
	d.t.Helper()
	req, err := http.NewRequest(method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, h := range header {
		req.Header.Set(h, "http://evil.example")
	}
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (d *letterDesk) ask(method, path, body string, header ...string) (int, []byte) {
	d.t.Helper()
	resp := d.open(method, path, body, header...)
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, text
}

func (d *letterDesk) ids(f deadletter.Filter) (ids []uint64) {
	d.t.Helper()
	heads, err := d.store.Select(f)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, h := range heads {
		ids = append(ids, h.Seq)
	}
	return ids
}

// replay begins to send again, and returns the lines of the answer after the first, which says of how many letters.
func (d *letterDesk) replay(body string, letters int) (lines chan agent.ReplayLine, hangUp func()) {
	d.t.Helper()
	resp := d.open("POST", "/deadletters/replay", body)
	lines = make(chan agent.ReplayLine, 1000)
	scan := bufio.NewScanner(resp.Body)
	next := func() (l agent.ReplayLine) {
		if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
			d.t.Errorf("%s: %v", scan.Bytes(), err)
		}
		return l
	}
	if !scan.Scan() {
		d.t.Fatalf("the answer is %s", resp.Status)
	}
	if l := next(); l.Letters != letters {
		d.t.Errorf("the answer begins with %+v", l)
	}
	go func() {
		defer close(lines)
		for scan.Scan() {
			lines <- next()
		}
	}()
	return lines, func() { resp.Body.Close() }
}

func TestDeadLetters(t *testing.T) {
	d := newLetterDesk(t, "unix", 5)
	ids := d.ids(deadletter.Filter{})
	list := func(query string) (l agent.LetterList) {
		t.Helper()
		code, body := d.ask("GET", "/deadletters?"+query, "")
		if err := json.Unmarshal(body, &l); code != 200 || err != nil {
			t.Errorf("%s is answered %d %s", query, code, body)
		}
		return l
	}
	if l := list(""); l.Total != 5 || l.Records != 5 || len(l.Letters) != 5 || l.Letters[4].ID != ids[4] ||
		l.Letters[1].Exporter != "otlp/1" || l.Letters[0].Payload != nil || l.Letters[0].Bytes == 0 {
		t.Errorf("got %+v", l)
	}
	if l := list("exporter=otlp/0&limit=2"); l.Total != 3 || len(l.Letters) != 2 || l.Letters[1].ID != ids[4] {
		t.Errorf("got %+v", l)
	}
	if l := list("since=2999-01-01T00:00:00Z"); l.Total != 0 || l.Letters == nil {
		t.Errorf("got %+v", l)
	}
	var l agent.Letter
	code, body := d.ask("GET", fmt.Sprintf("/deadletters/%d", ids[3]), "")
	if code != 200 || json.Unmarshal(body, &l) != nil || !bytes.Contains(l.Payload, []byte("record 3 <&>")) || l.Request != nil {
		t.Errorf("got %d %s", code, body)
	}
	code, body = d.ask("GET", fmt.Sprintf("/deadletters/%d?format=json", ids[3]), "")
	if code != 200 || !bytes.Contains(body, []byte(`"stringValue": "record 3 `)) || bytes.Contains(body, []byte(`"payload"`)) {
		t.Errorf("got %d %s", code, body)
	}

	f := func(want int, method, path, body string, header ...string) {
		t.Helper()
		if code, text := d.ask(method, path, body, header...); code != want || len(text) == 0 {
			t.Errorf("%s %s %s is answered %d %s", method, path, body, code, text)
		}
	}
	f(404, "GET", "/deadletters/99", "")
	f(400, "GET", "/deadletters/x", "")
	f(400, "GET", "/deadletters/1?format=xml", "")
	f(400, "GET", "/deadletters?limit=0", "")
	f(400, "GET", "/deadletters?since=yesterday", "")
	for _, path := range []string{"/deadletters/drop", "/deadletters/replay"} {
		f(400, "POST", path, "")
		f(400, "POST", path, "{}")
		f(400, "POST", path, `{"all": true, "ids": [1]}`)
		f(400, "POST", path, `{"ids": [1], "exporter": "otlp/0"}`)
		f(400, "POST", path, `{"al": true}`)
		f(403, "POST", path, `{"all": true}`, "Origin")
	}
	if got := d.ids(deadletter.Filter{}); !reflect.DeepEqual(got, ids) {
		t.Fatalf("what was refused has dropped: %v", got)
	}

	resp := d.open("POST", "/deadletters/drop", fmt.Sprintf(`{"ids": [%d, 99, %[1]d]}`, ids[2]))
	var done agent.LetterDrop
	if err := json.NewDecoder(resp.Body).Decode(&done); err != nil || done.Letters != 1 || !reflect.DeepEqual(done.Missing, []uint64{99}) {
		t.Errorf("got %+v, %v", done, err)
	}
	d.open("POST", "/deadletters/drop", `{"all": true, "exporter": "otlp/1"}`)
	if got := d.ids(deadletter.Filter{}); !reflect.DeepEqual(got, []uint64{ids[0], ids[4]}) {
		t.Errorf("%v are left", got)
	}
}

func TestDeadLettersAreShownLocally(t *testing.T) {
	d := newLetterDesk(t, "tcp", 1)
	for _, path := range []string{"GET /deadletters", "GET /deadletters/0", "POST /deadletters/drop", "POST /deadletters/replay"} {
		method, path, _ := strings.Cut(path, " ")
		if code, _ := d.ask(method, path, `{"all": true}`); code != 403 {
			t.Errorf("%s is answered %d over TCP", path, code)
		}
	}
}

// A letter goes when its records are safe, not before; what is not taken stays.
func TestReplay(t *testing.T) {
	d := newLetterDesk(t, "unix", 3)
	ids := d.ids(deadletter.Filter{})
	lines, _ := d.replay(fmt.Sprintf(`{"ids": [%d, %d, 99], "to": "otlp/new"}`, ids[0], ids[1]), 3)
	first, second := d.nextSent(), d.nextSent()
	if l := <-lines; l.ID != 99 || !l.Missing || l.Error == "" {
		t.Errorf("of a letter that is not there: %+v", l)
	}
	if first.letter.Seq != ids[0] || first.exporter != "otlp/new" || second.letter.Seq != ids[1] || len(second.letter.Payload) == 0 {
		t.Errorf("sent are %+v and %+v", first, second)
	}
	if again, _ := d.replay(fmt.Sprintf(`{"ids": [%d]}`, ids[0]), 1); !strings.Contains((<-again).Error, "already") || !(<-again).Done {
		t.Error("a letter is sent again twice at once")
	}
	if got := d.ids(deadletter.Filter{}); len(got) != 3 {
		t.Errorf("before they are safe only %v are there", got)
	}
	first.safe <- nil
	if l := <-lines; l.ID != ids[0] || l.Error != "" || l.Records != 1 {
		t.Errorf("of what is safe: %+v", l)
	}
	second.safe <- errors.New("the agent stops")
	if l := <-lines; l.ID != ids[1] || l.Error != "the agent stops" {
		t.Errorf("of what is not: %+v", l)
	}
	if l := <-lines; !l.Done {
		t.Errorf("in the end there is %+v", l)
	}
	if got := d.ids(deadletter.Filter{}); !reflect.DeepEqual(got, ids[1:]) {
		t.Errorf("%v are left", got)
	}

	// To their own exporters; to one that is not there.
	lines, _ = d.replay(`{"all": true, "exporter": "otlp/1"}`, 1)
	if s := d.nextSent(); s.exporter != "otlp/1" {
		t.Errorf("sent to %s", s.exporter)
	} else {
		s.safe <- nil
	}
	if l := <-lines; l.Error != "" {
		t.Errorf("got %+v", l)
	}
	lines, _ = d.replay(`{"all": true, "to": "otlp/gone"}`, 1)
	if l := <-lines; !strings.Contains(l.Error, "no exporter otlp/gone") {
		t.Errorf("got %+v", l)
	}
	if got := d.ids(deadletter.Filter{}); !reflect.DeepEqual(got, ids[2:]) {
		t.Errorf("%v are left", got)
	}
}

// If the client goes away, what is on its way is waited for, and no more is begun.
func TestReplayWithoutClient(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("desk", func(t *testing.T) {
		d := newLetterDesk(t, "unix", 100)
		lines, hangUp := d.replay(`{"all": true}`, 100)
		var under []sentLetter
		for range 64 {
			under = append(under, d.nextSent())
		}
		under[0].safe <- nil
		if l := <-lines; l.Error != "" {
			t.Errorf("got %+v", l)
		}
		under[0] = d.nextSent() // there is room for one more
		hangUp()
		for range lines {
		}
		for _, s := range under {
			s.safe <- nil
		}
		await(t, func() bool { return len(d.ids(deadletter.Filter{})) <= 100-65 })
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, s := range d.sent {
			s.safe <- nil
		}
		if left := len(d.ids(deadletter.Filter{})); left < 100-66 {
			t.Errorf("%d are left", left)
		}
	})
}
