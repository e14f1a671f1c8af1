package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
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
		"orderAgent": change(func(ctx context.Context, r *http.Request, _ struct{}, o api.OrderRequest) (api.Order, error) {
			return s.Fleet.Order(ctx, r.PathValue("id"), o.Do, s.who(r), o.Cause)
		}),
		"listDocuments": operation(func(context.Context, *http.Request, struct{}) (api.DocumentList, error) {
			return s.Documents.List(), nil
		}),
		"applyDocument": change(func(ctx context.Context, r *http.Request, _ struct{}, c api.DocumentChange) (api.DocumentApplied, error) {
			return s.Documents.Apply(ctx, s.who(r), c)
		}),
		"getDocument": operation(func(ctx context.Context, r *http.Request, q api.DocumentQuery) (api.DocumentDetail, error) {
			return s.Documents.Get(ctx, r.PathValue("name"), q.Version)
		}),
		"deleteDocument": operation(func(ctx context.Context, r *http.Request, q api.DocumentDeletion) (none, error) {
			return none{}, s.Documents.Delete(ctx, s.who(r), r.PathValue("name"), q.DryRun)
		}),
		"getDocumentHistory": operation(func(ctx context.Context, r *http.Request, _ struct{}) (api.DocumentHistory, error) {
			return s.Documents.History(ctx, r.PathValue("name"))
		}),
		"rollBackDocument": change(func(ctx context.Context, r *http.Request, _ struct{}, b api.Rollback) (api.DocumentApplied, error) {
			return s.Documents.Rollback(ctx, s.who(r), r.PathValue("name"), b.To)
		}),
		"getSchema": operation(func(context.Context, *http.Request, struct{}) (json.RawMessage, error) { return s.Schema, nil }),
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
				if _, nothing := any(v).(none); nothing {
					w.WriteHeader(http.StatusNoContent)
				} else {
					answer(w, http.StatusOK, v)
				}
				return
			}
		}
		fail(w, err)
	})
}

// none is the response of an operation that has none.
type none struct{}

// change is an operation that has a body as well.
func change[Q, B, R any](f func(context.Context, *http.Request, Q, B) (R, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body B
		if err := readBody(w, r, &body); err != nil {
			fail(w, err)
			return
		}
		operation(func(ctx context.Context, r *http.Request, q Q) (R, error) { return f(ctx, r, q, body) }).ServeHTTP(w, r)
	})
}

// readBody reads a request's body into a pointer. A page of somebody else can make a browser send a form's types of content
// with its cookies, but not this one; see also Server.ServeHTTP.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &api.Error{Code: "bad_request", Message: fmt.Sprintf("the body must be JSON, with Content-Type: application/json, got %q", r.Header.Get("Content-Type"))}
	}
	c := http.NewResponseController(w)
	if err := c.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more after the JSON value")
		}
	}
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return &api.Error{Code: "too_much", Message: fmt.Sprintf("the body is larger than %d bytes; a document's text may have %d", large.Limit, api.MaxDocument)}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &api.Error{Code: "timeout", Message: fmt.Sprintf("the body did not come within %v", bodyTimeout)}
	}
	if err != nil {
		return &api.Error{Code: "bad_request", Message: fmt.Sprintf("read the body: %v", err)}
	}
	return c.SetReadDeadline(time.Time{})
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
