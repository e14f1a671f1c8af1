package agent

import (
	"slices"
	"testing"
)

// TestHubs: the channel is closed when the hubs are others, and only then.
func TestHubs(t *testing.T) {
	h := &hubs{changed: make(chan struct{})}
	isClosed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	urls, changed := h.URLs()
	if len(urls) != 0 || isClosed(changed) {
		t.Fatalf("at first there are %q", urls)
	}
	h.set([]string{"https://a", "https://b"})
	if !isClosed(changed) {
		t.Error("nobody is told")
	}
	urls, changed = h.URLs()
	h.set([]string{"https://a", "https://b"})
	if !slices.Equal(urls, []string{"https://a", "https://b"}) || isClosed(changed) {
		t.Errorf("there are %q", urls)
	}
}
