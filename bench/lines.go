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
	criLines = shape{"cri", func(i int) string {
		return pad(fmt.Sprintf("2026-11-24T01:02:03.%09dZ stdout F INFO request id=%012d path=/api/things status=200 agent=Mozilla/5.0 ", i%1_000_000_000, i*7919), 206)
	}}
	jsonLines = shape{"json", func(i int) string {
		head := fmt.Sprintf(`{"time":"2026-11-24T01:02:03.%06dZ","level":"info","msg":"request served","request_id":"%012d","method":"GET","path":"/api/v1/things/%d","status":200,"agent":"`, i%1_000_000, i*7919, i%1000)
		return pad(head, 380-2) + `"}`
	}}
	accessLines = shape{"access", func(i int) string {
		return fmt.Sprintf(`192.0.2.%d - ann [24/Nov/2026:01:%02d:%02d +0000] "GET /api/v1/things/%d?page=%d HTTP/1.1" 200 %d "https://shop.example/start" "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"`, i%250, i/60%60, i%60, i%1000, i%7, i%100000)
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
