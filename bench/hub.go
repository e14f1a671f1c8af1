//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
)

// runHub measures a hub: how soon it shows something, what it costs when idle, and what a fleet costs it.
func (b *bench) runHub() error {
	creel := filepath.Join(b.dir, "creel")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", creel, "github.com/creelhq/creel/cmd/creel")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build creel: %w: %s", err, out)
	}
	fmt.Println()
	var sample, row []time.Duration
	for i := range 3 {
		s, r, err := b.firstLook(creel, i)
		if err != nil {
			return err
		}
		sample, row = append(sample, s), append(row, r)
	}
	fmt.Printf("creel up → first sample can be queried, %v; → its row in the fleet, %v\n", sample, row)
	return errors.Join(b.runFleet(creel, false), b.runFleet(creel, true))
}

// startHub starts a hub and returns it with a client.
func (b *bench) startHub(creel, data string, args ...string) (*process, *api.Client, error) {
	p := &process{data: filepath.Join(b.dir, data)}
	p.cmd = b.pinned(append([]string{"exec", creel, args[0], "--data", p.data, "--listen", "127.0.0.1:0", "--opamp", "none"}, args[1:]...)...)
	p.cmd.Stderr = nil // its log
	if err := p.cmd.Start(); err != nil {
		return nil, nil, err
	}
	var client *api.Client
	err := soon(func() bool {
		token, err := os.ReadFile(filepath.Join(p.data, "token"))
		if err != nil {
			return false
		}
		url, err := hubURL(p.data)
		client = &api.Client{URL: url, Token: strings.TrimSpace(string(token))}
		return err == nil
	})
	if err != nil {
		p.stop()
	}
	return p, client, err
}

// soon waits until f reports true.
func soon(f func() bool) error {
	for late := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			return errors.New("the hub is not there within a minute")
		}
	}
	return nil
}

func hubURL(data string) (string, error) {
	text, err := os.ReadFile(filepath.Join(data, "hub.json"))
	if err != nil {
		return "", err
	}
	_, after, _ := strings.Cut(string(text), `"url": "`)
	url, _, ok := strings.Cut(after, `"`)
	if !ok {
		return "", errors.New("hub.json has no url")
	}
	return url, nil
}

// firstLook measures from the command to what one sees.
func (b *bench) firstLook(creel string, i int) (sample, row time.Duration, err error) {
	begin := time.Now()
	p, client, err := b.startHub(creel, fmt.Sprintf("up%d", i), "up")
	if err != nil {
		return 0, 0, err
	}
	defer p.stop()
	ctx := context.Background()
	err = soon(func() bool {
		if row == 0 {
			if list, err := client.Agents(ctx, api.AgentQuery{Status: "healthy"}); err == nil && list.Total == 1 {
				row = time.Since(begin).Round(time.Millisecond)
			}
		}
		if sample == 0 {
			if answer, err := client.PromQL(ctx, "query", map[string][]string{"query": {"system_memory_usage_bytes"}}); err == nil && strings.Contains(string(answer), "host_name") {
				sample = time.Since(begin).Round(time.Millisecond)
			}
		}
		return row > 0 && sample > 0
	})
	return sample, row, err
}

// hubConfig is what a hub takes in: OTLP, at a port that is free.
const hubConfig = `
collectors: {otlp: {grpc: {endpoint: "127.0.0.1:0"}, http: {enabled: false}}}
exporters: {quicklook: {}}
pipelines: {received: {from: [otlp], to: [quicklook]}}
`

