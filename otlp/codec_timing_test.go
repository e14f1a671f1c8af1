package otlp

import (
	"fmt"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// sample returns a request of n records with 8 attributes each, as an SDK would send it.
func sample(s creel.Signal, n int) []byte {
	attrs := func() creel.Attrs {
		return creel.Attrs{
			{Key: "http.request.method", Value: creel.String("GET")},
			{Key: "http.route", Value: creel.String("/api/v1/orders/{id}")},
			{Key: "http.response.status_code", Value: creel.Int(200)},
			{Key: "server.address", Value: creel.String("shop.example.com")},
			{Key: "client.address", Value: creel.String("192.0.2.17")},
			{Key: "user_agent.original", Value: creel.String("curl/8.9.1")},
			{Key: "duration_ms", Value: creel.Double(12.5)},
			{Key: "cached", Value: creel.Bool(false)},
		}
	}
	o := &creel.Origin{
		Resource: creel.Resource{Attrs: creel.Attrs{{Key: "service.name", Value: creel.String("shop")}}},
		Scope:    creel.Scope{Name: "shop/http", Version: "1.2.3"},
	}
	desc := &creel.Descriptor{Name: "http.server.requests", Unit: "{request}", Kind: creel.Sum, Temporality: creel.Cumulative, Monotonic: true}
	id, now := creel.TraceID{1, 2, 3, 15: 4}, int64(1_790_000_000_000_000_000)
	var r creel.Records
	for i := range n {
		switch s {
		case creel.Logs:
			r.Logs = append(r.Logs, creel.Log{Origin: o, Time: now, Observed: now, Severity: creel.SeverityInfo, SeverityText: "INFO",
				Body: creel.String("order 4711 was shipped to its customer"), Attrs: attrs(), TraceID: id, SpanID: creel.SpanID{byte(i), 1}})
		case creel.Metrics:
			r.Metrics = append(r.Metrics, creel.Metric{Origin: o, Desc: desc, Start: now, Time: now, Attrs: attrs(), Value: creel.Int(int64(i))})
		case creel.Traces:
			r.Spans = append(r.Spans, creel.Span{Origin: o, TraceID: id, SpanID: creel.SpanID{byte(i), 1}, Parent: creel.SpanID{9},
				Kind: creel.SpanServer, Name: "GET /api/v1/orders/{id}", Start: now, End: now + 1000, Attrs: attrs()})
		}
	}
	return Append(nil, creel.NewBatch(s, &r))
}

// The number of allocations does not depend on the number of records.
func TestAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("the short form is for the race detector, with which pools forget at random")
	}
	eachSignal(t, func(t *testing.T, s creel.Signal) {
		allocs := func(n int) (parse, decode float64) {
			wire, mem := sample(s, n), &creel.Memory{}
			once := func(look func(*creel.Batch)) func() {
				return func() {
					b, err := Parse(s, wire, mem)
					if err != nil {
						t.Fatal(err)
					}
					look(b)
					creel.Settle(b, nil)
				}
			}
			return testing.AllocsPerRun(50, once(func(*creel.Batch) {})), testing.AllocsPerRun(50, once(edit))
		}
		parse, few := allocs(10)
		_, many := allocs(2000)
		// The race detector makes pools forget at random: then slabs grow anew, in a few steps of doubling.
		if parse > 4 || few > 40 {
			t.Errorf("%v allocations to parse a batch, %v to decode one", parse, few)
		}
		if many > few+60 {
			t.Errorf("%v allocations for 10 records, %v for 2000", few, many)
		}

		b, err := Parse(s, sample(s, 100), nil)
		if err != nil {
			t.Fatal(err)
		}
		pass := func(name string, f func()) {
			if n := testing.AllocsPerRun(20, f); n > 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
		buf := Append(nil, b)
		pass("pass through", func() { buf = Append(buf[:0], b) })
		c, err := Parse(s, sample(s, 10), nil)
		if err != nil {
			t.Fatal(err)
		}
		edit(b)
		pass("encode", func() { buf = Append(buf[:0], b) })
		both := []*creel.Batch{c, b, c}
		buf = Append(buf[:0], both...)
		pass("encode some", func() { buf = Append(buf[:0], both...) })
		d, err := Parse(s, sample(s, 10), nil)
		if err != nil {
			t.Fatal(err)
		}
		edit(d)
		_, memory := EncodeEach(nil, b, d)
		pass("encode each", func() {
			edit(b) // what was encoded lies in the memory
			edit(d)
			_, memory = EncodeEach(memory, b, d)
		})
		edit(b)
		buf = AppendJSON(nil, b)
		buf = AppendJSON(buf[:0], b)
		pass("encode JSON", func() { buf = AppendJSON(buf[:0], b) })
	})
}

// perRecord reports a record's share of the time and, as a ratio, of what pdata needs for the same.
func perRecord(b *testing.B, n int, ours, theirs func()) {
	b.ReportAllocs()
	for b.Loop() {
		ours()
	}
	mine := float64(b.Elapsed()) / float64(b.N) / float64(n)
	b.ReportMetric(mine, "ns/record")
	if theirs != nil {
		rounds := max(b.N/8, 1)
		start := time.Now()
		for range rounds {
			theirs()
		}
		b.ReportMetric(float64(time.Since(start))/float64(rounds)/float64(n)/mine, "x-pdata")
	}
}

// BenchmarkCodec is measured against pdata; the marks are 200 ns to decode and 110 ns to encode a record of 8 attributes.
func BenchmarkCodec(b *testing.B) {
	const n = 1000
	for _, s := range creel.Signals() {
		wire, mem := sample(s, n), &creel.Memory{}
		parse := func() *creel.Batch {
			batch, err := Parse(s, wire, mem)
			if err != nil {
				b.Fatal(err)
			}
			return batch
		}
		unmarshal := func() pdata {
			p, _ := newPdata(s)
			if err := p.UnmarshalProto(wire); err != nil {
				b.Fatal(err)
			}
			return p
		}
		run := func(what string, ours, theirs func()) {
			b.Run(fmt.Sprintf("%v/%s", s, what), func(b *testing.B) {
				b.SetBytes(int64(len(wire)))
				perRecord(b, n, ours, theirs)
			})
		}
		run("parse", func() { creel.Settle(parse(), nil) }, nil)
		run("parse+decode", func() {
			batch := parse()
			edit(batch)
			creel.Settle(batch, nil)
		}, func() { unmarshal() })
		batch, buf := parse(), []byte(nil)
		edit(batch)
		theirs := unmarshal()
		run("encode", func() { buf = Append(buf[:0], batch) }, func() {
			if _, err := theirs.MarshalProto(); err != nil {
				b.Fatal(err)
			}
		})
		var memory []byte
		run("encode each", func() {
			edit(batch) // what was encoded lies in the memory
			_, memory = EncodeEach(memory, batch)
		}, nil)
		edit(batch)
		passed := parse()
		run("append passed", func() { buf = Append(buf[:0], passed) }, nil)
		text := AppendJSON(nil, batch)
		run("encode JSON", func() { buf = AppendJSON(buf[:0], batch) }, func() {
			if _, err := theirs.MarshalJSON(); err != nil {
				b.Fatal(err)
			}
		})
		run("parse JSON", func() {
			if _, err := ParseJSON(s, text, nil); err != nil {
				b.Fatal(err)
			}
		}, func() {
			p, _ := newPdata(s)
			if err := p.UnmarshalJSON(text); err != nil {
				b.Fatal(err)
			}
		})
	}
}
