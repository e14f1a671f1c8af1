package documents

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
)

// A document is the newest version of one, and what its text says.
type document struct {
	record
	name     string
	revision int64    // of the control state
	content  *content // nil: it is deleted, or cannot be read
	owners   Owners   // if it is to be on some agents only
	err      error    // why it cannot be read
}

// A Set is all documents at one moment. It is immutable, and its methods may be called concurrently.
type Set struct {
	docs       []*document // by name, without deleted ones
	unreadable string      // why nothing can be placed, "" if it can

	mu         sync.Mutex
	placements map[string]*Placement // by which documents are selected; most agents have one in common with many others
}

// A Placement is what documents say that an agent shall run. It is immutable.
type Placement struct {
	Offer    *control.Offer
	Hash     string // of Offer
	Message  []byte // an OpAMP ServerToAgent, encoded, that has nothing but Offer
	Conflict string // why the documents cannot be merged: then there is no Offer

	docs []*document
}

// maxOffer is the bytes of an offer; a message of control.MaxMessage has more than that in it.
const maxOffer = control.MaxMessage * 3 / 4

// For returns what a creel agent with these labels, AgentLabel among them, shall run.
func (s *Set) For(labels map[string]string) *Placement {
	which := make([]byte, (len(s.docs)+7)/8)
	for i, d := range s.docs {
		if d.content != nil && d.content.selects(labels) && (d.content.count == 0 || d.owners.has(labels[AgentLabel])) {
			which[i/8] |= 1 << (i % 8)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.placements[string(which)]
	if p == nil {
		p = s.place(which)
		s.placements[string(which)] = p
	}
	return p
}

// place merges the documents that a bitmap names.
func (s *Set) place(which []byte) *Placement {
	p := &Placement{Conflict: s.unreadable}
	defined, size := make(map[string]string), 0
	offer := &control.Offer{}
	for i, d := range s.docs {
		if which[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		p.docs = append(p.docs, d)
		size += len(d.Text)
		offer.Documents = append(offer.Documents, control.OfferedDocument{Name: d.name, Version: strconv.FormatInt(d.Version, 10), Text: d.Text})
		for id := range d.content.ids {
			if other := defined[id]; other != "" && p.Conflict == "" {
				p.Conflict = fmt.Sprintf("documents %s and %s both define %s", other, d.name, id)
			}
			defined[id] = d.name
		}
	}
	if size > maxOffer && p.Conflict == "" {
		p.Conflict = fmt.Sprintf("documents %s have %d bytes together; %d can be sent", strings.Join(p.names(), ", "), size, maxOffer)
	}
	if p.Conflict != "" {
		return p
	}
	message, err := proto.Marshal(&protobufs.ServerToAgent{RemoteConfig: offer.Message()})
	if err != nil {
		p.Conflict = fmt.Sprintf("encode the documents: %v", err)
		return p
	}
	p.Offer, p.Hash, p.Message = offer, offer.Hash(), message
	return p
}

func (p *Placement) names() []string {
	names := make([]string, len(p.docs))
	for i, d := range p.docs {
		names[i] = d.name
	}
	return names
}

// An Agent is a creel agent that the hub knows, and what it says of documents.
type Agent struct {
	ID        string
	Name      string
	Labels    map[string]string
	Connected bool
	Documents []report.Document    // that it was asked to run; nil: it has not said
	Remote    control.RemoteStatus // what became of the last offer
	Placement *Placement
}

// Placed returns how documents are on an agent, by name. Name is that of the document.
func (x *Agent) Placed() []api.Placed {
	list := []api.Placed{}
	for _, d := range x.Placement.docs {
		p := x.placed(d)
		p.Name = d.name
		list = append(list, p)
	}
	return list
}

// The values of api.Placed.Status.
const (
	running    = "running"
	waiting    = "waiting"
	refused    = "refused"
	rolledBack = "rolled_back"

	unplaced = "unplaced" // only of api.Task.Status
)

// placed returns how a document that x's placement has is there.
func (x *Agent) placed(d *document) api.Placed {
	p := api.Placed{Agent: x.ID, Name: x.Name, Status: waiting}
	version := strconv.FormatInt(d.Version, 10)
	i := slices.IndexFunc(x.Documents, func(r report.Document) bool { return r.Source == "hub" && r.Name == d.name })
	switch {
	case i >= 0:
		r := x.Documents[i]
		if p.Version = r.Version; r.Version == version && slices.Contains([]string{running, refused, rolledBack}, r.Status) {
			p.Status, p.Error = r.Status, r.Error
		}
	case x.Documents == nil && x.Remote.Hash != "" && x.Remote.Hash == x.Placement.Hash: // it speaks plain OpAMP
		p.Version = version
		switch x.Remote.Status {
		case control.Applied:
			p.Status = running
		case control.Failed:
			p.Status, p.Error = refused, x.Remote.Error
		}
	}
	if p.Status == running && !x.Connected {
		p.Status = waiting
	}
	if p.Status == waiting {
		p.Error = x.Placement.Conflict
	}
	return p
}

// count counts agents by how d is there.
func (d *document) count(agents []Agent) (n api.DocumentAgents, list []api.Placed) {
	list = []api.Placed{}
	for i := range agents {
		x := &agents[i]
		if !slices.ContainsFunc(x.Placement.docs, func(o *document) bool { return o.name == d.name }) {
			continue
		}
		p := x.placed(d)
		n.Selected++
		switch p.Status {
		case running:
			n.Running++
		case waiting:
			n.Waiting++
		default:
			n.Failed++
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b api.Placed) int { return strings.Compare(a.Name+"\x00"+a.Agent, b.Name+"\x00"+b.Agent) })
	return n, list
}
