package gate

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
)

const (
	maxCSR    = 16 << 10
	maxOwed   = 1000
	again     = 10 * time.Second // after which who was refused may ask again
	joinAgain = "on a machine of the hub: creel token create --role agent; then run the line that it prints on the agent's host"
)

// A holder is who has proven, by the handshake, that the key of a certificate of the authority is its own.
type holder struct {
	control.Peer
	certificate *x509.Certificate
	print       string // of its key
	expired     *control.Refusal
}

// holder returns who a visitor is by its certificate.
func (g *Gate) holder(v *visit) (holder, error) {
	if v.TLS == nil || len(v.TLS.PeerCertificates) == 0 {
		return holder{}, &control.Refusal{Code: control.NoCertificate, Text: "the connection shows no certificate, and without one only agents on the hub's own machine may come in", Remedy: joinAgain, After: again}
	}
	h := holder{certificate: v.TLS.PeerCertificates[0]}
	var err error
	if h.Peer, err = g.o.Authority.Verify(v.TLS.PeerCertificates); err != nil && (!errors.As(err, &h.expired) || h.expired.Code != control.Expired) {
		return holder{}, err
	}
	if h.Hub {
		return holder{}, &control.Refusal{Code: control.OtherIdentity, Text: "the certificate is a hub's, and agents have their own", Remedy: joinAgain, After: again}
	}
	v.agent = h.ID
	if h.print, err = printOf(h.certificate.PublicKey); err != nil {
		return holder{}, malformed("the certificate's key is of no known kind")
	}
	return h, nil
}

// keyOf checks a certificate request, and returns its key. What else it says is not believed.
func keyOf(csr []byte) (key crypto.PublicKey, print string, err error) {
	if len(csr) == 0 || len(csr) > maxCSR {
		return nil, "", malformed("a certificate request has 1 to %d bytes, got %d", maxCSR, len(csr))
	}
	c, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, "", malformed("the certificate request is not PKCS #10 in DER")
	}
	good := false
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		good = k.Curve == elliptic.P256() || k.Curve == elliptic.P384()
	case ed25519.PublicKey:
		good = true
	}
	if !good {
		return nil, "", malformed("the key must be ECDSA on P-256 or P-384, or Ed25519")
	}
	if err := c.CheckSignature(); err != nil {
		return nil, "", malformed("the certificate request is not signed with its key")
	}
	if print, err = printOf(c.PublicKey); err != nil {
		return nil, "", malformed("the key cannot be encoded")
	}
	return c.PublicKey, print, nil
}

// enrol makes an identity for who has an enrolment token. It costs one use of it, however often the same is asked for: what
// is asked for again by the same id with the same token and key is the same. An id that has a holder stays the holder's.
func (g *Gate) enrol(ctx context.Context, v *visit, q control.EnrolRequest) (*control.Grant, error) {
	id, ok := agentID(q.Agent)
	if !ok {
		return nil, malformed("an agent's id is a UUID")
	}
	v.agent, v.name = id, clean(q.Name, maxName)
	t, err := control.ParseToken(q.Token)
	if err != nil {
		return nil, &control.Refusal{Code: control.TokenUnknown, Text: "what was shown is no token of creel's", Remedy: joinAgain, After: again}
	}
	key, print, err := keyOf(q.CSR)
	if err != nil {
		return nil, err
	}
	lock := &g.locks[maphash.String(g.seed, id)%uint64(len(g.locks))]
	lock.Lock()
	defer lock.Unlock()
	rec, revision, err := g.load(ctx, id)
	if err != nil {
		return nil, err
	}
	proof := proofOf(t.String())
	if rec.repeats(proof, print) {
		return g.grant(v, key, control.Peer{ID: id, Generation: rec.Generation})
	}
	next, err := g.successor(v, id, print, rec)
	if err != nil {
		return nil, err
	}
	grant, err := g.grant(v, key, control.Peer{ID: id, Generation: next.Generation}) // now, for what can go wrong costs no token
	if err != nil {
		return nil, err
	}
	debt := id + " " + print + " " + proof
	token, err := g.spend(ctx, debt, t.String())
	if err != nil {
		if rec, _, e := g.load(ctx, id); e == nil && rec.repeats(proof, print) { // another hub has just done it
			return g.grant(v, key, control.Peer{ID: id, Generation: rec.Generation})
		}
		return nil, err
	}
	if rec.Revocation != nil && !token.Created.After(rec.Revocation.Time) {
		r := g.revokedOf(id, rec.Revocation)
		r.Text += "; the token is older than that, so that it does not bring it back, and one use of it is spent"
		return nil, r
	}
	next.Name, next.Labels, next.Token, next.Proof, next.Enrolled = v.name, maps.Clone(token.Labels), token.ID, proof, g.o.Now().UTC()
	if _, err := g.save(ctx, id, next, revision); err != nil {
		if !errors.Is(err, state.ErrConflict) {
			g.owe(debt, token)
			g.o.Log.Error("one use of a token is spent, and what was to be made of it cannot be written; the agent may ask again with the same key, which costs no other", "agent", id, "token", token.ID, "error", err)
			return nil, busy(5*time.Second, "the hub cannot write the identity now: its log says why; one use of the token is spent, and to ask again with the same key costs no other")
		}
		if rec, _, e := g.load(ctx, id); e != nil || !rec.repeats(proof, print) {
			r := taken(id)
			r.Text += ": somebody has been faster, and one use of the token is spent"
			return nil, r
		}
	}
	g.o.Audit(ctx, api.AuditEntry{Who: token.Name, Role: api.Enrol, Address: v.host, Action: "enrol", Target: id, Outcome: "done", Detail: "host " + v.name + ", token " + token.ID})
	g.counted.enrolled.Inc()
	g.knocks.enter(id, v.host)
	g.o.Log.Info("an agent has joined", "agent", id, "name", v.name, "address", v.host, "token", token.ID)
	return grant, nil
}

