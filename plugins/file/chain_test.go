package file

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"golang.org/x/text/encoding/simplifiedchinese"
)

const (
	t0 = "2024-01-01T00:00:00.000000001Z"
	t1 = "2024-01-01T00:00:00.5+02:00"
)

func TestFormats(t *testing.T) {
	out, err := " [log.iostream stdout] @"+t0, " [log.iostream stderr] @2023-12-31T22:00:00.5Z"
	f := func(options, text string, want ...string) {
		t.Helper()
		if got := read(t, options, []byte(text)); !slices.Equal(got, want) {
			t.Errorf("%s of %q\ngot  %q\nwant %q", options, text, got, want)
		}
	}
	f("format: cri", t0+" stdout F one\n"+t1+" stderr F two words \n", "one"+out, "two words "+err)
	f("format: cri", t0+" stdout F \n"+t0+" stdout F\n"+t0+" stdout F:x:y z\r\n", out, out, "z"+out)
	f("format: cri", t0+" stdout P a\n"+t0+" stdout P b\n"+t0+" stdout F c\n", "abc"+out)
	f("format: cri", t0+" stdout P a\n"+t1+" stderr P 1\n"+t0+" stdout F b\n"+t1+" stderr F 2\n", "ab"+out, "12"+err)
	f("format: cri", t0+" stdout P a character \xe2\x82\n"+t0+" stdout F \xac\n", "a character €"+out)
	f("format: cri", t0+" stdout P never ended\n", "never ended"+out)
	f("format: cri", "plain\n2024-13-01T00:00:00Z stdout F x\n"+t0+" stdin F x\n"+t0+" stdout X x\n\n",
		"plain [creel.parse_error cri: no time stamp]", "2024-13-01T00:00:00Z stdout F x [creel.parse_error cri: no time stamp]",
		t0+" stdin F x [creel.parse_error cri: no stream]", t0+" stdout X x [creel.parse_error cri: neither F nor P]", " [creel.parse_error cri: empty line]")
	f("format: cri, max_line_size: 16", t0+" stdout F 0123456789abcdefXYZ\n"+t0+" stdout F z\n",
		"0123456789abcdef [log.iostream stdout] [creel.line start] @"+t0, "XYZ [log.iostream stdout] [creel.line end] @"+t0, "z"+out)
	f("format: cri, max_line_size: 16", t0+" stdout P 0123456789\n"+t0+" stdout P 0123456789\n"+t0+" stdout F 0123456789ABC\n",
		"0123456789012345 [log.iostream stdout] [creel.line start] @"+t0, "6789012345678 9ABC"[:13]+"9AB [log.iostream stdout] [creel.line middle] @"+t0,
		"C [log.iostream stdout] [creel.line end] @"+t0)
	f("format: docker", `{"log":"one\n","stream":"stdout","time":"`+t0+`"}`+"\n"+`{ "time" : "`+t1+`", "log":"tab\t\u003c\ud83d\ude00\"\\\n", "stream":"stderr","more":[1,{"a":"}"},null,true]}`+"\n",
		"one"+out, "tab\t<😀\"\\"+err)
	f("format: docker", `{"log":"a ","stream":"stdout","time":"`+t0+`"}`+"\n"+`{"log":"1\n","stream":"stderr","time":"`+t1+`"}`+"\n"+`{"log":"b\r\n","stream":"stdout","time":"`+t0+`","attrs":{"tag":"x\ty"}}`+"\n",
		"1"+err, "a b"+out)
	f("format: docker", `{"log":"x\n","stream":"stdout","attrs":{"tag":"x\ty"},"time":"`+t0+`"}`+"\n", "x [log.iostream stdout] [attrs.tag x\ty] @"+t0)
	bad := ` [creel.parse_error docker: not a JSON object with a log]`
	f("format: docker", `{"log":"cut\n","stre`+"\n"+`{"stream":"stdout"}`+"\n"+`{"log":"bad \x"}`+"\n"+`{"log":"a\n"} x`+"\n",
		`{"log":"cut\n","stre`+bad, `{"stream":"stdout"}`+bad, `{"log":"bad \x"}`+bad, `{"log":"a\n"} x`+bad)
	f("format: auto", t0+" stdout F cri\n"+`{"log":"docker\n","stream":"stdout","time":"`+t0+`"}`+"\nwhat\n",
		"cri"+out, "docker"+out, "what [creel.parse_error auto: neither CRI nor Docker]")
	start := "multiline: {line_start_pattern: '^[A-Z]'}"
	f(start, "lost\nA\n a\n\nB\nC\n c\n", "lost", "A\n a\n", "B", "C\n c")
	f(start, "A\r\n a\r\nB", "A\n a")
	f("multiline: {line_end_pattern: ';$'}", "a\nb;\nc;\nd\n", "a\nb;", "c;", "d")
	f("multiline: {line_start_pattern: '^[A-Z]', max_lines: 2}", "A\n1\n2\n3\nB\n", "A\n1", "2\n3", "B")
	f(start+", max_line_size: 16", "A234567\n9012345\n7890\nB\n", "A234567\n9012345\n [creel.line start]"[:16]+" [creel.line start]", "7890 [creel.line end]", "B")
	f(start+", format: cri", t0+" stdout F A\n"+t1+" stderr F B\n"+t0+" stdout P  \n"+t0+" stdout F a\n"+t1+" stderr F  b\n", "A\n a"+out, "B\n b"+err)
	f("encoding: iso-8859-1", "gr\xfc\xdfe\n", "grüße")
	f("attributes: {a: x}", "one\ntwo\n", "one [a x]", "two [a x]")
	f("encoding: utf-8", "\ufeffmarked\n\ufeffnot here\n", "marked", "\ufeffnot here")
	f("encoding: utf-8", "\x00\x00\n", "\x00\x00")
}

