//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
	"unsafe"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
)

// limitWork is what has to be done at least, in the simplest way: read a file in pieces of 256 KiB and find the ends of
// the lines (read), encode an OTLP request for each piece (encode), write it to a connection and read the answer (send);
// compressed in between (zstd, gzip).
func limitWork(what, file, address string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var out *poster
	if what != "read" && what != "encode" {
		if out, err = newPoster(what, address); err != nil {
			return err
		}
		defer out.conn.Close()
	}
	origin := &creel.Origin{}
	var memory creel.Memory
	var tail, body, room []byte
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
			body, room = otlp.Encode(room, b)
		}
		creel.Settle(b, nil)
		if out != nil {
			if err := out.post(body); err != nil {
				return err
			}
		}
	}
	if len(tail) > 0 || lines == 0 {
		return fmt.Errorf("%d lines and a rest of %d bytes", lines, len(tail))
	}
	return nil
}

// poster is the least that speaks HTTP.
type poster struct {
	conn    net.Conn
	answers *bufio.Reader
	zip     interface {
		io.WriteCloser
		Reset(io.Writer)
	}
	coding string
	zipped bytes.Buffer
}

func newPoster(what, address string) (*poster, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	p := &poster{conn: conn, answers: bufio.NewReader(conn)}
	switch what {
	case "zstd":
		p.zip, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(256<<10))
	case "gzip":
		p.zip, err = gzip.NewWriterLevel(nil, gzip.BestSpeed)
	}
	if p.zip != nil {
		p.coding = "Content-Encoding: " + what + "\r\n"
	}
	return p, err
}

func (p *poster) post(body []byte) error {
	if p.zip != nil {
		p.zipped.Reset()
		p.zip.Reset(&p.zipped)
		if _, err := p.zip.Write(body); err != nil {
			return err
		}
		if err := p.zip.Close(); err != nil {
			return err
		}
		body = p.zipped.Bytes()
	}
	head := fmt.Sprintf("POST /v1/logs HTTP/1.1\r\nHost: sink\r\nContent-Type: application/x-protobuf\r\n%sContent-Length: %d\r\n\r\n", p.coding, len(body))
	request := net.Buffers{[]byte(head), body}
	if _, err := request.WriteTo(p.conn); err != nil {
		return err
	}
	resp, err := http.ReadResponse(p.answers, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
