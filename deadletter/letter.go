package deadletter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/spool"
)

// A Letter is some records of one signal that a far side refused for good, and why.
type Letter struct {
	Seq      uint64    // names it in its directory; it only grows. Set by Put
	Time     time.Time // when it was put there. Set by Put
	Exporter string    // the component's id, such as otlp/hub
	Pipeline string
	Signal   creel.Signal
	Records  int    // in Payload, at least 1
	Reason   string // the class of it: refused, too_large, …
	Answer   string // what the far side said; Put keeps the first 4 KiB
	Payload  []byte // an OTLP export request, protobuf
}

// Batch returns the letter's records, which are decoded when first looked at. The payload belongs to the batch afterwards.
func (l Letter) Batch(m *creel.Memory) (*creel.Batch, error) {
	b, err := otlp.Parse(l.Signal, l.Payload, m)
	if err != nil {
		return nil, fmt.Errorf("read dead letter: %w", err)
	}
	return b, nil
}

// Codec marks items of a spool that are letters, in the version that this package writes: the time, Unix ns in 8 bytes,
// little endian; exporter, pipeline, reason and answer, each after its length as an uvarint; and the payload.
const Codec = 0xd1

const maxAnswer = 4 << 10 // bytes

// Unreadable is the Reason of a letter that cannot be read, which a newer version may have written. Its Payload is all that
// there is of it, its Answer says what is wrong.
const Unreadable = "unreadable"

var errShort = errors.New("its envelope ends too early")

// encode returns l as the payload of an item.
func (l *Letter) encode() []byte {
	texts := []string{l.Exporter, l.Pipeline, l.Reason, strings.ToValidUTF8(l.Answer[:min(len(l.Answer), maxAnswer)], "")}
	n := 8 + len(l.Payload)
	for _, s := range texts {
		n += binary.MaxVarintLen32 + len(s)
	}
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, n), uint64(l.Time.UnixNano()))
	for _, s := range texts {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return append(b, l.Payload...)
}

// Read returns the letter that an item of a spool is. The Payload is the item's.
func Read(t spool.Taken) Letter {
	l := Letter{Seq: t.Seq, Signal: creel.Signal(t.Signal), Records: t.Records}
	err := fmt.Errorf("it has the format %#x, this version knows %#x", t.Codec, Codec)
	if t.Codec == Codec {
		err = l.decode(t.Payload)
	}
	if err != nil {
		return Letter{Seq: t.Seq, Signal: l.Signal, Records: t.Records, Reason: Unreadable, Answer: err.Error(), Payload: t.Payload}
	}
	return l
}

func (l *Letter) decode(b []byte) error {
	if len(b) < 8 {
		return errShort
	}
	l.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(b)))
	b = b[8:]
	for _, into := range []*string{&l.Exporter, &l.Pipeline, &l.Reason, &l.Answer} {
		n, width := binary.Uvarint(b)
		if width <= 0 || n > uint64(len(b)-width) {
			return errShort
		}
		*into = string(b[width : width+int(n)])
		b = b[width+int(n):]
	}
	l.Payload = b
	return nil
}
