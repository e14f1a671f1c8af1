package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/state"
)

const (
	tokenPrefix = "tokens/" // and the token's id
	tokenBegin  = "creel_"  // of the text of a token
	rootName    = "root"
	idLength    = 8
	maxTokens   = 10_000
	forget      = 24 * time.Hour // after its end a token is removed: until then it is refused as ended, not as unknown
	busyPause   = 5 * time.Second
)

// record is a token as it lies in the control state.
type record struct {
	api.AccessToken
	Hash []byte `json:"hash"` // SHA-256 of the secret: that has 130 random bits, so there is nothing to guess
}

// token is a record as it was at a revision. It does not change.
type token struct {
	record
	revision int64
	within   expr.Selector
	signals  []creel.Signal
	window   *window // of the limit; nil: there is none
}

// readToken reads a token from the control state.
func readToken(e state.Entry) (*token, error) {
	t := &token{revision: e.Revision}
	if err := json.Unmarshal(e.Value, &t.record); err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Key, err)
	}
	if tokenPrefix+t.ID != e.Key || len(t.Hash) != sha256.Size {
		return nil, fmt.Errorf("read %s: it is another token's, or damaged", e.Key)
	}
	var err error
	if t.within, err = expr.ParseSelector(t.Within); err != nil {
		return nil, fmt.Errorf("read %s: within: %w", e.Key, err)
	}
	for _, name := range t.Signals {
		s := signalOf(name)
		if s == 0 {
			return nil, fmt.Errorf("read %s: there is no signal %s", e.Key, name)
		}
		t.signals = append(t.signals, s)
	}
	if t.Records > 0 {
		t.window = &window{}
	}
	return t, nil
}

// signalOf returns the signal of a name, 0 for none.
func signalOf(name string) creel.Signal {
	for _, s := range creel.Signals() {
		if s.String() == name {
			return s
		}
	}
	return 0
}

func (t *token) ended(now time.Time) bool { return !t.Ends.IsZero() && !now.Before(t.Ends) }

// joins reports whether it is spent by who joins, and good for nothing else.
func (t *token) joins() bool { return t.Role == api.Enrol || t.Role == api.Member }

// is reports whether a secret is the token's. A nil token has none, and takes as long to say so.
func (t *token) is(secret string) bool {
	hash := make([]byte, sha256.Size)
	if t != nil {
		hash = t.Hash
	}
	sum := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(sum[:], hash) == 1 && t != nil
}

func (t *token) principal() Principal {
	return Principal{Name: t.Name, Role: t.Role, Within: t.within, Token: t.ID, Signals: t.signals, Ends: t.Ends}
}

// token returns the token with an id as far as this hub has heard, or nil.
func (a *Access) token(id string) *token {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.tokens[id]
}

// all takes in all tokens that there are as of a revision.
func (a *Access) all(list []state.Entry, revision int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	there := make(map[string]bool, len(list))
	for _, e := range list {
		there[strings.TrimPrefix(e.Key, tokenPrefix)] = true
		a.take(e)
	}
	maps.DeleteFunc(a.tokens, func(id string, t *token) bool { return !there[id] && t.revision <= revision })
	maps.DeleteFunc(a.gone, func(id string, _ bool) bool { return !there[id] })
}

// one takes in a change.
func (a *Access) one(e state.Entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.take(e)
}

// take takes in one token, unless something newer is known of it. Ids are random and never used again. a.mu is held.
func (a *Access) take(e state.Entry) {
	id := strings.TrimPrefix(e.Key, tokenPrefix)
	old := a.tokens[id]
	switch {
	case e.Value == nil:
		delete(a.tokens, id)
		delete(a.gone, id)
		return
	case a.gone[id] || old != nil && old.revision >= e.Revision:
		return
	}
	t, err := readToken(e)
	if err != nil {
		a.o.Log.Error("a token cannot be read, and is worth nothing until it can", "error", err)
		delete(a.tokens, id)
		return
	}
	if old != nil && t.window != nil && old.window != nil {
		t.window = old.window
	}
	a.tokens[id] = t
}

