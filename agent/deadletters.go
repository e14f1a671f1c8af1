package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/otlp"
)

// Letter is a dead letter as the admin endpoint and the command line show it.
type Letter struct {
	ID       uint64    `json:"id"`
	Time     time.Time `json:"time"`
	Exporter string    `json:"exporter"`
	Pipeline string    `json:"pipeline"`
	Signal   string    `json:"signal"`
	Records  int       `json:"records"`
	Bytes    int       `json:"bytes"` // of the payload
	Reason   string    `json:"reason"`
	Answer   string    `json:"answer"` // what the far side said

	Payload []byte          `json:"payload,omitempty"` // an OTLP export request, protobuf
	Request json.RawMessage `json:"request,omitempty"` // the same in OTLP's JSON
}

// LetterOf returns l without its payload.
func LetterOf(l deadletter.Letter) Letter {
	return Letter{
		ID: l.Seq, Time: l.Time, Exporter: l.Exporter, Pipeline: l.Pipeline, Signal: l.Signal.String(), Records: l.Records,
		Bytes: len(l.Payload), Reason: l.Reason, Answer: l.Answer,
	}
}

// WithRequest returns l with its records in OTLP's JSON; if they cannot be read, with its payload as it is.
func (l Letter) WithRequest(from deadletter.Letter) Letter {
	b, err := from.Batch(nil)
	if err != nil || from.Reason == deadletter.Unreadable {
		l.Payload = from.Payload
		return l
	}
	l.Request = otlp.AppendJSON(nil, b)
	return l
}

// LetterList is the answer of GET /deadletters: the newest letters, oldest first, and how many there are in all.
type LetterList struct {
	Letters []Letter `json:"letters"`
	Total   int      `json:"total"`
	Records int      `json:"records"` // in all of them
}

// LetterRequest says which letters are meant: either those named, or all, or all of an exporter.
type LetterRequest struct {
	IDs      []uint64 `json:"ids,omitempty"`
	All      bool     `json:"all,omitempty"`
	Exporter string   `json:"exporter,omitempty"` // with All
	To       string   `json:"to,omitempty"`       // to replay: the exporter to send them to; "": the one that they come from
}

// LetterDrop is the answer of POST /deadletters/drop.
type LetterDrop struct {
	Letters int      `json:"letters"` // that were dropped
	Missing []uint64 `json:"missing,omitempty"`
}

// ReplayLine is one line of the answer of POST /deadletters/replay: first how many letters there are, then what became of
// one, and in the end Done. A letter with an Error stays.
type ReplayLine struct {
	Letters int    `json:"letters,omitempty"`
	ID      uint64 `json:"id,omitempty"`
	Records int    `json:"records,omitempty"`
	Missing bool   `json:"missing,omitempty"` // there is no such letter
	Error   string `json:"error,omitempty"`
	Done    bool   `json:"done,omitempty"`
}

const (
	// maxLetters is how many letters a list has at most, and how many it has if the request does not say.
	maxLetters, someLetters = 10000, 1000
	// maxReplay is how many letters are on their way at once.
	maxReplay = 64
	// maxLetterRequest bounds what is read of a request, in bytes.
	maxLetterRequest = 4 << 20
)

// DeadLetters answers for a store of dead letters at the admin endpoint.
type DeadLetters struct {
	Store *deadletter.Store
	// Resend queues a letter's records at an exporter, and waits for room until ctx is done. The channel gets one value:
	// nil when the records are safe, or became a letter again, or why not; also when the agent stops.
	Resend func(ctx context.Context, exporter string, l deadletter.Letter) (<-chan error, error)
	Log    *slog.Logger

	mu   sync.Mutex
	sent map[uint64]bool // letters on their way
}

