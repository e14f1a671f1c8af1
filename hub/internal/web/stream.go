package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/creelhq/creel/api"
)

// This file is live views: server-sent events (HTML Living Standard, section 9.2).

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

// watch sends what view returns at once, and again when that has changed, which next tells of.
func (s *Server) watch(id, event string, next func() <-chan struct{}, view func(*call) (any, error)) operation {
	return func(w http.ResponseWriter, r *http.Request, c *call) (any, error) {
		o := operationOf(id)
		var out *stream
		var last []byte
		silent := time.NewTicker(stillThere)
		defer silent.Stop()
		for {
			changed := next()
			v, err := view(c)
			var data []byte
			if err == nil {
				data, err = json.Marshal(v)
			}
			switch {
			case err != nil && out == nil:
				return nil, err
			case err != nil:
				return answered{}, nil
			case out == nil:
				out = newStream(w)
			}
			if !bytes.Equal(data, last) && out.send(event, data) != nil || !s.pause(r, o, changed, silent.C, out) {
				return answered{}, nil
			}
			last = data
			if c, err = s.admit(o, r); err != nil { // the token was deleted meanwhile, or has ended
				return answered{}, nil
			}
		}
	}
}

func (s *Server) fleetChanged() <-chan struct{} { return s.Fleet.Changed() }

// clusterEvery is how often one looks who leads, and how etcd is: nobody tells of that.
const clusterEvery = 2 * time.Second

// clusterSoon returns a channel that is closed when there is reason to look at the cluster again.
func (s *Server) clusterSoon() <-chan struct{} {
	soon, changed := make(chan struct{}), s.Cluster.Changed()
	go func() {
		defer close(soon)
		select {
		case <-changed:
		case <-time.After(clusterEvery):
		}
	}()
	return soon
}

func (s *Server) clusterNow(*call) (any, error) {
	ctx, cancel := context.WithTimeout(s.stopped, queryTimeout)
	defer cancel()
	c := s.Cluster.Cluster(ctx)
	c.State.Answered, c.State.Took = time.Time{}, 0 // else it would be another each time
	return c, nil
}

// operationOf returns what the API says of an operation.
func operationOf(id string) api.Operation {
	all := api.Operations()
	return all[slices.IndexFunc(all, func(o api.Operation) bool { return o.ID == id })]
}

// pause waits for a change, and for as long as events must lie apart. It returns false when the stream is over.
func (s *Server) pause(r *http.Request, o api.Operation, changed <-chan struct{}, silent <-chan time.Time, out *stream) bool {
	apart := time.NewTimer(atMostEvery)
	defer apart.Stop()
	for waiting := true; waiting; {
		select {
		case <-changed:
			waiting = false
		case <-silent:
			if _, err := s.admit(o, r); err != nil || out.send("", nil) != nil {
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

func (s *Server) tailLogs(w http.ResponseWriter, r *http.Request, _ *call) (any, error) {
	var q api.LogQuery
	if err := api.DecodeQuery(r.URL.Query(), &q, time.Now()); err != nil {
		return nil, err
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
			return nil, err
		}
		return answered{}, nil
	case <-time.After(50 * time.Millisecond):
	}
	out := newStream(w)
	silent := time.NewTicker(stillThere)
	defer silent.Stop()
	o, err := operationOf("tailLogs"), out.send("", nil)
	for err == nil {
		select {
		case l := <-found:
			var data []byte
			if _, err = s.admit(o, r); err != nil { // the token was deleted meanwhile, or has ended
				break
			}
			if data, err = json.Marshal(l); err == nil {
				err = out.send("log", data)
			}
		case <-silent.C:
			if _, err = s.admit(o, r); err == nil {
				err = out.send("", nil)
			}
		case <-ended:
			return answered{}, nil
		}
	}
	cancel()
	<-ended
	return answered{}, nil
}
