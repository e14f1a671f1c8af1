package otlp

import (
	"iter"

	"github.com/creelhq/creel"
)

// Resources returns the attributes of each resource of wire that has groups of records, in order. wire is an export request that
// Parse has taken, and nothing else in it is decoded. Strings alias it.
func Resources(wire []byte) iter.Seq[creel.Attrs] {
	return func(yield func(creel.Attrs) bool) {
		d := &decoder{own: &creel.Records{}}
		for p := 0; p < len(wire); {
			tag, q := varint(wire, p)
			if tag != tagItem {
				p = skip(wire, p, 0)
				continue
			}
			var group []byte
			group, p = bytesAt(wire, q)
			var res creel.Resource
			if shared(group, &res.SchemaURL, func(b []byte) { d.resource(b, &res) }) > 0 && !yield(res.Attrs) {
				return
			}
		}
	}
}
