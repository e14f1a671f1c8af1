package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/peers"
)

// This file is live views: server-sent events (HTML Living Standard, section 9.2).

const (
	atMostEvery  = time.Second      // events of a watch
	tasksEvery   = atMostEvery / 5  // of that of tasks
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
	if event == "" {
		return s.write([]byte(": still there\n\n"))
	}
	return s.write(fmt.Appendf(nil, "event: %s\ndata: %s\n\n", event, data))
}

// write writes whole events.
func (s *stream) write(text []byte) error {
	if err := s.c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write(text); err != nil {
		return err
	}
	return s.c.Flush()
}

// watch sends what view returns at once, and again when that has changed, which next tells of; nil has not. Events lie apart: more, up
// to atMostEvery, if it is much work to look.
func (s *Server) watch(id, event string, apart time.Duration, next func(*call) <-chan struct{}, view func(context.Context, *call) (any, error)) operation {
	return func(w http.ResponseWriter, r *http.Request, c *call) (any, error) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.stopped, cancel)()
		o := operationOf(id)
		var out *stream
		var last []byte
		silent := time.NewTicker(stillThere)
		defer silent.Stop()
		for {
			changed := next(c)
			c.fresh = fresh
			began := time.Now()
			v, err := view(ctx, c)
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
			wait := max(apart, min(10*time.Since(began), atMostEvery))
			if v != nil && !bytes.Equal(data, last) && out.send(event, data) != nil || !s.pause(r, o, wait, changed, silent.C, out) {
				return answered{}, nil
			}
			last = data
			if c, err = s.admit(o, r); err != nil { // the token was deleted meanwhile, or has ended
				return answered{}, nil
			}
		}
	}
}

// fleetChanged returns a channel that is closed when there is reason to look at the fleet again.
func (s *Server) fleetChanged(c *call) <-chan struct{} {
	if len(s.others(c)) == 0 {
		return s.Fleet.Changed()
	}
	now := make(chan struct{}) // what changes there is heard only from them
	close(now)
	return now
}

// clusterEvery is how often one looks who leads, and how etcd is: nobody tells of that.
const clusterEvery = 2 * time.Second

