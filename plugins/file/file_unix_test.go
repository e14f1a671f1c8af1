//go:build unix

package file_test

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPipesAreLeftAlone: opening a FIFO would wait for a writer, and stop everything.
func TestPipesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "a.log"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "b.log"), "line\n")
	f := follow(t, &state{}, nil, "start_at: beginning, include: ["+dir+"/*.log]")
	f.want("line")
}
