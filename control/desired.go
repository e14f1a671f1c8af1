package control

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// Offer is all that a hub wants an agent to run beside its own file. It goes as OpAMP's remote configuration.
type Offer struct {
	Documents []OfferedDocument // by name
}

// OfferedDocument is a document of the hub as it is offered.
type OfferedDocument struct {
	Name    string
	Version string
	Text    string
}

// Hash names the offer by what is in it.
func (o *Offer) Hash() string {
	sum := sha256.New()
	for _, d := range o.Documents {
		for _, part := range []string{d.Name, d.Version, d.Text} {
			sum.Write([]byte(part))
			sum.Write([]byte{0})
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// Message returns o as OpAMP has it. A document's version is behind an @ in its name.
func (o *Offer) Message() *protobufs.AgentRemoteConfig {
	files := make(map[string]*protobufs.AgentConfigFile, len(o.Documents))
	for _, d := range o.Documents {
		files[d.Name+"@"+d.Version] = &protobufs.AgentConfigFile{Body: []byte(d.Text), ContentType: "text/yaml"}
	}
	return &protobufs.AgentRemoteConfig{Config: &protobufs.AgentConfigMap{ConfigMap: files}, ConfigHash: []byte(o.Hash())}
}

// OfferOf reads what Message returns, or another OpAMP server's remote configuration.
func OfferOf(m *protobufs.AgentRemoteConfig) *Offer {
	o := &Offer{}
	for key, file := range m.GetConfig().GetConfigMap() {
		d := OfferedDocument{Name: key, Text: string(file.GetBody())}
		if i := strings.LastIndexByte(key, '@'); i >= 0 {
			d.Name, d.Version = key[:i], key[i+1:]
		}
		o.Documents = append(o.Documents, d)
	}
	slices.SortFunc(o.Documents, func(a, b OfferedDocument) int { return strings.Compare(a.Name, b.Name) })
	return o
}

// Order is what a hub asks an agent to do, once. The hub repeats it on every new connection until the agent reports its ID
// as done, so that it is not lost; the agent remembers the ID, so that it does it once.
type Order struct {
	ID    string    `json:"id"`
	Do    string    `json:"do"` // pause, resume, drain, restart or stop
	By    string    `json:"by"`
	Cause string    `json:"cause,omitempty"`
	Time  time.Time `json:"time"`
}
