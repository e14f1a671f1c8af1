package parse

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// lines are one typical line of each format, and options that it needs.
var lines = []struct{ name, options, line string }{
	{"json", `"format":"json"`, jsonLine},
	{"json flatten", `"format":"json","flatten":true`, jsonLine},
	{"json nested", `"format":"json"`, `{"ts":1790000000.123,"level":"info","msg":"a \"quoted\" message\nof two lines","http":{"method":"GET","path":"/api/v1/orders/4711","status":200},"tags":["a","b","c"],"took":0.0125,"user":null}`},
	{"nginx", `"format":"nginx"`, accessLine},
	{"apache", `"format":"apache"`, accessLine[:strings.Index(accessLine, ` "https`)]},
	{"nginx_error", `"format":"nginx_error"`, `2026/11/24 13:55:36 [error] 31#31: *4711 open() "/usr/share/nginx/html/favicon.ico" failed (2: No such file or directory), client: 192.0.2.17, server: shop.example.com, request: "GET /favicon.ico HTTP/1.1", host: "shop.example.com"`},
	{"logfmt", `"format":"logfmt"`, `time=2026-11-24T13:55:36.123Z level=info msg="order was shipped to its customer" order=4711 customer=ann@example.com warehouse=hamburg-2 parcels=2 weight=3.25 took=12.5ms`},
	{"slog", `"format":"slog"`, `time=2026-11-24T13:55:36.123+01:00 level=INFO+2 msg="order was shipped to \"ann\"" order=4711 customer=ann@example.com warehouse=hamburg-2 parcels=2 weight=3.25`},
	{"key_value", `"format":"key_value","delimiter":":","pair_delimiter":";"`, `user: ann; action: login; place: 'Hamburg, Germany'; attempts: 3; result: granted`},
	{"csv", `"format":"csv","columns":["time","user","action","amount","note","trace_id"],"types":{"amount":"double"}`, `2026-11-24 13:55:36,ann,order,12.50,"two pieces, ""blue""",5b8efff798038103d269b633813fc60c`},
	{"syslog 3164", `"format":"syslog"`, `<34>Oct 11 22:14:15 web-7 sshd[4711]: Accepted publickey for ann from 192.0.2.17 port 52144 ssh2`},
	{"syslog 5424", `"format":"syslog"`, `<165>1 2026-11-24T13:55:36.003Z web-7.example.com evntslog 4711 ID47 [exampleSDID@32473 iut="3" eventSource="App \"x\"" eventID="1011"][meta seq="1"] An application event log entry`},
	{"cri", `"format":"cri"`, `2026-11-24T13:55:36.669794202Z stdout F order 4711 was shipped to its customer in two parcels`},
	{"docker", `"format":"docker"`, `{"log":"order 4711 was shipped to its \"customer\"\n","stream":"stdout","time":"2026-11-24T13:55:36.669794202Z"}`},
	{"klog", `"format":"klog"`, `I1124 13:55:36.525108   12 kubelet.go:81] "Pod status updated" pod="kube-system/kubedns" status="ready" attempt=2`},
}

// slow are the formats that the user has a regular expression for.
var slow = []struct{ name, options, line string }{
	{"regex", `"format":"regex","regex":"^(?P<address>\\S+) \\S+ (?P<user>\\S+) \\[(?P<time>[^\\]]+)\\] \"(?P<method>\\S+) (?P<path>\\S+) [^\"]*\" (?P<status>\\d+) (?P<size>\\d+)"`, accessLine},
	{"grok", `"format":"grok","grok":"%{COMBINEDAPACHELOG}"`, accessLine},
}

const (
	// 380 bytes, 8 fields.
	jsonLine = `{"time":"2026-11-24T13:55:36.123456789Z","level":"info","msg":"order was shipped to its customer, who will be told by mail as soon as the parcel has left the house","service":"shop","trace_id":"5b8efff798038103d269b633813fc60c","duration_ms":12.5,"status":200,"user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142"}`
	// 206 bytes.
	accessLine = `192.0.2.17 - ann [24/Nov/2026:13:55:36 +0100] "GET /api/v1/orders/4711?full=true HTTP/1.1" 200 5316 "https://shop.example.com/orders" "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"`
)

func open(t testing.TB, options string) *processor {
	t.Helper()
	c, err := Plugin.Open([]byte("{"+options+"}"), creel.Host{})
	if err != nil {
		t.Fatal(err)
	}
	return c.(*processor)
}

var origin = &creel.Origin{}

// batch returns n records of line, with one attribute each as the file collector gives it.
func batch(m *creel.Memory, line string, n int) *creel.Batch {
	r := m.NewRecords()
	for range n {
		attrs := r.Attrs.Make(1)
		attrs[0] = creel.Attr{Key: "log.file.path", Value: creel.String("/var/log/shop.log")}
		r.Logs = append(r.Logs, creel.Log{Origin: origin, Observed: 1_795_528_536_000_000_000, Body: creel.String(line), Attrs: attrs})
	}
	return creel.NewBatch(creel.Logs, r)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAllocations: once warm, a batch costs as much as one of no record does, whatever its length.
func TestAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("the short form is for the race detector, with which pools forget at random")
	}
	next := creel.NextFunc(func(b *creel.Batch) { creel.Settle(b, nil) })
	for _, c := range lines {
		t.Run(c.name, func(t *testing.T) {
			p, m := open(t, c.options), &creel.Memory{}
			run := func(n int) float64 { // the least of some rounds: the race detector makes pools forget at random
				least := math.Inf(1)
				for range 20 {
					least = min(least, testing.AllocsPerRun(1, func() { must(t, p.Process(context.Background(), batch(m, c.line, n), next)) }))
				}
				return least
			}
			if few, many := run(1), run(500); many > few+12 { // text that is unescaped, 32 KiB at a time
				t.Errorf("%v allocations for a record, %v for 500", few, many)
			}
			if p.failed.Load() > 0 {
				t.Errorf("the line is not parsed: %v", parsed(t, c.options, c.line))
			}
		})
	}
}

// BenchmarkParse prints the time for a line, without that of making and settling its record, next to the limit: to look at
// each of its bytes once. It is that of the best round, which does not depend on what else the machine does.
func BenchmarkParse(b *testing.B) {
	const n = 500
	next := creel.NextFunc(func(b *creel.Batch) { creel.Settle(b, nil) })
	for _, c := range append(lines, slow...) {
		b.Run(strings.ReplaceAll(c.name, " ", "_"), func(b *testing.B) {
			p, m := open(b, c.options), &creel.Memory{}
			best := func(loop func() bool, round func()) float64 {
				least := time.Duration(math.MaxInt64)
				for loop() {
					start := time.Now()
					round()
					least = min(least, time.Since(start))
				}
				return float64(least) / n
			}
			rounds := 0
			again := func() bool { rounds++; return rounds%100 > 0 }
			b.ReportAllocs()
			total := best(b.Loop, func() { must(b, p.Process(context.Background(), batch(m, c.line, n), next)) })
			around := best(again, func() { next(batch(m, c.line, n)) })
			limit := best(again, func() {
				for range n {
					if strings.IndexByte(c.line, 0) >= 0 {
						b.Fatal("there is a NUL")
					}
				}
			})
			b.ReportMetric(total-around, "ns/line")
			b.ReportMetric(limit, "limit-ns/line")
			b.ReportMetric(float64(len(c.line)), "B/line")
			b.ReportMetric(0, "ns/op")
		})
	}
}
