package otlp

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel"
)

// Result is what an OTLP server answers to a request that it took: the partial_success of an
// ExportLogsServiceResponse and its siblings. The zero Result is full success.
type Result struct {
	Rejected int64  // records; they must not be sent again
	Message  string // why, or a warning when nothing was rejected
}

// AppendResponse appends the response that says r to dst; it is the same for all signals. Full success is no bytes at all.
func AppendResponse(dst []byte, r Result) []byte {
	e := newEncoder(dst)
	if r != (Result{}) {
		e.string(2, r.Message)
		e.varint(1, uint64(r.Rejected))
		e.close(1, 0)
	}
	return e.finish()
}

// AppendResponseJSON appends the response that says r about records of signal s to dst, in JSON.
func AppendResponseJSON(dst []byte, s creel.Signal, r Result) []byte {
	return toJSON(AppendResponse(dst, r), len(dst), responseOf(s))
}

// ParseResponse reads what a server answered to a request. The Result keeps none of wire.
func ParseResponse(wire []byte) (Result, error) {
	if _, err := check(logsResponse, wire); err != nil {
		return Result{}, fmt.Errorf("parse response: %w", err)
	}
	var r Result
	for p := 0; p < len(wire); {
		tag, q := varint(wire, p)
		if tag != 1<<3|wireBytes {
			p = skip(wire, p, 0)
			continue
		}
		var b []byte
		b, p = bytesAt(wire, q)
		r.merge(b)
	}
	r.Message = strings.Clone(r.Message)
	return r, nil
}

func (r *Result) merge(b []byte) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 1 << 3:
			var n uint64
			n, p = varint(b, q)
			r.Rejected = int64(n)
		case 2<<3 | wireBytes:
			r.Message, p = stringAt(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
}

// ParseResponseJSON reads what a server answered, in JSON, to a request of signal s.
func ParseResponseJSON(s creel.Signal, text []byte) (Result, error) {
	wire, err := wireFromJSON(nil, responseOf(s), text)
	if err != nil {
		return Result{}, fmt.Errorf("parse response: %w", err)
	}
	return ParseResponse(wire)
}

// Status is a google.rpc.Status, what an OTLP server answers when it did not take a request.
type Status struct {
	Code       int32 // of gRPC
	Message    string
	Retry      bool          // a RetryInfo comes with it: the request may be sent again
	RetryDelay time.Duration // after this long at the earliest
}

// retryInfoType is how google.protobuf.Any names a RetryInfo.
const retryInfoType = "type.googleapis.com/google.rpc.RetryInfo"

// AppendStatus appends s to dst.
func AppendStatus(dst []byte, s Status) []byte {
	e := newEncoder(dst)
	if s.Retry {
		e.varint(2, uint64(s.RetryDelay%time.Second))
		e.varint(1, uint64(s.RetryDelay/time.Second))
		e.close(1, 0)
		e.close(2, 0)
		e.string(1, retryInfoType)
		e.close(3, 0)
	}
	e.string(2, s.Message)
	e.varint(1, uint64(s.Code))
	return e.finish()
}

// ParseStatus reads a Status. Details other than a RetryInfo are ignored. The Status keeps none of wire.
func ParseStatus(wire []byte) (Status, error) {
	if _, err := check(rpcStatus, wire); err != nil {
		return Status{}, fmt.Errorf("parse status: %w", err)
	}
	var s Status
	for p := 0; p < len(wire); {
		tag, q := varint(wire, p)
		switch tag {
		case 1 << 3:
			var n uint64
			n, p = varint(wire, q)
			s.Code = int32(n)
		case 2<<3 | wireBytes:
			s.Message, p = stringAt(wire, q)
		case 3<<3 | wireBytes:
			var detail []byte
			detail, p = bytesAt(wire, q)
			if err := s.detail(detail); err != nil {
				return Status{}, fmt.Errorf("parse status: %w", err)
			}
		default:
			p = skip(wire, p, 0)
		}
	}
	s.Message = strings.Clone(s.Message)
	return s, nil
}

// detail reads a google.protobuf.Any.
func (s *Status) detail(b []byte) error {
	var name string
	var info []byte
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 1<<3 | wireBytes:
			name, p = stringAt(b, q)
		case 2<<3 | wireBytes:
			info, p = bytesAt(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
	if name != retryInfoType {
		return nil
	}
	if _, err := check(retryInfo, info); err != nil {
		return err
	}
	s.Retry = true
	for p := 0; p < len(info); {
		tag, q := varint(info, p)
		if tag != 1<<3|wireBytes {
			p = skip(info, p, 0)
			continue
		}
		var delay []byte
		delay, p = bytesAt(info, q)
		s.RetryDelay = durationOf(delay)
	}
	return nil
}

// durationOf reads a google.protobuf.Duration, of at most 10000 years as its specification has it.
func durationOf(b []byte) time.Duration {
	var seconds, nanos int64
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		var n uint64
		switch tag {
		case 1 << 3:
			n, p = varint(b, q)
			seconds = int64(n)
		case 2 << 3:
			n, p = varint(b, q)
			nanos = int64(int32(n))
		default:
			p = skip(b, p, 0)
		}
	}
	const longest = int64(1<<63-1)/int64(time.Second) - 4 // what a time.Duration can hold, with room for the nanoseconds
	return time.Duration(min(max(seconds, -longest), longest))*time.Second + time.Duration(nanos)
}

// statusJSON is a Status in protobuf's JSON mapping.
type statusJSON struct {
	Code    int32        `json:"code,omitempty"`
	Message string       `json:"message,omitempty"`
	Details []detailJSON `json:"details,omitempty"`
}

type detailJSON struct {
	Type  string `json:"@type"`
	Delay string `json:"retryDelay,omitempty"`
}

// AppendStatusJSON appends s to dst in JSON.
func AppendStatusJSON(dst []byte, s Status) []byte {
	out := statusJSON{Code: s.Code, Message: s.Message}
	if s.Retry {
		delay := strconv.FormatFloat(s.RetryDelay.Seconds(), 'f', -1, 64) + "s"
		out.Details = []detailJSON{{Type: retryInfoType, Delay: delay}}
	}
	text, err := json.Marshal(out)
	if err != nil {
		panic("BUG: " + err.Error()) // there is nothing in it that JSON lacks
	}
	return append(dst, text...)
}

// ParseStatusJSON reads a Status from JSON. Details other than a RetryInfo are ignored.
func ParseStatusJSON(text []byte) (Status, error) {
	var in struct {
		Code    int32             `json:"code"`
		Message string            `json:"message"`
		Details []json.RawMessage `json:"details"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return Status{}, fmt.Errorf("parse status: %w", err)
	}
	s := Status{Code: in.Code, Message: in.Message}
	for _, raw := range in.Details {
		var d detailJSON
		if json.Unmarshal(raw, &d) != nil || d.Type != retryInfoType {
			continue // of a kind that is not ours to read
		}
		s.Retry = true
		if delay, err := time.ParseDuration(d.Delay); err == nil {
			s.RetryDelay = delay
		}
	}
	return s, nil
}
