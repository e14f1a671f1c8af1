package gate

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/state"
)

const (
	prefix   = "identities/"
	attempts = 8 // to change a record that others change as well
)

// record is what is known of an agent's identity, in the control state under identities/<agent>.
//
// Generation and Key are of the certificate that was made last, Previous is the key of the one before: of every other
// certificate with these generations it is certain that it is not the holder's.
type record struct {
	Name       string            `json:"name,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"` // that its enrolment token has pinned
	Generation uint64            `json:"generation"`
	Key        string            `json:"key,omitempty"` // fingerprint
	Previous   string            `json:"previous,omitempty"`

	Enrolled time.Time `json:"enrolled,omitzero"`
	Token    string    `json:"token,omitempty"` // the id of the one that it has enrolled with
	Proof    string    `json:"proof,omitempty"` // the hash of that token's text: who repeats the request has it
	Begun    uint64    `json:"begun,omitempty"` // the generation that the enrolment has made
	Renewed  time.Time `json:"renewed,omitzero"`

	Revocation *api.Revocation `json:"revocation,omitempty"`
	Refused    string          `json:"refused,omitempty"`  // the key of who was refused last as a clone
	Admitted   string          `json:"admitted,omitempty"` // the key of who may renew though it looks like a clone
	Replaced   bool            `json:"replaced,omitempty"` // this change has given the identity to another holder
}

// claim is how a certificate stands to a record.
type claim int

const (
	stranger claim = iota // there is another holder
	current
	previous
	newer // it was made after the record, which is of an old backup
)

// claim judges a certificate of an authority of this hub, by its generation and key.
func (r *record) claim(generation uint64, key string) claim {
	switch {
	case generation > r.Generation:
		return newer
	case generation == r.Generation && key == r.Key:
		return current
	case generation < r.Generation && key == r.Previous: // by more than one when it was admitted
		return previous
	}
	return stranger
}

// repeats reports whether an enrolment is the one that has made the record, and the agent has not renewed since: its answer
// was lost.
func (r *record) repeats(proof, key string) bool {
	return r.Revocation == nil && r.Begun > 0 && r.Generation == r.Begun && r.Key == key && subtle.ConstantTimeCompare([]byte(r.Proof), []byte(proof)) == 1
}

// load returns an agent's record and its revision: 0 and an empty one if there is none.
func (g *Gate) load(ctx context.Context, id string) (rec record, revision int64, err error) {
	e, err := g.o.Store.Get(ctx, prefix+id)
	if errors.Is(err, state.ErrNotFound) {
		return rec, 0, nil
	}
	if err == nil {
		err = json.Unmarshal(e.Value, &rec)
	}
	if err != nil {
		return rec, 0, fmt.Errorf("read the identity of agent %s: %w", id, err)
	}
	return rec, e.Revision, nil
}

// save writes a record if it is still as it was at a revision; else the error is state.ErrConflict.
func (g *Gate) save(ctx context.Context, id string, rec record, revision int64) (int64, error) {
	value, err := json.Marshal(rec)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	revision, err = g.o.Store.Put(ctx, prefix+id, value, false, state.Unchanged(revision))
	if err != nil {
		return 0, fmt.Errorf("write the identity of agent %s: %w", id, err)
	}
	return revision, nil
}

// agentID reads an agent's id; what is none is "".
func agentID(text string) (string, bool) {
	id, err := uuid.Parse(text)
	if err != nil || id == uuid.Nil || len(text) != len(id.String()) {
		return "", false
	}
	return id.String(), true
}

// printOf returns the fingerprint of a key: the SHA-256 of its PKIX form, which is the same in a request and a certificate.
func printOf(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("encode a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// proofOf returns what is kept of a token's text. It has 130 random bits, so that a plain hash gives nothing away.
func proofOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
