//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
	"unsafe"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
)

const lineSize = 220

// writeLines writes a file of n different lines.
func writeLines(path string, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	line := bytes.Repeat([]byte("x"), lineSize)
	line[lineSize-1] = '\n'
	for i := range n {
		copy(line, fmt.Sprintf("2026-11-24T01:02:03.%06dZ INFO request id=%012d path=/api/things status=200 agent=Mozilla", i%1_000_000, i*7919))
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return w.Flush()
}

// limitWork is what has to be done at least: read a file in pieces of 256 KiB, find the ends of the lines, encode an OTLP
// request for each piece, and post it.
func limitWork(what string, args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	origin := &creel.Origin{}
	client := http.Client{Transport: &http.Transport{WriteBufferSize: 256 << 10}}
	var memory creel.Memory
	var tail, body []byte
	lines := 0
	for {
		buf := make([]byte, len(tail)+256<<10)
		copy(buf, tail)
		n, err := f.Read(buf[len(tail):])
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		buf = buf[:len(tail)+n]
		end := bytes.LastIndexByte(buf, '\n') + 1
		tail = buf[end:]
		now := time.Now().UnixNano()
		r := memory.NewRecords()
		for rest := buf[:end]; len(rest) > 0; {
			i := bytes.IndexByte(rest, '\n')
			lines++
			if what != "read" {
				r.Logs = append(r.Logs, creel.Log{Origin: origin, Observed: now, Body: creel.String(unsafe.String(&rest[0], i))})
			}
			rest = rest[i+1:]
		}
		b := creel.NewBatch(creel.Logs, r)
		if what != "read" {
			body = otlp.Append(body[:0], b)
		}
		creel.Settle(b, nil)
		if what != "send" {
			continue
		}
		resp, err := client.Post("http://"+args[1]+"/v1/logs", "application/x-protobuf", bytes.NewReader(body))
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
	}
	if len(tail) > 0 || lines == 0 {
		return fmt.Errorf("%d lines and a rest of %d bytes", lines, len(tail))
	}
	return nil
}
