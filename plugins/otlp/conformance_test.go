package otlp_test

import (
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/otlp"
)

func TestConformance(t *testing.T) {
	t.Run("collector", func(t *testing.T) {
		var socks sockets
		plugintest.Run(t, otlp.Collector, plugintest.Options{Host: creel.Host{Sockets: &socks}, Feed: func() error {
			address := socks.addresses[len(socks.addresses)-1] // HTTP's, of the newest
			x := open(t, otlp.Exporter, "{protocol: http, endpoint: 'http://"+address+"'}", creel.Host{}).(creel.Exporter)
			return x.Export(t.Context(), batches()[:1])
		}})
	})
	t.Run("exporter", func(t *testing.T) {
		grpcAddress, httpAddress := serve(t, "", &sink{settle: takeAll})
		all := []string{
			"{protocol: grpc, endpoint: 'http://" + grpcAddress + "'}", "{protocol: http, endpoint: 'http://" + httpAddress + "'}",
			"{protocol: http, encoding: json, compression: zstd, endpoint: 'http://" + httpAddress + "'}",
		}
		for _, options := range all {
			x := open(t, otlp.Exporter, options, creel.Host{}).(creel.Exporter)
			if err := x.Export(t.Context(), batches()[:1]); err != nil { // now both servers surely run: they begin on their own
				t.Fatal(err)
			}
		}
		for _, options := range all {
			plugintest.Run(t, otlp.Exporter, plugintest.Options{Config: options})
		}
	})
}
