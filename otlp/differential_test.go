package otlp

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"
)

// pdata is what the official library makes of requests: the oracle.
type pdata interface {
	MarshalProto() ([]byte, error)
	UnmarshalProto([]byte) error
	MarshalJSON() ([]byte, error)
	UnmarshalJSON([]byte) error
}

func newPdata(s creel.Signal) (pdata, func() int) {
	switch s {
	case creel.Logs:
		r := plogotlp.NewExportRequest()
		return r, func() int { return r.Logs().LogRecordCount() }
	case creel.Metrics:
		r := pmetricotlp.NewExportRequest()
		return r, func() int { return r.Metrics().DataPointCount() }
	}
	r := ptraceotlp.NewExportRequest()
	return r, func() int { return r.Traces().SpanCount() }
}

func newOfficial(s creel.Signal) proto.Message {
	switch s {
	case creel.Logs:
		return &logspb.ExportLogsServiceRequest{}
	case creel.Metrics:
		return &metricspb.ExportMetricsServiceRequest{}
	}
	return &tracepb.ExportTraceServiceRequest{}
}

// canonical returns wire as pdata writes it.
func canonical(t interface{ Fatalf(string, ...any) }, s creel.Signal, wire []byte) []byte {
	p, _ := newPdata(s)
	if err := p.UnmarshalProto(wire); err != nil {
		t.Fatalf("pdata does not understand it: %v", err)
	}
	out, err := p.MarshalProto()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// filler fills messages of any kind at random, and sees to it that no group is empty or equal to its neighbour.
type filler struct {
	t      *rapid.T
	serial int64
}

func (f *filler) fill(m protoreflect.Message, depth int) {
	d := m.Descriptor()
	chosen := map[protoreflect.Name]protoreflect.FieldDescriptor{}
	for i := range d.Oneofs().Len() {
		o := d.Oneofs().Get(i)
		n := o.Fields().Len()
		least := 0
		if d.Name() != "Metric" {
			least = -1 // or none
		}
		if j := rapid.IntRange(least, n-1).Draw(f.t, "oneof"); j >= 0 {
			chosen[o.Name()] = o.Fields().Get(j)
		}
	}
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if o := fd.ContainingOneof(); o != nil && chosen[o.Name()] != fd || strings.HasSuffix(string(fd.Name()), "strindex") {
			continue
		}
		f.field(m, fd, depth)
	}
}

func (f *filler) field(m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) {
	if fd.IsList() {
		least, most := 0, 3
		switch fd.Name() {
		case "resource_logs", "resource_metrics", "resource_spans", "scope_logs", "scope_metrics", "scope_spans",
			"log_records", "metrics", "data_points", "spans":
			least = 1
		}
		if depth > 9 {
			most = 0
		}
		list := m.Mutable(fd).List()
		for range rapid.IntRange(least, max(least, most)).Draw(f.t, "len") {
			if fd.Message() != nil {
				f.fill(list.AppendMutable().Message(), depth+1)
			} else {
				list.Append(f.scalar(fd))
			}
		}
		return
	}
	if fd.Message() != nil {
		if fd.Name() == "resource" {
			f.fill(m.Mutable(fd).Message(), depth+1)
			f.unique(m.Mutable(fd).Message())
		} else if fd.ContainingOneof() != nil || rapid.Bool().Draw(f.t, "present") {
			f.fill(m.Mutable(fd).Message(), depth+1)
		}
		return
	}
	if fd.HasPresence() || rapid.Bool().Draw(f.t, "present") {
		m.Set(fd, f.scalar(fd))
	}
}

// unique makes a resource differ from all others.
func (f *filler) unique(res protoreflect.Message) {
	f.serial++
	list := res.Mutable(res.Descriptor().Fields().ByName("attributes")).List()
	kv := list.AppendMutable().Message()
	kv.Set(kv.Descriptor().Fields().ByName("key"), protoreflect.ValueOfString(fmt.Sprint("serial", f.serial)))
}

func (f *filler) scalar(fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(f.text())
	case protoreflect.BytesKind:
		size := 0
		switch {
		case strings.HasSuffix(string(fd.Name()), "trace_id"):
			size = 16
		case strings.HasSuffix(string(fd.Name()), "span_id"):
			size = 8
		}
		if size == 0 {
			return protoreflect.ValueOfBytes(rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(f.t, "bytes"))
		}
		return protoreflect.ValueOfBytes(rapid.SliceOfN(rapid.ByteRange(1, 255), size, size).Draw(f.t, "id"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(f.t, "bool"))
	case protoreflect.EnumKind:
		vs := fd.Enum().Values()
		return protoreflect.ValueOfEnum(vs.Get(rapid.IntRange(0, vs.Len()-1).Draw(f.t, "enum")).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(f.t, "int32"))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(f.t, "uint32"))
	case protoreflect.Int64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(f.t, "int64"))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(f.t, "uint64"))
	case protoreflect.DoubleKind:
		special := rapid.SampledFrom([]float64{0, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, 1e-300})
		return protoreflect.ValueOfFloat64(rapid.OneOf(rapid.Float64(), special).Draw(f.t, "double"))
	}
	panic("BUG: a kind that OTLP does not use: " + fd.Kind().String())
}

func (f *filler) text() string {
	return rapid.OneOf(rapid.SampledFrom([]string{"", "a\"b\\\n\x00\x7f\u0085\u2028é😀"}), rapid.StringN(0, 20, 40),
		rapid.Map(rapid.IntRange(100, 300), func(n int) string { return strings.Repeat("x", n) })).Draw(f.t, "text")
}

