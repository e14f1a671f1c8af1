package trace_test

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/creelhq/creel/trace"
)

// The ids that tests use.
const (
	id    = "0af7651916cd43dd8448eb211c80319c"
	short = "0000000000000000" + "8448eb211c80319c" // what B3 may write as 64 bits
	span  = "b7ad6b7169203331"
)

// header is what a request carries.
type header map[string]string

func (h header) get(key string) string { return h[key] }

// describe returns what Extract finds: trace, span, whether sampled, and the state; "none" for nothing.
func describe(c trace.Context, ok bool) string {
	switch {
	case !ok && c == trace.Context{}:
		return "none"
	case !ok || !c.Valid():
		return "BUG: neither none nor valid"
	}
	return c.TraceID() + " " + c.SpanID() + map[bool]string{true: " sampled", false: ""}[c.Sampled] + strings.TrimSuffix(" "+c.State, " ")
}

func TestExtract(t *testing.T) {
	f := func(want string, pairs ...string) {
		t.Helper()
		h := header{}
		for i := 0; i < len(pairs); i += 2 {
			h[pairs[i]] = pairs[i+1]
		}
		if got := describe(trace.Extract(h.get)); got != want {
			t.Errorf("of %q:\n got %s\nwant %s", pairs, got, want)
		}
	}
	on, off := id+" "+span+" sampled", id+" "+span

	// W3C Trace Context, level 1 and 2: section 3.2.
	f("none")
	f(on, "traceparent", "00-"+id+"-"+span+"-01")
	f(off, "traceparent", "00-"+id+"-"+span+"-00")
	f(on, "traceparent", "00-"+id+"-"+span+"-03")
	f(off, "traceparent", "00-"+id+"-"+span+"-fe") // flags to come
	f("none", "traceparent", "00-"+strings.ToUpper(id)+"-"+span+"-01")
	f("none", "traceparent", "00-"+strings.Repeat("0", 32)+"-"+span+"-01")
	f("none", "traceparent", "00-"+id+"-"+strings.Repeat("0", 16)+"-01")
	f("none", "traceparent", "00-"+id+"-"+span+"-01-more")
	f("none", "traceparent", "00-"+id+"-"+span+"-01,00-"+id+"-"+span+"-01") // twice
	f("none", "traceparent", "00-"+id+"-"+span+"-0")
	f("none", "traceparent", "00-"+id+"-"+span+"-0x")
	f("none", "traceparent", "00_"+id+"-"+span+"-01")
	f("none", "traceparent", "ff-"+id+"-"+span+"-01")
	f(on, "traceparent", "cc-"+id+"-"+span+"-01") // versions to come
	f(on, "traceparent", "cc-"+id+"-"+span+"-01-what.comes")
	f("none", "traceparent", "cc-"+id+"-"+span+"-01what.comes")

	// Section 3.3: of a state that is malformed nothing is handed on, but the parent counts.
	parent := []string{"traceparent", "00-" + id + "-" + span + "-01", "tracestate"}
	state := func(want, state string) {
		t.Helper()
		f(strings.TrimSuffix(on+" "+want, " "), append(parent, state)...)
	}
	state("a=b", "a=b")
	state("a=b, c@d=e f", " a=b, c@d=e f\t")
	state("0a_-*/=!,,c=d", "0a_-*/=!,,c=d")
	state("", "a=b,a=c")
	state("", "A=b")
	state("", "a")
	state("", "a=")
	state("", "=b")
	state("", "a=b=c")
	state("", "a=\x7f")
	state("", "a=b\r\nx: y")
	state("", " , ")
	state("", "a="+strings.Repeat("x", 257))
	state("", strings.Repeat("a", 257)+"=x")
	state("", "a="+strings.Repeat("x", 255)+",b="+strings.Repeat("x", 255)) // more than 512 bytes
	members := strings.Split(strings.Repeat("x", 33), "x")[1:]
	for i := range members {
		members[i] = string(rune('a'+i%26)) + string(rune('a'+i/26)) + "=1"
	}
	state(strings.Join(members[:32], ","), strings.Join(members[:32], ","))
	state("", strings.Join(members, ","))
	f("none", "tracestate", "a=b")

	// B3 in one header.
	f(on, "b3", id+"-"+span+"-1")
	f(on, "b3", id+"-"+span+"-d")
	f(off, "b3", id+"-"+span+"-0")
	f(off, "b3", id+"-"+span) // undecided
	f(on, "b3", id+"-"+span+"-1-05e3ac9a4f6e3b90")
	f(short+" "+span+" sampled", "b3", short[16:]+"-"+span+"-1")
	f("none", "b3", "0")
	f("none", "b3", "1")
	f("none", "b3", id)
	f("none", "b3", id+"-"+span+"-")
	f("none", "b3", id+"-"+span+"-2")
	f("none", "b3", id+"-"+span+"-1-")
	f("none", "b3", id+"-"+span+"-1-05e3ac9a4f6e3b90-1")
	f("none", "b3", id+"-"+span+"-1,"+id+"-"+span+"-1")
	f("none", "b3", id[1:]+"-"+span+"-1")
	f("none", "b3", strings.Repeat("0", 32)+"-"+span+"-1")

	// B3 in several headers.
	many := []string{"x-b3-traceid", id, "x-b3-spanid", span}
	f(off, many...)
	f(on, append(many, "x-b3-sampled", "1")...)
	f(on, append(many, "x-b3-sampled", "True")...)
	f(off, append(many, "x-b3-sampled", "0")...)
	f(on, append(many, "x-b3-flags", "1")...)
	f(off, append(many, "x-b3-flags", "0", "x-b3-parentspanid", "05e3ac9a4f6e3b90")...)
	f("none", append(many, "x-b3-sampled", "yes")...)
	f("none", append(many, "x-b3-sampled", "d")...)
	f("none", append(many, "x-b3-parentspanid", "05")...)
	f("none", many[:2]...)
	f(short+" "+span, "x-b3-traceid", short[16:], "x-b3-spanid", span)

	// Which counts.
	f(short+" "+span, append(many, "b3", short+"-"+span+"-0")...)
	f("none", append(many, "b3", "0")...)
	f(off, append(many, "b3", "what")...)
	f(off, append(many, "traceparent", "what")...)
	f(on, "b3", short+"-"+span+"-1", "traceparent", "00-"+id+"-"+span+"-01")
}