// successor returns the record that an enrolment makes, or refuses it because the id has a holder already who is somebody
// else as far as is known.
func (g *Gate) successor(v *visit, id, print string, rec record) (record, error) {
	next := record{Generation: rec.Generation + 1, Key: print}
	switch {
	case rec.Revocation != nil: // the old holder is out, whoever has a newer token comes in
		next.Replaced = true
	case rec.Generation == 0: // it has none
	default:
		h, err := g.holder(v)
		v.agent = id
		if err != nil || h.ID != id {
			return next, taken(id)
		}
		switch rec.claim(h.Generation, h.print) {
		case stranger:
			return next, taken(id)
		case newer:
			next.Generation, next.Previous = h.Generation+1, h.print
		default:
			next.Previous = rec.Key
		}
		if print == h.print || print == rec.Key {
			return next, reused()
		}
	}
	next.Begun = next.Generation
	return next, nil
}

func taken(id string) *control.Refusal {
	return &control.Refusal{
		Code: control.IdentityTaken, After: again,
		Text:   "agent " + id + " has an identity already, and whoever asks for another has not shown its certificate",
		Remedy: "if it is a copy of another host, give it a state directory of its own; if it has lost its certificate: creel revoke " + id + ", then creel token create --role agent, and join with that token",
	}
}

func reused() *control.Refusal {
	return malformed("each certificate must have a new key, and this is an old one")
}

// spend takes one use of a token, unless one was taken for the same before that came to nothing.
func (g *Gate) spend(ctx context.Context, debt, text string) (api.AccessToken, error) {
	g.mu.Lock()
	token, owed := g.owed[debt]
	delete(g.owed, debt)
	g.mu.Unlock()
	if owed && (token.Ends.IsZero() || g.o.Now().Before(token.Ends)) {
		return token, nil
	}
	return g.o.Tokens.Spend(ctx, text)
}

func (g *Gate) owe(debt string, token api.AccessToken) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.owed) < maxOwed {
		g.owed[debt] = token
	}
}

// grant makes a certificate. It is worth nothing before the record has its generation and key.
func (g *Gate) grant(v *visit, key crypto.PublicKey, p control.Peer) (*control.Grant, error) {
	bundle, _ := g.o.Authority.Bundle() // first: if the authority changes now, the agent has what is older, and renews
	chain, life, err := g.o.Authority.IssueAgent(key, p)
	if err != nil {
		return nil, fmt.Errorf("make a certificate of agent %s: %w", p.ID, err)
	}
	return &control.Grant{Certificate: chain, Authorities: bundle, Lifetime: life, System: g.o.System(), Hub: g.o.Addresses(hostOf(v.Host))}, nil
}

// hostOf returns the host of what may have a port.
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return strings.Trim(address, "[]")
}

// renew makes the next certificate of an identity.
func (g *Gate) renew(ctx context.Context, v *visit, h holder, q control.RenewRequest) (*control.Grant, error) {
	key, print, err := keyOf(q.CSR)
	if err != nil {
		return nil, err
	}
	if print == h.print {
		return nil, reused()
	}
	for range attempts {
		rec, revision, err := g.load(ctx, h.ID)
		if err != nil {
			return nil, err
		}
		v.name = rec.Name
		if rec.Revocation != nil {
			return nil, g.revokedOf(h.ID, rec.Revocation)
		}
		claim, known := rec.claim(h.Generation, h.print), rec.Generation
		if claim == previous && print == rec.Key {
			return g.grant(v, key, control.Peer{ID: h.ID, Generation: rec.Generation})
		}
		next := rec
		next.Replaced = false
		switch {
		case claim == current:
			next.Generation++
		case claim == newer:
			next.Generation = h.Generation + 1
		case rec.Admitted == h.print:
			next.Generation, next.Replaced = rec.Generation+1, true
		default:
			if err = g.cloned(ctx, v, h, rec, revision); errors.Is(err, state.ErrConflict) {
				continue
			}
			return nil, err
		}
		if next.Admitted == h.print {
			next.Admitted = "" // once
		}
		next.Key, next.Previous, next.Renewed = print, h.print, g.o.Now().UTC()
		grant, err := g.grant(v, key, control.Peer{ID: h.ID, Generation: next.Generation})
		if err != nil {
			return nil, err
		}
		_, err = g.save(ctx, h.ID, next, revision)
		switch {
		case errors.Is(err, state.ErrConflict):
			continue
		case err != nil:
			return nil, err
		case claim == newer:
			g.restored(ctx, v, h, known)
		case next.Replaced:
			g.o.Log.Warn("an agent that was admitted has its identity again; the other holder has not any more", "agent", h.ID, "address", v.host)
		}
		g.counted.renewed.Inc()
		g.knocks.enter(h.ID, v.host)
		return grant, nil
	}
	return nil, busy(time.Second, "the identity is being changed again and again at this moment")
}

