package otlp_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/creelhq/creel"
	codec "github.com/creelhq/creel/otlp"
)

// BenchmarkFence is what a collector does with a request's body without the transports, which cost more than that: to check it, and
// to look for stamps where there are none. The mark is that looking adds no more than a twentieth.
func BenchmarkFence(b *testing.B) {
	o := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host.name", Value: creel.String("h")}, {Key: "service.name", Value: creel.String("shop")}}}}
	logs := make([]creel.Log, 1000)
	for i := range logs {
		logs[i] = creel.Log{Origin: o, Time: int64(i), Body: creel.String(fmt.Sprintf("GET /cart/%d HTTP/1.1 200 creel.example 12ms", i)), Attrs: creel.Attrs{{Key: "http.method", Value: creel.String("GET")}}}
	}
	body := codec.Append(nil, creel.NewLogs(logs))
	key := []byte(creel.DocumentEpoch)
	for _, looks := range []bool{false, true} {
		b.Run(map[bool]string{false: "check", true: "check and look"}[looks], func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				batch, err := codec.Parse(creel.Logs, body, nil)
				if err != nil || looks && bytes.Contains(batch.Wire(), key) {
					b.Fatal(err)
				}
				creel.Settle(batch, nil)
			}
		})
	}
}
