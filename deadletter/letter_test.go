package deadletter

import (
	"reflect"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/spool"
)

// FuzzLetter reads any bytes as a letter: what is read comes out the same when it is written and read again.
func FuzzLetter(f *testing.F) {
	l := Letter{Time: time.Unix(1, 2), Exporter: "otlp/hub", Pipeline: "p", Reason: "refused", Answer: "no", Payload: []byte("request")}
	f.Add(l.encode(), true)
	f.Add(l.encode()[:12], true)
	f.Add(append(make([]byte, 8), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, known bool) {
		it := spool.Taken{Item: spool.Item{Signal: byte(creel.Traces), Codec: Codec, Records: 3, Payload: b}, Seq: 7}
		if !known {
			it.Codec++
		}
		l := Read(it)
		if l.Seq != 7 || l.Signal != creel.Traces || l.Records != 3 {
			t.Fatalf("got %+v", l)
		}
		if !known && l.Reason != Unreadable {
			t.Fatalf("an unknown format reads as %+v", l)
		}
		if l.Reason == Unreadable || len(l.Answer) > maxAnswer || !utf8.ValidString(l.Answer) {
			return
		}
		it.Payload = l.encode()
		if again := Read(it); !reflect.DeepEqual(again, l) && (len(again.Payload) > 0 || len(l.Payload) > 0) {
			t.Errorf("%+v comes out as %+v", l, again)
		}
	})
}
