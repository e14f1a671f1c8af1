// Package otlp is the OTLP collector and exporter: gRPC and HTTP, protobuf and JSON (OTLP 1.11). Requests that nobody
// looks into pass through it as the bytes they came in.
//
// It knows the transports; what is in a request is package otlp's of the module to know, and when records are safe is
// the pipeline's.
package otlp

import (
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

//go:embed collector.yaml
var collectorExample string

//go:embed exporter.yaml
var exporterExample string

// Collector is the plugin that receives.
var Collector = creel.WithWaits(creel.NewCollector("otlp", "Receives logs, metrics and traces over OTLP, by gRPC and HTTP.", NewCollector).WithExample(collectorExample), func(c Config) time.Duration { return c.Timeout })

// Exporter is the plugin that sends.
var Exporter = creel.NewExporter("otlp", "Sends logs, metrics and traces over OTLP, by gRPC or HTTP.", NewExporter).WithExample(exporterExample)

// methods are the gRPC methods of the signals, and paths where they are in HTTP.
var (
	methods = map[creel.Signal]string{
		creel.Logs:    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
		creel.Metrics: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
		creel.Traces:  "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
	}
	paths = map[creel.Signal]string{creel.Logs: "/v1/logs", creel.Metrics: "/v1/metrics", creel.Traces: "/v1/traces"}
)

// The windows of HTTP/2 and the buffers of connections: with grpc-go's defaults a large request costs several times as
// much.
const (
	streamWindow     = 8 << 20
	connectionWindow = 16 << 20
	ioBuffer         = 256 << 10
)

// ServerTLS is how a server proves who it is, and asks clients to.
type ServerTLS struct {
	CertFile     string `doc:"The server's certificate and those that lead to its authority, PEM." optional:"true"`
	KeyFile      string `doc:"The certificate's key, PEM." optional:"true"`
	ClientCAFile string `doc:"Authorities of clients, PEM; clients without a certificate of theirs are refused." optional:"true"`
	Insecure     bool   `doc:"Allow an address that is not loopback without TLS." default:"false"`
}

// load returns the configuration for crypto/tls, nil for no TLS.
func (t ServerTLS) load() (*tls.Config, error) {
	if t.CertFile == "" && t.KeyFile == "" && t.ClientCAFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if t.ClientCAFile != "" {
		if c.ClientCAs, err = loadAuthorities(t.ClientCAFile); err != nil {
			return nil, err
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// ClientTLS is how a client finds out whom it talks to, and proves who it is.
type ClientTLS struct {
	Insecure           bool   `doc:"Talk without TLS. An endpoint that begins with http:// means the same." default:"false"`
	CAFile             string `doc:"Authorities to trust instead of the system's, PEM." optional:"true"`
	CertFile           string `doc:"The client's certificate, PEM." optional:"true"`
	KeyFile            string `doc:"The certificate's key, PEM." optional:"true"`
	ServerName         string `doc:"Name that the server's certificate must have, if not the endpoint's." optional:"true"`
	InsecureSkipVerify bool   `doc:"Believe any certificate. Whoever is in between can read and change everything." default:"false"`
}

func (t ClientTLS) load() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	var err error
	if t.CAFile != "" {
		if c.RootCAs, err = loadAuthorities(t.CAFile); err != nil {
			return nil, err
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func loadAuthorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("load authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load authorities: %s has no certificate", file)
	}
	return pool, nil
}

// checkBind keeps a server without TLS from the network unless that is asked for.
func checkBind(endpoint string, t ServerTLS) error {
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return config.FieldError("endpoint", fmt.Errorf("must be host:port: %w", err))
	}
	ip := net.ParseIP(host)
	if host == "localhost" || ip != nil && ip.IsLoopback() || t.CertFile != "" || t.Insecure {
		return nil
	}
	return config.FieldError("endpoint", errors.New("is not a loopback address and there is no certificate; set tls.cert_file and tls.key_file, or tls.insecure: true if that is meant"))
}
