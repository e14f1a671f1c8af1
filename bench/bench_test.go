//go:build linux

package main

import (
	"os"
	"testing"
	"time"
)

// TestMain lets the test's binary be the child that the benchmark starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "pinned" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestRows runs a row of each kind with few records: the benchmark itself works, and all records arrive.
func TestRows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	if err := (&bench{brief: true, lines: 20_000, idlers: 500, fleet: 100, idle: 100 * time.Millisecond}).run(); err != nil {
		t.Fatal(err)
	}
}
