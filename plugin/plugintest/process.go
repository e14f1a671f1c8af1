package plugintest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/creelhq/creel"
)

// bench is what stands around a processor: it counts what comes out, and settles it.
type bench struct {
	*suite
	proc creel.Processor
	held *creel.Custody

	mu     sync.Mutex
	out    int // records sent on
	made   int // of them, made by the processor
	counts creel.Counts
}

// Send is what the processor sends to.
func (b *bench) Send(batch *creel.Batch) {
	mine := !creel.Forward(batch)
	b.mu.Lock()
	b.out += batch.Len()
	if mine {
		b.made += batch.Len()
	}
	b.mu.Unlock()
	creel.Settle(batch, nil)
}

// process gives a batch to the processor as the pipeline does.
func (b *bench) process(batch *creel.Batch) error {
	c := creel.NewCustody(b.held)
	c.Give(batch)
	err := guard(func() error { return b.proc.Process(context.Background(), batch, b) })
	c.End(err, func(n creel.Counts) {
		b.mu.Lock()
		b.counts.Created += n.Created
		b.counts.Filtered += n.Filtered
		b.counts.Absorbed += n.Absorbed
		b.counts.Dropped += n.Dropped
		b.mu.Unlock()
	})
	return err
}

func (s *suite) bench() (*bench, error) {
	c, err := s.open()
	if err != nil {
		return nil, err
	}
	b := &bench{suite: s, proc: c.(creel.Processor)}
	if _, ok := c.(creel.Runner); ok {
		b.held = creel.NewStandingCustody()
	}
	return b, nil
}

// balance compares the books with what went in.
func (b *bench) balance(in int) error {
	n := b.counts
	held := 0
	if b.held != nil {
		_, held = b.held.Len()
		t := b.held.Take()
		n.Created, n.Filtered, n.Absorbed = n.Created+t.Created, n.Filtered+t.Filtered, n.Absorbed+t.Absorbed
	}
	if left := in + n.Created + b.made - n.Filtered - n.Absorbed - n.Dropped - held - b.out; left != 0 {
		return fmt.Errorf("%d records went in, %d came out, %+v, %d made, %d held: %d are not explained", in, b.out, n, b.made, held, left)
	}
	return nil
}

func processorRules() []rule {
	return []rule{
		{"books", "every record that goes in comes out, is filtered, absorbed or held, of any signal, decoded or not; what is held comes out when Run ends", checkBooks},
		{"siblings", "other pipelines share the batch: what is changed must be unshared first, with EditLogs and its siblings", func(s *suite) error {
			b, err := s.bench()
			if err != nil {
				return err
			}
			list, err := s.batches(7)
			if err != nil {
				return err
			}
			for _, batch := range list {
				sibling := batch.Clone()
				before := encode(sibling)
				err := b.process(batch)
				after := encode(sibling)
				creel.Settle(sibling, nil)
				if err != nil {
					return fmt.Errorf("process: %w", err)
				}
				if err := same("a clone was changed", before, after); err != nil {
					return err
				}
			}
			return b.flush()
		}},
		{"concurrent", "Process is called by many collectors at once; run the test with -race", func(s *suite) error {
			b, err := s.bench()
			if err != nil {
				return err
			}
			var wg sync.WaitGroup
			errs := make(chan error, 8)
			in := 0
			for range cap(errs) {
				list, err := s.batches(20)
				if err != nil {
					return err
				}
				in += 20 * len(list)
				wg.Go(func() {
					for _, batch := range list {
						if err := b.process(batch); err != nil {
							errs <- err
							return
						}
					}
				})
			}
			wg.Wait()
			select {
			case err := <-errs:
				return fmt.Errorf("process: %w", err)
			default:
			}
			return errors.Join(b.flush(), b.balance(in))
		}},
	}
}

func checkBooks(s *suite) error {
	b, err := s.bench()
	if err != nil {
		return err
	}
	in := 0
	for _, n := range []int{0, 1, 30} {
		list, err := s.batches(n)
		if err != nil {
			return err
		}
		for _, batch := range list {
			in += n
			if err := b.process(batch); err != nil {
				return fmt.Errorf("process %d %v: %w", n, batch.Signal(), err)
			}
		}
	}
	if err := b.balance(in); err != nil {
		return err
	}
	if err := b.flush(); err != nil {
		return err
	}
	if n := s.memory.Out(); n != 0 {
		return fmt.Errorf("%d batches are not settled", n)
	}
	return b.balance(in)
}

// flush runs Run, if there is one, with a context that is done soon; nothing may be held afterwards.
func (b *bench) flush() error {
	r, ok := b.proc.(creel.Runner)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := soon("Run, after its context was done,", func() error { return r.Run(ctx, b) }); err != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("run: %w", err)
	}
	if batches, records := b.held.Len(); batches > 0 {
		return fmt.Errorf("%d batches with %d records are still held after Run has returned", batches, records)
	}
	return nil
}

func exporterRules() []rule {
	return []rule{
		{"untouched", "the batches may be shared with other exporters and are exported again after a failure: Export must not change them", func(s *suite) error {
			return s.export(func(x creel.Exporter, batch *creel.Batch) error {
				before := encode(batch)
				err := x.Export(context.Background(), []*creel.Batch{batch})
				if e := same("a batch was changed", before, encode(batch)); e != nil {
					return e
				}
				if err != nil && !s.FailsAlone {
					return fmt.Errorf("export: %w", err)
				}
				return nil
			})
		}},
		{"cancelled", "an export under way must end soon when its context is done: the agent waits for it", func(s *suite) error {
			return s.export(func(x creel.Exporter, batch *creel.Batch) error {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				return soon("Export with a context that was done", func() error {
					_ = x.Export(ctx, []*creel.Batch{batch}) // delivered or not: both are fine
					return nil
				})
			})
		}},
		{"concurrent", "Export is called concurrently, with several batches; run the test with -race", func(s *suite) error {
			c, err := s.open()
			if err != nil {
				return err
			}
			x := c.(creel.Exporter)
			var wg sync.WaitGroup
			errs := make(chan error, 8)
			for i := range cap(errs) {
				signal := creel.Signals()[i%3]
				list := []*creel.Batch{s.decoded(signal, 5), s.decoded(signal, 6)}
				wg.Go(func() {
					err := guard(func() error { return x.Export(context.Background(), list) })
					for _, b := range list {
						creel.Settle(b, nil)
					}
					if err != nil && !s.FailsAlone {
						errs <- err
					}
				})
			}
			wg.Wait()
			select {
			case err := <-errs:
				return fmt.Errorf("export: %w", err)
			default:
				return nil
			}
		}},
	}
}

// export opens the exporter and calls try with batches of every kind, which are settled, and poisoned, afterwards.
func (s *suite) export(try func(creel.Exporter, *creel.Batch) error) error {
	c, err := s.open()
	if err != nil {
		return err
	}
	for _, n := range []int{1, 30} {
		list, err := s.batches(n)
		if err != nil {
			return err
		}
		for _, batch := range list {
			err = errors.Join(err, guard(func() error { return try(c.(creel.Exporter), batch) }))
			creel.Settle(batch, nil)
		}
		if err != nil {
			return err
		}
	}
	if n := s.memory.Out(); n != 0 {
		return fmt.Errorf("%d batches are not settled", n)
	}
	return nil
}
