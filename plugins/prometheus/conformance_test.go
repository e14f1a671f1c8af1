package prometheus_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/prometheus"
)

func TestConformance(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write([]byte("# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\nx{a=\"b\"} 1\n"))
	}))
	defer s.Close()
	s.Config.SetKeepAlivesEnabled(false) // the suite counts goroutines, also those of the server
	plugintest.Run(t, prometheus.Plugin, plugintest.Options{Config: "targets: ['" + s.URL + "']"})
}
