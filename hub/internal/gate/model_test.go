package gate

import (
	"context"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
)

// actor is a machine with the identity, in the model: the right one, or one with a copy of its state directory.
type actor struct{ *host }

func (a actor) print() string {
	p, err := printOf(a.key.Public())
	if err != nil {
		panic(err)
	}
	return p
}

// model is what must be so, whatever happens.
type model struct {
	*rapid.T
	w        *world
	actors   []actor
	revoked  bool
	refused  string            // the key of who was refused last as a clone
	admitted string            // the key of who must be let in next
	after    map[string]string // the key that has followed a certificate, since the hub was restored
	backup   []state.Entry
	kept     [2]string // refused and admitted in the backup
	was      bool      // revoked in the backup
	happened map[string]int
}

// renew has an actor renew. If the answer is lost, it asks for the same the next time.
func (m *model) renew(a actor, lost bool) {
	if a.pending == nil {
		a.pending = newEdKey()
	}
	pending, err := printOf(a.pending.Public())
	if err != nil {
		m.Fatal(err)
	}
	own, at := a.print(), fmt.Sprint(a.generation(), a.print())
	grant, refused := a.host.renew(m, m.w.gate)
	switch {
	case m.revoked:
		want(m, "it is revoked", refused, control.Revoked)
		m.happened["revoked"]++
	case refused.Code == "":
		if next, ok := m.after[at]; ok && next != pending && m.admitted != own {
			m.Fatalf("two have followed the same certificate")
		}
		repeated := m.after[at] == pending
		if repeated {
			m.happened["repeated"]++
		}
		if m.admitted == own {
			rec, _, err := m.w.gate.load(context.Background(), a.id)
			if err != nil || rec.Admitted != "" && !repeated { // who repeats what another with the same key has done needs no admission
				m.Fatalf("it has come in twice by one admission: %+v, %v", rec, err)
			}
			m.admitted = rec.Admitted
			m.happened["admitted"]++
		}
		m.after[at] = pending
		if lost {
			m.happened["lost"]++
			return
		}
		a.take(&grant)
	case len(m.actors) == 1:
		m.Fatalf("there is no other, and it is refused: %+v", refused)
	case m.admitted == own:
		m.Fatalf("it was admitted, and is refused: %+v", refused)
	default:
		want(m, "one of several", refused, control.Cloned)
		m.refused = own
		m.happened["cloned"]++
		a.pending = nil // it has a new key the next time
	}
}

// look has everybody ask for a token, twice: the first time the hub may learn of certificates that are newer than it knew.
func (m *model) look() {
	for round := range 2 {
		keys := make(map[uint64]string) // by generation
		distinct := make(map[string]bool)
		for _, a := range m.actors {
			_, refused := a.token(m, m.w.gate)
			switch {
			case m.revoked:
				want(m, "it is revoked", refused, control.Revoked)
			case refused.Code == "":
				if k, ok := keys[a.generation()]; round == 1 && ok && k != a.print() {
					m.Fatalf("two are let in with generation %d", a.generation())
				}
				keys[a.generation()] = a.print()
				distinct[a.print()] = true
			case len(m.actors) == 1:
				m.Fatalf("there is no other, and it is refused: %+v", refused)
			case refused.Code == control.Cloned:
				m.refused = a.print()
			case refused.Code != control.Expired || m.admitted != a.print():
				m.Fatalf("refused: %+v", refused)
			}
		}
		if round == 1 && len(distinct) > 2 {
			m.Fatalf("%d keys are let in", len(distinct))
		}
	}
}

func (m *model) save() {
	var err error
	if m.backup, _, err = m.w.store.List(context.Background(), prefix); err != nil {
		m.Fatal(err)
	}
	m.kept, m.was = [2]string{m.refused, m.admitted}, m.revoked
}

// step has something happen, to an actor if it is of that kind.
func (m *model) step(what string, a actor) {
	switch what {
	case "renew":
		m.renew(a, false)
	case "lose":
		m.renew(a, true)
	case "look":
		m.look()
	case "clone":
		if len(m.actors) < 3 {
			m.actors = append(m.actors, actor{a.copied()})
		}
	case "revoke":
		if err := m.w.gate.Revoke(context.Background(), "ops", a.id, "", ""); err != nil {
			m.Fatal(err)
		}
		if !m.revoked {
			m.refused, m.admitted = "", ""
		}
		m.revoked = true
	case "admit":
		err := m.w.gate.Admit(context.Background(), "ops", a.id, "")
		switch {
		case (err == nil) != (m.revoked || m.refused != "" || m.admitted != ""):
			m.Fatalf("admit: %v", err)
		case m.revoked:
			m.revoked = false
		case m.refused != "":
			m.admitted, m.refused = m.refused, ""
		}
	case "back up":
		m.save()
	case "restore":
		m.w.restore(m.backup)
		m.refused, m.admitted, m.revoked = m.kept[0], m.kept[1], m.was
		m.after = make(map[string]string)
		m.happened["restored"]++
	default:
		panic("BUG: " + what)
	}
}

// TestModel: never are two with different keys let in with the same generation, never do two follow one certificate, and who
// is alone, or admitted, is let in; whatever is lost, copied, revoked and restored meanwhile.
func TestModel(t *testing.T) {
	happened := make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		m := &model{T: t, w: newWorld(t), after: make(map[string]string), happened: happened}
		defer func() { m.w.gate.Close() }()
		m.actors = []actor{{newHost().join(m.w, nil)}}
		if rapid.Bool().Draw(t, "the backup knows it") {
			m.save()
		}
		if rapid.Bool().Draw(t, "with everything") {
			for _, step := range []string{"lose 0", "clone 0", "renew 0", "renew 0", "renew 1", "renew 1", "admit 1", "renew 1", "back up 0", "renew 1", "restore 0", "revoke 0", "renew 1", "admit 0"} {
				who := int(step[len(step)-1] - '0')
				m.step(step[:len(step)-2], m.actors[who])
			}
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			a := m.actors[rapid.IntRange(0, len(m.actors)-1).Draw(t, "who")]
			m.step(rapid.SampledFrom([]string{"renew", "renew", "renew", "lose", "lose", "look", "clone", "revoke", "admit", "admit", "back up", "restore"}).Draw(t, "what"), a)
		}
		m.look()
	})
	for _, what := range []string{"revoked", "admitted", "repeated", "lost", "cloned", "restored"} {
		if happened[what] == 0 {
			t.Errorf("%s has never happened: the test shows nothing", what)
		}
	}
}
