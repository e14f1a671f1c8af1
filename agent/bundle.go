package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/creelhq/creel/metric"
)

// logTail is how many bytes of the agent's log are kept for a bundle.
const logTail = 1 << 20

// profiled is for how long a bundle watches the processor.
const profiled = 2 * time.Second

// tail keeps the end of the log.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
	log  slog.Handler
}

// add keeps a record.
func (t *tail) add(r slog.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.log == nil {
		t.log = slog.NewTextHandler(&t.text, &slog.HandlerOptions{Level: slog.LevelDebug})
	}
	if t.text.Len() > 2*logTail {
		t.text.Next(t.text.Len() - logTail)
	}
	_ = t.log.Handle(context.Background(), r) // a buffer takes everything
}

// last returns whole lines.
func (t *tail) last() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := bytes.Clone(t.text.Bytes())
	if over := len(text) - logTail; over > 0 {
		text = text[over:]
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	return text
}

// writeBundle writes all that helps to understand what the agent does, secrets redacted, as a .tar.gz.
func (a *agent) writeBundle(w io.Writer) error {
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	state := a.state()
	for _, f := range []struct {
		name string
		text func() ([]byte, error)
	}{
		{"health.json", asJSON(a.health())},
		{"state.json", asJSON(state)},
		{"config.json", asJSON(a.effective())},
		{"origins.json", asJSON(a.origins())},
		{"components.json", asJSON(a.components())},
		{"pipelines.json", asJSON(a.engine.Routes())},
		{"ledger.json", asJSON(a.engine.Ledger())},
		{"endpoints.json", asJSON(a.engine.Endpoints())},
		{"metrics.txt", a.metricsText},
		{"log.txt", func() ([]byte, error) { return a.logged.last(), nil }},
		{"goroutines.txt", profile("goroutine", 2)},
		{"heap.pprof", profile("heap", 0)},
		{"cpu.pprof", cpuProfile},
	} {
		text, err := f.text()
		if err != nil {
			text = fmt.Appendf(nil, "this is missing: %v\n", err)
		}
		if err := out.WriteHeader(&tar.Header{Name: "creel-" + a.dir.id + "/" + f.name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}); err != nil {
			return err
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	return zip.Close()
}

func asJSON(v any) func() ([]byte, error) {
	return func() ([]byte, error) { return json.MarshalIndent(v, "", "  ") }
}

func profile(name string, debug int) func() ([]byte, error) {
	return func() ([]byte, error) {
		var b bytes.Buffer
		err := pprof.Lookup(name).WriteTo(&b, debug)
		return b.Bytes(), err
	}
}

func cpuProfile() ([]byte, error) {
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		return nil, err
	}
	time.Sleep(profiled)
	pprof.StopCPUProfile()
	return b.Bytes(), nil
}

func (a *agent) metricsText() ([]byte, error) {
	var b bytes.Buffer
	err := metric.WriteText(&b, a.metrics)
	return b.Bytes(), err
}

// bundle answers with a bundle.
func (a *agent) bundle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/gzip")
	if err := a.writeBundle(w); err != nil {
		a.log.Warn("the bundle is not complete", "error", err)
	}
}
