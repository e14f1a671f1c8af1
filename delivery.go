package creel

import (
	"context"
	"time"
)

// This file is what a batch is known by on its way, so that what comes twice is taken once: across a lost answer, a kill
// and a restart.

// An ID names a batch, so that a repeat of it is recognised. It is given once, before the first attempt to deliver, and goes
// with the batch over the wire; each way from a pipeline to an exporter makes another of it, for on each the batch is wanted.
// The zero ID is no name.
type ID [16]byte

// IsZero reports whether id is no name.
func (id ID) IsZero() bool { return id == ID{} }

// A Part is the part of a source that a batch was read from: a file's bytes from From up to, not including, To. Source names
// the file, not its path, among all that the collector reads.
type Part struct {
	Source   uint64
	From, To uint64
}

// A Range is the positions of a source from From up to, not including, To.
type Range struct{ From, To uint64 }

// ID returns the name that b came with, or was given.
func (b *Batch) ID() ID { return b.id }

// SetID names b. Whoever names a batch vouches that the same ID always stands for the same records. A batch that a processor
// clones, splits or joins has no name afterwards.
func (b *Batch) SetID(id ID) { b.id = id }

// Parts returns what b was read from, as far as that is known.
func (b *Batch) Parts() []Part { return b.parts }

// SetParts says what b was read from: its records are all there is in these parts. A disk queue that takes b remembers them
// with it, and Host.Taken tells a collector so after a crash. A batch that a processor clones, splits or joins has none
// afterwards.
func (b *Batch) SetParts(parts ...Part) { b.parts = parts }

// forget takes away what does not hold any more: b's records are not those that it came with.
func (b *Batch) forget() { b.id, b.parts = ID{}, nil }

// A Request is how the pipeline calls one attempt after another to deliver the same records. An exporter learns it with
// RequestOf.
type Request struct {
	ID  ID     // the same for each attempt, also after a restart if the records are in a disk queue; goes over the wire
	Log ID     // names the disk queue that the records are in; zero: none, or they are a part of what is there under one place
	Seq uint64 // the place of the first record in it; with delivery in order it only grows
}

type requestKey struct{}

// WithRequest returns a context that RequestOf finds r in.
func WithRequest(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestOf returns what is being delivered in a call of Export with ctx; the zero Request if that is not known.
func RequestOf(ctx context.Context) Request {
	r, _ := ctx.Value(requestKey{}).(Request)
	return r
}

// A Sender is who sends records from one agent to another, or to a hub: as it says of itself, which proves nothing.
type Sender struct {
	Agent    string    // its id
	Started  time.Time // tells its runs apart
	Exporter string    // the component's id, such as otlp/hub
}
