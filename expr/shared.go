package expr

import (
	"slices"

	"github.com/creelhq/creel"
)

// What many records share, their origin and a metric's descriptor, is never changed in place: a record is pointed to a
// changed copy. A Record remembers the copies that it made, so that records of a batch that shared one still do.

// sharedPlace is a place that is shared.
type sharedPlace uint8

const (
	placeResource sharedPlace = iota + 1
	placeResourceDelete
	placeScope
	placeScopeDelete
	placeScopeName
	placeScopeVersion
	placeName
	placeDescription
	placeUnit
)

// change is a copy that was made: of from, with value at place.
type change struct {
	place      sharedPlace
	entry      *place
	value      creel.Value
	from, to   *creel.Origin
	desc, made *creel.Descriptor
}

// maxChanges is how many copies a Record remembers. With more different values than that, some are made twice.
const maxChanges = 32

// remember adds a change, in place of the oldest one when there are too many.
func (r *Record) remember(c change) {
	if len(r.changes) < maxChanges {
		r.changes = append(r.changes, c)
		return
	}
	r.changes[r.turn%maxChanges] = c
	r.turn++
}

// change points r to an origin like its own, with v at a place of it, or at an entry of that.
func (r *Record) change(at sharedPlace, entry *place, v creel.Value) bool {
	origin := r.origin()
	for i := range r.changes {
		if c := &r.changes[i]; c.from == *origin && c.place == at && c.entry == entry && c.value.Equal(v) {
			*origin = c.to
			return true
		}
	}
	c := change{place: at, entry: entry, value: v.Clone(), from: *origin, to: new(creel.Origin)} // an origin outlives the batch
	*c.to = **origin
	keep := &Record{} // origins are not recycled: no Memory
	switch at {
	case placeResource, placeResourceDelete:
		c.to.Resource.Attrs = keep.entry(c.to.Resource.Attrs, entry, c.value, at == placeResourceDelete)
	case placeScope, placeScopeDelete:
		c.to.Scope.Attrs = keep.entry(c.to.Scope.Attrs, entry, c.value, at == placeScopeDelete)
	case placeScopeName:
		c.to.Scope.Name = c.value.Str()
	case placeScopeVersion:
		c.to.Scope.Version = c.value.Str()
	}
	if sameOrigin(c.from, c.to) {
		c.to = c.from
	}
	r.remember(c)
	*origin = c.to
	return true
}

func (r *Record) entry(as creel.Attrs, entry *place, v creel.Value, remove bool) creel.Attrs {
	switch {
	case entry == nil:
		return v.Map()
	case remove:
		return r.drop(as, entry.steps, true)
	}
	return slices.Clip(r.put(as, entry.steps, v, true))
}

func sameOrigin(a, b *creel.Origin) bool {
	return a.Scope.Name == b.Scope.Name && a.Scope.Version == b.Scope.Version &&
		a.Resource.Attrs.Equal(b.Resource.Attrs) && a.Scope.Attrs.Equal(b.Scope.Attrs)
}

// describe points r to a descriptor like its own, with v at a place of it.
func (r *Record) describe(at sharedPlace, v creel.Value) bool {
	desc := &r.Metric.Desc
	for i := range r.changes {
		if c := &r.changes[i]; c.desc == *desc && c.place == at && c.value.Equal(v) {
			*desc = c.made
			return true
		}
	}
	c := change{place: at, value: v.Clone(), desc: *desc, made: new(creel.Descriptor)}
	*c.made = **desc
	s := c.value.Str()
	switch at {
	case placeName:
		c.made.Name = s
	case placeDescription:
		c.made.Description = s
	case placeUnit:
		c.made.Unit = s
	}
	r.remember(c)
	*desc = c.made
	return true
}
