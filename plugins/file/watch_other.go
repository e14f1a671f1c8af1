//go:build !linux

package file

// watcher hears nothing here: directories and files are polled.
type watcher struct{}

type change uint8

const (
	written change = 1 << iota
	moved
)

func newWatcher() *watcher                                  { return nil }
func (*watcher) close()                                     {}
func (*watcher) ready() <-chan struct{}                     { return nil }
func (*watcher) add(string) bool                            { return false }
func (*watcher) has(string) bool                            { return false }
func (*watcher) remove(string)                              {}
func (*watcher) take(func(dir, name string, c change)) bool { return true }
