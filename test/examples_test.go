package test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/all"
)

// TestExamplesRun starts an agent with every example, and a hub with the hub's.
func TestExamplesRun(t *testing.T) {
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("found %v, %v", files, err)
	}
	far := startReceiver(t)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			dir, err := os.MkdirTemp("", "creel") // short: it holds a Unix socket
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			_, port, err := net.SplitHostPort(freePort(t))
			if err != nil {
				t.Fatal(err)
			}
			endpoint := far.grpc
			if filepath.Base(file) == "gateway.yaml" {
				endpoint = far.http
			}
			env := config.Env{Lookup: func(name string) (string, bool) {
				v, ok := map[string]string{"CREEL_GRPC_PORT": port, "CREEL_HTTP_PORT": "0", "OTLP_ENDPOINT": "http://" + endpoint}[name]
				return v, ok
			}}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ran := false
			plugins := append(all.Plugins(), hub.QuickLook())
			c, err := agent.Parts{Plugins: plugins}.Load(file, env)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range c.Plan.Warnings {
				t.Error(w)
			}
			if data := filepath.Join(dir, "data"); filepath.Base(file) == "hub.yaml" {
				err = hub.Run(ctx, hub.Options{Config: file, Data: data, Address: "127.0.0.1:0", OpAMP: "none", Plugins: plugins, Env: &env, Log: t.Output(), Ready: func(hub.Endpoints) {
					ran = true
					cancel()
				}})
			} else {
				err = agent.Run(ctx, agent.Options{Config: file, Data: data, Plugins: plugins, Env: &env, Log: t.Output(), Ready: func() {
					ran = true
					cancel()
				}})
			}
			if err != nil || !ran {
				t.Errorf("ran: %v, %v", ran, err)
			}
		})
	}
}
