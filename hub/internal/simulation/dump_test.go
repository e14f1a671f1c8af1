package simulation

import (
	"flag"
	"fmt"
	"testing"
)

var dseed = flag.Uint64("dseed", 1, "")
var wrong = flag.Int("wrong", 0, "")
var over = flag.String("overlap", "", "")
var ddoc = flag.Int("ddoc", 0, "")

var kindNames = []string{"Placed", "Began", "Ended", "Accepted", "Refused", "Applied", "Leads", "Resigns", "Written", "Struck", "Healed"}

func TestDump(t *testing.T) {
	h := Run(Options{Seed: *dseed, Wrong: Wrong(*wrong), Overlap: *over})
	for _, e := range h.Events {
		if e.Document >= 0 && e.Document != *ddoc || e.Kind == Accepted {
			continue
		}
		o := ""
		if e.Owners != nil {
			for _, x := range e.Owners.Owners {
				o += fmt.Sprintf(" %s/%d<-%s/%d", x.Agent, x.Epoch, x.From, x.FromEpoch)
			}
		}
		t.Logf("%12v %-8s hub %d agent %d doc %d place %d epoch %d fault %d %s", e.At, kindNames[e.Kind], e.Hub, e.Agent, e.Document, e.Place, e.Epoch, e.Fault, o)
	}
	for _, s := range h.Strikes {
		t.Logf("%+v", s)
	}
	t.Log(h.Check())
}
