package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/otlp"
)

// keepLetter makes the item's records a dead letter. It reports whether they are safe there.
func (s *sender) keepLetter(it item, reason string, refusal error) bool {
	if s.letters == nil {
		return false
	}
	l := deadletter.Letter{
		Exporter: s.id, Pipeline: cmp.Or(it.origin, it.acct.pipeline), Signal: it.b.Signal(), Records: it.b.Len(), Reason: reason, Answer: refusal.Error(),
		Payload: otlp.Append(nil, it.b),
	}
	if err := s.letters.Put(l); err != nil {
		s.log.Error("refused records cannot be kept as dead letters", "records", l.Records, "error", err)
		return false
	}
	return true
}

// letterPipeline is what the ledger calls the pipeline of dead letters that are sent again.
const letterPipeline = "deadletter"

// Resend gives a dead letter's records to an exporter once more. When it returns nil they are in its queue, and the channel
// gets nil once they are safe (delivered, in its disk queue, or a letter again), or why they are not.
func (e *Engine) Resend(ctx context.Context, exporter string, l deadletter.Letter) (<-chan error, error) {
	e.mu.Lock()
	x := e.exports[exporter]
	e.mu.Unlock()
	if x == nil {
		return nil, fmt.Errorf("send letter again: there is no exporter %q", exporter)
	}
	b, err := l.Batch(e.Memory)
	if err != nil {
		return nil, err
	}
	n := int64(b.Bytes())
	for {
		ok, room := x.queue.reserve(n, nil, true)
		if ok {
			break
		}
		select {
		case <-room:
		case <-ctx.Done():
			creel.Settle(b, ctx.Err())
			return nil, fmt.Errorf("send letter again: wait for room at exporter %s: %w", exporter, ctx.Err())
		}
	}
	done := make(chan error, 1)
	b.OnDone(func(err error) { done <- err })
	(&reservation{x.queue, n}).attach(b)
	book, acct := e.books.book(letterPipeline), e.books.account(letterPipeline, exporter)
	count := int64(b.Len())
	book.accepted.Add(count)
	book.passed.Add(count)
	acct.in.Add(count)
	acct.queued.Add(count)
	level := ackDelivered
	if x.store != nil {
		level = ackProcess
	}
	x.queue.put(item{b: b, bytes: n, acct: acct, origin: l.Pipeline, since: time.Now(), level: level, waited: creel.Waited(b)})
	return done, nil
}
