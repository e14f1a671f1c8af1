package probe_test

import (
	"net"
	"testing"

	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/probe"
)

func TestConformance(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	address := l.Addr().String()
	plugintest.Run(t, probe.Plugin, plugintest.Options{Config: "{targets: [{url: 'tcp://" + address + "'}, {url: 'http://" + address + "/'}]}"})
}