// enter checks that who shows a certificate is the holder, and returns the record.
func (g *Gate) enter(ctx context.Context, v *visit, h holder) (record, error) {
	for range attempts {
		rec, revision, err := g.load(ctx, h.ID)
		if err != nil {
			return rec, err
		}
		v.name = rec.Name
		if rec.Revocation != nil {
			return rec, g.revokedOf(h.ID, rec.Revocation)
		}
		if h.expired != nil {
			return rec, h.expired
		}
		if rec.Admitted == h.print {
			return rec, &control.Refusal{Code: control.Expired, Text: "agent " + h.ID + " is admitted again, and must renew its certificate before anything else", Remedy: "it does so by itself"}
		}
		switch rec.claim(h.Generation, h.print) {
		case newer:
			known := rec.Generation
			rec.Generation, rec.Key, rec.Previous, rec.Replaced = h.Generation, h.print, "", false
			if _, err = g.save(ctx, h.ID, rec, revision); err == nil {
				g.restored(ctx, v, h, known)
			}
		case stranger:
			err = g.cloned(ctx, v, h, rec, revision)
		}
		if errors.Is(err, state.ErrConflict) {
			continue
		}
		if err == nil {
			g.knocks.enter(h.ID, v.host)
		}
		return rec, err
	}
	return record{}, busy(time.Second, "the identity is being changed again and again at this moment")
}

// restored tells that a certificate is newer than the record: the control state was restored from an old backup. The
// authority has made the certificate, so it is believed.
func (g *Gate) restored(ctx context.Context, v *visit, h holder, known uint64) {
	detail := fmt.Sprintf("its certificate is of generation %d, and the hub knew %d: the control state is older than the certificate, as after restoring a backup", h.Generation, known)
	if known == 0 {
		detail += "; what labels were pinned to it is not known any more"
	}
	g.o.Log.Warn("the identity of an agent is newer than what the hub knew of it, and is believed", "agent", h.ID, "address", v.host, "generation", h.Generation, "known", known)
	g.o.Audit(ctx, api.AuditEntry{Who: "agent " + h.ID, Role: api.Enrol, Address: v.host, Action: "restoreIdentity", Target: h.ID, Outcome: "done", Detail: detail})
}

// cloned returns the refusal of somebody with the certificate of an identity that another has renewed. It notes who that was,
// for Admit; it fails with state.ErrConflict when the record has changed meanwhile.
func (g *Gate) cloned(ctx context.Context, v *visit, h holder, rec record, revision int64) error {
	if rec.Refused != h.print {
		rec.Refused, rec.Replaced = h.print, false
		if _, err := g.save(ctx, h.ID, rec, revision); err != nil {
			return err
		}
		g.o.Audit(ctx, api.AuditEntry{Who: "agent " + h.ID, Role: api.Enrol, Address: v.host, Action: "cloneIdentity", Target: h.ID, Outcome: control.Cloned, Detail: fmt.Sprintf("a certificate of generation %d was shown, and somebody else has that of generation %d", h.Generation, rec.Generation)})
	}
	return &control.Refusal{
		Code: control.Cloned, After: again,
		Text:   fmt.Sprintf("two hosts have the identity of agent %s: this one shows a certificate of generation %d, and another one has renewed it to %d", h.ID, h.Generation, rec.Generation),
		Remedy: "if this one is the copy, give it a state directory of its own and join again with creel token create --role agent; if it is the right one: creel admit " + h.ID + ", which refuses the other from then on; if neither is: creel revoke " + h.ID,
	}
}

func (g *Gate) revokedOf(id string, r *api.Revocation) *control.Refusal {
	return &control.Refusal{
		Code: control.Revoked, After: again,
		Text:   "agent " + id + " was revoked by " + r.By + " at " + r.Time.Format(time.RFC3339),
		Remedy: "to let it in again: creel admit " + id,
	}
}
