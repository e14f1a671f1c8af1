//go:build linux

package main

import (
	"testing"
	"time"
)

// TestRows runs every row with few records: the benchmark itself works, and all records arrive.
func TestRows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	if err := (&bench{lines: 20_000, idle: 100 * time.Millisecond}).run(); err != nil {
		t.Fatal(err)
	}
}
