package registry

import (
	"strings"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/report"
)

// disk returns the disk queues of an agent's components together, nil if there are none.
func disk(components []report.Component) *api.Disk {
	var d *api.Disk
	stays := false // something waits that does not become less
	for _, c := range components {
		s := c.Spool
		if s == nil {
			continue
		}
		if d == nil {
			d = &api.Disk{}
		}
		d.Bytes, d.Limit, d.Waiting = d.Bytes+s.Bytes, d.Limit+s.Limit, d.Waiting+s.Waiting
		d.Replaying = d.Replaying || s.Replaying
		exporter := strings.TrimPrefix(c.Component, "exporters.")
		switch {
		case d.Full:
		case s.Full:
			d.Full, d.FullIn, d.Exporter = true, 0, exporter
		case s.FullIn > 0 && (d.FullIn == 0 || s.FullIn < d.FullIn):
			d.FullIn, d.Exporter = s.FullIn, exporter
		}
		if s.Waiting > 0 {
			stays = stays || s.EmptyIn <= 0
			d.EmptyIn = max(d.EmptyIn, s.EmptyIn)
		}
	}
	if stays {
		d.EmptyIn = 0
	}
	return d
}
