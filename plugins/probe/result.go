package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// kind says why a check failed: the values of error.type. There are no others.
type kind string

const (
	cannotResolve kind = "resolve"     // the name has no address
	denied        kind = "denied"      // the address may not be talked to
	refused       kind = "refused"     // nobody listens
	unreachable   kind = "unreachable" // there is no way there
	timedOut      kind = "timeout"     // no answer in time
	badTLS        kind = "tls"         // handshake or certificate
	protocol      kind = "protocol"    // what came is no answer, or stopped in the middle
	redirected    kind = "redirect"    // to nowhere, or too often
	badStatus     kind = "status"      // not an expected one
	badBody       kind = "body"        // not as expected
	badAnswer     kind = "answer"      // of DNS: none, or not as expected
	local         kind = "local"       // this machine cannot do the check, so nothing is known of the target
)

// A failure is why a check failed.
type failure struct {
	kind kind
	err  error
}

func failed(k kind, err error) *failure { return &failure{k, err} }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// windowsRefused is ECONNREFUSED where package syscall has another number than the system.
const windowsRefused = syscall.Errno(10061)

// kindOf returns the kind of an error of the network, other if it tells nothing.
func kindOf(err error, other kind) kind {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return timedOut
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, windowsRefused):
		return refused
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.EADDRNOTAVAIL):
		return local
	case errors.As(err, &op) && op.Op == "remote error": // crypto/tls: with TLS 1.3 it may come after the handshake
		return badTLS
	}
	return other
}

// inner returns what of an error of the network is not said by who wraps it.
func inner(err error) error {
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return errors.New(dns.Err)
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if sys := (*os.SyscallError)(nil); errors.As(err, &sys) {
		err = sys.Err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("the other side hung up")
	}
	return err
}

// phase is a part of a check.
type phase int

const (
	phaseResolve phase = iota // the target's name
	phaseConnect
	phaseTLS
	phaseProcessing // from the request's start to the answer's first byte
	phaseTransfer   // of the rest of the answer
	phases
)

// result is what one check found.
type result struct {
	took    [phases]time.Duration // -1: there was none
	total   time.Duration
	fail    *failure      // nil: the target is up
	peer    netip.Addr    // that was talked to last
	status  int           // of HTTP, 0: no answer
	body    int64         // bytes read of HTTP's body, -1: none
	expires time.Time     // the server's certificate; zero: none was seen
	answers int           // of DNS; -1: no answer
	rtt     time.Duration // of ICMP; -1: none
}

func newResult() result {
	r := result{body: -1, answers: -1, rtt: -1}
	for i := range r.took {
		r.took[i] = -1
	}
	return r
}

// spent adds the time since start to a phase, of which there may be several, and returns the time.
func (r *result) spent(p phase, start time.Time) time.Time {
	now := time.Now()
	r.took[p] = max(r.took[p], 0) + now.Sub(start)
	return now
}

const maxReason = 512 // bytes; parts of it may come from the other side

// reason returns why the check failed, for people.
func (r *result) reason() string {
	text := strings.ToValidUTF8(r.fail.Error(), "\uFFFD")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return text
}
