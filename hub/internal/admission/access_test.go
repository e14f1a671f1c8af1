package admission

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// doorkeeper is an Access that knows tokens by their text, and what each may still send.
type doorkeeper struct {
	callers map[string]creel.Caller
	left    map[string]int
	asked   int // Limit was
}

func (d *doorkeeper) Authenticate(c creel.Credentials, s creel.Signal) (creel.Caller, error) {
	caller, ok := d.callers[c.Authorization]
	switch {
	case !ok:
		return creel.Caller{Agent: "nobody"}, fmt.Errorf("%w: who are you?", creel.ErrUnauthenticated)
	case s == creel.Traces:
		return caller, errors.New("no traces")
	}
	return caller, nil
}

func (d *doorkeeper) Limit(c creel.Caller, records int) error {
	d.asked++
	if records > d.left[c.Token] {
		return &creel.Throttled{Err: errors.New("the token is used up"), After: 7 * time.Second}
	}
	d.left[c.Token] -= records
	return nil
}

// TestAuthenticate: who sends is what Access says, nobody else is named, and refusals are counted by their reason.
func TestAuthenticate(t *testing.T) {
	agent := creel.Caller{Agent: "a"}
	a := New(Options{Access: &doorkeeper{callers: map[string]creel.Caller{"Bearer x": agent}}})
	for _, c := range []struct {
		authorization string
		signal        creel.Signal
		want          creel.Caller
		err           string
	}{
		{"Bearer x", creel.Logs, agent, ""},
		{"Bearer y", creel.Logs, creel.Caller{}, "not authenticated: who are you?"},
		{"", creel.Metrics, creel.Caller{}, "not authenticated: who are you?"},
		{"Bearer x", creel.Traces, creel.Caller{}, "no traces"},
	} {
		got, err := a.Authenticate(creel.Credentials{Authorization: c.authorization}, c.signal)
		if got != c.want || fmt.Sprint(err) != c.err && (err != nil || c.err != "") {
			t.Errorf("%+v: got %+v, %v", c, got, err)
		}
	}
	if s, f, o := a.strangers.Load(), a.forbidden.Load(), a.over.Load(); s != 2 || f != 1 || o != 0 {
		t.Errorf("counted %d strangers, %d forbidden, %d over", s, f, o)
	}
	if got, err := New(Options{}).Authenticate(creel.Credentials{}, creel.Logs); got != (creel.Caller{}) || err != nil {
		t.Errorf("without Access: %+v, %v", got, err)
	}
}

// TestTokenLimit: an application is held to its token's limit and to its own share of the hub's; what one refuses is not charged to
// the other; agents are not asked for a token's.
func TestTokenLimit(t *testing.T) {
	c := newClock()
	d := &doorkeeper{left: map[string]int{"t": 25, "u": 1000}}
	a := New(Options{Records: 10, Access: d, Now: c.now})
	app := creel.Caller{Token: "t"}
	f := func(who creel.Caller, n int, wait time.Duration, left int) {
		t.Helper()
		err := a.Admit(who, creel.Sender{Agent: who.Agent}, creel.Logs, n, 1)
		if wait == 0 && err != nil || wait > 0 && (err == nil || after(err) != wait) || d.left["t"] != left {
			t.Errorf("%v, want to wait %v; the token has %d left, want %d", err, wait, d.left["t"], left)
		}
	}
	f(app, 10, 0, 15)
	f(app, 10, time.Second, 15) // the hub's limit: the token is not charged
	f(creel.Caller{Token: "u"}, 10, 0, 15)
	f(creel.Caller{Agent: "x"}, 10, 0, 15)
	c.pass(time.Second)
	f(app, 10, 0, 5)
	c.pass(time.Second)
	f(app, 10, 7*time.Second, 5) // the token's: the hub's is not charged
	f(app, 5, 0, 0)
	f(app, 5, 7*time.Second, 0)
	d.left["t"] = 5
	f(app, 5, 0, 0)
	if a.over.Load() != 2 || d.asked != 7 {
		t.Errorf("%d requests were over a token's limit, Limit was asked %d times", a.over.Load(), d.asked)
	}
	if n, ok := a.Counts("t"); !ok || n != (Counts{Requests: 4, Records: 30, Bytes: 4, ThrottledRequests: 3, ThrottledRecords: 25}) {
		t.Errorf("counted %+v", n)
	}
}

// TestAuthenticateAllocates: nothing, beyond what Access does.
func TestAuthenticateAllocates(t *testing.T) {
	a := New(Options{Records: 1 << 40, Access: &doorkeeper{callers: map[string]creel.Caller{"Bearer x": {Token: "t"}}, left: map[string]int{"t": 1 << 40}}})
	shown := creel.Credentials{Authorization: "Bearer x"}
	if n := testing.AllocsPerRun(1000, func() {
		caller, err := a.Authenticate(shown, creel.Logs)
		if err != nil || a.Admit(caller, creel.Sender{}, creel.Logs, 100, 10_000) != nil {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}
