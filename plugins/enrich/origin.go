package enrich

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/creelhq/creel"
)

// originCache remembers what became of origins, by their content: every request that is decoded has origins of its own,
// but most say the same as those before.
type originCache struct {
	mu    sync.Mutex
	known map[string]changed
	since time.Time // of the oldest
	text  []byte
}

type changed struct{ from, to *creel.Origin }

const (
	maxOrigins = 1000
	// A process ends, and its number is given to another.
	maxOriginAge = time.Minute
)

// origin returns what becomes of o: o itself if there is nothing to add.
func (e *enricher) origin(o *creel.Origin) *creel.Origin {
	if len(e.resource) == 0 && !e.container {
		return o
	}
	if len(o.Resource.Entities) > 0 { // rare
		return e.enriched(o)
	}
	c := &e.origins
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxOrigins || time.Since(c.since) > maxOriginAge {
		c.known, c.since = make(map[string]changed), time.Now()
	}
	c.text = appendKey(c.text[:0], o)
	if k, ok := c.known[string(c.text)]; ok {
		if !sameOrigin(k.from, o) { // what differs only by the kind of its values
			return e.enriched(o)
		}
		if k.to == k.from {
			return o
		}
		return k.to
	}
	from := &creel.Origin{Resource: o.Resource, Scope: o.Scope}
	from.Resource.Attrs, from.Scope.Attrs = o.Resource.Attrs.Clone(), o.Scope.Attrs.Clone()
	for _, s := range []*string{&from.Resource.SchemaURL, &from.Scope.Name, &from.Scope.Version, &from.Scope.SchemaURL} {
		*s = string([]byte(*s)) // not to keep the buffer alive that it came in
	}
	k := changed{from, e.enriched(from)}
	c.known[string(c.text)] = k
	if k.to == k.from {
		return o
	}
	return k.to
}

func appendKey(dst []byte, o *creel.Origin) []byte {
	dst = o.Resource.Attrs.Append(dst)
	dst = o.Scope.Attrs.Append(dst)
	for _, s := range [...]string{o.Resource.SchemaURL, o.Scope.Name, o.Scope.Version, o.Scope.SchemaURL} {
		dst = append(append(dst, s...), 0)
	}
	return dst
}

func sameOrigin(a, b *creel.Origin) bool {
	return a.Resource.Attrs.Equal(b.Resource.Attrs) && a.Scope.Attrs.Equal(b.Scope.Attrs) && a.Resource.Dropped == b.Resource.Dropped && a.Scope.Dropped == b.Scope.Dropped &&
		a.Resource.SchemaURL == b.Resource.SchemaURL && a.Scope.Name == b.Scope.Name && a.Scope.Version == b.Scope.Version && a.Scope.SchemaURL == b.Scope.SchemaURL
}

// enriched returns a copy of o with what is to be added, or o.
func (e *enricher) enriched(o *creel.Origin) *creel.Origin {
	out := o
	set := func(a creel.Attr) {
		if is, ok := out.Resource.Attrs.Get(a.Key); ok && (!e.overwrite || is.Equal(a.Value)) {
			return
		}
		if out == o {
			c := *o
			c.Resource.Attrs = slices.Clone(o.Resource.Attrs)
			out = &c
		}
		out.Resource.Attrs.Set(a.Key, a.Value)
	}
	for _, a := range e.resource {
		set(a)
	}
	if id := e.containerID(o); id != "" {
		set(creel.Attr{Key: "container.id", Value: creel.String(id)})
	}
	return out
}

// containerID returns the container that a resource is in, "" for none.
func (e *enricher) containerID(o *creel.Origin) string {
	if !e.container {
		return ""
	}
	pid, ok := o.Resource.Attrs.Get("process.pid")
	if !ok {
		return e.own
	}
	n := pid.Int()
	if pid.Kind() == creel.ValueString {
		n, _ = strconv.ParseInt(pid.Str(), 10, 64)
	}
	if n <= 0 {
		return ""
	}
	return containerOf(e.proc, strconv.FormatInt(n, 10))
}
