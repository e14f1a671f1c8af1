package otlp

import (
	"bytes"

	"github.com/creelhq/creel"
	codec "github.com/creelhq/creel/otlp"
)

// stamp is in every request with data of a placed document. To look for it costs little beside the check of a request.
var stamp = []byte(creel.DocumentEpoch)

// fence returns why a batch that has just come in is refused for good because it has data of a document's epoch that is over.
// Who sends it finds the records that are to blame as those of any other request that is refused.
func (c *collector) fence(b *creel.Batch, from creel.Sender) error {
	f, is := c.host.Admission.(creel.Fence)
	if !is || !bytes.Contains(b.Wire(), stamp) {
		return nil
	}
	for attrs := range codec.Resources(b.Wire()) {
		epoch, stamped := attrs.Get(creel.DocumentEpoch)
		if !stamped || epoch.Kind() != creel.ValueInt {
			continue
		}
		name, _ := attrs.Get(creel.DocumentName)
		if err := f.Fence(from, name.Str(), epoch.Int()); err != nil {
			return creel.Permanent(err)
		}
	}
	return nil
}
