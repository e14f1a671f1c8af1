package access

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel/hub/internal/state"
)

// There is a key for each day (UTC), under its date: whichever hub comes first makes it, and the others take that. It is made
// a day before it signs. One that could not be made in time, because no hub ran or the control state was away, signs after
// keyLead, so that all hubs know it before; until then, however long that is, the one before goes on. A key verifies until
// the next has signed for longer than anything lives that it has signed, by each hub's own clock; then it is removed.

const (
	keyPrefix = "token-keys/" // and the day
	keyDay    = 24 * time.Hour
	keyLead   = 10 * time.Minute
	keySlack  = time.Hour // by which a hub's clock or its news may be late
)

// keyRecord is a key as it lies in the control state, sealed.
type keyRecord struct {
	Seed  []byte    `json:"seed"` // RFC 8032: the private key
	Signs time.Time `json:"signs"`
}

// key is one that signs from a moment on, until the next does.
type key struct {
	name     string // in the control state
	id       string // kid: its thumbprint (RFC 7638)
	private  ed25519.PrivateKey
	public   ed25519.PublicKey
	signs    time.Time
	revision int64
}

// ring is keys by when they sign. It does not change.
type ring []*key

// signer returns the key that signs now: the newest that may, or the first of all; nil if there is none.
func (r ring) signer(now time.Time) *key {
	if len(r) == 0 {
		return nil
	}
	return r[max(0, r.begun(now)-1)]
}

// begun returns how many keys sign or have signed.
func (r ring) begun(now time.Time) int {
	n, _ := slices.BinarySearchFunc(r, now, func(k *key, now time.Time) int {
		if k.signs.After(now) {
			return 1
		}
		return -1
	})
	return n
}

// over reports whether all has ended that the i-th key has signed.
func (r ring) over(i int, now time.Time) bool {
	return i+1 < len(r) && now.After(r[i+1].signs.Add(sessionLife+keySlack))
}

// find returns the key with an id, unless that is over; or nil.
func (r ring) find(id string, now time.Time) *key {
	for i, k := range r {
		if k.id == id && !r.over(i, now) {
			return k
		}
	}
	return nil
}

// keys are those of the control state.
type keys struct {
	o     *Options
	mu    sync.Mutex
	named map[string]*key // by name
	ring  atomic.Pointer[ring]
}

func newKeys(o *Options) *keys {
	k := &keys{o: o, named: make(map[string]*key)}
	k.ring.Store(&ring{})
	return k
}

func (k *keys) current() ring { return *k.ring.Load() }

// all takes in all keys as of a revision.
func (k *keys) all(list []state.Entry, revision int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	there := make(map[string]bool, len(list))
	for _, e := range list {
		there[e.Key] = true
		if err := k.take(e); err != nil {
			k.o.Log.Error("a key of JWTs cannot be read", "error", err)
		}
	}
	for name, old := range k.named {
		if !there[name] && old.revision <= revision {
			delete(k.named, name)
		}
	}
	k.renew()
}

// one takes in a change.
func (k *keys) one(e state.Entry) {
	if err := k.learn(e); err != nil {
		k.o.Log.Error("a key of JWTs cannot be read", "error", err)
	}
}

func (k *keys) learn(e state.Entry) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.take(e); err != nil {
		return err
	}
	k.renew()
	return nil
}

// take takes in one key, unless something newer is known of it. k.mu is held.
func (k *keys) take(e state.Entry) error {
	if old := k.named[e.Key]; old != nil && old.revision >= e.Revision {
		return nil
	}
	delete(k.named, e.Key)
	if e.Value == nil {
		return nil
	}
	value, err := k.o.Secret.Open(e.Key, e.Value)
	if err != nil {
		return fmt.Errorf("open %s: %w", e.Key, err)
	}
	var r keyRecord
	if err := json.Unmarshal(value, &r); err != nil || len(r.Seed) != ed25519.SeedSize {
		return fmt.Errorf("read %s: it is no key", e.Key)
	}
	k.named[e.Key] = newKey(e.Key, r, e.Revision)
	return nil
}

func newKey(name string, r keyRecord, revision int64) *key {
	k := &key{name: name, private: ed25519.NewKeyFromSeed(r.Seed), signs: r.Signs, revision: revision}
	k.public = k.private.Public().(ed25519.PublicKey)
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(k.public) + `"}`))
	k.id = base64.RawURLEncoding.EncodeToString(sum[:])
	return k
}

// renew makes the next ring. k.mu is held.
func (k *keys) renew() {
	r := make(ring, 0, len(k.named))
	for _, one := range k.named {
		r = append(r, one)
	}
	slices.SortFunc(r, func(x, y *key) int { return cmp.Or(x.signs.Compare(y.signs), strings.Compare(x.name, y.name)) })
	k.ring.Store(&r)
}

// tend makes the keys of today and tomorrow if they are not there, and removes those that are over.
func (k *keys) tend(ctx context.Context) error {
	now := k.o.Now().UTC()
	for _, day := range []time.Time{now.Truncate(keyDay), now.Truncate(keyDay).Add(keyDay)} {
		name := keyPrefix + day.Format(time.DateOnly)
		k.mu.Lock()
		there := k.named[name] != nil
		k.mu.Unlock()
		if !there {
			if err := k.make(ctx, name, day, now); err != nil {
				return err
			}
		}
	}
	r := k.current()
	for i, one := range r {
		if !r.over(i, now) {
			continue
		}
		if err := k.o.Store.Delete(ctx, one.name, state.Unchanged(one.revision)); err != nil && !errors.Is(err, state.ErrConflict) {
			return fmt.Errorf("remove %s: %w", one.name, err)
		}
	}
	return nil
}

// make makes the key of a day, or takes the one that another hub has made.
func (k *keys) make(ctx context.Context, name string, day, now time.Time) error {
	r := keyRecord{Seed: make([]byte, ed25519.SeedSize), Signs: day}
	_, _ = rand.Read(r.Seed) // it never fails
	if late := now.Add(keyLead); late.After(day) && k.current().begun(now) > 0 {
		r.Signs = late
	}
	value, err := json.Marshal(r)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	e := state.Entry{Key: name, Value: k.o.Secret.Seal(name, value)}
	e.Revision, err = k.o.Store.Put(ctx, name, e.Value, false, state.Unchanged(0))
	if errors.Is(err, state.ErrConflict) {
		e, err = k.o.Store.Get(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	return k.learn(e)
}

// jwks returns the public keys, as JSON.
func (k *keys) jwks() []byte {
	type jwk struct {
		Type      string `json:"kty"`
		Curve     string `json:"crv"`
		X         string `json:"x"`
		ID        string `json:"kid"`
		Use       string `json:"use"`
		Algorithm string `json:"alg"`
	}
	set := struct {
		Keys []jwk `json:"keys"`
	}{[]jwk{}}
	now, r := k.o.Now(), k.current()
	for i, one := range r {
		if !r.over(i, now) {
			set.Keys = append(set.Keys, jwk{"OKP", "Ed25519", base64.RawURLEncoding.EncodeToString(one.public), one.id, "sig", "EdDSA"})
		}
	}
	text, err := json.Marshal(set)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return text
}