func wide(order binary.AppendByteOrder, s string) (out []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		out = order.AppendUint16(out, u)
	}
	return out
}

func TestEncodings(t *testing.T) {
	text := "ascii\r\nЊੂ\u0a0a\u0d0a€😀 中文\n\nend\n" // 0x0A in either half of a unit
	want := []string{"ascii", "Њੂ\u0a0a\u0d0a€😀 中文", "", "end"}
	f := func(options string, raw []byte, want ...string) {
		t.Helper()
		if got := read(t, options, raw); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", options, got, want)
		}
	}
	f("encoding: utf-16le", wide(binary.LittleEndian, text), want...)
	f("encoding: utf-16be", wide(binary.BigEndian, text), want...)
	f("encoding: utf-16", wide(binary.LittleEndian, text), want...)
	f("encoding: utf-16", wide(binary.LittleEndian, "\ufeff"+text), want...)
	f("encoding: utf-16", wide(binary.BigEndian, "\ufeff"+text), want...)
	f("encoding: utf-16be, multiline: {line_start_pattern: '^[ae]'}", wide(binary.BigEndian, "\ufeff"+text), strings.Join(want[:3], "\n"), "end")
	f("encoding: utf-16le, max_line_size: 16", wide(binary.LittleEndian, "1234567😀😀\n"),
		"1234567 [creel.line start]", "😀😀 [creel.line end]")
	f("encoding: utf-16le", append([]byte{0, 0xd8}, wide(binary.LittleEndian, "a\n")...), `bytes "\x00\xd8a\x00" [creel.invalid_utf8 true]`)
	han := "短行 丂 with ascii\n中文日志\n"
	gbk, err := simplifiedchinese.GBK.NewEncoder().Bytes([]byte(han))
	if err != nil {
		t.Fatal(err)
	}
	f("encoding: gbk", gbk, "短行 丂 with ascii", "中文日志")
	f("encoding: gbk", []byte("bad \xff\xffx\n"), `bytes "bad \xff\xffx" [creel.invalid_utf8 true]`)
	f("encoding: gbk, max_line_size: 16", []byte(strings.Repeat("\xd6\xd0", 12)+"\n"), "中中中中中 [creel.line start]", "中中中 [creel.line middle]", "中中中中 [creel.line end]")
	gb, err := simplifiedchinese.GB18030.NewEncoder().Bytes([]byte("😀\ufffd€\n"))
	if err != nil {
		t.Fatal(err)
	}
	f("encoding: gb18030", gb, "😀\ufffd€")
}

