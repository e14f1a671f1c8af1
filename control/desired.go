package control

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// Offer is all that a hub wants an agent to run beside its own file. It goes as OpAMP's remote configuration.
type Offer struct {
	Documents []OfferedDocument // by name

	hash string // as another server has named it; empty: by what is in it
}

// OfferedDocument is a document of the hub as it is offered.
type OfferedDocument struct {
	Name    string
	Version string
	Text    string
}

// Hash names the offer: by what is in it, or, if it comes from an OpAMP server that is not creel's, as that has named it.
func (o *Offer) Hash() string {
	if o.hash != "" {
		return o.hash
	}
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
	o := &Offer{hash: hashText(m.GetConfigHash())}
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

// RemoteStatusOf reads what an agent says of the last remote configuration. m may be nil.
func RemoteStatusOf(m *protobufs.RemoteConfigStatus) RemoteStatus {
	s := RemoteStatus{Hash: hashText(m.GetLastRemoteConfigHash()), Error: m.GetErrorMessage()}
	for word, number := range statuses {
		if number == m.GetStatus() {
			s.Status = word
		}
	}
	return s
}

func (s RemoteStatus) message() *protobufs.RemoteConfigStatus {
	return &protobufs.RemoteConfigStatus{LastRemoteConfigHash: hashBytes(s.Hash), Status: statuses[s.Status], ErrorMessage: s.Error}
}

var statuses = map[string]protobufs.RemoteConfigStatuses{
	Applying: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLYING,
	Applied:  protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED,
	Failed:   protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED,
}

// A hash is bytes in OpAMP, and text everywhere else: what is no text already gets a prefix and hexadecimal digits.
const binaryHash = "0x"

func hashText(b []byte) string {
	if utf8.Valid(b) && !bytes.HasPrefix(b, []byte(binaryHash)) {
		return string(b)
	}
	return binaryHash + hex.EncodeToString(b)
}

func hashBytes(s string) []byte {
	if digits, ok := strings.CutPrefix(s, binaryHash); ok {
		if b, err := hex.DecodeString(digits); err == nil {
			return b
		}
	}
	return []byte(s)
}

// The values of Order.Do.
const (
	Pause   = "pause"   // collect nothing
	Resume  = "resume"  // collect again
	Drain   = "drain"   // pause, and deliver what there is
	Restart = "restart" // drain, end, and start again
	Stop    = "stop"    // drain and end
)

// Order is what a hub asks an agent to do, once. The hub repeats it on every new connection until the agent reports its ID
// as done, so that it is not lost; the agent remembers the ID, so that it does it once.
type Order struct {
	ID    string    `json:"id"`
	Do    string    `json:"do"`
	By    string    `json:"by"`
	Cause string    `json:"cause,omitempty"`
	Time  time.Time `json:"time"`
}
