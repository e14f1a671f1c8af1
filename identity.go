package creel

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// This file is who agents are to each other and to a hub, where hubs are, and what a collector that others send to asks before
// it takes anything in.

// Credentials are what a request to a collector shows of its sender.
type Credentials struct {
	Authorization string               // the header
	TLS           *tls.ConnectionState // nil: no TLS
	Verified      bool                 // the listener lets in nobody without a certificate of authorities that it was given
	Local, Remote net.Addr             // of the connection
	Forwarded     bool                 // a proxy has passed the request on
}

// Forwarded reports whether the headers of a request, HTTP's or gRPC's, say that a proxy has passed it on: as RFC 7239 has it, or
// as was usual before. A proxy that says nothing must not be put before a loopback address.
func Forwarded(headers map[string][]string) bool {
	for _, name := range [...]string{
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via",
		"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via", // gRPC's are in lower case
	} {
		if len(headers[name]) > 0 {
			return true
		}
	}
	return false
}

// A Caller is who sends, as far as that was proven. The zero value is somebody who need not prove anything.
type Caller struct {
	Agent string // an agent's id; empty: it is no agent
	Token string // the id of the token that was shown, of an application; empty: none
}

// ErrUnauthenticated is what Admission.Authenticate's errors wrap when the sender has not shown who it is, or that is worth
// nothing any more. It may be mended while the sender waits: nothing is to be thrown away.
var ErrUnauthenticated = errors.New("not authenticated")

// Admission decides about what is sent to a collector from outside: the hub's checks. It may be called concurrently.
type Admission interface {
	// Authenticate finds out who sends records of a signal, before anything of them is read. An error that does not wrap
	// ErrUnauthenticated says that this sender may not send these.
	Authenticate(c Credentials, s Signal) (Caller, error)
	// Admit is asked before records are taken in. A *Throttled is answered with its hint, any other error with a refusal.
	Admit(c Caller, from Sender, s Signal, records, bytes int) error
	// Took is told of records that are safe here, before the sender is. id names the batch, if the sender has said so.
	Took(from Sender, id ID, s Signal, records int)
}

// The resource attributes of what is collected for a document that a hub has placed on some agents.
const (
	DocumentName    = "creel.document.name"
	DocumentVersion = "creel.document.version"
	DocumentEpoch   = "creel.document.epoch" // of the placing, an integer: it grows when the document gets another owner
)

// A Fence is an Admission that knows in which epochs documents are placed. It may be called concurrently.
type Fence interface {
	// Fence returns why data is refused for good that was collected for a document in an epoch, or nil. It may be an epoch of
	// another agent than who sends: agents pass on what others have collected.
	Fence(from Sender, document string, epoch int64) error
}

// Identity is who an agent is to its hub, as that has certified it. It may be called concurrently.
type Identity interface {
	// ServerTLS returns the configuration of a listener with a certificate that renews itself. Clients are asked for a
	// certificate and refused for none: Admission decides. Only hubs have one.
	ServerTLS() (*tls.Config, error)
	// ClientTLS returns the configuration of a client of the hub, which shows a certificate that renews itself, and trusts
	// the hub's authorities.
	ClientTLS() (*tls.Config, error)
	// Token returns what requests to the hub carry as a bearer token. It is cheap while the last one is worth something.
	Token(ctx context.Context) (string, error)
}

// Hubs are those that an agent knows. It may be called concurrently.
type Hubs interface {
	// Hubs returns the hubs, the one to be preferred first: the one that the agent is connected to, unless it is to be left. The
	// channel is closed when that is not so any more. The list must not be changed.
	Hubs() (list []Hub, changed <-chan struct{})
}

// A Hub is where one takes data.
type Hub struct {
	ID       string
	OTLPGRPC string // host:port; empty: it takes none
	OTLPHTTP string // likewise
	Secure   bool   // over TLS
	Leave    bool   // only if there is no other: it is drained
}
