//go:build linux

package main

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
)

// encodings compares OTLP's protobuf with its JSON, for the requests that the rows send: bytes, and the time that creel takes to
// write and to read them whole.
func (b *bench) encodings() error {
	fmt.Printf("\n%-12s %22s %18s %18s\n", "", "bytes a record", "write, ns", "read, ns")
	fmt.Printf("%-12s %22s %18s %18s\n", "", "proto  JSON  smaller", "proto  JSON", "proto  JSON")
	for _, signal := range creel.Signals() {
		request := request(signal)
		batch, err := otlp.Parse(signal, request, nil)
		if err != nil {
			return err
		}
		batch.Records() // decoded, and to be encoded anew
		text := otlp.AppendJSON(nil, batch)
		read := func(parse func(creel.Signal, []byte, *creel.Memory) (*creel.Batch, error), body []byte) func() {
			var memory creel.Memory
			return func() {
				b, err := parse(signal, body, &memory)
				if err != nil {
					panic("BUG: " + err.Error())
				}
				b.Records()
				creel.Settle(b, nil)
			}
		}
		var proto, json []byte
		fmt.Printf("%-12s %9d %5d %4.0f %% %11.0f %6.0f %11.0f %6.0f\n", signal, len(request)/perRequest, len(text)/perRequest, 100-100*float64(len(request))/float64(len(text)),
			b.each(func() { _, proto = otlp.Encode(proto, batch) }), b.each(func() { json = otlp.AppendJSON(json[:0], batch) }),
			b.each(read(otlp.Parse, bytes.Clone(request))), b.each(read(otlp.ParseJSON, text)))
	}
	return nil
}

// each returns how many nanoseconds f takes for each record of a request: the median of some rounds.
func (b *bench) each(f func()) float64 {
	n := max(b.lines/perRequest/20, 3)
	took := make([]float64, n)
	for i := range took {
		began := time.Now()
		f()
		took[i] = float64(time.Since(began).Nanoseconds()) / perRequest
	}
	return median(took)
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}