func drawRequest(t *rapid.T, s creel.Signal) []byte {
	m := newOfficial(s)
	f := filler{t: t}
	f.fill(m.ProtoReflect(), 0)
	wire, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// edit makes b give up its wire bytes.
func edit(b *creel.Batch) {
	switch b.Signal() {
	case creel.Logs:
		b.EditLogs()
	case creel.Metrics:
		b.EditMetrics()
	case creel.Traces:
		b.EditSpans()
	}
}

func eachSignal(t *testing.T, f func(t *testing.T, s creel.Signal)) {
	for _, s := range creel.Signals() {
		t.Run(s.String(), func(t *testing.T) { f(t, s) })
	}
}

// Whatever comes in leaves equal, decoded and encoded anew, in both encodings, as pdata sees it.
func TestAgreesWithPdata(t *testing.T) {
	eachSignal(t, func(t *testing.T, s creel.Signal) {
		mem := &creel.Memory{}
		rapid.Check(t, func(t *rapid.T) {
			wire := drawRequest(t, s)
			want := canonical(t, s, wire)
			oracle, count := newPdata(s)
			if err := oracle.UnmarshalProto(wire); err != nil {
				t.Fatal(err)
			}

			b, err := Parse(s, wire, mem)
			if err != nil {
				t.Fatal(err)
			}
			if b.Len() != count() {
				t.Fatalf("counted %d records, pdata %d", b.Len(), count())
			}
			if got := Append([]byte("own"), b); !bytes.Equal(got, append([]byte("own"), wire...)) {
				t.Fatal("a batch nobody changed does not pass through as it is")
			}
			edit(b)
			if got := Append(nil, b); !bytes.Equal(canonical(t, s, got), want) {
				t.Fatalf("encoded\n%x\nwant\n%x", got, want)
			}

			text := AppendJSON([]byte("own"), b)[3:]
			back, _ := newPdata(s)
			if err := back.UnmarshalJSON(text); err != nil {
				t.Fatalf("pdata does not understand our JSON: %v\n%s", err, text)
			}
			if got, _ := back.MarshalProto(); !bytes.Equal(got, want) {
				t.Fatalf("pdata reads our JSON as\n%x\nwant\n%x\n%s", got, want, text)
			}

			text, err = oracle.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			j, err := ParseJSON(s, text, mem)
			if err != nil {
				t.Fatalf("parse pdata's JSON: %v\n%s", err, text)
			}
			edit(j)
			if got := Append(nil, j); !bytes.Equal(canonical(t, s, got), want) {
				t.Fatalf("read pdata's JSON as\n%x\nwant\n%x\n%s", got, want, text)
			}
			creel.Settle(b, nil)
			creel.Settle(j, nil)
		})
	})
}

// Batches appended together make one request, undecoded ones beside decoded ones.
func TestAppendConcatenates(t *testing.T) {
	eachSignal(t, func(t *testing.T, s creel.Signal) {
		rapid.Check(t, func(t *rapid.T) {
			var batches []*creel.Batch
			var all []byte
			for range rapid.IntRange(0, 4).Draw(t, "batches") {
				wire := drawRequest(t, s)
				all = append(all, wire...)
				b, err := Parse(s, wire, nil)
				if err != nil {
					t.Fatal(err)
				}
				if rapid.Bool().Draw(t, "edit") {
					edit(b)
				}
				batches = append(batches, b)
			}
			got := Append(make([]byte, 0, rapid.IntRange(0, 2*len(all)).Draw(t, "cap")), batches...)
			if !bytes.Equal(canonical(t, s, got), canonical(t, s, all)) {
				t.Fatal("the whole is not the sum of its parts")
			}
		})
	})
}

// TestEncodeEach: the request is that of Encode, and each batch has the part of it that holds its own records, whether it was
// encoded or passed on.
func TestEncodeEach(t *testing.T) {
	eachSignal(t, func(t *testing.T, s creel.Signal) {
		for n := range 40 {
			batches, want := make([]*creel.Batch, n), make([][]byte, n)
			for i := range batches {
				var err error
				if batches[i], err = Parse(s, sample(s, i%7), nil); err != nil {
					t.Fatal(err)
				}
				if (i+n)%3 > 0 {
					edit(batches[i])
				}
				want[i] = Append(nil, batches[i])
			}
			request, _ := EncodeEach(make([]byte, 0, 10*n), batches...)
			if !bytes.Equal(request, bytes.Join(want, nil)) {
				t.Fatalf("%d batches: the request is not theirs", n)
			}
			for i, b := range batches {
				if !bytes.Equal(b.Wire(), want[i]) || cap(b.Wire()) != len(b.Wire()) {
					t.Errorf("batch %d of %d has another part of the request", i, n)
				}
			}
		}
	})
}

// The table has every field that the official package has, by number, names and type.
func TestSchemaIsComplete(t *testing.T) {
	seen := map[kind]bool{}
	var compare func(k kind, d protoreflect.MessageDescriptor)
	compare = func(k kind, d protoreflect.MessageDescriptor) {
		if seen[k] {
			return
		}
		seen[k] = true
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			if strings.HasSuffix(string(fd.Name()), "strindex") {
				continue // of profiles
			}
			f := schema[k][fd.Number()]
			if f.name != fd.JSONName() || f.proto != string(fd.Name()) {
				t.Errorf("%s: field %d is %q, %q", fd.FullName(), fd.Number(), f.name, f.proto)
			}
			if repeated := f.shape >= texts; repeated != fd.IsList() {
				t.Errorf("%s: repeated: %v", fd.FullName(), repeated)
			}
			if fd.Message() != nil {
				compare(f.of, fd.Message())
			}
		}
	}
	for _, s := range creel.Signals() {
		compare(requestOf(s), newOfficial(s).ProtoReflect().Descriptor())
	}
	if len(seen) != int(status)+1 {
		t.Errorf("compared %d kinds of messages of %d", len(seen), status+1)
	}
}