// Register adds the routes to mux. Letters hold records, which may be anything: so they are shown on the Unix socket only,
// which lies in a directory that is closed to other users.
func (d *DeadLetters) Register(mux *http.ServeMux) {
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /deadletters": d.list, "GET /deadletters/{id}": d.show, "POST /deadletters/drop": d.drop, "POST /deadletters/replay": d.replay,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); !ok || local.Network() != "unix" {
				http.Error(w, "dead letters are shown on the Unix socket only", http.StatusForbidden)
				return
			}
			h(w, r)
		})
	}
}

func (d *DeadLetters) list(w http.ResponseWriter, r *http.Request) {
	f, limit, err := letterQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	heads, err := d.Store.Select(f)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	list := LetterList{Letters: []Letter{}, Total: len(heads)}
	for _, h := range heads {
		list.Records += h.Records
	}
	for _, h := range heads[max(len(heads)-limit, 0):] {
		l, err := d.Store.Get(h.Seq)
		switch {
		case errors.Is(err, deadletter.ErrNotFound): // it has gone meanwhile
			list.Total--
			list.Records -= h.Records
			continue
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		list.Letters = append(list.Letters, LetterOf(l))
	}
	answer(w, http.StatusOK, list)
}

// letterQuery reads exporter, since (RFC 3339) and limit.
func letterQuery(q url.Values) (f deadletter.Filter, limit int, err error) {
	f.Exporter = q.Get("exporter")
	if s := q.Get("since"); s != "" {
		if f.Since, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return f, 0, fmt.Errorf("since must be a time such as 2026-11-24T01:02:03Z, got %q", s)
		}
	}
	limit = someLetters
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > maxLetters {
			return f, 0, fmt.Errorf("limit must be from 1 to %d, got %q", maxLetters, s)
		}
	}
	return f, limit, nil
}

