//go:build unix

package otlp_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/creelhq/creel"
	codec "github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/plugins/otlp"
	"github.com/creelhq/creel/tlsconf"
)

// cpu returns how much processor time the process has used, in nanoseconds: what others do on the machine is not in it.
func cpu(b *testing.B) float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return float64(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkTLS is what TLS and a token add to a request of 187 kB, from exporter to collector over loopback: identity less plain.
// The limit is 1.2 times what crypto/tls adds to the same bytes and a short answer: bare/tls less bare/plain. With TLS comes
// HTTP/2 for HTTP, whose price is in it as well. With zstd the limit is that identity takes 15 % more than plain.
func BenchmarkTLS(b *testing.B) {
	o := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host.name", Value: creel.String("h")}}}}
	logs := make([]creel.Log, 1000)
	for i := range logs {
		logs[i] = creel.Log{Origin: o, Body: creel.String(strings.Repeat(fmt.Sprintf("line %d ", i), 20))}
	}
	batch := []*creel.Batch{creel.NewLogs(logs)}
	body := codec.Append(nil, batch...)
	id := newIdentity(b)
	id.token = strings.Repeat("x", 400) // as long as a JWT
	h := creel.Host{Identity: id, Admission: everybody{}, Sender: creel.Sender{Agent: "0193e2f4-7f1e-7a3b-9c4d-5e6f708192a3", Exporter: "otlp/hub"}}
	for _, compression := range []string{"none", "zstd"} {
		for _, protocol := range []string{"grpc", "http"} {
			for _, c := range []struct{ name, server, client string }{{"plain", "{}", "http://%s', tls: {}"}, {"identity", "{tls: {identity: true}}", "%s', tls: {identity: true}"}} {
				b.Run(compression+"/"+protocol+"/"+c.name, func(b *testing.B) {
					address, other := serveOn(b, fmt.Sprintf("{grpc: %s, http: %s}", c.server, c.server), h, settled{})
					if protocol == "http" {
						address = other
					}
					x := open(b, otlp.Exporter, fmt.Sprintf("{compression: %s, protocol: %s, endpoint: '"+c.client+"}", compression, protocol, address), h).(creel.Exporter)
					b.SetBytes(int64(len(body)))
					begin := cpu(b)
					for b.Loop() {
						if err := x.Export(b.Context(), batch); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric((cpu(b)-begin)/float64(b.N), "cpu-ns/op")
				})
			}
		}
	}
	cert, key := certificate(b)
	server, err := tlsconf.Server{CertFile: cert, KeyFile: key}.Config(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	client, err := tlsconf.Client{CAFile: cert}.Config("127.0.0.1", nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, secure := range []bool{false, true} {
		b.Run(map[bool]string{false: "bare/plain", true: "bare/tls"}[secure], func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			if secure {
				l = tls.NewListener(l, server)
			}
			defer l.Close()
			answer := bytes.Repeat([]byte("a"), 100)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				for in := make([]byte, len(body)); ; {
					if _, err := io.ReadFull(conn, in); err != nil {
						return
					}
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			if secure {
				conn = tls.Client(conn, client)
			}
			defer conn.Close()
			b.SetBytes(int64(len(body)))
			begin := cpu(b)
			for b.Loop() {
				if _, err := conn.Write(body); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, answer); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpu(b)-begin)/float64(b.N), "cpu-ns/op")
		})
	}
}
