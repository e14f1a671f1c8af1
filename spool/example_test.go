package spool_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/creelhq/creel/spool"
)

func Example() {
	dir, err := os.MkdirTemp("", "spool")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	q, err := spool.Open(filepath.Join(dir, "otlp"), spool.Options{MaxSize: 64 << 20, WhenFull: spool.Block})
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()
	ctx := context.Background()
	if _, err := q.Append(ctx, spool.Item{Records: 2, Payload: []byte("two lines")}, spool.Synced); err != nil {
		log.Fatal(err)
	}
	it, err := q.Next(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d records: %s\n", it.Records, it.Payload)
	q.Ack(it.Seq)
	fmt.Println(q.Stats().Records, "left")
	// Output:
	// 2 records: two lines
	// 0 left
}
