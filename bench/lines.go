//go:build linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// A shape is how the lines of a file look: the i-th one, without its end.
type shape struct {
	name string
	line func(i int) string
}

// pad makes a line as long as the table says.
func pad(line string, size int) string { return line + strings.Repeat("x", max(0, size-len(line)-1)) }

var (
	plainLines = shape{"lines", func(i int) string {
		return pad(fmt.Sprintf("2026-11-24T01:02:03.%06dZ INFO request id=%012d path=/api/things status=200 agent=Mozilla/5.0 ", i%1_000_000, i*7919), 206)
	}}
)

// writeLines writes n different lines.
func writeLines(path string, s shape, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range n {
		if _, err := w.WriteString(s.line(i) + "\n"); err != nil {
			return err
		}
	}
	return w.Flush()
}