// grammar is B3's in one header.
var grammar = regexp.MustCompile(`^([0-9a-f]{16}|[0-9a-f]{32})-[0-9a-f]{16}(-[01d](-[0-9a-f]{16})?)?$`)

// FuzzExtract compares with OpenTelemetry's own propagators: they find the same, and in what is sent.
func FuzzExtract(f *testing.F) {
	f.Add("00-"+id+"-"+span+"-01", "a=b,c@d=e", "", "", "", "", "", "")
	f.Add("01-"+id+"-"+span+"-00-x", " a=b", "", "", "", "", "", "")
	f.Add("", "", id+"-"+span+"-1-"+span, "", "", "", "", "")
	f.Add("", "", short[16:]+"-"+span+"-d", "", "", "", "", "")
	f.Add("", "", "", id, span, span, "1", "")
	f.Add("", "", "x", id, span, "", "false", "1")
	f.Fuzz(func(t *testing.T, parent, state, single, id, span, of, sampled, flags string) {
		h := header{
			"traceparent": parent, "tracestate": state, "b3": single,
			"x-b3-traceid": id, "x-b3-spanid": span, "x-b3-parentspanid": of, "x-b3-sampled": sampled, "x-b3-flags": flags,
		}
		got, ok := trace.Extract(h.get)
		if describe(got, ok)[0] == 'B' {
			t.Fatalf("got %+v, %v", got, ok)
		}
		// OpenTelemetry refuses W3C's flags to come, and B3 whose parent is 0; it takes what stands between B3's parts for
		// dashes; and "do not sample" in one header does not keep it from looking at the others.
		want := oracle(h)
		differs := !ok || [16]byte(want.TraceID()) != got.Trace || [8]byte(want.SpanID()) != got.Span || want.IsSampled() != got.Sampled
		switch {
		case len(parent) >= 55 && parent[:2] == "00" && parent[53:] > "03", strings.Contains(single+of, strings.Repeat("0", 16)):
		case single == "0", strings.ContainsAny(single, "-") && !grammar.MatchString(single):
		case want.IsValid() && differs:
			t.Errorf("OpenTelemetry finds %v, not %+v", want, got)
		case ok && !want.IsValid():
			t.Errorf("OpenTelemetry does not find %+v", got)
		}
		if !ok {
			return
		}
		w3c, b3 := header{}, header{}
		got.Inject(func(k, v string) { w3c[k] = v })
		got.InjectB3(func(k, v string) { b3[k] = v })
		if again, _ := trace.Extract(w3c.get); again != got {
			t.Errorf("sent as %v, %+v is %+v", w3c, got, again)
		}
		got.State = ""
		if again, _ := trace.Extract(b3.get); again != got {
			t.Errorf("sent as %v, %+v is %+v", b3, got, again)
		}
		for _, sent := range []header{w3c, b3} {
			if theirs := oracle(sent); [16]byte(theirs.TraceID()) != got.Trace || [8]byte(theirs.SpanID()) != got.Span || theirs.IsSampled() != got.Sampled {
				t.Errorf("OpenTelemetry reads %v as %v", sent, theirs)
			}
		}
	})
}