// List returns the tokens that are worth something, as far as this hub has heard.
func (a *Access) List() api.AccessTokenList {
	now, l := a.o.Now(), api.AccessTokenList{Tokens: []api.AccessToken{}}
	a.mu.RLock()
	for _, t := range a.tokens {
		if !t.ended(now) && (!t.joins() || t.Uses > 0) {
			l.Tokens = append(l.Tokens, t.AccessToken)
		}
	}
	a.mu.RUnlock()
	slices.SortFunc(l.Tokens, func(x, y api.AccessToken) int {
		return cmp.Or(cmp.Compare(x.Role, y.Role), cmp.Compare(x.Name, y.Name), cmp.Compare(x.ID, y.ID))
	})
	return l
}

// Create makes a token. by is who asks. Join of what it returns is empty. The error is an *api.Error.
func (a *Access) Create(ctx context.Context, by string, r api.AccessTokenRequest) (api.AccessTokenCreated, error) {
	if refusal := check(&r); refusal != nil {
		return api.AccessTokenCreated{}, refusal
	}
	if a.full() {
		if err := a.prune(ctx, 0); err != nil {
			return api.AccessTokenCreated{}, away(err)
		}
		if a.full() {
			return api.AccessTokenCreated{}, &api.Error{Code: "conflict", Message: fmt.Sprintf("there are %d tokens, and no more can be; delete some that nobody uses", maxTokens)}
		}
	}
	now := a.o.Now().UTC()
	rec := record{AccessToken: api.AccessToken{Name: r.Name, Role: r.Role, Within: r.Within, Signals: r.Signals, Records: r.Records, Labels: r.Labels,
		Uses: r.Uses, By: by, Created: now}}
	if r.Seconds > 0 {
		rec.Ends = now.Add(time.Duration(r.Seconds) * time.Second)
	}
	text := control.Token{Secret: strings.ToLower(rand.Text()), Fingerprint: a.o.Fingerprint()}
	sum := sha256.Sum256([]byte(text.Secret))
	rec.Hash = sum[:]
	for {
		text.ID = strings.ToLower(rand.Text()[:idLength])
		rec.ID = text.ID
		e := state.Entry{Key: tokenPrefix + rec.ID, Value: encode(&rec)}
		var err error
		e.Revision, err = a.o.Store.Put(ctx, e.Key, e.Value, false, state.Unchanged(0))
		if errors.Is(err, state.ErrConflict) { // one of 2^40 ids, and just that
			continue
		}
		if err != nil {
			return api.AccessTokenCreated{}, away(err)
		}
		a.one(e)
		return api.AccessTokenCreated{AccessToken: rec.AccessToken, Text: text.String()}, nil
	}
}

func encode(r *record) []byte {
	value, err := json.Marshal(r)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return value
}

func (a *Access) full() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.tokens) >= maxTokens
}

// Delete removes a token: it and all that it was changed for are worth nothing from now on. The error is an *api.Error.
func (a *Access) Delete(ctx context.Context, id string) (api.AccessToken, error) {
	if len(id) != idLength { // whatever it is, even the secret: it is not repeated
		return api.AccessToken{}, &api.Error{Code: "not_found", Message: "that is no token's id, which has 8 letters and digits; creel token list shows them. The root token is changed in the hub's state directory"}
	}
	e, err := a.o.Store.Get(ctx, tokenPrefix+id)
	if errors.Is(err, state.ErrNotFound) {
		return api.AccessToken{}, &api.Error{Code: "not_found", Message: fmt.Sprintf("there is no token with the id %q; creel token list shows them", id)}
	}
	if err != nil {
		return api.AccessToken{}, away(err)
	}
	t, err := readToken(e) // one that cannot be read can be deleted
	if err != nil {
		t = &token{record: record{AccessToken: api.AccessToken{ID: id}}}
	}
	if err := a.remove(ctx, id, state.Always()); err != nil {
		return api.AccessToken{}, away(err)
	}
	return t.AccessToken, nil
}

// remove deletes a token in the control state, and here at once: no older news brings it back.
func (a *Access) remove(ctx context.Context, id string, c state.Condition) error {
	a.mu.Lock()
	a.gone[id] = true
	a.mu.Unlock()
	err := a.o.Store.Delete(ctx, tokenPrefix+id, c)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		delete(a.gone, id)
		return err
	}
	delete(a.tokens, id)
	return nil
}

