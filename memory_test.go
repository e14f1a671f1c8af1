package creel_test

import (
	"testing"

	"github.com/creelhq/creel"
)

// extend has attributes added to decoded records as a processor does.
func extend(t *testing.T, memory *creel.Memory) {
	r := memory.NewRecords()
	r.Logs = append(r.Logs, creel.Log{Attrs: r.Attrs.Make(1)}, creel.Log{Attrs: r.Attrs.Make(1)})
	r.Logs[1].Attrs[0].Key = "neighbour"
	b := creel.NewBatch(creel.Logs, r)
	own := b.Records()
	logs := b.EditLogs()
	logs[0].Attrs = own.Extend(logs[0].Attrs, 2)
	logs[0].Attrs.Set("a", creel.Int(1))
	logs[0].Attrs.Set("b", creel.Int(2))
	if len(logs[0].Attrs) != 3 || logs[1].Attrs[0].Key != "neighbour" {
		t.Fatalf("got %v and %v", logs[0].Attrs, logs[1].Attrs)
	}
	creel.Settle(b, nil)
}

// TestExtend: attributes that a processor adds to decoded records do not touch their neighbours, nor another batch's; what it
// costs is in TestAllocations.
func TestExtend(t *testing.T) {
	memory := &creel.Memory{}
	for range 100 {
		extend(t, memory)
	}
	b := creel.NewLogs([]creel.Log{{Attrs: creel.Attrs{{Key: "k"}}}})
	c := b.Clone()
	logs := b.EditLogs()
	logs[0].Attrs = b.Records().Extend(logs[0].Attrs, 1)
	logs[0].Attrs.Set("new", creel.Int(1))
	if got := c.Logs()[0].Attrs; len(got) != 1 {
		t.Errorf("the clone has %v", got)
	}
}
