package otlp

import (
	"testing"
	"time"

	"github.com/creelhq/creel"
	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestResponse(t *testing.T) {
	f := func(s creel.Signal, r Result, official proto.Message) {
		t.Helper()
		got := official.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(AppendResponse(nil, r), got); err != nil || !proto.Equal(got, official) {
			t.Errorf("wrote %v (%v), want %v", got, err, official)
		}
		got = official.ProtoReflect().New().Interface()
		if err := protojson.Unmarshal(AppendResponseJSON(nil, s, r), got); err != nil || !proto.Equal(got, official) {
			t.Errorf("wrote %v (%v) in JSON, want %v", got, err, official)
		}
		wire, _ := proto.Marshal(official)
		if back, err := ParseResponse(wire); err != nil || back != r {
			t.Errorf("read %v (%v), want %v", back, err, r)
		}
		text, _ := protojson.Marshal(official)
		if back, err := ParseResponseJSON(s, text); err != nil || back != r {
			t.Errorf("read %v (%v) from JSON, want %v", back, err, r)
		}
	}
	f(creel.Logs, Result{}, &logspb.ExportLogsServiceResponse{})
	f(creel.Logs, Result{3, "no"}, &logspb.ExportLogsServiceResponse{
		PartialSuccess: &logspb.ExportLogsPartialSuccess{RejectedLogRecords: 3, ErrorMessage: "no"}})
	f(creel.Metrics, Result{1 << 40, ""}, &metricspb.ExportMetricsServiceResponse{
		PartialSuccess: &metricspb.ExportMetricsPartialSuccess{RejectedDataPoints: 1 << 40}})
	f(creel.Traces, Result{0, "a warning"}, &tracepb.ExportTraceServiceResponse{
		PartialSuccess: &tracepb.ExportTracePartialSuccess{ErrorMessage: "a warning"}})
	if _, err := ParseResponse([]byte("<html>")); err == nil {
		t.Error("no error for garbage")
	}
	if _, err := ParseResponseJSON(creel.Logs, []byte("<html>")); err == nil {
		t.Error("no error for garbage")
	}
}

func TestStatus(t *testing.T) {
	f := func(s Status, details ...proto.Message) {
		t.Helper()
		want := &statuspb.Status{Code: s.Code, Message: s.Message}
		for _, d := range details {
			one, err := anypb.New(d)
			if err != nil {
				t.Fatal(err)
			}
			want.Details = append(want.Details, one)
		}
		wire, _ := proto.Marshal(want)
		if back, err := ParseStatus(wire); err != nil || back != s {
			t.Errorf("read %v (%v), want %v", back, err, s)
		}
		text, _ := protojson.Marshal(want)
		if back, err := ParseStatusJSON(text); err != nil || back != s {
			t.Errorf("read %v (%v) from JSON, want %v", back, err, s)
		}
		if len(details) > 1 {
			return // creel writes no others
		}
		var got statuspb.Status
		if err := proto.Unmarshal(AppendStatus(nil, s), &got); err != nil || !proto.Equal(&got, want) {
			t.Errorf("wrote %v (%v), want %v", &got, err, want)
		}
		got.Reset()
		if err := protojson.Unmarshal(AppendStatusJSON(nil, s), &got); err != nil || !proto.Equal(&got, want) {
			t.Errorf("wrote %v (%v) in JSON, want %v", &got, err, want)
		}
	}
	retry := func(d time.Duration) proto.Message { return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)} }
	f(Status{})
	f(Status{Code: 3, Message: `bad "data"`})
	f(Status{Code: 14, Message: "full", Retry: true, RetryDelay: 1500 * time.Millisecond}, retry(1500*time.Millisecond))
	f(Status{Code: 8, Retry: true}, retry(0))
	f(Status{Code: 14, Retry: true, RetryDelay: time.Hour + time.Nanosecond}, &errdetails.ErrorInfo{Reason: "x"}, retry(time.Hour+time.Nanosecond))
	for _, garbage := range []string{"<html>", "\x08", "\x1a\x02\x08\x01"} {
		if _, err := ParseStatus([]byte(garbage)); err == nil {
			t.Errorf("no error for %q", garbage)
		}
	}
	if _, err := ParseStatusJSON([]byte("<html>")); err == nil {
		t.Error("no error for garbage")
	}
}
