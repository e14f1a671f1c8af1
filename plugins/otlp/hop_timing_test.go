package otlp_test

import (
	"context"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugins/otlp"
)

// settled is a sink that takes everything at once.
type settled struct{}

func (settled) Send(_ context.Context, b *creel.Batch) error { creel.Settle(b, nil); return nil }
func (settled) TrySend(b *creel.Batch) bool                  { creel.Settle(b, nil); return true }

type everybody struct{}

func (everybody) Authenticate(creel.Credentials, creel.Signal) (creel.Caller, error) {
	return creel.Caller{}, nil
}

func (everybody) Admit(creel.Caller, creel.Sender, creel.Signal, int, int) error { return nil }
func (everybody) Took(creel.Sender, creel.ID, creel.Signal, int)                 {}

// BenchmarkHop is the cost of a request of one record, from exporter to collector over loopback, which is the network's and
// the transports'; named says what the batch's name, the sender and admission add to it. The mark for them is a hundredth.
func BenchmarkHop(b *testing.B) {
	for _, protocol := range []string{"grpc", "http"} {
		for _, named := range []bool{false, true} {
			name, h, ctx, admission := protocol+"/plain", creel.Host{}, b.Context(), creel.Admission(nil)
			if named {
				name, admission = protocol+"/named", everybody{}
				h.Sender = creel.Sender{Agent: "0193e2f4-7f1e-7a3b-9c4d-5e6f708192a3", Started: time.Unix(0, 1_790_000_000_123_456_789), Exporter: "otlp/hub"}
				ctx = creel.WithRequest(ctx, creel.Request{ID: creel.ID{1, 2, 3}})
			}
			b.Run(name, func(b *testing.B) {
				address, other := serveOn(b, "", creel.Host{Admission: admission}, settled{})
				if protocol == "http" {
					address = other
				}
				x := open(b, otlp.Exporter, "{compression: none, protocol: "+protocol+", endpoint: 'http://"+address+"'}", h).(creel.Exporter)
				batch := batches()[:1]
				b.ReportAllocs()
				for b.Loop() {
					if err := x.Export(ctx, batch); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
