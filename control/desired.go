package control

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"mime"
	"slices"
	"strconv"
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
	Tenure  Tenure // if it is placed on some agents only
}

// Tenure is on what terms an agent has a document that a hub has placed on it and not on all. The zero value has none.
type Tenure struct {
	Epoch int64 // of the placing: it grows when the document gets another owner; 0: the document is on all agents that it selects

	// Exclusive means that no two agents may ever work on it: without a lease of a hub the agent does nothing of it.
	Exclusive bool

	// Orphan is for how long the agent goes on when its lease is over, if it is not Exclusive: what it does then may be somebody
	// else's work by now. Negative: for ever.
	Orphan time.Duration

	// Once means that the agent does one round of each of its polled collectors in this epoch, and tells how that went.
	Once bool

	// Run and Cancel count what was asked of whoever has the document: a round at once, and to give up the round under way. An
	// agent does what it is asked while it has the document, and not what was asked before.
	Run, Cancel int64

	// Cursor is what the collectors of whoever had the document before have saved, as EncodeCursors writes it; "": nobody knows.
	Cursor string
}

// CapacityLabel is the label of an agent by which it says how much may be placed on it: a number, in the unit of documents' costs.
const CapacityLabel = "creel.tasks.capacity"

// Forever is a Tenure's Orphan of an agent that goes on until it hears of a hub again.
const Forever = time.Duration(-1)

// Allows reports whether the agent may work at now, if its lease ends at leased; the zero time: it never had one.
func (t Tenure) Allows(leased, now time.Time) bool {
	switch {
	case t.Epoch == 0 || now.Before(leased):
		return true
	case t.Exclusive:
		return false
	case t.Orphan < 0:
		return true
	}
	return now.Before(leased.Add(t.Orphan))
}

// String returns t as the parameters of a media type, such as "epoch=7; overlap=never; orphan=30s", which ParseTenure reads; "" if
// it has no terms. Without an orphan it is Forever.
func (t Tenure) String() string {
	if t.Epoch <= 0 {
		return ""
	}
	text := fmt.Sprintf("epoch=%d", t.Epoch)
	if t.Exclusive {
		text += "; overlap=never"
	}
	if t.Orphan >= 0 {
		text += "; orphan=" + t.Orphan.String()
	}
	if t.Once {
		text += "; once=true"
	}
	for _, n := range t.asked() {
		if *n.of > 0 {
			text += fmt.Sprintf("; %s=%d", n.name, *n.of)
		}
	}
	if t.Cursor != "" {
		text += "; cursor=" + t.Cursor
	}
	return text
}

// ParseTenure reads what String returns. Without an epoch there are no terms, whatever else it says: it may be another server's.
func ParseTenure(parameters string) Tenure {
	_, p, err := mime.ParseMediaType(mediaType + ";" + parameters)
	if err != nil {
		return Tenure{}
	}
	epoch, err := strconv.ParseInt(p["epoch"], 10, 64)
	if err != nil || epoch <= 0 {
		return Tenure{}
	}
	t := Tenure{Epoch: epoch, Exclusive: p["overlap"] == "never", Orphan: Forever, Once: p["once"] == "true", Cursor: p["cursor"]}
	if text, given := p["orphan"]; given {
		d, err := time.ParseDuration(text)
		if err != nil { // then rather too short than too long
			d = 0
		}
		t.Orphan = max(d, Forever)
	}
	for _, n := range t.asked() {
		if asked, err := strconv.ParseInt(p[n.name], 10, 64); err == nil {
			*n.of = max(0, asked)
		}
	}
	return t
}

// counter is a number of a Tenure, and its name.
type counter struct {
	name string
	of   *int64
}

func (t *Tenure) asked() []counter { return []counter{{"run", &t.Run}, {"cancel", &t.Cancel}} }

// mediaType is that of documents.
const mediaType = "text/yaml"

// Hash names the offer: by what is in it, or, if it comes from an OpAMP server that is not creel's, as that has named it.
func (o *Offer) Hash() string {
	if o.hash != "" {
		return o.hash
	}
	sum := sha256.New()
	for _, d := range o.Documents {
		parts := []string{d.Name, d.Version, d.Text}
		if terms := d.Tenure.String(); terms != "" { // else the hash is as it was before there were any
			parts = append(parts, terms)
		}
		for _, part := range parts {
			sum.Write([]byte(part))
			sum.Write([]byte{0})
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// Message returns o as OpAMP has it. A document's version is behind an @ in its name, its Tenure in the
// parameters of its content type.
func (o *Offer) Message() *protobufs.AgentRemoteConfig {
	files := make(map[string]*protobufs.AgentConfigFile, len(o.Documents))
	for _, d := range o.Documents {
		file := &protobufs.AgentConfigFile{Body: []byte(d.Text), ContentType: mediaType}
		if terms := d.Tenure.String(); terms != "" {
			file.ContentType += "; " + terms
		}
		files[d.Name+"@"+d.Version] = file
	}
	return &protobufs.AgentRemoteConfig{Config: &protobufs.AgentConfigMap{ConfigMap: files}, ConfigHash: []byte(o.Hash())}
}

// OfferOf reads what Message returns, or another OpAMP server's remote configuration.
func OfferOf(m *protobufs.AgentRemoteConfig) *Offer {
	o := &Offer{hash: hashText(m.GetConfigHash())}
	for key, file := range m.GetConfig().GetConfigMap() {
		_, terms, _ := strings.Cut(file.GetContentType(), ";")
		d := OfferedDocument{Name: key, Text: string(file.GetBody()), Tenure: ParseTenure(terms)}
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
