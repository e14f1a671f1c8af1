package pipeline_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/task"
)

// TestRoundsAreTold: of a placed document's rounds, five a second, the log has the first in an epoch, and then when they go otherwise than
// before, failures that go on each minute, and never more than one in ten seconds, whatever they do.
func TestRoundsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tasks := task.New(task.Options{Slots: 1})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- tasks.Run(ctx) }()
		e := pipeline.New(pipeline.Options{Tasks: tasks, Log: slog.New(slog.NewJSONHandler(&log, nil))})
		defer func() {
			if err := e.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			cancel()
			<-ended
		}()

		var fate atomic.Pointer[func(n int64) error]
		var rounds atomic.Int64
		plugins := []creel.Plugin{
			creel.NewPolled("play", "Does as it is told.", func(none, creel.Host) (creel.Collector, error) {
				return creel.CollectorFunc(func(context.Context, creel.Sink) error {
					return (*fate.Load())(rounds.Add(1))
				}), nil
			}),
			creel.NewExporter("sink", "Takes all.", func(none, creel.Host) (creel.Exporter, error) {
				return creel.ExporterFunc(func(context.Context, []*creel.Batch) error { return nil }), nil
			}),
		}
		root, err := config.Parse("test.yaml", []byte("collectors: {play: {every: 200ms}}\nexporters: {sink: }\npipelines: {p: {from: [play], to: [sink]}}"), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := pipeline.Compile(root, plugins, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.Documents = map[string]pipeline.Document{"play": {Name: "probes", Version: "3"}}

		// told returns what the log has had of rounds since it was called last: when, in seconds since the test began, how, and which attempt.
		began := time.Now()
		told := func() (list []string) {
			synctest.Wait()
			for line := range strings.Lines(log.String()) {
				var l struct {
					Time      time.Time
					Component string
					Name      string `json:"creel.document.name"`
					Version   string `json:"creel.document.version"`
					Epoch     int64  `json:"creel.document.epoch"`
					Outcome   string
					Attempt   int64
					Error     string
				}
				if err := json.Unmarshal([]byte(line), &l); err != nil {
					t.Fatal(err)
				}
				if l.Outcome == "" {
					continue
				}
				if l.Component != "collectors.play" || l.Name != "probes" || l.Version != "3" || (l.Outcome == "failed") != (l.Error != "") {
					t.Errorf("it is told as %s", line)
				}
				list = append(list, fmt.Sprintf("%.0f %s %d", l.Time.Sub(began).Round(time.Second).Seconds(), l.Outcome, l.Attempt))
				if l.Epoch > 1 {
					list[len(list)-1] += fmt.Sprintf(" epoch %d", l.Epoch)
				}
			}
			log.Reset()
			return list
		}
		does := func(what string, until time.Duration, f func(n int64) error, want ...string) {
			t.Helper()
			fate.Store(&f)
			time.Sleep(until - time.Since(began))
			if got := told(); strings.Join(got, ", ") != strings.Join(want, ", ") {
				t.Errorf("%s: it is told as %q, not %q", what, got, want)
			}
		}
		well := func(int64) error { return nil }
		fate.Store(&well)
		e.SetTerms(map[string]*pipeline.Terms{"probes": {Epoch: 1, Forever: true}})
		if _, err := e.Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		early := func(n int64) error { return fmt.Errorf("no route to port %d", n) }
		does("well", 5050*time.Millisecond, well, "0 done 1")
		does("failing, each time with another text", 200050*time.Millisecond, early, "10 failed 25", "70 failed 325", "130 failed 625", "190 failed 925")
		does("well again", 230050*time.Millisecond, well, "200 done 976")
		flap := func(n int64) error {
			if n%2 == 0 {
				return errors.New("no")
			}
			return nil
		}
		fate.Store(&flap)
		before := rounds.Load()
		time.Sleep(100 * time.Second)
		if got := told(); rounds.Load()-before < 400 || len(got) < 2 || len(got) > 11 {
			t.Errorf("%d rounds of which every other one fails are told as %q", rounds.Load()-before, got)
		}
		fate.Store(&well)
		time.Sleep(30*time.Second + time.Millisecond)
		if got := told(); len(got) > 1 {
			t.Errorf("well at last: it is told as %q", got)
		}
		e.SetTerms(map[string]*pipeline.Terms{"probes": {Epoch: 2, Forever: true}})
		does("another epoch", 365*time.Second, well, "360 done 1 epoch 2")
	})
}
