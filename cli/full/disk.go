package full

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/report"
)

// delivery looks at what of the agent's records waits, was refused, or is not where it should be.
func (e *examination) delivery(ctx context.Context) {
	var components []report.Component
	if e.ask(ctx, "/components", &components) {
		e.disks(components)
	}
	var letters agent.LetterList
	if e.ask(ctx, "/deadletters?limit=1", &letters) && letters.Total > 0 {
		e.bad("Look at them: creel deadletter ls --data "+e.c.DataDir(), "%d dead letters wait: the far side has refused their %d records", letters.Total, letters.Records)
	}
	left := e.unexplained(ctx)
	for _, where := range slices.Sorted(maps.Keys(left)) {
		e.bad("Is creel status the same later? Then that is a fault: please report it, with the agent's log.", "%d records %s are unexplained", left[where], where)
	}
	var options map[string]json.RawMessage
	if e.ask(ctx, "/config", &options) {
		e.orphans(options)
	}
}

// ask gets one path of the agent's admin endpoint.
func (e *examination) ask(ctx context.Context, path string, into any) bool {
	err := e.c.Call(ctx, http.MethodGet, path, nil, into)
	if err != nil {
		e.bad("See its log.", "the agent does not tell %s: %v", path, err)
	}
	return err == nil
}

func (e *examination) disks(components []report.Component) {
	for _, c := range components {
		s := c.Spool
		if s == nil {
			continue
		}
		size := fmt.Sprintf("%s of %s, %d records wait", cli.Bytes(s.Bytes), cli.Bytes(s.Limit), s.Waiting)
		room := "Bring its far side back; or give it more room: delivery.spool.max_size of " + c.Component + "."
		if s.Error != "" && !s.Full {
			e.bad("Make room on its disk, or mend it; what the far side does not take waits in memory, and then with the collectors.", "the disk queue of %s fails: %s",
				c.Component, plain(firstLine(s.Error)))
		}
		switch does := cli.DiskQueue(*s); {
		case s.Full:
			e.bad(room+" What it does now is delivery.spool.when_full.", "the disk queue of %s is %s (%s)%s", c.Component, does, size, plain(because(s.Error)))
		case s.FullIn > 0:
			e.bad(room, "the disk queue of %s %s (%s)", c.Component, does, size)
		case s.Error == "":
			e.good("disk queue of %s: %s (%s)", c.Component, does, size)
		}
	}
}

// What is being worked on changes from look to look; what stays the same is unexplained.
const (
	looks     = 5
	betweenIt = 200 * time.Millisecond
)

// unexplained returns what the books leave over, by where. It looks again before it believes that.
func (e *examination) unexplained(ctx context.Context) (left map[string]int64) {
	for i := range looks {
		var l report.Ledger
		if i > 0 && sleep(ctx, betweenIt) != nil || !e.ask(ctx, "/ledger", &l) {
			return nil
		}
		now := leftOver(l)
		if i == 0 {
			left = now
		}
		maps.DeleteFunc(left, func(where string, n int64) bool { return now[where] != n })
		if len(left) == 0 {
			break
		}
	}
	return left
}

func leftOver(l report.Ledger) map[string]int64 {
	left := make(map[string]int64)
	note := func(where string, n int64) {
		if n != 0 {
			left[where] = n
		}
	}
	for _, p := range l.Pipelines {
		note("in pipeline "+p.Pipeline, p.Unexplained)
		for _, x := range p.Exporters {
			note("of pipeline "+p.Pipeline+" at exporter "+x.Exporter, x.Unexplained)
		}
	}
	for _, s := range l.Spools {
		note("in the disk queue of "+s.Exporter, s.Unexplained)
	}
	return left
}

// orphans looks for disk queues that no exporter of the running configuration has. Nobody delivers what is in them.
func (e *examination) orphans(options map[string]json.RawMessage) {
	used := make(map[string]bool)
	for path, text := range options {
		id, exporter := strings.CutPrefix(path, "exporters.")
		var o struct {
			Delivery struct{ Spool json.RawMessage }
		}
		if exporter && json.Unmarshal(text, &o) == nil && len(o.Delivery.Spool) > 0 && string(o.Delivery.Spool) != "null" {
			used[id] = true
		}
	}
	for _, o := range e.c.Orphans(used) {
		switch name := plain(o.Name); {
		case o.Records > 0 || o.Error != "":
			e.bad("Give the exporter its delivery.spool back, which delivers them; or take them out: creel spool export '"+o.Dir+"' -O FILE, and delete the directory.",
				"no exporter has the disk queue of %s, where %d records wait%s", name, o.Records, plain(because(o.Error)))
		default:
			e.note("no exporter has the disk queue of %s, and nothing waits in it: %s can be deleted", name, o.Dir)
		}
	}
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + firstLine(why)
}
