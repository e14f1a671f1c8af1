package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/creelhq/creel/api"
)

// operations are the handlers of the API's operations, by id.
func (s *Server) operations() map[string]http.Handler {
	return map[string]http.Handler{
		"getHub": operation(func(context.Context, *http.Request, struct{}) (api.Hub, error) { return s.Hub(), nil }),
		"listAgents": operation(func(_ context.Context, _ *http.Request, q api.AgentQuery) (api.AgentList, error) {
			return s.Fleet.List(q)
		}),
		"watchAgents": s.watch("agents", s.agentsNow),
		"getAgent": operation(func(_ context.Context, r *http.Request, _ struct{}) (api.AgentDetail, error) {
			return s.Fleet.Agent(r.PathValue("id"))
		}),
		"watchAgent": s.watch("agent", func(r *http.Request) (any, error) { return s.Fleet.Agent(r.PathValue("id")) }),
		"getLedger": operation(func(_ context.Context, _ *http.Request, q api.LedgerQuery) (api.Ledger, error) {
			return s.Fleet.Ledger(q)
		}),
		"listConfigurations": operation(func(context.Context, *http.Request, struct{}) (api.ConfigurationList, error) {
			return api.ConfigurationList{Configurations: s.Fleet.Configurations()}, nil
		}),
		"getConfiguration": operation(s.configuration),
		"searchLogs": operation(func(ctx context.Context, _ *http.Request, q api.LogQuery) (api.LogResult, error) {
			return s.Rows.SearchLogs(ctx, q)
		}),
		"tailLogs": http.HandlerFunc(s.tailLogs),
		"countLogs": operation(func(ctx context.Context, _ *http.Request, q api.LogQuery) (api.Histogram, error) {
			return s.Rows.CountLogs(ctx, q)
		}),
		"searchTraces": operation(func(ctx context.Context, _ *http.Request, q api.TraceQuery) (api.TraceList, error) {
			return s.Rows.SearchTraces(ctx, q)
		}),
		"getTrace": operation(func(ctx context.Context, r *http.Request, _ struct{}) (api.Trace, error) {
			return s.Rows.Trace(ctx, r.PathValue("id"))
		}),
		"listServices": operation(func(ctx context.Context, _ *http.Request, w api.Window) (api.ServiceList, error) {
			return s.Rows.Services(ctx, w)
		}),
	}
}

// operation is a handler that decodes the request, and encodes the response or the error.
func operation[Q, R any](f func(context.Context, *http.Request, Q) (R, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q Q
		err := api.DecodeQuery(r.URL.Query(), &q, time.Now())
		if err == nil {
			var v R
			if v, err = f(r.Context(), r, q); err == nil {
				answer(w, http.StatusOK, v)
				return
			}
		}
		fail(w, err)
	})
}

func (s *Server) configuration(_ context.Context, r *http.Request, _ struct{}) (api.Configuration, error) {
	d, ok := s.Fleet.Configuration(r.PathValue("id"))
	if !ok {
		return d, &api.Error{Code: "not_found", Message: fmt.Sprintf("no agent runs a configuration %q now", r.PathValue("id"))}
	}
	return d, nil
}

func (s *Server) agentsNow(r *http.Request) (any, error) {
	var q api.AgentQuery
	if err := api.DecodeQuery(r.URL.Query(), &q, time.Now()); err != nil {
		return nil, err
	}
	return s.Fleet.List(q)
}

const (
	atMostEvery  = time.Second      // events of a watch
	stillThere   = 15 * time.Second // between comments on a silent stream, so that nobody on the way ends it
	writeTimeout = 10 * time.Second // for one event: a reader that does not read is let go
)

// A stream sends server-sent events (HTML Living Standard, section 9.2).
type stream struct {
	w http.ResponseWriter
	c *http.ResponseController
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	return &stream{w, http.NewResponseController(w)}
}

// send writes an event, or a comment if event is empty.
func (s *stream) send(event string, data []byte) error {
	if err := s.c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	var err error
	if event == "" {
		_, err = fmt.Fprint(s.w, ": still there\n\n")
	} else {
		_, err = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, data)
	}
	if err != nil {
		return err
	}
	return s.c.Flush()
}

// watch sends what view returns at once, and again when the fleet has changed.
func (s *Server) watch(event string, view func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var out *stream
		silent := time.NewTicker(stillThere)
		defer silent.Stop()
		for {
			changed := s.Fleet.Changed()
			v, err := view(r)
			if err != nil {
				if out == nil {
					fail(w, err)
				}
				return
			}
			if out == nil {
				out = newStream(w)
			}
			data, err := json.Marshal(v)
			if err != nil || out.send(event, data) != nil {
				return
			}
			if !s.pause(r, changed, silent.C, out) {
				return
			}
		}
	})
}

// pause waits for a change, and for as long as events must lie apart. It returns false when the stream is over.
func (s *Server) pause(r *http.Request, changed <-chan struct{}, silent <-chan time.Time, out *stream) bool {
	apart := time.NewTimer(atMostEvery)
	defer apart.Stop()
	for waiting := true; waiting; {
		select {
		case <-changed:
			waiting = false
		case <-silent:
			if out.send("", nil) != nil {
				return false
			}
		case <-r.Context().Done():
			return false
		case <-s.stopped.Done():
			return false
		}
	}
	select {
	case <-apart.C:
		return true
	case <-r.Context().Done():
	case <-s.stopped.Done():
	}
	return false
}

func (s *Server) tailLogs(w http.ResponseWriter, r *http.Request) {
	var q api.LogQuery
	if err := api.DecodeQuery(r.URL.Query(), &q, time.Now()); err != nil {
		fail(w, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopped, cancel)()
	found := make(chan api.Log, 64)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Rows.TailLogs(ctx, q, func(l api.Log) error {
			select {
			case found <- l:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	// A wrong query fails at once; everything else is a stream.
	select {
	case err := <-ended:
		if ctx.Err() == nil {
			fail(w, err)
		}
		return
	case <-time.After(50 * time.Millisecond):
	}
	out := newStream(w)
	silent := time.NewTicker(stillThere)
	defer silent.Stop()
	err := out.send("", nil)
	for err == nil {
		select {
		case l := <-found:
			var data []byte
			if data, err = json.Marshal(l); err == nil {
				err = out.send("log", data)
			}
		case <-silent.C:
			err = out.send("", nil)
		case <-ended:
			return
		}
	}
	cancel()
	<-ended
}
