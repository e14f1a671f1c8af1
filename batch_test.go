package creel_test

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/creelhq/creel"
)

// modelBatch is what a batch should be: its records as numbers, and the tickets that it carries shares of, one entry a
// share.
type modelBatch struct {
	b       *creel.Batch
	records []int64
	tickets []*modelTicket
}

type modelTicket struct {
	shares int
	err    error // the first one
	done   []error
}

func (t *modelTicket) settle(err error) {
	t.shares--
	if t.err == nil {
		t.err = err
	}
}

// settling is random work on batches beside a model of it.
type settling struct {
	memory  creel.Memory
	next    int64
	live    []*modelBatch
	tickets []*modelTicket
}

// draw picks a live batch, and makes one if there is none: an action that skips can be all that rapid happens to try.
func (s *settling) draw(t *rapid.T) *modelBatch {
	if len(s.live) == 0 {
		s.New(t)
	}
	return s.live[rapid.IntRange(0, len(s.live)-1).Draw(t, "batch")]
}

func (s *settling) drawTwo(t *rapid.T) (m, o *modelBatch) {
	m, o = s.draw(t), s.draw(t)
	if m == o {
		s.New(t)
		o = s.live[len(s.live)-1]
	}
	return m, o
}

func (s *settling) forget(m *modelBatch) {
	s.live = slices.DeleteFunc(s.live, func(o *modelBatch) bool { return o == m })
}

func (s *settling) New(t *rapid.T) {
	m := &modelBatch{}
	r := s.memory.NewRecords()
	for range rapid.IntRange(0, 6).Draw(t, "records") {
		s.next++
		m.records = append(m.records, s.next)
		attrs := creel.Attrs(r.Attrs.Make(1))
		attrs[0] = creel.Attr{Key: "n", Value: creel.Int(s.next)}
		r.Logs = append(r.Logs, creel.Log{Body: creel.Int(s.next), Attrs: attrs})
	}
	m.b = creel.NewBatch(creel.Logs, r)
	s.live = append(s.live, m)
}

func (s *settling) OnDone(t *rapid.T) {
	m := s.draw(t)
	ticket := &modelTicket{shares: 1}
	m.b.OnDone(func(err error) { ticket.done = append(ticket.done, err) })
	m.tickets = append(m.tickets, ticket)
	s.tickets = append(s.tickets, ticket)
}

func (s *settling) Clone(t *rapid.T) {
	m := s.draw(t)
	s.share(m, m.b.Clone(), slices.Clone(m.records))
}

func (s *settling) share(m *modelBatch, b *creel.Batch, records []int64) {
	c := &modelBatch{b: b, records: records, tickets: slices.Clone(m.tickets)}
	for _, ticket := range c.tickets {
		ticket.shares++
	}
	s.live = append(s.live, c)
}

func (s *settling) Split(t *rapid.T) {
	m := s.draw(t)
	i := rapid.IntRange(0, len(m.records)).Draw(t, "at")
	s.share(m, m.b.Split(i), slices.Clone(m.records[i:]))
	m.records = slices.Clone(m.records[:i])
}

func (s *settling) Join(t *rapid.T) {
	m, o := s.drawTwo(t)
	m.b.Join(o.b)
	m.records = append(m.records, o.records...)
	m.tickets = append(m.tickets, o.tickets...)
	s.forget(o)
}

func (s *settling) Absorb(t *rapid.T) {
	m, o := s.drawTwo(t)
	m.b.Absorb(o.b)
	m.tickets = append(m.tickets, o.tickets...)
	s.forget(o)
}

func (s *settling) Keep(t *rapid.T) {
	m := s.draw(t)
	odd := rapid.Int64Range(0, 1).Draw(t, "odd")
	before := m.records
	m.b.Keep(func(i int) bool { return before[i]%2 == odd })
	m.records = slices.DeleteFunc(slices.Clone(before), func(n int64) bool { return n%2 != odd })
}

func (s *settling) Edit(t *rapid.T) {
	m := s.draw(t)
	for i := range m.b.EditLogs() {
		s.next++
		l := &m.b.EditLogs()[i]
		l.Body = creel.Int(s.next)
		l.Attrs.Set("n", creel.Int(s.next))
		m.records[i] = s.next
	}
}

