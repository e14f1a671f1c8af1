package gate

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
)

const (
	maxKnocks      = 1000
	maxFromNetwork = 25  // of them from one network, so that nobody pushes others out
	maxName        = 100 // bytes of a name, an id, a code
	maxText        = 1000
)

// knocks are those who were refused lately, in memory. The one seen least recently makes room.
type knocks struct {
	mu    sync.Mutex
	known map[knockKey]*knock
}

// A knockKey is what makes two refusals the same knock.
type knockKey struct{ who, reason string }

type knock struct {
	api.Knock
	network netip.Prefix // that it came from first: whoever says the same id later does not make it his
}

func newKnocks() *knocks { return &knocks{known: make(map[knockKey]*knock)} }

// add notes a refusal, and reports whether it is a new one.
func (k *knocks) add(n api.Knock, network netip.Prefix, now time.Time) bool {
	key := knockKey{n.Agent, n.Reason}
	if n.Agent == "" {
		key.who = n.Address
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.known[key]
	if old == nil {
		k.room(network)
		old = &knock{Knock: api.Knock{First: now}, network: network}
		k.known[key] = old
	}
	n.First, n.Last, n.Count = old.First, now, old.Count+1
	if n.Name == "" {
		n.Name = old.Name
	}
	old.Knock = n
	return n.Count == 1
}

// room makes room for one from a network. k.mu is held.
func (k *knocks) room(network netip.Prefix) {
	var oldest, own knockKey
	var first, firstOwn time.Time
	n := 0
	for key, one := range k.known {
		if first.IsZero() || one.Last.Before(first) {
			oldest, first = key, one.Last
		}
		if one.network != network {
			continue
		}
		if n++; firstOwn.IsZero() || one.Last.Before(firstOwn) {
			own, firstOwn = key, one.Last
		}
	}
	switch {
	case n >= maxFromNetwork:
		delete(k.known, own)
	case len(k.known) >= maxKnocks:
		delete(k.known, oldest)
	}
}

// settled are the reasons that are over when the agent comes in from the same place. That a clone was refused is not over
// when the other one comes in.
var settled = []string{
	control.TokenUnknown, control.TokenExpired, control.TokenSpent, control.Malformed, control.NoCertificate, control.UnknownAuthority, control.Expired,
}

// enter notes that an agent came in.
func (k *knocks) enter(agent, address string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, reason := range settled {
		for _, who := range []string{agent, address} {
			key := knockKey{who, reason}
			if one := k.known[key]; one != nil && one.Address == address {
				delete(k.known, key)
			}
		}
	}
}

// forget forgets an agent's knocks.
func (k *knocks) forget(agent string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key := range k.known {
		if key.who == agent {
			delete(k.known, key)
		}
	}
}

// list returns them, newest first.
func (k *knocks) list() []api.Knock {
	k.mu.Lock()
	list := make([]api.Knock, 0, len(k.known))
	for _, one := range k.known {
		list = append(list, one.Knock)
	}
	k.mu.Unlock()
	slices.SortFunc(list, func(a, b api.Knock) int {
		if c := b.Last.Compare(a.Last); c != 0 {
			return c
		}
		return strings.Compare(a.Agent+a.Address+a.Reason, b.Agent+b.Address+b.Reason)
	})
	return list
}

// clean returns what strangers say without what a terminal, a log or a page would not show as it is, and no longer than n
// bytes.
func clean(s string, n int) string {
	if len(s) > 4*n {
		s = s[:4*n]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.TrimSpace(s)
	for len(s) > n {
		cut := n
		for cut > 0 && s[cut]&0xC0 == 0x80 {
			cut--
		}
		s = strings.TrimSpace(s[:cut])
	}
	return s
}
