package agent

import (
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/metric"
)

// TestMeterLetters: metrics say what the store says, also once it is closed.
func TestMeterLetters(t *testing.T) {
	store, err := deadletter.Open(t.TempDir(), deadletter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	set := metric.NewSet()
	meterLetters(set, store)
	if err := store.Put(deadletter.Letter{Exporter: "otlp", Pipeline: "p", Signal: creel.Logs, Records: 7, Reason: "refused", Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var b strings.Builder
		if err := metric.WriteText(&b, set); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"creel_deadletter_records 7\n", "creel_deadletter_bytes", "creel_deadletter_dropped_total 0\n"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("without %q:\n%s", want, b.String())
			}
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
