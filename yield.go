package creel

import "context"

// A Yielder is the scheduler's hold on a running round of a polled collector.
type Yielder interface {
	// Yield returns at once while the time slice lasts and nobody more urgent waits. Else it gives up the slot and
	// returns when it has one again, or with ctx's error.
	Yield(ctx context.Context) error
	// Park gives up the slot.
	Park()
	// Unpark returns when there is a slot again, or with ctx's error.
	Unpark(ctx context.Context) error
}

type yielderKey struct{}

// WithYielder returns a context that carries y.
func WithYielder(ctx context.Context, y Yielder) context.Context {
	return context.WithValue(ctx, yielderKey{}, y)
}

// Yield is a point at which the scheduler may let somebody else go first. A polled collector calls it between the pieces
// of a long round. It does nothing where there is no scheduler.
func Yield(ctx context.Context) error {
	if y, ok := ctx.Value(yielderKey{}).(Yielder); ok {
		return y.Yield(ctx)
	}
	return ctx.Err()
}

// Blocking runs wait, during which the round owns no slot.
func Blocking(ctx context.Context, wait func() error) error {
	y, ok := ctx.Value(yielderKey{}).(Yielder)
	if !ok {
		return wait()
	}
	y.Park()
	err := wait()
	if e := y.Unpark(ctx); err == nil {
		err = e
	}
	return err
}