// prune removes tokens that have ended so long ago.
func (a *Access) prune(ctx context.Context, ago time.Duration) error {
	now, over := a.o.Now(), []*token{}
	a.mu.RLock()
	for _, t := range a.tokens {
		if t.ended(now.Add(-ago)) {
			over = append(over, t)
		}
	}
	a.mu.RUnlock()
	for _, t := range over {
		if err := a.remove(ctx, t.ID, state.Unchanged(t.revision)); err != nil && !errors.Is(err, state.ErrConflict) { // another hub was faster
			return err
		}
	}
	return nil
}

// Spend counts one use of an enrolment token, exactly, whoever else does that at whatever hub, and returns the token as it is
// then. The error is a *control.Refusal.
func (a *Access) Spend(ctx context.Context, text string) (api.AccessToken, error) {
	return a.SpendAs(ctx, api.Enrol, text)
}

// SpendAs is Spend for a token of the role Enrol or Member.
func (a *Access) SpendAs(ctx context.Context, role api.Role, text string) (api.AccessToken, error) {
	const again = "make a new one with creel token create"
	shown, err := control.ParseToken(text)
	if err != nil {
		return api.AccessToken{}, &control.Refusal{Code: control.TokenUnknown, Text: "what was shown is no token: part of it may be missing", Remedy: "copy the whole token, or " + again}
	}
	if f := a.o.Fingerprint(); shown.Fingerprint != "" && shown.Fingerprint != f {
		return api.AccessToken{}, &control.Refusal{Code: control.TokenUnknown, Text: "this token is for another hub, or for this one before its authority was changed", Remedy: again + " at the hub that is to be joined"}
	}
	if t, refusal := a.spendable(ctx, role, shown, again); refusal != nil || t.Uses == 0 { // without waiting for others
		return api.AccessToken{}, cmp.Or(refusal, spent(t, again))
	}
	select {
	case a.spending <- struct{}{}: // one at a time here: so only other hubs can be in the way
		defer func() { <-a.spending }()
	case <-ctx.Done():
		return api.AccessToken{}, busy(ctx.Err())
	}
	for {
		t, refusal := a.spendable(ctx, role, shown, again)
		if refusal != nil || t.Uses == 0 {
			return api.AccessToken{}, cmp.Or(refusal, spent(t, again))
		}
		next := t.record
		next.Uses--
		next.Used++
		e := state.Entry{Key: tokenPrefix + t.ID, Value: encode(&next)}
		e.Revision, err = a.o.Store.Put(ctx, e.Key, e.Value, false, state.Unchanged(t.revision))
		if errors.Is(err, state.ErrConflict) { // somebody else has got a use: this ends
			continue
		}
		if err != nil {
			return api.AccessToken{}, busy(err)
		}
		a.one(e)
		return next.AccessToken, nil
	}
}

// spendable returns a token of a role as the control state has it now.
func (a *Access) spendable(ctx context.Context, role api.Role, shown control.Token, again string) (*token, *control.Refusal) {
	e, err := a.o.Store.Get(ctx, tokenPrefix+shown.ID)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return nil, busy(err)
	}
	var t *token
	if err == nil {
		if t, err = readToken(e); err != nil {
			a.o.Log.Error("a token cannot be read", "error", err)
		}
	}
	switch now := a.o.Now(); {
	case !t.is(shown.Secret):
		return nil, &control.Refusal{Code: control.TokenUnknown, Text: "this hub does not know the token: it was deleted, or has ended long ago, or was never this hub's", Remedy: again}
	case t.Role != role:
		return nil, &control.Refusal{Code: control.TokenUnknown, Text: fmt.Sprintf("the token %s is of the role %s: no %s can join with it", t.ID, t.Role, role), Remedy: again + " --role " + string(role)}
	case t.ended(now):
		return nil, &control.Refusal{Code: control.TokenExpired, Text: fmt.Sprintf("the token %s has ended at %s; it is %s here", t.ID, t.Ends.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)), Remedy: again}
	}
	return t, nil
}

func spent(t *token, again string) *control.Refusal {
	if t == nil {
		return nil
	}
	return &control.Refusal{Code: control.TokenSpent, Text: fmt.Sprintf("the token %s was used, and is for no more than %d", t.ID, t.Used), Remedy: again + "; for many agents, with as many uses"}
}

func busy(err error) *control.Refusal {
	return &control.Refusal{Code: control.Busy, Text: fmt.Sprintf("the hub's control state cannot do this now: %v", err), Remedy: "the agent tries again by itself", After: busyPause}
}
