package test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/plugins/all"
)

// TestSelfDoesNotFeedOnItself: an exporter that logs whenever it exports sends the agent's own log and spans; it never gets to
// see what it has logged itself, nor the spans of its own deliveries, but does see what others log, and their rounds.
func TestSelfDoesNotFeedOnItself(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	type none struct{}
	var exports, own, others, rounds atomic.Int64
	enough := make(chan struct{})
	noisy := creel.NewExporter("noisy", "Logs whenever it exports.", func(_ none, h creel.Host) (creel.Exporter, error) {
		return creel.ExporterFunc(func(_ context.Context, batches []*creel.Batch) error {
			h.Log.Info("exporting")
			for _, b := range batches {
				if b.Signal() == creel.Traces {
					for _, s := range b.Spans() {
						switch c, _ := s.Attrs.Get("component"); c.Str() {
						case "exporters.noisy", "collectors.self":
							own.Add(1)
						case "collectors.chatty":
							rounds.Add(1)
						}
					}
				}
				if b.Signal() != creel.Logs {
					continue
				}
				for _, l := range b.Logs() {
					switch c, _ := l.Attrs.Get("component"); c.Str() {
					case "exporters.noisy":
						own.Add(1)
					case "collectors.chatty":
						if others.Add(1) == 20 {
							close(enough)
						}
					}
				}
			}
			exports.Add(1)
			return nil
		}), nil
	})
	chatty := creel.NewPolled("chatty", "Logs, and sends nothing.", func(_ none, h creel.Host) (creel.Collector, error) {
		return creel.CollectorFunc(func(context.Context, creel.Sink) error {
			h.Log.LogAttrs(context.Background(), slog.LevelInfo, "hello")
			return nil
		}), nil
	})
	dir, err := os.MkdirTemp("", "creel")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(file, []byte(`
collectors: {self: {every: 10ms}, chatty: {every: 10ms}}
exporters: {noisy: , "null": }
pipelines: {s: {from: [self], to: [noisy]}, c: {from: [chatty], to: ["null"]}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	go func() {
		done <- agent.Run(ctx, agent.Options{Config: file, Data: filepath.Join(dir, "d"), Plugins: append(all.Plugins(), noisy, chatty), Log: log})
	}()
	select {
	case <-enough:
	case <-time.After(time.Minute):
		t.Error("what others log does not arrive")
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if own.Load() > 0 || exports.Load() == 0 || rounds.Load() == 0 {
		t.Errorf("after %d exports, %d of the exporter's own logs and spans came back to it, and %d spans of others came", exports.Load(), own.Load(), rounds.Load())
	}
}
