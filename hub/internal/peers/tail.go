package peers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/cluster"
)

const (
	again   = time.Second      // until a hub is asked again that has ended, or has come
	silence = 45 * time.Second // of a stream, after which its hub is gone: it says every 15 s that it is still there
)

// TailLogs has the other hubs tell of records as they store them, until ctx is done: found is called with each. absent is called
// with the hubs that do not tell, whenever those are others; at first all do. A hub whose stream ends is asked again, and so is
// one that comes. Both may be called concurrently.
func (p *Peers) TailLogs(ctx context.Context, r Request, found func(api.Log), absent func([]api.Absent)) {
	t := tails{following: make(map[string]bool), absent: make(map[string]api.Absent), tell: absent}
	tick := time.NewTicker(again)
	defer tick.Stop()
	var over sync.WaitGroup
	defer over.Wait()
	for {
		for _, h := range p.Others() {
			if t.follow(h.ID) {
				over.Go(func() { p.follow(ctx, &t, h, r, found) })
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// tails are the streams of one TailLogs.
type tails struct {
	mu        sync.Mutex
	following map[string]bool       // by hub's id
	absent    map[string]api.Absent // likewise
	tell      func([]api.Absent)
}

// follow reports whether a hub is not followed yet, and notes that it is.
func (t *tails) follow(hub string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := !t.following[hub]
	t.following[hub] = true
	return first
}

// note notes how a hub is: nil for well. gone: it is not followed any more.
func (t *tails) note(h cluster.Hub, err error, gone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if gone {
		delete(t.following, h.ID)
	}
	was, is := t.absent[h.ID]
	switch {
	case err == nil && !is, err != nil && was.Error == err.Error():
		return
	case err == nil:
		delete(t.absent, h.ID)
	default:
		t.absent[h.ID] = api.Absent{Hub: h.ID, Name: h.Name, Error: err.Error()}
	}
	var list []api.Absent
	for _, id := range slices.Sorted(maps.Keys(t.absent)) {
		list = append(list, t.absent[id])
	}
	t.tell(list)
}

// follow follows a hub for as long as it is there.
func (p *Peers) follow(ctx context.Context, t *tails, h cluster.Hub, r Request, found func(api.Log)) {
	defer t.note(h, nil, true)
	for p.Knows(h.ID) {
		err := p.tail(ctx, h, r, func() { t.note(h, nil, false) }, found)
		if ctx.Err() != nil {
			return
		}
		t.note(h, err, false)
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return
		}
	}
}

// tail reads the stream of one hub. It calls begun once there is one.
func (p *Peers) tail(ctx context.Context, h cluster.Hub, r Request, begun func(), found func(api.Log)) error {
	a, err := p.open(ctx, h, r)
	if err != nil {
		return err
	}
	defer a.close()
	begun()
	lines := bufio.NewScanner(a.body)
	lines.Buffer(nil, maxAnswer)
	for a.timer.Reset(silence); lines.Scan(); a.timer.Reset(silence) {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		var l api.Log
		if err := json.Unmarshal(data, &l); err != nil {
			return fmt.Errorf("read its answer: %w; are the hubs of different versions?", err)
		}
		l.ID = CursorOf(l.ID, h.ID)
		found(l)
	}
	if err := lines.Err(); err != nil {
		return because(a.ctx, err)
	}
	return errors.New("its stream has ended")
}