// oracle is what OpenTelemetry finds in h.
func oracle(h header) oteltrace.SpanContext {
	carrier := propagation.MapCarrier(h)
	if c := oteltrace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier)); c.IsValid() {
		return c
	}
	return oteltrace.SpanContextFromContext(b3.New().Extract(context.Background(), carrier))
}

// TestState compares what is handed on of a state with what OpenTelemetry makes of it.
func TestState(t *testing.T) {
	for _, state := range []string{"a=b", "a=b,c=d", " a=b , c=d ", "tenant@system=value", "a=!~", "a-b_c*d/e=f", "a=b,,c=d"} {
		h := header{"traceparent": "00-" + id + "-" + span + "-01", "tracestate": state}
		c, _ := trace.Extract(h.get)
		ours, err := oteltrace.ParseTraceState(c.State)
		if theirs := oracle(h).TraceState(); err != nil || ours.String() != theirs.String() || theirs.Len() == 0 {
			t.Errorf("of %q: %q, %v; OpenTelemetry has %q", state, c.State, err, theirs)
		}
	}
}

func TestInject(t *testing.T) {
	sent := header{}
	set := func(k, v string) { sent[k] = v }
	trace.Context{}.Inject(set)
	trace.Context{Trace: [16]byte{1}}.InjectB3(set)
	if len(sent) != 0 {
		t.Errorf("of no span %v is sent", sent)
	}
	c := trace.Context{Trace: [16]byte{0x0a, 15: 1}, Span: [8]byte{7: 0xff}, State: "a=b"}
	c.Inject(set)
	c.Sampled = true
	c.InjectB3(set)
	ids := "0a000000000000000000000000000001-00000000000000ff-"
	if len(sent) != 3 || sent["traceparent"] != "00-"+ids+"00" || sent["tracestate"] != "a=b" || sent["b3"] != ids+"1" {
		t.Errorf("sent %v", sent)
	}
}

func TestExtractDoesNotAllocate(t *testing.T) {
	for _, h := range []header{
		{}, {"traceparent": "00-" + id + "-" + span + "-01", "tracestate": "a=b,c=d"}, {"b3": id + "-" + span + "-1"},
		{"x-b3-traceid": id, "x-b3-spanid": span, "x-b3-sampled": "1"},
	} {
		if n := testing.AllocsPerRun(100, func() { trace.Extract(h.get) }); n > 0 {
			t.Errorf("%v allocations for %v", n, h)
		}
	}
}
