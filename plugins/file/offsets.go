package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/creelhq/creel"
)

// stateVersion is of the blob that savedState is kept as. The State checks that it is whole.
const stateVersion = 1

type savedState struct {
	Version int         `json:"version"`
	Saved   int64       `json:"saved"` // Unix nanoseconds
	Boot    string      `json:"boot,omitempty"`
	Files   []savedFile `json:"files"`
	Known   []content   `json:"known,omitempty"`
}

type savedFile struct {
	Path   string `json:"path"`
	Link   string `json:"link,omitempty"`
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	Size   int    `json:"print_size"`
	Sum    uint32 `json:"print"`
	Life   uint64 `json:"life,omitempty"`
	Offset int64  `json:"offset"` // everything before was acknowledged
	Seen   int64  `json:"seen"`   // Unix seconds
	ending
	Zip int64 `json:"zip,omitempty"` // the size on disk of an archive that was read to its end; -1: it is not yet
}

// past is what the previous run knew, beyond positions.
type past struct {
	saved time.Time // zero: nothing is known
	paths map[string]bool
}

// load takes over what the previous run has saved. What is damaged is worth a message, not a refusal: it costs
// duplicates, or with start_at end what was written meanwhile.
func (c *collector) load() {
	c.before, c.boot = &past{paths: map[string]bool{}}, boot()
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
	c.known = s.Known
	sameBoot := s.Boot != "" && s.Boot == c.boot
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range s.Files {
		if f.Size < 0 || f.Size > len(c.head) { // made with a larger fingerprint_size: the inode has to do
			f.Size, f.Sum = 0, 0
		}
		f.Offset = max(f.Offset, 0)
		if f.ending.Size < 0 || f.ending.Size > maxEnding || int64(f.ending.Size) > f.Offset {
			f.ending = ending{}
		}
		t := c.newTail(fileID{f.Dev, f.Ino}, f.Path, f.Offset, time.Unix(f.Seen, 0))
		t.print, t.look = fingerprint{f.Size, f.Sum}, true
		t.acked.ending, t.ending, t.link = f.ending, f.ending, f.Link
		if f.Life != 0 && f.Size > 0 && sameBoot {
			t.life, t.taken = f.Life, slices.Clone(c.taken(f.Life))
		} else {
			c.announce(t)
		}
		if t.zip = nil; f.Zip != 0 {
			t.zip, t.whole = &archive{size: f.Zip}, max(f.Zip, 0)
			t.done, t.look = f.Zip > 0, f.Zip < 0
		}
		c.before.paths[f.Path] = true
		if _, twice := c.byID[t.id]; !twice {
			c.tails = append(c.tails, t)
		} else { // the older one's inode has been given to the newer
			for i := range c.tails {
				if old := c.tails[i]; old.id == t.id {
					if old.zip == nil {
						c.remember(old.print, old.acked, old.seen)
					}
					c.tails[i] = t
				}
			}
		}
		c.byID[t.id] = t
	}
}

// saveWhileDirty saves at intervals, and when somebody is in a hurry, until ctx is done.
func (c *collector) saveWhileDirty(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	var complained string
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.urgent:
		}
		start := time.Now()
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
		c.saving.Lock()
		work := c.work
		c.saving.Unlock()
		// Neither this CPU nor the disk shall have much else to do for us.
		pause.Reset(min(max((saveShare-1)*work, time.Since(start)-work), saveEvery))
	}
}

// hurry asks for a save soon.
func (c *collector) hurry() {
	select {
	case c.urgent <- struct{}{}:
	default:
	}
}

// announce notes that something new about t must be saved before more of it is sent. c.mu is locked.
func (c *collector) announce(t *tail) {
	c.news++
	t.news, c.dirty = c.news, true
}

// isNews reports whether t has to wait until it is saved what it is: a crash must neither make us forget it, nor leave us
// with a disk queue that has something of it and a State that does not know what. All that is new is saved at once.
func (c *collector) isNews(t *tail) bool {
	if t.news <= c.told.Load() {
		return false
	}
	t.drained = false
	c.hurry()
	return true
}

// tell notes that what was news is saved, or cannot be: it is then read all the same.
func (c *collector) tell(news uint64) {
	if news <= c.told.Load() {
		return
	}
	c.told.Store(news)
	select {
	case c.saved <- struct{}{}:
	default:
	}
}

// save saves what has changed.
func (c *collector) save() error {
	c.saving.Lock()
	defer c.saving.Unlock()
	if c.closed || c.before == nil {
		return nil
	}
	start := time.Now()
	s, news, changed := c.snapshot()
	defer c.tell(news)
	if c.work = 0; !changed {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	c.work = time.Since(start)
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

// snapshot returns what is to be saved, and what of news that is, and clears dirty.
func (c *collector) snapshot() (s savedState, news uint64, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dirty {
		return s, c.news, false
	}
	c.dirty, c.unsaved = false, 0
	s = savedState{Version: stateVersion, Saved: c.resolved.UnixNano(), Boot: c.boot, Files: make([]savedFile, len(c.tails))}
	for i := range c.known {
		c.known[i].settled()
	}
	s.Known = slices.Clone(c.known)
	for i, t := range c.tails {
		if t.gone.IsZero() && t.seen.Before(c.resolved) {
			t.seen = c.resolved
		}
		s.Files[i] = savedFile{t.path, t.link, t.id.dev, t.id.ino, t.print.size, t.print.sum, t.life, t.acked.committed, t.seen.Unix(), t.acked.ending, 0}
		if t.zip != nil {
			s.Files[i].Zip = -1
			if t.whole > 0 && len(t.acked.pending) == 0 && !t.acked.lost {
				s.Files[i].Zip = t.whole
			}
		}
	}
	return s, c.news, true
}