// runFleet measures an idle hub with one agent, and then with b.fleet more, each on a WebSocket of its own, over TLS if secure.
func (b *bench) runFleet(creel string, secure bool) error {
	config := filepath.Join(b.dir, "hub.yaml")
	if err := os.WriteFile(config, []byte(hubConfig), 0o600); err != nil {
		return err
	}
	name, args, trust := "", []string{"hub", "-c", config}, (*tls.Config)(nil)
	if secure {
		pool, files, err := b.certificate()
		if err != nil {
			return err
		}
		name, args, trust = " over TLS", append(args, files...), &tls.Config{RootCAs: pool}
	}
	p, client, err := b.startHub(creel, "fleet"+strings.TrimSpace(name), args...)
	if err != nil {
		return err
	}
	defer p.stop()
	client.HTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}
	one, err := p.watch(b.idle)
	if err != nil {
		return err
	}
	fmt.Printf("%-42s %11.2f%% of a processor, %.1f MiB\n", "hub with one agent"+name, 100*one.share, one.rss)
	ctx, cancel := context.WithCancel(context.Background())
	var agents sync.WaitGroup
	defer agents.Wait()
	defer cancel()
	for i := range b.fleet {
		c, err := control.NewClient(control.ClientOptions{
			URLs: []string{client.URL}, Agent: simulated(i), TLS: func(*url.URL) (*tls.Config, bool, error) { return trust, false, nil },
		})
		if err != nil {
			return err
		}
		agents.Go(func() { c.Run(ctx) })
		time.Sleep(time.Millisecond) // a fleet that comes at once is another question
	}
	err = soon(func() bool {
		h, err := client.Hub(ctx)
		return err == nil && h.Agents["healthy"] == b.fleet+1
	})
	if err != nil {
		return err
	}
	many, err := p.watch(b.idle)
	if err != nil {
		return err
	}
	fmt.Printf("%-42s %11.2f%% of a processor, %.1f MiB, %.1f more\n", fmt.Sprintf("hub with %d more%s, heartbeats every %v", b.fleet, name, max(5*time.Second, time.Duration(b.fleet)*time.Second/2000)), 100*many.share, many.rss, many.rss-one.rss)
	return nil
}

// certificate makes one for 127.0.0.1, and returns who trusts it and what the hub is told of it.
func (b *bench) certificate() (pool *x509.CertPool, args []string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	pool = x509.NewCertPool()
	for _, f := range []struct {
		flag, kind string
		der        []byte
	}{{"--tls-cert", "CERTIFICATE", cert}, {"--tls-key", "PRIVATE KEY", secret}} {
		file := filepath.Join(b.dir, "hub"+f.flag+".pem")
		text := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return nil, nil, err
		}
		pool.AppendCertsFromPEM(text)
		args = append(args, f.flag, file)
	}
	return pool, args, nil
}

// idleness is what a process costs that has little to do.
type idleness struct {
	share float64 // of a processor
	rss   float64 // MiB, at the end
}

func (p *process) watch(d time.Duration) (idleness, error) {
	before, _, err := p.usage()
	if err != nil {
		return idleness{}, err
	}
	time.Sleep(d)
	after, _, err := p.usage()
	if err != nil {
		return idleness{}, err
	}
	var kib float64
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return idleness{}, err
	}
	_, text, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(text, &kib); err != nil {
		return idleness{}, err
	}
	return idleness{(after - before).Seconds() / d.Seconds(), kib / 1024}, nil
}

// simulated is an agent as most are: two pipelines, five components, records that come.
func simulated(i int) control.Agent {
	started := time.Now()
	id := uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "bench %d", i)).String()
	count := func() int64 { return int64(time.Since(started).Seconds() * 1000) }
	return control.Agent{
		ID: id, Version: "bench",
		Labels: func() map[string]string {
			return map[string]string{"host.name": fmt.Sprintf("host-%04d", i), "site": fmt.Sprintf("s%d", i%20)}
		},
		Health: func() report.Health {
			return report.Health{ID: id, State: "running", Health: report.Healthy, Started: started}
		},
		Components: func() []report.Component {
			return []report.Component{
				{Component: "collectors.file/app", Plugin: "file", Healthy: true, Records: count()}, {Component: "collectors.host", Plugin: "host", Healthy: true, Records: count()},
				{Component: "exporters.otlp/hub", Plugin: "otlp", Healthy: true, Limit: 16 << 20},
			}
		},
		Routes: func() []report.Route {
			return []report.Route{{Pipeline: "logs", From: []string{"file/app"}, To: []string{"otlp/hub"}}, {Pipeline: "system", From: []string{"host"}, To: []string{"otlp/hub"}}}
		},
		Ledger: func() report.Ledger {
			pipeline := func(name string) report.Pipeline {
				n := count()
				return report.Pipeline{Pipeline: name, Accepted: n, Passed: n, Exporters: []report.Exporter{{Exporter: "otlp/hub", In: n, Delivered: n}}}
			}
			return report.Ledger{Pipelines: []report.Pipeline{pipeline("logs"), pipeline("system")}}
		},
		Effective: func() []byte { return []byte(`{"collectors.file/app": {"include": ["/var/log/app/*.log"]}}`) },
	}
}
