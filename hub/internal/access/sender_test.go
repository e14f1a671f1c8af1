package access

import (
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/state"
)

func TestAuthenticate(t *testing.T) {
	c := newClock()
	a := open(t, new(state.Memory).Open(), c)
	cert := certificate(t)
	logs := create(t, a, api.AccessTokenRequest{Name: "shop", Role: api.Ingest, Signals: []string{"logs"}})
	all := create(t, a, api.AccessTokenRequest{Role: api.Ingest})
	viewer := create(t, a, api.AccessTokenRequest{Role: api.Viewer})
	operator := create(t, a, api.AccessTokenRequest{Role: api.Operator})
	enrol := create(t, a, api.AccessTokenRequest{Role: api.Enrol})
	jwt, err := a.JWT(Principal{Role: api.Enrol, Agent: agentID}, cert)
	if err != nil {
		t.Fatal(err)
	}
	loop, far := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}
	here := creel.Credentials{Local: loop, Remote: loop}
	away := creel.Credentials{Local: far, Remote: far}
	bound := creel.Credentials{Local: far, Remote: far, TLS: showing(cert)}
	f := func(c creel.Credentials, authorization string, s creel.Signal, want creel.Caller, fails string) {
		t.Helper()
		c.Authorization = authorization
		got, err := a.Authenticate(c, s)
		var kind string
		switch {
		case errors.Is(err, creel.ErrUnauthenticated):
			kind = "unauthenticated"
		case err != nil:
			kind = err.Error()
		}
		_, secret, _ := strings.Cut(authorization, " ")
		if got != want || (fails == "") != (err == nil) || !strings.Contains(kind, fails) || err != nil && quotes(err.Error(), secret) {
			t.Errorf("%q: %+v, %v; not %+v, %q", authorization, got, err, want, fails)
		}
	}
	nobody := creel.Caller{}
	f(away, "Bearer "+logs.Text, creel.Logs, creel.Caller{Token: logs.ID}, "")
	f(away, "bearer  "+logs.Text+" ", creel.Logs, creel.Caller{Token: logs.ID}, "")
	f(here, "Bearer "+logs.Text, creel.Logs, creel.Caller{Token: logs.ID}, "")
	f(away, "Bearer "+logs.Text, creel.Traces, nobody, "is not for traces")
	f(here, "Bearer "+logs.Text, creel.Traces, nobody, "is not for traces")
	f(away, "Bearer "+all.Text, creel.Traces, creel.Caller{Token: all.ID}, "")
	f(away, "Bearer "+operator.Text, creel.Metrics, creel.Caller{Token: operator.ID}, "")
	f(away, "Bearer "+rootToken, creel.Metrics, creel.Caller{Token: a.rootID}, "")
	f(away, "Bearer "+viewer.Text, creel.Metrics, nobody, "may not send data")
	f(away, "Bearer "+enrol.Text, creel.Metrics, nobody, "unauthenticated")
	f(bound, "Bearer "+jwt.Token, creel.Logs, creel.Caller{Agent: agentID}, "")
	f(away, "Bearer "+jwt.Token, creel.Logs, nobody, "unauthenticated")
	f(bound, "", creel.Logs, nobody, "unauthenticated")
	f(away, "", creel.Logs, nobody, "unauthenticated")
	f(away, "Basic "+logs.Text, creel.Logs, nobody, "unauthenticated")
	f(away, logs.Text, creel.Logs, nobody, "unauthenticated")
	f(away, "Bearer of something else", creel.Logs, nobody, "unauthenticated")
	f(here, "", creel.Logs, nobody, "")
	f(here, "Basic eDp5", creel.Logs, nobody, "")
	f(here, "Bearer of something else", creel.Logs, nobody, "")
	here.Forwarded = true
	f(here, "", creel.Logs, nobody, "unauthenticated")
	if _, err := a.Delete(t.Context(), logs.ID); err != nil {
		t.Fatal(err)
	}
	f(away, "Bearer "+logs.Text, creel.Logs, nobody, "unauthenticated")
	for r, want := range map[result]uint64{accepted: 7, forbidden: 3, local: 3, refused: 9} {
		if got := a.counts[r].Load(); got != want {
			t.Errorf("%d are %s, not %d", got, r, want)
		}
	}
}

