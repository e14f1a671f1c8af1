// Package otlp is the OTLP collector and exporter: gRPC and HTTP, protobuf and JSON (OTLP 1.11). Requests that nobody
// looks into pass through it as the bytes they came in.
//
// It knows the transports; what is in a request is package otlp's of the module to know, and when records are safe is
// the pipeline's.
package otlp

import (
	_ "embed"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/tlsconf"
)

//go:embed collector.yaml
var collectorExample string

//go:embed exporter.yaml
var exporterExample string

// Collector is the plugin that receives.
var Collector = creel.WithWaits(creel.NewCollector("otlp", "Receives logs, metrics and traces over OTLP, by gRPC and HTTP.", NewCollector).WithExample(collectorExample), func(c Config) time.Duration { return c.Timeout })

// Exporter is the plugin that sends.
var Exporter = creel.NewExporter("otlp", "Sends logs, metrics and traces over OTLP, by gRPC or HTTP.", NewExporter).WithExample(exporterExample)

// methods are the gRPC methods of the signals, signals what methods are of, and paths where signals are in HTTP.
var (
	methods = map[creel.Signal]string{
		creel.Logs:    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
		creel.Metrics: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
		creel.Traces:  "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
	}
	signals = func() map[string]creel.Signal {
		of := make(map[string]creel.Signal)
		for s, method := range methods {
			of[method] = s
		}
		return of
	}()
	paths = map[creel.Signal]string{creel.Logs: "/v1/logs", creel.Metrics: "/v1/metrics", creel.Traces: "/v1/traces"}
)

// The windows of HTTP/2 and the buffers of connections: with grpc-go's defaults a large request costs several times as
// much.
const (
	streamWindow     = 8 << 20
	connectionWindow = 16 << 20
	ioBuffer         = 256 << 10
	guestBuffer      = 64 << 10 // of the collector's: strangers have it too
)

// checkBind keeps a server without TLS from the network unless that is asked for.
func checkBind(endpoint string, t tlsconf.Server) error {
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return config.FieldError("endpoint", fmt.Errorf("must be host:port: %w", err))
	}
	if tlsconf.IsLoopback(host) || t.Enabled() || t.Insecure {
		return nil
	}
	return config.FieldError("endpoint", errors.New("is not a loopback address and there is no certificate; set tls.identity: true where this is a hub, tls.cert_file and tls.key_file, or tls.insecure: true if that is meant"))
}