// FuzzReads: what comes of a file does not depend on how it was cut into reads.
func FuzzReads(f *testing.F) {
	cri := t0 + " stdout P a\n" + t1 + " stderr F b c\n" + t0 + " stdout F d\nnonsense\n"
	docker := `{"log":"a\u00e9","stream":"stdout","time":"` + t0 + `"}` + "\n" + `{"log":"b\n","stream":"stderr"}` + "\n" + `{"log":"c\n","stream":"stdout"}` + "\n"
	lines := "A\n b\r\n c\n\nB\nC\xff\n" + strings.Repeat("long ", 10) + "\r\n0123456789abcdef\r\nD"
	for mode := range modes {
		for _, text := range []string{cri, docker, lines, "\ufeff" + lines, string(wide(binary.LittleEndian, "\ufeff"+lines+"\u0a0a\n")), string(wide(binary.BigEndian, "\ufeff"+cri))} {
			f.Add(uint8(mode), uint16(7), []byte(text))
			f.Add(uint8(mode), uint16(1), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, mode uint8, cut uint16, text []byte) {
		if len(text) > 2000 {
			return
		}
		options := modes[int(mode)%len(modes)]
		size := max(1, int(cut)%64, len(text)/100)
		whole := read(t, options, text)
		pieces := read(t, options, slices.Collect(slices.Chunk(text, size))...)
		if !slices.Equal(whole, pieces) {
			t.Errorf("%s: %q\nat once          %q\nin pieces of %3d %q", options, text, whole, size, pieces)
		}
	})
}

var modes = []string{
	"format: text", "max_line_size: 16", "format: cri", "format: docker", "format: auto, max_line_size: 16",
	"multiline: {line_start_pattern: '^[A-Z]'}", "multiline: {line_end_pattern: '[a-z]$', max_lines: 3}, max_line_size: 16",
	"format: auto, multiline: {line_start_pattern: '^[A-Z]'}, max_line_size: 20",
	"encoding: utf-16", "encoding: utf-16be, max_line_size: 16", "encoding: utf-16, format: cri", "encoding: gbk, max_line_size: 16", "encoding: gb18030, multiline: {line_end_pattern: 'c'}",
	"encoding: iso-8859-1, max_line_size: 16",
}

// FuzzStamp: what time.Parse takes is the same time.
func FuzzStamp(f *testing.F) {
	for _, s := range []string{t0, t1, "2024-02-29T23:59:60Z", "2023-02-29T00:00:00Z", "2024-01-01T00:00:00.Z", "0000-00-00T00:00:00Z", "2024-01-01T00:00:00-23:59"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var c clock
		got, ok := c.parse([]byte(s))
		want, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || want.Year() < 1678 || want.Year() > 2261 {
			return // we are not as strict
		}
		if !ok || got != want.UnixNano() {
			t.Errorf("%q: got %d %v, want %d", s, got, ok, want.UnixNano())
		}
	})
}

// TestMultilineTimeout: a group waits for the timeout since its last line; the position stays before it.
func TestMultilineTimeout(t *testing.T) {
	path := t.TempDir() + "/a.log"
	write(t, path, []byte("A\n a\nB\n"))
	r := newRig(t, nil, "multiline: {line_start_pattern: '^[A-Z]', timeout: 5s}, include: ["+path+"]")
	r.step(0)
	r.want("A\n a")
	at := func(committed int64) {
		t.Helper()
		if got := r.c.tails[0].acked.committed; got != committed {
			t.Errorf("the position is %d, want %d", got, committed)
		}
	}
	at(5)
	r.step(4 * time.Second)
	write(t, path, []byte(" b\n"))
	r.step(0)
	r.step(4 * time.Second)
	r.want()
	at(5)
	r.step(2 * time.Second)
	r.want("B\n b")
	at(10)
	write(t, path, []byte("C\n unfinished"))
	r.step(time.Minute)
	r.step(time.Minute)
	r.want("C")
	at(12)
}

// TestNotCopied: lines that are joined within one read are a slice of it.
func TestNotCopied(t *testing.T) {
	buf := []byte("one\ntwo\n")
	var s stages
	p := piece{text: buf[:3]}
	s.append(&p, buf[4:7], true)
	if string(p.text) != "one\ntwo" || p.own {
		t.Errorf("%q, own %v", p.text, p.own)
	}
	s.append(&p, []byte("three"), true)
	if string(p.text) != "one\ntwo\nthree" || !p.own || !bytes.Equal(buf, []byte("one\ntwo\n")) {
		t.Errorf("%q, own %v, buffer %q", p.text, p.own, buf)
	}
}

func TestKubernetes(t *testing.T) {
	id := strings.Repeat("0a", 32)
	f := func(path, want string) {
		t.Helper()
		if got := fmt.Sprint(kubernetes(path)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	f("/var/log/pods/shop_cart-7d9f_8b3a-11/web/12.log", "[{k8s.namespace.name shop} {k8s.pod.name cart-7d9f} {k8s.pod.uid 8b3a-11} {k8s.container.name web} {k8s.container.restart_count 12}]")
	f("/host/var/log/pods/shop_cart_u/web/0.log.20240101-000000.gz", "[{k8s.namespace.name shop} {k8s.pod.name cart} {k8s.pod.uid u} {k8s.container.name web} {k8s.container.restart_count 0}]")
	f("/var/log/containers/cart-7d9f_shop_web-1-"+id+".log", "[{k8s.pod.name cart-7d9f} {k8s.namespace.name shop} {k8s.container.name web-1} {container.id "+id+"}]")
	for _, path := range []string{"/var/log/app.log", "/var/log/pods/a_b/web/0.log", "/var/log/pods/a_b_c/web/x.log", "/var/log/containers/a_b_c.log", "/var/log/containers/a_b-" + id + ".log", "0.log", ""} {
		f(path, "[]")
	}
}