func (s *settling) Settle(t *rapid.T) {
	m := s.draw(t)
	var err error
	if rapid.Bool().Draw(t, "fails") {
		err = errors.New("given up")
	}
	creel.Settle(m.b, err)
	for _, ticket := range m.tickets {
		ticket.settle(err)
	}
	s.forget(m)
}

// Check compares everything with the model.
func (s *settling) Check(t *rapid.T) {
	for _, m := range s.live {
		if m.b.Len() != len(m.records) {
			t.Fatalf("a batch has %d records, not %d", m.b.Len(), len(m.records))
		}
		for i, l := range m.b.Logs() {
			n, _ := l.Attrs.Get("n")
			if l.Body.Int() != m.records[i] || n.Int() != m.records[i] {
				t.Fatalf("record %d is %v with attribute %v, not %d", i, l.Body, n, m.records[i])
			}
		}
	}
	for i, ticket := range s.tickets {
		switch {
		case ticket.shares > 0 && len(ticket.done) > 0:
			t.Fatalf("ticket %d was told too early", i)
		case ticket.shares == 0 && (len(ticket.done) != 1 || ticket.done[0] != ticket.err):
			t.Fatalf("ticket %d was told %v, not once %v", i, ticket.done, ticket.err)
		}
	}
	if len(s.live) == 0 && s.memory.Out() != 0 {
		t.Fatalf("%d batches' memory is not recycled", s.memory.Out())
	}
}

// TestSettlingAgainstModel does random things to batches whose memory is poisoned when it is recycled.
func TestSettlingAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &settling{}
		s.memory.Poison = true
		t.Repeat(map[string]func(*rapid.T){
			"": s.Check, "new": s.New, "onDone": s.OnDone, "clone": s.Clone, "split": s.Split, "join": s.Join, "absorb": s.Absorb,
			"keep": s.Keep, "edit": s.Edit, "settle": s.Settle,
		})
		for len(s.live) > 0 {
			s.Settle(t)
		}
		s.Check(t)
	})
}

func mustPanic(t *testing.T, rule string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error(rule)
		}
	}()
	f()
}

func TestMisuseIsFound(t *testing.T) {
	b := creel.NewLogs(make([]creel.Log, 2))
	mustPanic(t, "logs were read as spans", func() { b.Spans() })
	mustPanic(t, "a batch was cut behind its end", func() { b.Split(3) })
	creel.Settle(b, nil)
	mustPanic(t, "a batch was settled twice", func() { creel.Settle(b, nil) })
	mustPanic(t, "a batch was read after it was settled", func() { b.Logs() })
	mustPanic(t, "a batch was cloned after it was settled", func() { b.Clone() })
}

// TestStaleReadersFindPoison shows that the poison works: who keeps records finds out.
func TestStaleReadersFindPoison(t *testing.T) {
	var m creel.Memory
	m.Poison = true
	r := m.NewRecords()
	attrs := creel.Attrs(r.Attrs.Make(1))
	attrs[0] = creel.Attr{Key: "k", Value: creel.String("v")}
	r.Logs = append(r.Logs, creel.Log{Body: creel.String("hello"), Attrs: attrs})
	b := creel.NewBatch(creel.Logs, r)
	stale := b.Logs()
	lent, back := creel.Lend([]*creel.Batch{b})
	creel.Settle(b, nil)
	if lent[0].Len() != 1 || lent[0].Logs()[0].Body.Str() != "hello" {
		t.Error("who was lent a batch cannot read it any more")
	}
	if stale[0].Body.Str() != "hello" {
		t.Error("what is lent was recycled")
	}
	back()
	if stale[0].Body.Str() != creel.PoisonText || attrs[0].Key != creel.PoisonText {
		t.Errorf("a stale reader finds %v and %v", stale[0].Body, attrs[0])
	}
}

