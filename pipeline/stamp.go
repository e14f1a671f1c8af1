package pipeline

import (
	"sync"

	"github.com/creelhq/creel"
)

// The resource attributes of what a placed document's collectors send.
const (
	nameAttr    = "creel.document.name"
	versionAttr = "creel.document.version"
	epochAttr   = "creel.document.epoch"
)

// A stamp says on records of which document they are: in their resource, which many share.
type stamp struct {
	Document
	epoch int64

	mu    sync.Mutex                      // held while a batch is stamped; guards known
	known map[*creel.Origin]*creel.Origin // stamped, by what they were
}

// maxKnown is how many origins a stamp remembers. They may keep the buffers alive that they were read from.
const maxKnown = 64

// stamp returns the stamp of a collector's document.
func (s *source) stamp(d Document, epoch int64) *stamp {
	if m := s.mark.Load(); m != nil && m.Document == d && m.epoch == epoch {
		return m
	}
	m := &stamp{Document: d, epoch: epoch, known: make(map[*creel.Origin]*creel.Origin)}
	s.mark.Store(m)
	return m
}

// put stamps b's records, which are decoded for that. Origins that it knows cost no allocation.
func (m *stamp) put(b *creel.Batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	remember := b.Wire() == nil // else no other batch has these origins, and they keep all its bytes
	switch b.Signal() {
	case creel.Logs:
		restamp(m, remember, b.EditLogs(), func(l *creel.Log) **creel.Origin { return &l.Origin })
	case creel.Metrics:
		restamp(m, remember, b.EditMetrics(), func(p *creel.Metric) **creel.Origin { return &p.Origin })
	case creel.Traces:
		restamp(m, remember, b.EditSpans(), func(s *creel.Span) **creel.Origin { return &s.Origin })
	}
}

func restamp[T any](m *stamp, remember bool, records []T, origin func(*T) **creel.Origin) {
	var was, is *creel.Origin
	for i := range records {
		o := origin(&records[i])
		if is == nil || *o != was {
			was, is = *o, m.of(*o, remember)
		}
		*o = is
	}
}

// of returns o, which may be nil, with the stamp. m.mu is held.
func (m *stamp) of(o *creel.Origin, remember bool) *creel.Origin {
	if is := m.known[o]; is != nil {
		return is
	}
	is := &creel.Origin{}
	if o != nil {
		*is = *o
	}
	attrs := make(creel.Attrs, 0, len(is.Resource.Attrs)+3)
	attrs = append(attrs, is.Resource.Attrs...)
	attrs.Set(nameAttr, creel.String(m.Name))
	attrs.Set(versionAttr, creel.String(m.Version))
	attrs.Set(epochAttr, creel.Int(m.epoch))
	is.Resource.Attrs = attrs
	if remember {
		if len(m.known) >= maxKnown {
			clear(m.known)
		}
		m.known[o] = is
	}
	return is
}
