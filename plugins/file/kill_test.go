//go:build unix

package file

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

// diskState is a State as an agent has it: a file that is written anew, synced and renamed.
type diskState struct{ path string }

func (s diskState) Load() ([]byte, uint64, error) {
	text, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, err
	}
	return text[8:], binary.LittleEndian.Uint64(text), nil
}

func (s diskState) Save(data []byte, version uint64) (uint64, error) {
	f, err := os.Create(s.path + ".new")
	if err != nil {
		return 0, err
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint64(nil, version+1), data...))
	return version + 1, errors.Join(err, f.Sync(), f.Close(), os.Rename(s.path+".new", s.path))
}

// marker acknowledges at once, and writes down, where a kill cannot undo it, up to where.
type marker struct {
	sleeper
	to *os.File
}

func (m *marker) TrySend(b *creel.Batch) bool {
	end := b.Parts()[0].To
	creel.Settle(b, nil)
	if _, err := m.to.WriteAt(binary.LittleEndian.AppendUint64(nil, end), 0); err != nil {
		panic(err)
	}
	return true
}

const killDir = "CREEL_TEST_KILL_DIR"

// TestKilled: a collector is killed while it reads as fast as it can. How much was acknowledged by then and will be read
// again is printed.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		collectUntilKilled(t, dir)
		return
	}
	size := 192 << 20
	if testing.Short() {
		size = 64 << 20
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.log"), bytes.Repeat([]byte(string(bytes.Repeat([]byte("x"), 219))+"\n"), size/220), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		end, saved, saves, took := killAt(t, dir, uint64(size)*uint64(i+1)/4)
		if saved > end {
			t.Errorf("%d bytes are saved, and %d were acknowledged", saved, end)
		}
		t.Logf("killed after %d MiB at %.0f MB/s: %.1f MiB will be read again; %d saves", end>>20, float64(end)/1e6/took.Seconds(), float64(end-saved)/(1<<20), saves)
	}
}

// killAt kills a collector when so many bytes were acknowledged, and returns how many were by then, and were saved.
func killAt(t *testing.T, dir string, at uint64) (end, saved, saves uint64, took time.Duration) {
	for _, name := range []string{"acked", "state"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), killDir+"="+dir)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	acked := func() uint64 {
		text, _ := os.ReadFile(filepath.Join(dir, "acked"))
		return binary.LittleEndian.Uint64(append(text, make([]byte, 8)...))
	}
	var start time.Time
	for deadline := time.Now().Add(time.Minute); acked() < at && time.Now().Before(deadline); time.Sleep(100 * time.Microsecond) {
		if start.IsZero() && acked() > 0 {
			start = time.Now()
		}
	}
	took = time.Since(start)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Fatal("it was not killed")
	}
	data, saves, err := diskState{filepath.Join(dir, "state")}.Load()
	s := savedState{}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if end = acked(); err != nil || len(s.Files) != 1 || end < at {
		t.Fatalf("%v; %d files are saved; %d bytes were acknowledged", err, len(s.Files), end)
	}
	return end, uint64(s.Files[0].Offset), saves, took
}

func collectUntilKilled(t *testing.T, dir string) {
	n, err := config.Parse("t.yaml", []byte("{start_at: beginning, include: ["+filepath.Join(dir, "a.log")+"]}"), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	canonical, errs := Plugin.Config.Check(n)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	to, err := os.Create(filepath.Join(dir, "acked"))
	if err != nil {
		t.Fatal(err)
	}
	var m creel.Memory
	c, err := Plugin.Open(canonical, creel.Host{State: diskState{filepath.Join(dir, "state")}, Memory: &m})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(c.(creel.Collector).Collect(t.Context(), &marker{to: to}))
}