func TestUndecodedBatch(t *testing.T) {
	decoded := 0
	wire := []byte{1, 2, 3}
	b := creel.NewWire(creel.Logs, 3, wire, nil, func(wire []byte, r *creel.Records) {
		decoded++
		for _, n := range wire {
			r.Logs = append(r.Logs, creel.Log{Body: creel.Int(int64(n))})
		}
	})
	if b.Len() != 3 || b.Bytes() != 3 || decoded != 0 {
		t.Fatal("counting decodes")
	}
	c := b.Clone()
	if c.Logs()[2].Body.Int() != 3 || b.Logs()[1].Body.Int() != 2 || decoded != 1 {
		t.Fatalf("decoded %d times", decoded)
	}
	if &b.Wire()[0] != &wire[0] || c.Wire() == nil {
		t.Fatal("reading gives up the wire bytes")
	}
	c.EditLogs()[0].Body = creel.Int(7)
	if c.Wire() != nil || b.Wire() == nil || b.Logs()[0].Body.Int() != 1 {
		t.Fatal("a change of the clone reaches the original")
	}
	for _, b := range []*creel.Batch{b, c} {
		creel.Settle(b, nil)
	}
}

// TestEditsInARow: processors that pass a batch on from one to the next change it in place, unless somebody else sees it.
func TestEditsInARow(t *testing.T) {
	memory := &creel.Memory{}
	start := func() *creel.Batch {
		r := memory.NewRecords()
		r.Logs = append(r.Logs, creel.Log{Body: creel.Int(0)})
		return creel.NewBatch(creel.Logs, r)
	}
	var seen []*creel.Log
	var process func(b *creel.Batch, left int)
	process = func(b *creel.Batch, left int) {
		c := creel.NewCustody(nil)
		c.Give(b)
		log := &b.EditLogs()[0]
		log.Body = creel.Int(log.Body.Int() + 1)
		seen = append(seen, log)
		if creel.Forward(b); left > 0 {
			process(b, left-1)
		} else {
			creel.Settle(b, nil)
		}
		c.End(nil, nil)
	}
	process(start(), 2)
	if seen[0] != seen[1] || seen[1] != seen[2] || seen[2].Body.Int() != 0 { // recycled
		t.Errorf("the records were copied, or are not recycled: %v", seen[2].Body)
	}
	b := start()
	other := b.Clone()
	seen = nil
	process(b, 1)
	if seen[0] != seen[1] || other.Logs()[0].Body.Int() != 0 {
		t.Errorf("the clone was changed: %v", other.Logs()[0].Body)
	}
	creel.Settle(other, nil)
	if memory.Out() != 0 {
		t.Errorf("%d batches are out", memory.Out())
	}
}

// roomy is the owner of a ticket that stands for room.
type roomy struct{}

func (roomy) Room() {}

// TestAbsorbFreesRoom: what was worked into another batch takes no room any more, but is not safe yet.
func TestAbsorbFreesRoom(t *testing.T) {
	var told []string
	b, o := creel.NewLogs(make([]creel.Log, 1)), creel.NewLogs(make([]creel.Log, 2))
	creel.Attach(o, creel.NewTicket(roomy{}, func(error) { told = append(told, "room") }))
	o.OnDone(func(error) { told = append(told, "safe") })
	b.Absorb(o)
	if !slices.Equal(told, []string{"room"}) {
		t.Errorf("absorbed: %v", told)
	}
	creel.Settle(b, nil)
	if !slices.Equal(told, []string{"room", "safe"}) {
		t.Errorf("settled: %v", told)
	}
}

func TestCustodyCountsWhatAProcessorDoes(t *testing.T) {
	held := creel.NewStandingCustody()
	c := creel.NewCustody(held)
	in := creel.NewLogs(make([]creel.Log, 10))
	c.Give(in)
	clone := in.Clone()                          // 10 created
	rest := in.Split(6)                          // nothing
	rest.Keep(func(i int) bool { return i > 0 }) // 1 filtered
	made := creel.NewLogs(make([]creel.Log, 5))
	if creel.Forward(made) {
		t.Error("a batch that a component made was said to be in its custody")
	}
	clone.Hold()
	if !creel.Forward(in) {
		t.Error("a batch that was given was said to be made")
	}
	var got, dropped creel.Counts
	c.End(nil, func(n creel.Counts) { got = n }) // rest, of 3 records, was not sent on
	if want := (creel.Counts{Created: 10, Filtered: 4}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if batches, records := held.Len(); batches != 1 || records != 10 {
		t.Errorf("%d batches with %d records are held", batches, records)
	}
	held.End(errors.New("x"), func(n creel.Counts) { dropped = n })
	if dropped.Dropped != 10 {
		t.Errorf("%+v", dropped)
	}
	creel.Settle(in, nil)
	creel.Settle(made, nil)
}
