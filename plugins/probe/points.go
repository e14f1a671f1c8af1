package probe

import (
	"fmt"
	"time"

	"github.com/creelhq/creel"
)

func gauge(name, unit, doc string) *creel.Descriptor {
	return &creel.Descriptor{Name: name, Unit: unit, Description: doc, Kind: creel.Gauge}
}

// The metrics. OpenTelemetry has no conventions for checks from outside. A failure's kind is an attribute of one metric
// alone, which there is only while a target is not up: with it, probe.success would be another series each time.
var (
	success       = gauge("probe.success", "1", "Whether the target is up: 1, or 0.")
	failures      = gauge("probe.failure", "1", "1 while the target is down or cannot be checked (local), with the kind of failure; else there is no point.")
	duration      = gauge("probe.duration", "s", "Time that the check took.")
	phaseDuration = gauge("probe.phase.duration", "s", "Time that each part of the check took, over all redirects.")
	httpStatus    = gauge("probe.http.status_code", "1", "Status code of the last answer.")
	httpBody      = gauge("probe.http.body.size", "By", "Bytes of the last answer's body that were read, at most 1 MiB.")
	tlsExpires    = gauge("probe.tls.expires_in", "s", "Time until the server's certificate expires; negative when it has.")
	dnsAnswers    = gauge("probe.dns.answers", "{record}", "Records of the wanted type in the answer.")
	icmpRTT       = gauge("probe.icmp.rtt", "s", "Time from sending an echo request to its reply.")
)

var phaseNames = [phases]string{"resolve", "connect", "tls", "processing", "transfer"}

// metrics returns the points of a round.
func (c *collector) metrics(now time.Time) *creel.Batch {
	records := c.host.Memory.NewRecords()
	for i, t := range c.targets {
		r := &c.results[i]
		add := func(d *creel.Descriptor, v creel.Number, extra ...creel.Attr) {
			m := creel.Metric{Origin: c.origin, Desc: d, Time: now.UnixNano(), Value: v, Attrs: records.Attrs.Make(len(t.attrs) + len(extra))}
			copy(m.Attrs[copy(m.Attrs, t.attrs):], extra)
			records.Metrics = append(records.Metrics, m)
		}
		seconds := func(d time.Duration) creel.Number { return creel.Double(d.Seconds()) }
		if r.fail != nil {
			add(failures, creel.Int(1), attr("error.type", string(r.fail.kind)))
			if r.fail.kind == local {
				continue // nothing was measured
			}
			add(success, creel.Int(0))
		} else {
			add(success, creel.Int(1))
		}
		add(duration, seconds(r.total))
		for p, took := range r.took {
			if took >= 0 {
				add(phaseDuration, seconds(took), attr("probe.phase", phaseNames[p]))
			}
		}
		if r.status != 0 {
			add(httpStatus, creel.Int(int64(r.status)))
		}
		if r.body >= 0 {
			add(httpBody, creel.Int(r.body))
		}
		if !r.expires.IsZero() {
			add(tlsExpires, seconds(r.expires.Sub(now)))
		}
		if r.answers >= 0 {
			add(dnsAnswers, creel.Int(int64(r.answers)))
		}
		if r.rtt >= 0 {
			add(icmpRTT, seconds(r.rtt))
		}
	}
	return creel.NewBatch(creel.Metrics, records)
}

// changes returns a log record for each target that has gone down or come up since the round before, nil if none has.
func (c *collector) changes(now time.Time) *creel.Batch {
	var records *creel.Records
	for i, t := range c.targets {
		if !c.news(i) {
			continue
		}
		if records == nil {
			records = c.host.Memory.NewRecords()
		}
		r := &c.results[i]
		l := creel.Log{Origin: c.origin, Time: now.UnixNano(), Observed: now.UnixNano(), Severity: creel.SeverityInfo, Event: "probe.up"}
		var extra []creel.Attr
		if r.peer.IsValid() {
			extra = append(extra, attr("network.peer.address", r.peer.String()))
		}
		if r.fail != nil {
			l.Severity, l.Event = creel.SeverityError, "probe.down"
			extra = append(extra, attr("error.type", string(r.fail.kind)))
			l.Body = creel.String(fmt.Sprintf("%s is down: %s", t.name(), r.reason()))
		} else {
			l.Body = creel.String(fmt.Sprintf("%s is up again after %v", t.name(), now.Sub(t.since).Round(time.Second)))
		}
		l.SeverityText = l.Severity.String()
		l.Attrs = records.Attrs.Make(len(t.attrs) + len(extra))
		copy(l.Attrs[copy(l.Attrs, t.attrs):], extra)
		records.Logs = append(records.Logs, l)
	}
	if records == nil {
		return nil
	}
	return creel.NewBatch(creel.Logs, records)
}
