package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
)

// flow is a collector that sends a record every millisecond: its number as body, and as severity, in turn, INFO and ERROR.
func flow() creel.Plugin {
	return creel.NewCollector("flow", "Sends without end.", func(struct {
		Service string `doc:"Of the records."`
	}, creel.Host) (creel.Collector, error) {
		return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
			for i := int64(0); ; i++ {
				l := creel.Log{Body: creel.Int(i), Severity: creel.SeverityInfo + creel.Severity(8*(i%2)), Attrs: creel.Attrs{{Key: "a<b", Value: creel.String("\x07")}}}
				if err := out.Send(ctx, creel.NewLogs([]creel.Log{l})); err != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(time.Millisecond):
				}
			}
		}), nil
	})
}

const flowing = "collectors: {flow: {service: %s}}\nexporters: {sink: }\npipelines: {p: {from: [flow], to: [sink]}}\n"

func startFlow(t *testing.T) *running {
	return start(t, fmt.Sprintf(flowing, "one"), agent.Options{Plugins: append(plugins(new(int)), flow())})
}

// tapped is an open tap.
type tapped struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
}

func (r *running) tap(query string) *tapped {
	r.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", agent.AdminSocket(r.o.Data))
	}}}
	resp, err := client.Get("http://agent/tap?" + query)
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		r.t.Fatalf("%s is answered %s", query, resp.Status)
	}
	tap := &tapped{r.t, bufio.NewScanner(resp.Body), func() { resp.Body.Close() }}
	r.t.Cleanup(tap.close)
	return tap
}

// next returns the next line that is a record, or one without a record at the end.
func (tap *tapped) next() agent.TapLine {
	tap.t.Helper()
	for tap.lines.Scan() {
		var line agent.TapLine
		if err := json.Unmarshal(tap.lines.Bytes(), &line); err != nil {
			tap.t.Fatalf("%s: %v", tap.lines.Bytes(), err)
		}
		if line.Record != nil || line.Error != "" {
			return line
		}
	}
	return agent.TapLine{}
}

func TestTap(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("agent", func(t *testing.T) {
		r := startFlow(t)
		tap := r.tap("edge=flow&rate=1000/s&where=" + url.QueryEscape(`severity >= ERROR`))
		for range 3 {
			line := tap.next()
			var record struct {
				Body       int
				Severity   string
				Attributes map[string]string
			}
			if err := json.Unmarshal(line.Record, &record); err != nil || line.Signal != "logs" || record.Severity != "ERROR" || record.Body%2 != 1 || record.Attributes["a<b"] != "\a" {
				t.Errorf("the tap shows %s, %v", line.Record, err)
			}
			if strings.Contains(string(line.Record), "\a") || !strings.Contains(string(line.Record), "a<b") {
				t.Errorf("control characters must be escaped, others not: %s", line.Record)
			}
		}

		// It goes on when everything is opened anew, and ends with the agent.
		r.write(fmt.Sprintf(flowing, "two"))
		if code, body := r.request("POST", "/-/reload"); code != 200 || !strings.Contains(body, "collectors.flow") {
			t.Errorf("reload is answered %d %s", code, body)
		}
		for range 100 { // more than could have waited
			if tap.next().Record == nil {
				t.Fatal("the tap has ended with a reload")
			}
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
		for tap.next().Record != nil {
		}
	})
}

func TestTapEndsAfterSoMany(t *testing.T) {
	r := startFlow(t)
	tap, n := r.tap("edge=exporters.sink&rate=1000/s&n=4"), 0
	for tap.next().Record != nil {
		n++
	}
	if n != 4 {
		t.Errorf("%d records are shown", n)
	}
}

// TestTapsAreGivenBack: who goes away makes room for another.
func TestTapsAreGivenBack(t *testing.T) {
	r := startFlow(t)
	var open []*tapped
	for range 8 {
		open = append(open, r.tap("edge=flow&rate=1/s"))
	}
	if code, body := r.request("GET", "/tap?edge=flow&rate=1/s"); code != 429 || !strings.Contains(body, "8 taps are open") {
		t.Errorf("a ninth tap is answered %d %s", code, body)
	}
	for _, tap := range open {
		tap.close()
	}
	await(t, func() bool {
		code, _ := r.request("GET", "/tap?edge=flow&rate=1000/s&n=1")
		return code == 200
	})
}

func TestTapErrors(t *testing.T) {
	r := startFlow(t)
	for query, want := range map[string]string{
		"edge=flwo&rate=1/s":                        `404 there is no edge "flwo"; known are collectors.flow, exporters.sink; did you mean "flow"?`,
		"edge=flow&rate=1":                          "400 rate must be a rate such as",
		"edge=flow&rate=1e9/s":                      "400 rate must be at most 1000/s",
		"edge=flow&rate=0/s":                        "400 nothing can be shown",
		"edge=flow&rate=1/s&n=x":                    "400 n must be a number",
		"edge=flow&rate=1/s&before=true":            "400 collectors.flow is no processor",
		"edge=flow&rate=1/s&where=severity%20%3E":   "400 read condition: ",
		"edge=flow&rate=1/s&where=body%20and%20and": "400 read condition: ",
	} {
		code, body := r.request("GET", "/tap?"+query)
		if got := fmt.Sprint(code, " ", body); !strings.HasPrefix(got, want) {
			t.Errorf("%s is answered %s", query, got)
		}
	}
}

// TestTapIsForTheSocketOnly: what is open to the network shows no records.
func TestTapIsForTheSocketOnly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	start(t, fmt.Sprintf("agent: {admin: {address: %q}}\n", l.Addr())+fmt.Sprintf(flowing, "one"), agent.Options{Plugins: append(plugins(new(int)), flow())})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]int{"/tap?edge=flow&rate=1/s": 403, "/healthz": 200} {
		resp, err := client.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s is answered %s", path, resp.Status)
		}
	}
}

// TestTestsMeanNothingToAnAgent: it starts with wrong tests, which only Config.Tests finds.
func TestTestsMeanNothingToAnAgent(t *testing.T) {
	r := start(t, good+"tests: {a: {givn: [x]}}", agent.Options{})
	if code, body := r.request("GET", "/readyz"); code != 200 {
		t.Errorf("the agent answers %d %s", code, body)
	}
}