// clusterSoon returns a channel that is closed when there is reason to look at the cluster again.
func (s *Server) clusterSoon(*call) <-chan struct{} {
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

func (s *Server) clusterNow(ctx context.Context, _ *call) (any, error) {
	c := s.Cluster.Cluster(ctx)
	c.State.Answered, c.State.Took = time.Time{}, 0 // else it would be another each time
	return c, nil
}

// watchTasks sends all tasks, and then those of documents whose tasks have changed.
func (s *Server) watchTasks(w http.ResponseWriter, r *http.Request, c *call) (any, error) {
	var told map[string][]api.Task // by document
	// What documents ask for comes with the fleet's changes: it is told of each.
	next := func(*call) <-chan struct{} { return s.Fleet.Changed() }
	return s.watch("watchTasks", "tasks", tasksEvery, next, func(_ context.Context, c *call) (any, error) {
		now := make(map[string][]api.Task)
		for _, t := range s.Documents.Tasks(c.Within).Tasks {
			now[t.Document] = append(now[t.Document], t)
		}
		change := api.TaskChange{All: told == nil, Documents: []string{}, Tasks: []api.Task{}}
		for document, tasks := range now {
			if !slices.Equal(tasks, told[document]) {
				change.Documents = append(change.Documents, document)
			}
		}
		for document := range told {
			if now[document] == nil {
				change.Documents = append(change.Documents, document)
			}
		}
		told = now
		if len(change.Documents) == 0 && !change.All {
			return nil, nil
		}
		slices.Sort(change.Documents)
		for _, document := range change.Documents {
			change.Tasks = append(change.Tasks, now[document]...)
		}
		return change, nil
	})(w, r, c)
}

// operationOf returns what the API says of an operation.
func operationOf(id string) api.Operation {
	all := api.Operations()
	return all[slices.IndexFunc(all, func(o api.Operation) bool { return o.ID == id })]
}

// pause waits for a change, and at least for wait. It returns false when the stream is over.
func (s *Server) pause(r *http.Request, o api.Operation, wait time.Duration, changed <-chan struct{}, silent <-chan time.Time, out *stream) bool {
	apart := time.NewTimer(wait)
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

func (s *Server) watchDirectory(w http.ResponseWriter, r *http.Request, c *call) (any, error) {
	var q api.DirectoryWatch
	if err := api.DecodeQuery(r.URL.Query(), &q, time.Now()); err != nil {
		return nil, err
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" { // who comes back still has the query of the beginning
		q.After = last
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopped, cancel)()
	o := operationOf("watchDirectory")
	var out *stream
	err := s.Directory.Watch(ctx, c.Within, q, func(events []api.DirectoryEvent) error {
		now, err := s.admit(o, r)
		if err == nil && now.Within.String() != c.Within.String() {
			err = errors.New("who asks sees others now")
		}
		if err != nil { // the token was deleted meanwhile, or has ended
			return err
		}
		if out == nil {
			out = newStream(w)
		}
		var text []byte
		for _, e := range events {
			data, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if e.ID != "" {
				text = fmt.Appendf(text, "id: %s\n", e.ID)
			}
			text = fmt.Appendf(text, "event: %s\ndata: %s\n\n", e.Event, data)
		}
		return out.write(text)
	})
	if out == nil {
		return nil, err
	}
	return answered{}, nil
}

func (s *Server) tailLogs(w http.ResponseWriter, r *http.Request, c *call) (any, error) {
	var q api.LogQuery
	if err := api.DecodeQuery(r.URL.Query(), &q, time.Now()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopped, cancel)()
	t := &tail{s: s, c: c, q: q, found: make(chan api.Log, 64), absent: make(chan []api.Absent), ended: make(chan error, 1)}
	defer t.over.Wait()
	defer cancel()
	t.begin(ctx)
	// A wrong query fails at once; everything else is a stream.
	select {
	case err := <-t.ended:
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
		var event string
		var v any
		select {
		case l := <-t.found:
			event, v = "log", l
		case list := <-t.absent:
			event, v = api.AbsentEvent, api.Joint{Absent: list}
		case <-silent.C:
			t.others(ctx) // some may have come
		case <-t.ended:
			return answered{}, nil
		}
		var data []byte
		if _, err = s.admit(o, r); err != nil { // the token was deleted meanwhile, or has ended
			break
		}
		if data, err = json.Marshal(v); err == nil {
			err = out.send(event, data)
		}
	}
	return answered{}, nil
}

// tail is records as they come, of this hub and of the others.
type tail struct {
	s      *Server
	c      *call
	q      api.LogQuery
	found  chan api.Log
	absent chan []api.Absent // hubs that do not tell
	ended  chan error        // has one when this hub has ended
	joint  bool              // the others were asked
	over   sync.WaitGroup
}

func (t *tail) begin(ctx context.Context) {
	t.others(ctx)
	joint := t.joint
	t.over.Go(func() {
		t.ended <- t.s.Rows.TailLogs(ctx, t.q, func(l api.Log) error {
			if joint {
				l.ID = peers.CursorOf(l.ID, t.s.Peers.Hub())
			}
			return send(ctx, t.found, l)
		})
	})
}

// others asks the other hubs, if there are any and they were not.
func (t *tail) others(ctx context.Context) {
	if t.joint || len(t.s.others(t.c)) == 0 {
		return
	}
	t.joint = true
	t.over.Go(func() {
		t.s.Peers.TailLogs(ctx, t.c.as("/logs/tail", t.q), func(l api.Log) { _ = send(ctx, t.found, l) }, // the stream is over
			func(list []api.Absent) { _ = send(ctx, t.absent, list) })
	})
}

func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
