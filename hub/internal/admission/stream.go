package admission

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel"
)

// maxStreams of a sender are counted apart: its exporters, and its runs.
const maxStreams = 32

// A Stream is what was taken of one exporter of one run of an agent.
type Stream struct {
	Exporter       string
	Taken, Repeats int64     // records
	Since          time.Time // when the first were taken; another Since is another count
}

type stream struct {
	started int64 // of the agent, Unix ns
	used    int64
	Stream
	seen *window // nil: no batch had a name
}

// stream returns the count that is meant, making it if it is new: then, if there are too many, that which was not used
// for longest is forgotten.
func (s *sender) stream(from creel.Sender, now int64, begun time.Time) *stream {
	started := from.Started.UnixNano()
	for _, x := range s.streams {
		if x.started == started && x.Exporter == from.Exporter {
			x.used = now
			return x
		}
	}
	if len(s.streams) == maxStreams {
		oldest := slices.MinFunc(s.streams, func(x, y *stream) int { return int(x.used - y.used) })
		s.streams = slices.DeleteFunc(s.streams, func(x *stream) bool { return x == oldest })
	}
	x := &stream{started: started, used: now, Stream: Stream{Exporter: strings.Clone(from.Exporter), Since: begun.Add(time.Duration(now)).UTC()}}
	s.streams = append(s.streams, x)
	return x
}

// took counts records, and reports whether they are a repeat.
func (x *stream) took(id creel.ID, of creel.Signal, records int) (repeat bool) {
	if !id.IsZero() {
		if x.seen == nil {
			x.seen = &window{}
		}
		repeat = x.seen.add(hash(id, of))
	}
	if repeat {
		x.Repeats += int64(records)
	} else {
		x.Taken += int64(records)
	}
	return repeat
}

// Streams returns what was taken of an agent's run, by exporter.
func (a *Admission) Streams(agent string, started time.Time) []Stream {
	sh := a.shardOf(agent)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.senders[agent]
	if s == nil || agent == "" {
		return nil
	}
	var list []Stream
	for _, x := range s.streams {
		if x.started == started.UnixNano() {
			list = append(list, x.Stream)
		}
	}
	slices.SortFunc(list, func(x, y Stream) int { return strings.Compare(x.Exporter, y.Exporter) })
	return list
}

// Restart forgets what was taken of an exporter, so that its count begins anew.
func (a *Admission) Restart(agent string, started time.Time, exporter string) {
	sh := a.shardOf(agent)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.senders[agent]; s != nil {
		s.streams = slices.DeleteFunc(s.streams, func(x *stream) bool { return x.started == started.UnixNano() && x.Exporter == exporter })
	}
}

const (
	sets = 32
	ways = 16 // a set is two cache lines
)

// A window remembers the last batches, about 512, by their hashes: each in one of its sets, where the oldest makes room. So
// some are forgotten before others, but of the last fifty none, with odds of one to ten thousand millions; and a batch is
// taken for another with those that two hashes of 64 bits are the same.
type window struct {
	seen [sets][ways]uint64
	next [sets]uint8 // where the oldest of a set is
}

// add adds a batch's hash, and reports whether it was there.
func (w *window) add(h uint64) bool {
	set, next := &w.seen[h%sets], &w.next[h%sets]
	for _, x := range set {
		if x == h {
			return true
		}
	}
	set[*next%ways] = h
	*next++
	return false
}

// hash returns a number that is not 0. Names that are counted up differ in it.
func hash(id creel.ID, of creel.Signal) uint64 {
	h := binary.LittleEndian.Uint64(id[:8])*0x9e3779b97f4a7c15 + binary.LittleEndian.Uint64(id[8:]) + uint64(of)*0xd1342543de82ef95
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9 // the finish of SplitMix64
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return max(h^h>>31, 1)
}
