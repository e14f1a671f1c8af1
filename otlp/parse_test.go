package otlp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/creelhq/creel"
)

// field writes a length-prefixed field.
func lenField(num int, parts ...[]byte) []byte {
	e := newEncoder(nil)
	e.raw(bytes.Join(parts, nil))
	e.close(num, 0)
	return e.finish()
}

// inLogs puts the fields of a log record into a request.
func inLogs(record ...[]byte) []byte { return lenField(1, lenField(2, lenField(2, record...))) }

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func nested(depth int) []byte {
	v := lenField(1, []byte("x"))
	for range depth - 1 {
		v = lenField(5, lenField(1, v))
	}
	return lenField(5, v)
}

func TestParseRefuses(t *testing.T) {
	f := func(name string, wire []byte, want error) {
		t.Helper()
		_, err := Parse(creel.Logs, wire, nil)
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
	f("text", []byte("<html></html>"), errUnsound)
	f("cut tag", inLogs(unhex("80")), errTruncated)
	f("cut string", inLogs(unhex("1a 05 41")), errTruncated)
	f("length beyond 63 bits", inLogs(unhex("1a ffffffffffffffffff01")), errTruncated)
	f("cut fixed64", inLogs(unhex("09 01020304")), errTruncated)
	f("cut fixed32", inLogs(unhex("45 0102")), errTruncated)
	f("varint of 11 bytes", inLogs(unhex("10 ffffffffffffffffffff01")), errTruncated)
	f("field 0", inLogs(unhex("02 00")), errTag)
	f("field beyond 29 bits", inLogs(unhex("8080808010 00")), errTag)
	f("long tag", inLogs(unhex("9000 01")), errTag)
	f("time as varint", inLogs(unhex("08 01")), errWireType)
	f("body as string field of wrong type", inLogs(unhex("28 01")), errWireType)
	f("trace id of 15 bytes", inLogs(lenField(9, make([]byte, 15))), errID)
	f("span id of 16 bytes", inLogs(lenField(10, make([]byte, 16))), errID)
	f("33 levels", inLogs(nested(33)), errDepth)
	f("end of a group that did not begin", inLogs(unhex("ac06")), errUnsound)
	f("group that does not end", inLogs(unhex("ab06 0801")), errUnsound)
	f("group that ends as another", inLogs(unhex("ab06 b406")), errUnsound)
	f("groups too deep", inLogs(bytes.Repeat(unhex("ab06"), 40)), errUnsound)
	f("attribute that is plain but for its key's length", inLogs(lenField(6, unhex("0a867f"), make([]byte, 133), unhex("12021801"))), errTruncated)
	f("32 levels", inLogs(nested(32)), nil)
	f("nothing", nil, nil)

	_, err := Parse(creel.Metrics, lenField(1, lenField(2, lenField(2, lenField(9, lenField(1, lenField(6, make([]byte, 7))))))), nil)
	if !errors.Is(err, errPacked) {
		t.Errorf("packed: got %v", err)
	}
	for cut := range len(nested(3)) {
		if _, err := Parse(creel.Logs, inLogs(nested(3))[:cut+1], nil); err == nil && cut+1 < len(inLogs(nested(3))) {
			t.Errorf("cut after %d bytes: no error", cut+1)
		}
	}
}

// What no encoder of today writes, but protobuf allows.
func TestUnusualWire(t *testing.T) {
	parse := func(s creel.Signal, wire []byte) *creel.Batch {
		t.Helper()
		b, err := Parse(s, wire, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	attr := func(key string) []byte { return lenField(6, lenField(1, []byte(key)), lenField(2, unhex("1801"))) }
	// Attributes apart from each other, fields twice, unknown fields of every type, invalid UTF-8.
	l := &parse(creel.Logs, inLogs(attr("a"), unhex("1001"), attr("b"), attr("c"), unhex("1002"), attr("d"),
		unhex("9806 7f"), unhex("9906 0102030405060708"), unhex("9a06 02 6162"), unhex("9d06 01020304"),
		unhex("9b06 0801 a306 a406 9c06"), lenField(3, []byte("\xff")))).Logs()[0]
	if len(l.Attrs) != 4 || l.Attrs[3].Key != "d" || l.Severity != 2 || l.SeverityText != "\xff" {
		t.Errorf("got %+v", l)
	}
	// The shared part of a group after its members.
	b := parse(creel.Logs, lenField(1, lenField(2, lenField(2), lenField(1, lenField(1, []byte("scope")))),
		lenField(3, []byte("url")), lenField(1, unhex("1007"))))
	if o := b.Logs()[0].Origin; o.Scope.Name != "scope" || o.Resource.SchemaURL != "url" || o.Resource.Dropped != 7 {
		t.Errorf("got %+v", o)
	}
	inMetrics := func(metric ...[]byte) []byte { return lenField(1, lenField(2, lenField(2, metric...))) }
	// The last member of the oneof wins, with all that came before of it in a row.
	b = parse(creel.Metrics, inMetrics(lenField(5, lenField(1)), lenField(7, lenField(1), unhex("1802")),
		lenField(5, lenField(1), lenField(1)), lenField(1, []byte("m")), lenField(5, lenField(1))))
	if m := b.Metrics(); len(m) != 3 || m[0].Desc.Kind != creel.Gauge || m[0].Desc.Monotonic || m[0].Desc.Name != "m" {
		t.Errorf("got %+v", m)
	}
	// Numbers packed and not.
	b = parse(creel.Metrics, inMetrics(lenField(9, lenField(1, unhex("31 0100000000000000"),
		lenField(6, unhex("0200000000000000 0300000000000000")), unhex("39 000000000000f03f")))))
	if h := b.Metrics()[0].Histogram; len(h.Counts) != 3 || h.Counts[2] != 3 || h.Bounds[0] != 1 {
		t.Errorf("got %+v", h)
	}
	b = parse(creel.Metrics, inMetrics(lenField(10, lenField(1, lenField(8, unhex("1001 1002"), lenField(2, unhex("ac02 04")))))))
	if h := b.Metrics()[0].Exponential.Positive; len(h.Counts) != 4 || h.Counts[2] != 300 {
		t.Errorf("got %+v", h)
	}
}

// Fields that come piecemeal, or lists that come again and again, must not cost time that grows with their square.
func TestPiecemealIsLinear(t *testing.T) {
	const n = 200_000
	for name, record := range map[string][]byte{
		"attributes": bytes.Repeat(unhex("3200 3801"), n),
		"lists":      lenField(5, bytes.Repeat(unhex("2a02 0a00"), n)),
	} {
		b, err := Parse(creel.Logs, inLogs(record), nil)
		if err != nil {
			t.Fatal(err)
		}
		l := b.Logs()[0]
		if name == "attributes" && (len(l.Attrs) != n || cap(l.Attrs) > 2*n) {
			t.Errorf("%d attributes in room for %d", len(l.Attrs), cap(l.Attrs))
		}
		if name == "lists" && len(l.Body.List()) != 1 {
			t.Errorf("%d items", len(l.Body.List()))
		}
	}
}

func TestParseJSON(t *testing.T) {
	record := func(text string) (creel.Log, error) {
		b, err := ParseJSON(creel.Logs, []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[`+text+`]}]}]}`), nil)
		if err != nil {
			return creel.Log{}, err
		}
		return b.Logs()[0], nil
	}
	good := func(text string, want creel.Log) {
		t.Helper()
		got, err := record(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			return
		}
		got.Origin = nil
		if !got.Body.Equal(want.Body) {
			t.Errorf("%s: body %v, want %v", text, got.Body, want.Body)
		}
		got.Body, want.Body = creel.Value{}, creel.Value{}
		if got.Time != want.Time || got.TraceID != want.TraceID || got.Severity != want.Severity || got.Flags != want.Flags ||
			got.SeverityText != want.SeverityText || !got.Attrs.Equal(want.Attrs) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
	bad := func(text, want string) {
		t.Helper()
		if _, err := record(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want …%s…", text, err, want)
		}
	}
	id := creel.TraceID(unhex("5b8efff798038103d269b633813fc60c"))
	good(`{"traceId":"5B8EFFF798038103d269b633813fc60c","unknown":{"a":[1,"}",{"b":null}]},"flags":257}`, creel.Log{TraceID: id, Flags: 257})
	good(` { "timeUnixNano" : "1544712660300000000" , "severity_number" : 10 } `, creel.Log{Time: 1544712660300000000, Severity: 10})
	good(`{"timeUnixNano":1544712660300000001,"severityNumber":"9","body":null}`, creel.Log{Time: 1544712660300000001, Severity: 9})
	good(`{"timeUnixNano":1e3,"severityNumber":2.0,"traceId":""}`, creel.Log{Time: 1000, Severity: 2})
	good(`{"severityText":"\u00e9\ud83d\ude00\ud83dx\n\/\ud83d\u0041"}`, creel.Log{SeverityText: "é😀\ufffdx\n/\ufffdA"})
	good(`{"body":{"intValue":"-9223372036854775808"}}`, creel.Log{Body: creel.Int(math.MinInt64)})
	good(`{"body":{"doubleValue":"NaN"}}`, creel.Log{Body: creel.Double(math.NaN())})
	good(`{"body":{"doubleValue":"-Infinity"}}`, creel.Log{Body: creel.Double(math.Inf(-1))})
	good(`{"body":{"doubleValue":-0.0}}`, creel.Log{Body: creel.Double(math.Copysign(0, -1))})
	good(`{"body":{"bytesValue":"-_8="}}`, creel.Log{Body: creel.Bytes([]byte{0xfb, 0xff})})
	good(`{"body":{"boolValue":false}}`, creel.Log{Body: creel.Bool(false)})
	good(`{"body":{"arrayValue":{"values":[{},{"kvlistValue":{"values":[{"key":"k"}]}}]}}}`,
		creel.Log{Body: creel.List(creel.Value{}, creel.Map(creel.Attr{Key: "k"}))})
	good(`{"attributes":[{"key":"a","value":{"stringValue":""}},null]}`,
		creel.Log{Attrs: creel.Attrs{{Key: "a", Value: creel.String("")}, {}}})

	bad(`{`, "invalid character ']'")
	bad(`[]`, "must be an object")
	bad(`{"traceId":"zz"}`, "traceId: encoding/hex: invalid byte")
	bad(`{"traceId":"5b8e"}`, "trace_id: an id has the wrong length")
	bad(`{"severityNumber":"SEVERITY_NUMBER_INFO"}`, "severityNumber: it must be an integer")
	bad(`{"severityNumber":4294967296}`, "integer in range")
	bad(`{"timeUnixNano":-1}`, "integer in range")
	bad(`{"timeUnixNano":1.5}`, "integer in range")
	bad(`{"timeUnixNano":true}`, "must be a number")
	bad(`{"attributes":{}}`, "must be an array")
	bad(`{"severityText":7}`, "must be a string")
	bad(`{"body":{"boolValue":"true"}}`, "must be true or false")
	bad(`{"body":{"bytesValue":"*"}}`, "illegal base64")
	bad(`{"body":`+strings.Repeat(`{"arrayValue":{"values":[`, 40)+strings.Repeat(`]}}`, 40)+`}`, "nested too deep")
}

func TestGrouping(t *testing.T) {
	attrs := creel.Attrs{{Key: "host", Value: creel.String("h")}}
	a := &creel.Origin{Resource: creel.Resource{Attrs: attrs}, Scope: creel.Scope{Name: "a"}}
	b := &creel.Origin{Resource: creel.Resource{Attrs: attrs}, Scope: creel.Scope{Name: "b"}}
	c := &creel.Origin{Resource: creel.Resource{Attrs: attrs.Clone()}}
	text := func(name string) creel.Log { return creel.Log{Event: name} }
	logs := []creel.Log{text("1"), text("2"), text("3"), text("4"), text("5"), text("6")}
	for i, o := range []*creel.Origin{a, a, b, c, nil, nil} {
		logs[i].Origin = o
	}
	got := string(AppendJSON(nil, creel.NewLogs(logs)))
	host := `"resource":{"attributes":[{"key":"host","value":{"stringValue":"h"}}]},`
	want := `{"resourceLogs":[{` + host + `"scopeLogs":[` +
		`{"scope":{"name":"a"},"logRecords":[{"eventName":"1"},{"eventName":"2"}]},` +
		`{"scope":{"name":"b"},"logRecords":[{"eventName":"3"}]}]},` +
		`{` + host + `"scopeLogs":[{"logRecords":[{"eventName":"4"}]}]},` +
		`{"scopeLogs":[{"logRecords":[{"eventName":"5"},{"eventName":"6"}]}]}]}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	sum := &creel.Descriptor{Name: "s", Kind: creel.Sum, Temporality: creel.Cumulative, Monotonic: true}
	points := []creel.Metric{{Desc: sum, Value: creel.Int(0)}, {Desc: sum, Value: creel.Double(0)}, {Value: creel.Int(-1)}}
	got = string(AppendJSON(nil, creel.NewMetrics(points)))
	want = `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"s","sum":{"dataPoints":[{"asInt":"0"},{"asDouble":0}],` +
		`"aggregationTemporality":2,"isMonotonic":true}},{"gauge":{"dataPoints":[{"asInt":"-1"}]}}]}]}]}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
