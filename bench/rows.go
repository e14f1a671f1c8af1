//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
)

// fromFile follows a file with the given options of the collector, through processors: a piece of YAML, with ids and
// options as they stand in a configuration.
func (b *bench) fromFile(lines shape, protocol, compression, options, processors string) (figure, error) {
	file, err := b.linesOf(lines)
	if err != nil {
		return figure{}, err
	}
	s, err := newSink()
	if err != nil {
		return figure{}, err
	}
	defer s.close()
	began := time.Now()
	p, err := b.start(fmt.Sprintf(`
collectors: {file: {include: [%s], start_at: beginning, %s}}
processors: {%s}
exporters: {otlp: {endpoint: "%s", protocol: %s, compression: %s}}
pipelines: {p: {from: [file], through: [%s], to: [otlp]}}`, file, options, processors, s.endpoint(protocol), protocol, compression, ids(processors)))
	if err != nil {
		return figure{}, err
	}
	defer p.stop()
	if err := p.until(b.lines); err != nil {
		return figure{}, err
	}
	if s.bytes.Load() == 0 {
		return figure{}, errors.New("nothing came to the sink")
	}
	return p.figure(b.lines, began)
}

// spooled follows a file into an exporter that has a disk queue, at an ack level.
func (b *bench) spooled(ack string) (figure, error) {
	s, err := newSink()
	if err != nil {
		return figure{}, err
	}
	defer s.close()
	file, err := b.linesOf(plainLines)
	if err != nil {
		return figure{}, err
	}
	began := time.Now()
	p, err := b.startSpooled(file, s, ack)
	if err != nil {
		return figure{}, err
	}
	defer p.stop()
	if err := p.until(b.lines); err != nil {
		return figure{}, err
	}
	return p.figure(b.lines, began)
}

func (b *bench) startSpooled(file string, s *sink, ack string) (*process, error) {
	return b.start(fmt.Sprintf(`
collectors: {file: {include: [%s], start_at: beginning}}
exporters: {otlp: {endpoint: "%s", protocol: http, compression: none, delivery: {retry: {initial: 10ms, max: 100ms}, spool: {max_size: 64GiB}}}}
pipelines: {p: {from: [file], to: [otlp], ack: %s}}`, file, s.endpoint("http"), ack))
}

// replay lets a file gather in the disk queue, and measures how it is delivered from there.
func (b *bench) replay() (figure, error) {
	s, err := newSink()
	if err != nil {
		return figure{}, err
	}
	defer s.close()
	s.away.Store(true)
	file, err := b.linesOf(plainLines)
	if err != nil {
		return figure{}, err
	}
	p, err := b.startSpooled(file, s, "process")
	if err != nil {
		return figure{}, err
	}
	defer p.stop()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		l, err := p.ledger()
		if err != nil {
			return figure{}, err
		}
		if len(l.Pipelines) > 0 { // it has started
			if x := l.Pipelines[0].Exporters[0]; x.Spooled > 0 && x.Spooled+x.Queued == int64(b.lines) { // some are under way to the sink
				break
			}
		}
		if time.Now().After(deadline) {
			return figure{}, fmt.Errorf("the disk queue does not take the file: %+v", l)
		}
	}
	before, _, err := p.usage()
	if err != nil {
		return figure{}, err
	}
	began := time.Now()
	s.away.Store(false)
	if err := p.until(b.lines); err != nil {
		return figure{}, err
	}
	f, err := p.figure(b.lines, began)
	f.cpu -= before
	return f, err
}

// ids returns the ids in a flow mapping of components.
func ids(components string) string {
	var list []string
	depth := 0
	for _, word := range strings.FieldsFunc(components, func(r rune) bool {
		switch r {
		case '{':
			depth++
		case '}':
			depth--
		}
		return depth > 0 || r == '}' || r == ','
	}) {
		if id, _, ok := strings.Cut(word, ":"); ok {
			list = append(list, strings.TrimSpace(id))
		}
	}
	return strings.Join(list, ", ")
}

// relay sends b.lines records through an agent, and through processors as fromFile has them, which keep them all.
func (b *bench) relay(protocol string, signal creel.Signal, processors string) (figure, error) {
	s, err := newSink()
	if err != nil {
		return figure{}, err
	}
	defer s.close()
	p, err := b.start(fmt.Sprintf(`
collectors: {otlp: {grpc: {endpoint: "127.0.0.1:0", enabled: %t}, http: {endpoint: "127.0.0.1:0", enabled: %t}}}
processors: {%s}
exporters: {otlp: {endpoint: "%s", protocol: %s, compression: none}}
pipelines: {p: {from: [otlp], through: [%s], to: [otlp]}}`, protocol == "grpc", protocol == "http", processors, s.endpoint(protocol), protocol, ids(processors)))
	if err != nil {
		return figure{}, err
	}
	defer p.stop()
	text, err := os.ReadFile(filepath.Join(p.data, "endpoints.json"))
	if err != nil {
		return figure{}, err
	}
	var e agent.Endpoints
	if err := json.Unmarshal(text, &e); err != nil {
		return figure{}, err
	}
	requests := b.lines / perRequest
	began := time.Now()
	if err := load(protocol, e.Listen[0].Address, signal, requests); err != nil {
		return figure{}, err
	}
	if err := p.until(requests * perRequest); err != nil {
		return figure{}, err
	}
	return p.figure(requests*perRequest, began)
}

// hostOnly watches an agent that measures its host every second and sends that on.
func (b *bench) hostOnly() (figure, error) {
	s, err := newSink()
	if err != nil {
		return figure{}, err
	}
	defer s.close()
	p, err := b.start(fmt.Sprintf(`
collectors: {host: {every: 1s}}
exporters: {otlp: {endpoint: "%s", compression: none}}
pipelines: {p: {from: [host], to: [otlp]}}`, s.endpoint("grpc")))
	if err != nil {
		return figure{}, err
	}
	defer p.stop()
	time.Sleep(time.Second) // its start is not measured
	return b.watch(p)
}

// watch returns what p uses while nothing happens.
func (b *bench) watch(p *process) (figure, error) {
	i, err := p.watch(b.idle)
	return figure{wall: b.idle, cpu: time.Duration(i.share * float64(b.idle)), rss: int64(i.rss * (1 << 20))}, err
}

// idleFiles watches an agent that follows n files, each with one line, when it has sent them.
func (b *bench) idleFiles(n int) (figure, error) {
	dir := filepath.Join(b.dir, "idle")
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprint(i%10))
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return figure{}, err
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i, ".log")), fmt.Appendln(nil, "a line of file", i), 0o600); err != nil {
			return figure{}, err
		}
	}
	s, err := newSink()
	if err != nil {
		return figure{}, err
	}
	defer s.close()
	p, err := b.start(fmt.Sprintf(`
collectors: {file: {include: ["%s/*/*.log"], start_at: beginning}}
exporters: {otlp: {endpoint: "%s", compression: none}}
pipelines: {p: {from: [file], to: [otlp]}}`, dir, s.endpoint("grpc")))
	if err != nil {
		return figure{}, err
	}
	defer p.stop()
	if err := p.until(n); err != nil {
		return figure{}, err
	}
	time.Sleep(b.idle / 2) // until they are idle
	return b.watch(p)
}
