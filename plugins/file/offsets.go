package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/creelhq/creel"
)

// stateVersion is of the blob that savedState is kept as. The State checks that it is whole.
const stateVersion = 1

type savedState struct {
	Version int         `json:"version"`
	Saved   int64       `json:"saved"` // Unix nanoseconds
	Files   []savedFile `json:"files"`
}

type savedFile struct {
	Path   string `json:"path"`
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	Size   int    `json:"print_size"`
	Sum    uint32 `json:"print"`
	Offset int64  `json:"offset"` // everything before was acknowledged
	Seen   int64  `json:"seen"`   // Unix seconds
}

// past is what the previous run knew, beyond positions.
type past struct {
	saved time.Time // zero: nothing is known
	paths map[string]bool
}

// load takes over what the previous run has saved. What is damaged is worth a message, not a refusal: it costs
// duplicates, or with start_at end what was written meanwhile.
func (c *collector) load() {
	c.before = &past{paths: map[string]bool{}}
	data, version, err := c.state.Load()
	c.saving.Lock()
	c.version = version
	c.saving.Unlock()
	if err != nil {
		c.log.Warn("positions cannot be loaded; files start as if never read", "error", err)
		return
	}
	if len(data) == 0 {
		return
	}
	s := savedState{}
	if err := json.Unmarshal(data, &s); err != nil {
		c.log.Warn("saved positions are damaged; files start as if never read", "error", err)
		return
	}
	if s.Version != stateVersion {
		c.log.Warn("saved positions are of an unknown version; files start as if never read", "version", s.Version)
		return
	}
	c.before.saved = time.Unix(0, s.Saved)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range s.Files {
		if f.Size < 0 || f.Size > len(c.head) { // made with a larger fingerprint_size: the inode has to do
			f.Size, f.Sum = 0, 0
		}
		f.Offset = max(f.Offset, 0)
		t := &tail{id: fileID{f.Dev, f.Ino}, path: f.Path, print: fingerprint{f.Size, f.Sum}, pos: f.Offset,
			acked: &progress{committed: f.Offset}, seen: time.Unix(f.Seen, 0), look: true, origin: c.originOf(f.Path)}
		c.before.paths[f.Path] = true
		if _, twice := c.byID[t.id]; !twice {
			c.tails = append(c.tails, t)
		} else { // the older one's inode has been given to the newer
			for i := range c.tails {
				if c.tails[i].id == t.id {
					c.tails[i] = t
				}
			}
		}
		c.byID[t.id] = t
	}
}

// saveWhileDirty saves at intervals until ctx is done.
func (c *collector) saveWhileDirty(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	var complained string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := c.save()
		if errors.Is(err, creel.ErrStale) { // who collects now is right
			c.saving.Lock()
			_, c.version, _ = c.state.Load()
			c.saving.Unlock()
			err = c.save()
		}
		switch {
		case err == nil:
			complained = ""
		case err.Error() != complained:
			complained = err.Error()
			c.log.Warn("positions are not saved; a restart would send lines twice", "error", err)
		}
	}
}

// save saves what has changed.
func (c *collector) save() error {
	c.saving.Lock()
	defer c.saving.Unlock()
	if c.closed || c.before == nil {
		return nil
	}
	s, changed := c.snapshot()
	if !changed {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	v, err := c.state.Save(data, c.version)
	if err != nil {
		c.mu.Lock()
		c.dirty = true
		c.mu.Unlock()
		return fmt.Errorf("save positions: %w", err)
	}
	c.version = v
	return nil
}

// snapshot returns what is to be saved, and clears dirty.
func (c *collector) snapshot() (s savedState, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dirty {
		return s, false
	}
	c.dirty = false
	s = savedState{Version: stateVersion, Saved: c.resolved.UnixNano(), Files: make([]savedFile, len(c.tails))}
	for i, t := range c.tails {
		s.Files[i] = savedFile{t.path, t.id.dev, t.id.ino, t.print.size, t.print.sum, t.acked.committed, t.seen.Unix()}
	}
	return s, true
}
