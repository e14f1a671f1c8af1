package center

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/creelhq/creel/config"
)

// What a center may say at most. A Source refuses more, with Bound.
const (
	MaxDocument  = 1 << 20  // bytes of a document
	MaxTotal     = 10 << 20 // bytes of all documents and their names
	MaxDocuments = 1000
)

// Schema returns the options of a center: those that every one has, and its own.
func Schema(c Center) config.Schema { return config.Join(config.Of[Common](), c.Config) }

// Open makes the Source of a center, with options that Schema(c).Check returned. What it says has passed Guard, and
// h.Health is told of what keeps the Source from working or, if nothing does, of what Guard refuses. It fails if the center
// holds no documents, or none with these options.
func Open(c Center, cfg []byte, h Host) (Source, error) {
	if c.Open == nil {
		return nil, fmt.Errorf("a center %s holds no configuration: it only knows who offers a service", c.Name)
	}
	common, err := config.Decode[Common](config.Of[Common]().Pick(cfg))
	if err != nil {
		return nil, fmt.Errorf("decode options: %w", err)
	}
	g := &guarded{common: common, last: h.Last, health: newHealth(h)}
	h.Health = g.health.isAway
	if g.source, err = c.Open(c.Config.Pick(cfg), h); err != nil {
		return nil, err
	}
	return g, nil
}

// guarded is a Source behind a Guard.
type guarded struct {
	source Source
	common Common
	last   *Snapshot
	health *health
}

// Watch calls f with what the Source says and Guard lets pass.
func (g *guarded) Watch(ctx context.Context, f func(Snapshot)) {
	watching := false
	guard := Guard(g.common, func(s Snapshot) {
		if watching {
			f(s)
		}
	}, g.health.isRefused)
	if g.last != nil {
		guard(*g.last)
	}
	watching = true
	g.source.Watch(ctx, guard)
}

// health puts together what keeps a center from working and, if nothing does, why what it says is not believed.
type health struct {
	tell func(error)

	mu            sync.Mutex
	away, refused error
}

func newHealth(h Host) *health {
	if h.Health == nil {
		h.Health = func(error) {}
	}
	return &health{tell: h.Health}
}

func (h *health) isAway(err error)    { h.set(&h.away, err) }
func (h *health) isRefused(err error) { h.set(&h.refused, err) }

func (h *health) set(which *error, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*which = err
	if h.away != nil {
		err = h.away
	} else {
		err = h.refused
	}
	h.tell(err)
}

// works reports whether nothing keeps the center from working.
func (h *health) works() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.away == nil
}

// Guard returns what stands between a Source and f. It drops what says the same as the last Snapshot that f got, and
// refuses one that is suddenly empty, unless that is allowed: health is told why, and nil when that is over. What is
// remembered from an earlier run of the process can be given to it first.
func Guard(c Common, f func(Snapshot), health func(error)) func(Snapshot) {
	var last *Snapshot
	refused := false
	return func(s Snapshot) {
		if last != nil && !c.AllowEmpty {
			if err := lost(*last, s); err != nil {
				refused = true
				health(err)
				return
			}
		}
		if refused {
			refused = false
			health(nil)
		}
		if last == nil || !s.Equal(*last) {
			last = &s
			f(s)
		}
	}
}

// lost says what of old is suddenly empty in s.
func lost(old, s Snapshot) error {
	const advice = "what it said before goes on; if it is meant, set allow_empty: true for this center"
	if len(s.Documents) == 0 && len(old.Documents) > 0 {
		return fmt.Errorf("the center has no document any more, and had %d; %s", len(old.Documents), advice)
	}
	for _, d := range s.Documents {
		i, ok := slices.BinarySearchFunc(old.Documents, d.Name, byName)
		if ok && blank(d.Text) && !blank(old.Documents[i].Text) {
			return fmt.Errorf("document %s of the center is empty, and had %d bytes; %s", d.Name, len(old.Documents[i].Text), advice)
		}
	}
	return nil
}

func blank(text []byte) bool { return len(bytes.TrimSpace(text)) == 0 }

func byName(d Document, name string) int { return strings.Compare(d.Name, name) }

// Equal reports whether s and o have the same documents. Revisions do not count.
func (s Snapshot) Equal(o Snapshot) bool {
	return slices.EqualFunc(s.Documents, o.Documents, func(a, b Document) bool {
		return a.Name == b.Name && bytes.Equal(a.Text, b.Text)
	})
}

// Changes returns a function that calls f only with a Snapshot that is different from the last one.
func Changes(f func(Snapshot)) func(Snapshot) {
	return Guard(Common{AllowEmpty: true}, f, nil)
}

// Bound says if there is more than a center may say.
func Bound(list []Document) error {
	if len(list) > MaxDocuments {
		return fmt.Errorf("there are %d documents, and at most %d are taken; is the right key or path configured?", len(list), MaxDocuments)
	}
	total := 0
	for _, d := range list {
		if len(d.Text) > MaxDocument {
			return fmt.Errorf("document %s has %d bytes, and at most %d are taken", d.Name, len(d.Text), MaxDocument)
		}
		total += len(d.Name) + len(d.Text)
	}
	if total > MaxTotal {
		return fmt.Errorf("the documents have %d bytes together, and at most %d are taken", total, MaxTotal)
	}
	return nil
}
