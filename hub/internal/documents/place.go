package documents

import (
	"encoding/binary"
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
	standings  map[string]standing

	mu         sync.Mutex
	placements map[string]*Placement // by which documents are selected, in which epochs; most agents have one in common with many others
}

// A Placement is what documents say that an agent shall run. It is immutable.
type Placement struct {
	Offer    *control.Offer
	Hash     string // of Offer
	Message  []byte // an OpAMP ServerToAgent, encoded, that has nothing but Offer
	Conflict string // why the documents cannot be merged: then there is no Offer

	// Exclusive are the epochs of the documents in it that are exclusive, by name: see Store.Confirm.
	Exclusive map[string]int64

	docs []*document
}

// maxOffer is the bytes of an offer; a message of control.MaxMessage has more than that in it.
const maxOffer = control.MaxMessage * 3 / 4

// For returns what a creel agent with these labels, AgentLabel among them, shall run.
func (s *Set) For(labels map[string]string) *Placement {
	n := (len(s.docs) + 7) / 8
	key := make([]byte, n, n+16) // a bitmap of documents, and the epochs of those that are placed, with what is asked of them
	for i, d := range s.docs {
		if d.content == nil || !d.content.selects(labels) {
			continue
		}
		if d.content.count > 0 {
			epoch, has := d.owners.of(labels[AgentLabel])
			if !has {
				continue
			}
			for _, n := range []int64{epoch, d.owners.Asked.Run, d.owners.Asked.Cancel} {
				key = binary.AppendVarint(key, n)
			}
		}
		key[i/8] |= 1 << (i % 8)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.placements[string(key)]
	if p == nil {
		p = s.place(key[:n], key[n:])
		s.placements[string(key)] = p
	}
	return p
}

// tenure returns the terms of d, on which an agent has it, and what is left of epochs, as For writes them.
func (d *document) tenure(epochs []byte) (control.Tenure, []byte) {
	if d.content.count == 0 {
		return control.Tenure{}, epochs
	}
	t := control.Tenure{Exclusive: d.content.never, Orphan: d.content.orphan, Once: d.content.once}
	for _, to := range []*int64{&t.Epoch, &t.Run, &t.Cancel} {
		var n int
		*to, n = binary.Varint(epochs)
		epochs = epochs[n:]
	}
	t.Cursor = d.owners.given(t.Epoch)
	return t, epochs
}

// place merges the documents that a bitmap names, with the epochs of those that are placed.
func (s *Set) place(which, epochs []byte) *Placement {
	p := &Placement{Conflict: s.unreadable}
	defined, size := make(map[string]string), 0
	offer := &control.Offer{}
	for i, d := range s.docs {
		if which[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		p.docs = append(p.docs, d)
		size += len(d.Text)
		o := control.OfferedDocument{Name: d.name, Version: strconv.FormatInt(d.Version, 10), Text: d.Text}
		o.Tenure, epochs = d.tenure(epochs)
		offer.Documents = append(offer.Documents, o)
		if o.Tenure.Exclusive {
			if p.Exclusive == nil {
				p.Exclusive = make(map[string]int64)
			}
			p.Exclusive[d.name] = o.Tenure.Epoch
		}
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

// has reports whether a document is among p's.
func (p *Placement) has(name string) bool {
	return slices.ContainsFunc(p.docs, func(d *document) bool { return d.name == name })
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
	Cursors   map[string]Cursor // by document: what it has said to this hub that its collectors have saved; it does not change
	Here      bool              // it is connected to this hub, and the connection stands
	Settled   bool              // it is Here, has said that it runs what Placement offers, and nothing else is on its way to it
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
	done       = "done" // of a document that is to be done once, as the next one
	failed     = "failed"

	unplaced  = "unplaced" // only of api.Task.Status, as the next two
	parked    = "parked"
	cancelled = "cancelled"
)

// placed returns how a document that x's placement has is there.
func (x *Agent) placed(d *document) api.Placed {
	p := api.Placed{Agent: x.ID, Name: x.Name, Status: waiting}
	version := strconv.FormatInt(d.Version, 10)
	r, said := x.says(d.name)
	switch {
	case said:
		if p.Version = r.Version; r.Version != version {
			break
		}
		switch r.Status {
		case running, refused, rolledBack:
			p.Status, p.Error = r.Status, r.Error
		case done, failed:
			p.Status = running // it may speak of an earlier time that it had it
			if epoch, _ := d.owners.of(x.ID); r.Epoch == epoch {
				p.Status, p.Error = r.Status, r.Error
			}
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

// says returns what x says of a document of the hub, and whether it says something.
func (x *Agent) says(name string) (report.Document, bool) {
	i := slices.IndexFunc(x.Documents, func(r report.Document) bool { return r.Source == "hub" && r.Name == name })
	if i < 0 {
		return report.Document{}, false
	}
	return x.Documents[i], true
}

// count counts agents by how d is there.
func (d *document) count(agents []Agent) (n api.DocumentAgents, list []api.Placed) {
	list = []api.Placed{}
	for i := range agents {
		x := &agents[i]
		if !x.Placement.has(d.name) {
			continue
		}
		p := x.placed(d)
		n.Selected++
		switch p.Status {
		case running, done:
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
