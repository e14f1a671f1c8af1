package otlp_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/creelhq/creel"
	codec "github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/plugins/otlp"
	"github.com/creelhq/creel/tlsconf"
)

// BenchmarkTLS is what TLS adds to a request over HTTP, from exporter to collector over loopback: otlp/tls less otlp/plain.
// The limit is 1.2 times what crypto/tls adds to the same bytes and a short answer: bare/tls less bare/plain. With TLS comes
// HTTP/2, whose price is in otlp/tls as well.
func BenchmarkTLS(b *testing.B) {
	cert, key := certificate(b)
	o := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host.name", Value: creel.String("h")}}}}
	logs := make([]creel.Log, 1000)
	for i := range logs {
		logs[i] = creel.Log{Origin: o, Body: creel.String(strings.Repeat(fmt.Sprintf("line %d ", i), 20))}
	}
	batch := []*creel.Batch{creel.NewLogs(logs)}
	body := codec.Append(nil, batch...)
	for _, c := range []struct{ name, server, client string }{
		{"plain", "", "{insecure: true}"}, {"tls", fmt.Sprintf("tls: {cert_file: %s, key_file: %s}", cert, key), fmt.Sprintf("{ca_file: %s}", cert)},
	} {
		b.Run("otlp/"+c.name, func(b *testing.B) {
			_, address := serveOn(b, fmt.Sprintf("{http: {%s}}", c.server), creel.Host{}, settled{})
			x := open(b, otlp.Exporter, fmt.Sprintf("{compression: none, protocol: http, endpoint: '%s', tls: %s}", address, c.client), creel.Host{}).(creel.Exporter)
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if err := x.Export(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
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
			for b.Loop() {
				if _, err := conn.Write(body); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
