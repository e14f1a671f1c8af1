package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent/trial"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/pipeline"
)

// TapLine is one line of what the admin endpoint answers at /tap: a record, or counts, or why no more will come.
type TapLine struct {
	Signal string              `json:"signal,omitempty"`
	Record json.RawMessage     `json:"record,omitempty"` // as one writes it among a test's records
	Counts *pipeline.TapCounts `json:"counts,omitempty"`
	Error  string              `json:"error,omitempty"`
}

// tapCountsEvery is how often an open tap tells its counts, which is also how it finds that the client has gone.
const tapCountsEvery = time.Second

// tapPatience is how long a client may take to read a line.
const tapPatience = 10 * time.Second

// maxTapRate is how many records per second a tap may show.
const maxTapRate = 1000

// tap shows the records that pass an edge, until the client goes away or has as many as it asked for. Records may hold
// anything: so it answers on the Unix socket only, which lies in a directory that is closed to other users.
func (a *agent) tap(w http.ResponseWriter, r *http.Request) {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); !ok || local.Network() != "unix" {
		http.Error(w, "records are shown on the Unix socket only", http.StatusForbidden)
		return
	}
	o, most, err := tapOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t, err := a.engine.Tap(o)
	if err != nil {
		code := http.StatusBadRequest
		if missing := (*pipeline.NoEdge)(nil); errors.As(err, &missing) {
			code = http.StatusNotFound
		} else if errors.Is(err, pipeline.ErrTaps) {
			code = http.StatusTooManyRequests
		}
		http.Error(w, err.Error(), code)
		return
	}
	defer t.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	a.log.Info("records are looked at", "edge", t.Edge, "before", o.Before)
	tapStream{t, w, http.NewResponseController(w)}.run(r, most)
}

// tapOptions reads what a request asks for: edge, before, rate, where, and n, the most records to show; 0: no limit.
func tapOptions(q url.Values) (o pipeline.TapOptions, most int, err error) {
	o = pipeline.TapOptions{Edge: q.Get("edge"), Before: q.Get("before") == "true", Render: renderTap}
	var rate config.Rate
	if err := rate.UnmarshalText([]byte(q.Get("rate"))); err != nil {
		return o, 0, fmt.Errorf("rate %w", err)
	}
	if o.Rate = float64(rate); o.Rate > maxTapRate {
		return o, 0, fmt.Errorf("rate must be at most %d/s", maxTapRate)
	}
	if n := q.Get("n"); n != "" {
		if most, err = strconv.Atoi(n); err != nil || most < 0 {
			return o, 0, fmt.Errorf("n must be a number of records, got %q", n)
		}
	}
	if where := q.Get("where"); where != "" {
		c, err := expr.ParseCondition(where)
		if err != nil {
			return o, 0, fmt.Errorf("read condition: %w", err)
		}
		o.Match = func(b *creel.Batch) func(int) bool {
			if !c.Fits(b.Signal()) {
				return func(int) bool { return false }
			}
			record := expr.Read(b)
			return func(i int) bool {
				record.Seek(i)
				return c.Match(record)
			}
		}
	}
	return o, most, nil
}

// renderTap makes the line of one record.
func renderTap(b *creel.Batch, i int) []byte {
	line := fmt.Appendf(nil, `{"signal":%q,"record":`, b.Signal())
	return append(trial.Append(line, b, i), '}', '\n')
}

// tapStream is an answer under way.
type tapStream struct {
	*pipeline.Tap
	out     io.Writer
	control *http.ResponseController
}

func (s tapStream) run(r *http.Request, most int) {
	ticker := time.NewTicker(tapCountsEvery)
	defer ticker.Stop()
	if s.counts() != nil {
		return
	}
	for shown := 0; ; {
		var err error
		select {
		case <-r.Context().Done(): // the client has gone, or the agent stops
			return
		case <-ticker.C:
			err = s.counts()
		case line := <-s.Lines():
			s.Taken(line)
			if err = s.write(line); err == nil && len(s.Lines()) == 0 {
				err = s.counts()
			}
			if shown++; shown == most {
				_ = s.counts() // it is over anyway
				return
			}
		}
		if fault := s.Err(); fault != nil {
			_ = s.tell(TapLine{Error: fault.Error()})
			return
		}
		if err != nil {
			return
		}
	}
}

func (s tapStream) counts() error {
	c := s.Counts()
	return s.tell(TapLine{Counts: &c})
}

func (s tapStream) tell(l TapLine) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return s.write(append(text, '\n'))
}

// write sends a line at once. A client that does not read it in time has gone.
func (s tapStream) write(line []byte) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(tapPatience)); err != nil {
		return err
	}
	if _, err := s.out.Write(line); err != nil {
		return err
	}
	return s.control.Flush()
}
