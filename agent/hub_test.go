package agent_test

import (
	"strings"
	"testing"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
)

// TestHubSettings: whether there is TLS to the hub is said by the URL alone, and certificates that it would pass over are an error.
func TestHubSettings(t *testing.T) {
	for text, want := range map[string]string{
		"{url: 'http://h:1'}": "",
		"{url: 'https://h:1', tls: {ca_file: a, cert_file: b, key_file: c}}": "",
		"{tls: {ca_file: a}}":                                       "", // the URL is a flag's
		"{url: 'unix:///run/hub.sock'}":                             "",
		"{url: 'http://h:1', tls: {insecure: true}}":                "",
		"{url: 'http://h:1', tls: {ca_file: a}}":                    "hub.url: is not https",
		"{url: 'http://h:1', tls: {server_name: a}}":                "hub.url: is not https",
		"{url: 'https://h:1', tls: {insecure: true}}":               "hub.url: is https",
		"{url: 'https://h:1', tls: {cert_file: a}}":                 "hub.tls.cert_file: needs",
		"{url: 'ftp://h:1'}":                                        "hub.url: must be a URL",
		"{url: ['http://h:1', 'http://i:1'], balance: round_robin}": "",
		"{url: ['http://h:1', 'i:1']}":                              "hub.url: must be a URL",
		"{url: ['http://h:1', 'unix:///x']}":                        "hub.url: is a Unix socket",
		"{balance: fair}":                                           "hub.balance",
	} {
		n, err := config.Parse("agent.yaml", []byte("{hub: "+text+"}"), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		_, errs := agent.SettingsSchema().Check(n)
		if (len(errs) == 0) != (want == "") || len(errs) > 0 && !strings.Contains(errs.Error(), want) {
			t.Errorf("%s: %v, want %q", text, errs, want)
		}
	}
}
