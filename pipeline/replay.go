package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/spool"
)

// This file is the way out of a store: what senders take from it, and how far it has come.

// take waits for something to send and takes it: what the writer has handed over, what goes directly, or what has waited on
// disk. It fails only when ctx is done.
func (s *store) take(ctx context.Context, b Batching) (p *parcel, err error) {
	for {
		if c, _, _ := s.config(); c.Order != string(spool.InOrder) && s.turn.Add(1)%4 == 0 {
			if p = s.replay(); p != nil {
				return p, nil
			}
		}
		err = s.q.await(ctx, func() (bool, time.Duration) {
			if p = s.q.popReady(s); p != nil {
				s.q.wakeTakers() // the writer, which may wait for room
				return true, 0
			}
			items, wait := s.q.direct.next(b, time.Now(), false)
			if items != nil {
				p = newParcel(items)
				return true, 0
			}
			if !s.more {
				return false, wait
			}
			soon := time.Until(s.again)
			return soon <= 0, sooner(wait, soon)
		})
		if err != nil || p != nil {
			return p, err
		}
		if p = s.replay(); p != nil {
			return p, nil
		}
	}
}

// replayAt says when there may be something to replay.
func (s *store) replayAt(t time.Time) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	s.more, s.again = true, t
	s.q.wakeTakers()
}

// replay takes what has waited on disk, if there is any and its rate limit allows it; else nil.
func (s *store) replay() *parcel {
	s.q.mu.Lock()
	ready := s.more && time.Now().After(s.again)
	if ready {
		s.more = false
	}
	s.q.mu.Unlock()
	if !ready {
		return nil
	}
	s.mu.Lock()
	limit := s.limit
	s.mu.Unlock()
	if limit != nil {
		if wait := limit.take(time.Now(), load{}); wait > 0 {
			s.replayAt(time.Now().Add(wait))
			return nil
		}
	}
	t, ok, err := s.spool.TryNext()
	s.count()
	if err != nil && !errors.Is(err, spool.ErrClosed) {
		s.setFault(err)
		s.replayAt(time.Now().Add(retryDisk))
	}
	if err != nil || !ok {
		return nil
	}
	s.replayAt(time.Time{})
	b, err := otlp.Parse(creel.Signal(t.Signal), t.Payload, nil)
	if t.Codec != codecOTLP || err != nil || b.Len() != t.Records {
		s.log.Error("an item of the disk queue is not what it should be; it is dropped", "sequence", t.Seq, "records", t.Records, "codec", t.Codec, "error", err)
		s.spool.Ack(t.Seq)
		s.acct.dropped.add(Damaged, t.Records)
		s.acct.queued.Add(int64(-t.Records))
		return nil
	}
	p := &parcel{id: creel.ID(t.ID), store: s, seq: t.Seq, replay: true}
	p.items = []item{{b: b, bytes: int64(len(t.Payload)), acct: s.acct, since: time.Now(), level: ackMemory}}
	if limit != nil {
		limit.take(time.Now(), loadOf(p.items))
	}
	return p
}

// count enters what the disk queue has given up by itself.
func (s *store) count() {
	st := s.spool.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	dropped, lost := int(st.Dropped-s.known.Dropped), int(st.Lost-s.known.Lost)
	s.known = st
	s.acct.dropped.add(SpoolFull, dropped)
	s.acct.dropped.add(Damaged, lost)
	s.acct.queued.Add(int64(-dropped - lost))
}

// rateOver is how far back rates look.
const rateOver = 30 * time.Second

// A sample is how a store was at some time.
type sample struct {
	at             time.Time
	in, out, bytes int64
}

// status tells how the disk queue is.
func (s *store) status() *report.Spool {
	s.count()
	c, _, _ := s.config()
	st := s.spool.Stats()
	now := sample{time.Now(), s.acct.in.Load(), s.acct.delivered.Load(), st.Bytes - st.Reserve}
	r := &report.Spool{Bytes: now.bytes, Limit: int64(c.MaxSize) - st.Reserve, Waiting: s.acct.queued.Load(), Full: st.Full}
	if r.Waiting > 0 {
		if r.Oldest = st.Oldest; r.Oldest.After(now.at) { // the clock was ahead
			r.Oldest = now.at
		}
	}
	if errors.Is(s.fault(), spool.ErrFull) && !st.Full {
		s.setFault(nil) // there is room again, although nothing has come to need it
	}
	if err := s.fault(); err != nil {
		r.Error = err.Error()
	} else if st.Err != nil {
		r.Error = st.Err.Error()
	}
	then := s.since(now)
	seconds := now.at.Sub(then.at).Seconds()
	if seconds <= 0 {
		return r
	}
	r.InRate, r.OutRate = float64(now.in-then.in)/seconds, float64(now.out-then.out)/seconds
	r.Replaying = r.Waiting > 0 && now.out > then.out
	if grows := float64(now.bytes-then.bytes) / seconds; grows > 0 && r.Waiting > 0 && r.InRate > r.OutRate {
		r.FullIn = float64(max(0, r.Limit-r.Bytes)) / grows
	}
	if falls := r.OutRate - r.InRate; falls > 0 {
		r.EmptyIn = float64(r.Waiting) / falls
	}
	return r
}

// since notes a sample, and returns the one that rates are measured from.
func (s *store) since(now sample) sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.samples); n == 0 || now.at.Sub(s.samples[n-1].at) >= time.Second {
		s.samples = append(s.samples, now)
	}
	for len(s.samples) > 1 && now.at.Sub(s.samples[1].at) >= rateOver {
		s.samples = s.samples[1:]
	}
	return s.samples[0]
}