func (d *DeadLetters) show(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	format := r.URL.Query().Get("format")
	if err != nil || format != "" && format != "proto" && format != "json" {
		http.Error(w, "ask for /deadletters/NUMBER?format=proto or json", http.StatusBadRequest)
		return
	}
	from, err := d.Store.Get(id)
	switch {
	case errors.Is(err, deadletter.ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	l := LetterOf(from)
	if format == "json" {
		l = l.WithRequest(from)
	} else {
		l.Payload = from.Payload
	}
	answer(w, http.StatusOK, l)
}

// chosen reads which letters a request means. It has answered when ok is false.
func (d *DeadLetters) chosen(w http.ResponseWriter, r *http.Request) (q LetterRequest, ids []uint64, ok bool) {
	if r.Header.Get("Origin") != "" { // a web page must neither drop nor send
		http.Error(w, "requests of web pages are refused", http.StatusForbidden)
		return q, nil, false
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLetterRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		http.Error(w, fmt.Sprintf("read request: %v", err), http.StatusBadRequest)
		return q, nil, false
	}
	if q.All == (len(q.IDs) > 0) || q.Exporter != "" && !q.All {
		http.Error(w, "say either ids, or all: true, and with it perhaps an exporter", http.StatusBadRequest)
		return q, nil, false
	}
	if !q.All {
		slices.Sort(q.IDs)
		return q, slices.Compact(q.IDs), true
	}
	heads, err := d.Store.Select(deadletter.Filter{Exporter: q.Exporter})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return q, nil, false
	}
	for _, h := range heads {
		ids = append(ids, h.Seq)
	}
	return q, ids, true
}

func (d *DeadLetters) drop(w http.ResponseWriter, r *http.Request) {
	q, ids, ok := d.chosen(w, r)
	if !ok {
		return
	}
	done, err := DropLetters(d.Store, ids)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	d.Log.Info("dead letters are dropped", "letters", done.Letters, "all", q.All, "exporter", q.Exporter)
	answer(w, http.StatusOK, done)
}

// DropLetters drops letters, and says which were not there.
func DropLetters(s *deadletter.Store, ids []uint64) (done LetterDrop, err error) {
	heads, err := s.Select(deadletter.Filter{})
	if err != nil {
		return done, err
	}
	for _, id := range ids {
		if _, found := slices.BinarySearchFunc(heads, id, func(h deadletter.Head, id uint64) int { return cmp.Compare(h.Seq, id) }); !found {
			done.Missing = append(done.Missing, id)
		}
	}
	done.Letters = len(ids) - len(done.Missing)
	if err := s.Drop(ids...); err != nil && !errors.Is(err, deadletter.ErrNotFound) {
		return done, err
	}
	return done, nil
}

// replay sends letters again, and drops each when its records are safe. If the client goes away no more are begun, and
// those on their way are still waited for.
func (d *DeadLetters) replay(w http.ResponseWriter, r *http.Request) {
	q, ids, ok := d.chosen(w, r)
	if !ok {
		return
	}
	d.Log.Info("dead letters are sent again", "letters", len(ids), "exporter", q.Exporter, "to", q.To)
	w.Header().Set("Content-Type", "application/x-ndjson")
	results := make(chan ReplayLine, maxReplay) // one place for each letter that is on its way: nobody need read
	out := replayStream{w, http.NewResponseController(w)}
	if out.tell(ReplayLine{Letters: len(ids)}) != nil {
		return
	}
	under := 0
	take := func() error {
		select {
		case line := <-results:
			under--
			return out.tell(line)
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	for _, id := range ids {
		for under == maxReplay || len(results) > 0 {
			if take() != nil {
				return
			}
		}
		if r.Context().Err() != nil {
			return
		}
		under++
		d.send(r.Context(), id, q.To, results)
	}
	for under > 0 {
		if take() != nil {
			return
		}
	}
	_ = out.tell(ReplayLine{Done: true}) // the client has gone
}

// send sends one letter. What became of it goes to results, later.
func (d *DeadLetters) send(ctx context.Context, id uint64, to string, results chan<- ReplayLine) {
	line := ReplayLine{ID: id}
	if !d.begin(id) {
		line.Error = "it is being sent again already"
		results <- line
		return
	}
	l, err := d.Store.Get(id)
	var safe <-chan error
	if err == nil {
		line.Records = l.Records
		if to == "" {
			to = l.Exporter
		}
		safe, err = d.Resend(ctx, to, l)
	}
	if err != nil {
		d.end(id)
		line.Error, line.Missing = err.Error(), errors.Is(err, deadletter.ErrNotFound)
		results <- line
		return
	}
	go func() {
		if err := <-safe; err != nil {
			line.Error = err.Error()
		} else if err := d.Store.Drop(id); err != nil && !errors.Is(err, deadletter.ErrNotFound) {
			line.Error = fmt.Sprintf("it was taken, but it stays here: %v", err)
		}
		d.end(id)
		results <- line
	}()
}

// begin notes that a letter is on its way, unless it is already.
func (d *DeadLetters) begin(id uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sent[id] {
		return false
	}
	if d.sent == nil {
		d.sent = map[uint64]bool{}
	}
	d.sent[id] = true
	return true
}

func (d *DeadLetters) end(id uint64) {
	d.mu.Lock()
	delete(d.sent, id)
	d.mu.Unlock()
}

// replayStream is an answer under way.
type replayStream struct {
	out     http.ResponseWriter
	control *http.ResponseController
}

// tell writes a line at once. A client that does not read it in time has gone.
func (s replayStream) tell(l ReplayLine) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(tapPatience)); err != nil {
		return err
	}
	if _, err := s.out.Write(append(text, '\n')); err != nil {
		return err
	}
	return s.control.Flush()
}

// meterLetters shows how many dead letters there are.
func meterLetters(set *metric.Set, store *deadletter.Store) {
	set.GaugeFunc("creel.deadletter.records", "Records in dead letters.", "{record}", func() float64 { return float64(store.Stats().Records) })
	set.GaugeFunc("creel.deadletter.bytes", "Bytes of dead letters on disk.", "By", func() float64 { return float64(store.Stats().Bytes) })
	set.CounterFunc("creel.deadletter.dropped", "Records in dead letters that made room for others.", "{record}", func() float64 {
		return float64(store.Stats().Dropped)
	})
}