func TestLocal(t *testing.T) {
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	unix := &net.UnixAddr{Name: "/run/creel.sock", Net: "unix"}
	f := func(local, remote net.Addr, forwarded, want bool) {
		t.Helper()
		if got := Local(local, remote, forwarded); got != want {
			t.Errorf("%v from %v, forwarded %v: %v", local, remote, forwarded, got)
		}
	}
	f(tcp("127.0.0.1"), tcp("127.0.0.1"), false, true)
	f(tcp("127.9.9.9"), tcp("127.0.0.1"), false, true)
	f(tcp("::1"), tcp("::1"), false, true)
	f(tcp("::ffff:127.0.0.1"), tcp("::ffff:127.0.0.1"), false, true)
	f(unix, unix, false, true)
	f(unix, nil, false, true)
	f(tcp("127.0.0.1"), tcp("127.0.0.1"), true, false)
	f(unix, unix, true, false)
	f(tcp("192.0.2.1"), tcp("192.0.2.1"), false, false)
	f(tcp("192.0.2.1"), tcp("127.0.0.1"), false, false)
	f(tcp("127.0.0.1"), tcp("192.0.2.9"), false, false)
	f(tcp("0.0.0.0"), tcp("127.0.0.1"), false, false)
	f(tcp("fe80::1"), tcp("fe80::1"), false, false)
	f(tcp("127.0.0.1"), nil, false, false)
	f(tcp("127.0.0.1"), unix, false, false)
	f(nil, nil, false, false)
	f((*net.TCPAddr)(nil), (*net.TCPAddr)(nil), false, false)
	f(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, false, false)
	for name, want := range map[string]bool{"forwarded": true, "X-FORWARDED-FOR": true, "Via": true, "X-Real-IP": true, "x-forwarded-proto": true, "User-Agent": false} {
		h := http.Header{}
		h.Set(name, "")
		if creel.Forwarded(h) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	if creel.Forwarded(nil) {
		t.Error("no header at all")
	}
}

// TestLimit holds a token to its records.
func TestLimit(t *testing.T) {
	c := newClock()
	a := open(t, new(state.Memory).Open(), c)
	made := create(t, a, api.AccessTokenRequest{Name: "shop", Role: api.Ingest, Records: 100})
	free := create(t, a, api.AccessTokenRequest{Role: api.Ingest})
	caller := creel.Caller{Token: made.ID}
	f := func(c creel.Caller, records int, want time.Duration) {
		t.Helper()
		err := a.Limit(c, records)
		var th *creel.Throttled
		if want == 0 && err != nil || want > 0 && (!errors.As(err, &th) || th.After != want || !strings.Contains(err.Error(), "100 records in ten seconds")) {
			t.Errorf("%d records: %v, not %v", records, err, want)
		}
	}
	f(caller, 60, 0)
	c.add(3 * time.Second)
	f(caller, 40, 0)
	f(caller, 1, 7500*time.Millisecond)
	f(caller, 0, 0)
	rehear(t, a) // which forgets nothing
	f(caller, 61, 10500*time.Millisecond)
	c.add(7500 * time.Millisecond)
	f(caller, 60, 0)
	c.add(time.Hour)
	f(caller, 1000, 0) // more than could ever be
	f(caller, 1, 10500*time.Millisecond)
	c.add(-time.Minute) // a clock that is set back
	f(caller, 1, 70500*time.Millisecond)
	for _, other := range []creel.Caller{{}, {Agent: agentID}, {Token: free.ID}, {Token: a.rootID}, {Token: "gone"}} {
		f(other, 1<<40, 0)
	}
	if got := a.counts[throttled].Load(); got != 4 {
		t.Errorf("%d were throttled", got)
	}
}

// TestWindowModel compares with exact windows: never more than the limit in any ten seconds, never a refusal that an exact
// window of ten and a half would not make, and who waits as told gets in.
func TestWindowModel(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	type taken struct {
		at time.Duration
		n  int64
	}
	taking, refusing := 0, 0
	for range 200 {
		var w window
		var past []taken
		now, limit := time.Duration(r.Int64N(int64(time.Hour))), 1+r.Int64N(1000)
		within := func(d time.Duration) (sum int64) {
			for _, p := range past {
				if p.at > now-d {
					sum += p.n
				}
			}
			return sum
		}
		for range 200 {
			now += time.Duration(r.ExpFloat64() * float64(time.Second) * float64(1+r.IntN(4)) / 4)
			n := 1 + r.Int64N(limit/2+1)
			if r.IntN(50) == 0 {
				n = limit + r.Int64N(10)
			}
			wait := w.take(now, limit, n)
			if wait > 0 {
				if sum := within(span + part); sum == 0 || sum+n <= limit {
					t.Fatalf("seed %d: %d of %d are refused with %d in the window", seed, n, limit, sum)
				}
				if refusing++; wait > span+part {
					t.Fatalf("seed %d: told to wait %v", seed, wait)
				}
				if r.IntN(2) > 0 {
					continue
				}
				early := window{at: w.at, taken: w.taken, sum: w.sum} // what is told is not too long either
				if early.take(now+wait-1, limit, n) == 0 {
					t.Fatalf("seed %d: %v is longer than needed", seed, wait)
				}
				if now += wait; w.take(now, limit, n) > 0 {
					t.Fatalf("seed %d: refused after the wait of %v", seed, wait)
				}
			}
			if sum := within(span); sum > 0 && sum+n > limit {
				t.Fatalf("seed %d: %d and %d of %d were taken in ten seconds", seed, sum, n, limit)
			}
			past = append(past, taken{now, n})
			taking++
		}
	}
	if taking < 1000 || refusing < 1000 {
		t.Errorf("seed %d: %d were taken, %d refused", seed, taking, refusing)
	}
}

// TestRenewed: a connection that stands shows the certificate that it began with. A JWT that the agent has asked for with a newer one
// counts there, one of another agent's does not.
func TestRenewed(t *testing.T) {
	old, renewed, others := certificate(t), certificate(t), certificate(t)
	holders := map[*x509.Certificate]string{old: agentID, renewed: agentID, others: "01890000-0000-7000-8000-000000000000"}
	a := open(t, new(state.Memory).Open(), newClock(), func(o *Options) {
		o.Holder = func(chain []*x509.Certificate) string { return holders[chain[0]] }
	})
	jwt, err := a.JWT(Principal{Name: "web1", Role: api.Enrol, Agent: agentID}, renewed)
	if err != nil {
		t.Fatal(err)
	}
	if a.cache.get(digest(jwt.Token)) == nil {
		t.Error("a hub verifies what it has signed itself")
	}
	for cert, want := range map[*x509.Certificate]bool{old: true, renewed: true, others: false, certificate(t): false} {
		a.cache.forget()
		for range 2 { // cold, and cached
			if who, err := a.Bearer(jwt.Token, showing(cert)); (err == nil) != want || want && who.Agent != agentID {
				t.Errorf("a connection with a certificate of %q: %+v, %v", holders[cert], who, err)
			}
		}
	}
}

// TestVerified: whom the listener's own authorities have let in needs no token, and one that is shown counts.
func TestVerified(t *testing.T) {
	a := open(t, new(state.Memory).Open(), newClock())
	far := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	c := creel.Credentials{Local: far, Remote: far, Verified: true}
	if who, err := a.Authenticate(c, creel.Logs); err != nil || who != (creel.Caller{}) {
		t.Errorf("nothing shown: %+v, %v", who, err)
	}
	token := create(t, a, api.AccessTokenRequest{Role: api.Ingest, Signals: []string{"logs"}})
	c.Authorization = "Bearer " + token.Text
	if who, err := a.Authenticate(c, creel.Logs); err != nil || who.Token != token.ID {
		t.Errorf("a token shown: %+v, %v", who, err)
	}
}
