package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/creelhq/creel/control"
)

const (
	tokenRetry   = time.Second      // after an error nobody asks for so long
	tokenPatient = 10 * time.Second // likewise, while the old one is still worth something
	tokenHurried = 5 * time.Second  // for so long whoever asks waits for a token, while the old one is still worth something
)

// An accessToken is the one that is in use.
type accessToken struct {
	asking chan struct{} // holds one while somebody asks for the next

	mu       sync.Mutex // guards what follows
	text     string
	of       *credentials // whose certificate it is bound to
	lifetime time.Duration
	got      time.Time    // by the monotonic clock
	clock    time.Time    // by this machine's, for times of sleep
	err      error        // of the last request
	failed   *credentials // whose that was
	wait     time.Time    // they make no other before that
}

func (t *accessToken) init() { t.asking = make(chan struct{}, 1) }

// Token returns what requests to the hub carry as a bearer token. From two thirds of its life on, and when the certificate is
// another, whoever comes first gets the next one, while others have the old one as long as it is worth something. What the hub
// answers is returned only when that is not so.
func (i *Identity) Token(ctx context.Context) (string, error) {
	t := &i.token
	text, fresh, err := i.last()
	if fresh || text == "" && err != nil {
		return text, err
	}
	if text != "" { // it will do, should others be asking
		select {
		case t.asking <- struct{}{}:
		default:
			return text, nil
		}
	} else {
		select {
		case t.asking <- struct{}{}:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	defer func() { <-t.asking }()
	if text, fresh, err := i.last(); fresh || text == "" && err != nil { // somebody else has just asked
		return text, err
	}
	if err := i.askToken(ctx, text != ""); err != nil && text == "" {
		return "", err
	}
	text, _, err = i.last()
	return text, err
}

// last returns the token that there is, if it is worth something, and whether nobody need ask for another now. Without a token
// the error says why the hub need not be asked right now.
func (i *Identity) last() (text string, fresh bool, err error) {
	t := &i.token
	t.mu.Lock()
	defer t.mu.Unlock()
	wait := t.err != nil && t.failed == i.current.Load() && time.Now().Before(t.wait)
	age := max(time.Since(t.got), i.o.Now().Round(0).Sub(t.clock))
	if t.text == "" || age >= t.lifetime {
		if wait {
			return "", false, t.err
		}
		return "", false, nil
	}
	return t.text, wait || age < t.lifetime*2/3 && t.of == i.current.Load(), nil
}

// askToken asks the hub for a token, not for long if there is one that will do. t.asking is held.
func (i *Identity) askToken(ctx context.Context, hurried bool) error {
	timeout, retry := askTimeout, tokenRetry
	if hurried {
		timeout, retry = tokenHurried, tokenPatient
	}
	of := i.current.Load()
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var a control.AccessToken
	_, err := i.ask(within, control.TokenPath, nil, &a)
	if err == nil && (a.Token == "" || a.Lifetime <= 0) {
		err = errors.New("the hub's answer has none")
	}
	var r *control.Refusal
	if errors.As(err, &r) {
		i.Refused(r)
	}
	t := &i.token
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("get an access token of the hub: %w", err)
		if ctx.Err() == nil { // else it says nothing about the hub
			if r != nil {
				retry = max(retry, min(r.After, maxBackoff))
			}
			t.err, t.failed, t.wait = err, of, time.Now().Add(retry)
		}
		return err
	}
	t.text, t.of, t.lifetime, t.got, t.clock, t.err = a.Token, of, a.Lifetime, time.Now(), i.o.Now().Round(0), nil
	return nil
}
