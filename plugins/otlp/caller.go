package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/creelhq/creel"
)

// This file finds out who sends a request, before anything of its body is read.

// unauthenticated is the error of a request whose sender has not shown who it is.
type unauthenticated struct{ error }

// who is a request's sender: as was proven, and as it says of itself.
type who struct {
	caller creel.Caller
	from   creel.Sender
}

// authenticate asks who sends, if anybody wants to know, and what the header creel-sender says.
func (c *collector) authenticate(g *guest, shown creel.Credentials, s creel.Signal, sender string) (w who, err error) {
	if c.host.Admission == nil {
		g.welcome()
		return w, nil
	}
	shown.Verified = g != nil && g.verified
	if w.caller, err = c.host.Admission.Authenticate(shown, s); err == nil {
		w.from, err = identify(w.caller, parseSender(sender))
	}
	if err == nil {
		g.welcome()
		return w, nil
	}
	throttled := (*creel.Throttled)(nil)
	switch {
	case errors.Is(err, creel.ErrUnauthenticated):
		return who{}, unauthenticated{err}
	case errors.As(err, &throttled):
		return who{}, err
	}
	return who{}, forbidden{err}
}

// identify makes what a sender says of itself agree with what it has proven. An application is no agent, whatever it says.
func identify(c creel.Caller, said creel.Sender) (creel.Sender, error) {
	switch {
	case c.Agent == "" && c.Token == "":
		return said, nil
	case c.Agent == "":
		return creel.Sender{}, nil
	case said.Agent != "" && said.Agent != c.Agent:
		return creel.Sender{}, fmt.Errorf("the request says that the agent %.64q sends it, but shows the identity of %s; does an agent's state directory stand under another's identity?", said.Agent, c.Agent)
	}
	said.Agent = c.Agent
	return said, nil
}

// single returns a header's value; none if it is there twice, for nobody knows which is meant.
func single(values []string) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

type guestKey struct{}

// withGuest keeps a connection in its requests' contexts. It is an http.Server's ConnContext.
func withGuest(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, guestKey{}, c)
}

// shownHTTP returns what a request shows of its sender.
func shownHTTP(r *http.Request) (*guest, creel.Credentials) {
	g, _ := r.Context().Value(guestKey{}).(*guest)
	h := r.Header
	shown := creel.Credentials{
		Authorization: single(h["Authorization"]), TLS: r.TLS,
		Forwarded: creel.Forwarded(h),
	}
	if g != nil {
		shown.Local, shown.Remote = g.LocalAddr(), g.RemoteAddr()
	}
	return g, shown
}

// link is what is known of a gRPC connection.
type link struct {
	credentials.CommonAuthInfo
	guest *guest
	tls   *tls.ConnectionState
}

// AuthType is for grpc-go.
func (l *link) AuthType() string { return "creel" }

// handshake is the server's side of a connection's beginning. It is there for what it keeps: grpc-go's own would copy the
// state of TLS for each call. grpc-go bounds its time.
type handshake struct{ tls *tls.Config }

// ServerHandshake returns a *link.
func (h handshake) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	g, _ := raw.(*guest)
	l := &link{guest: g}
	if h.tls == nil {
		return raw, l, nil
	}
	conn := tls.Server(raw, h.tls)
	if err := conn.Handshake(); err != nil {
		return nil, nil, err
	}
	cs := conn.ConnectionState()
	l.tls, l.SecurityLevel = &cs, credentials.PrivacyAndIntegrity
	return conn, l, nil
}

// ClientHandshake is for clients, which have another.
func (handshake) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("BUG: a server's handshake was asked to begin one")
}

// Info is for grpc-go.
func (h handshake) Info() credentials.ProtocolInfo { return credentials.ProtocolInfo{} }

// Clone is for grpc-go.
func (h handshake) Clone() credentials.TransportCredentials { return h }

// OverrideServerName is for clients.
func (handshake) OverrideServerName(string) error { return nil }

// call is the context of a gRPC call that was let in.
type call struct {
	context.Context
	header metadata.MD // as it came: metadata's own functions copy
	who
}

type callKey struct{}

// Value returns the call itself for callKey.
func (c *call) Value(key any) any {
	if _, ok := key.(callKey); ok {
		return c
	}
	return c.Context.Value(key)
}

// said returns the first value of a header, whose name is in lower case.
func (c *call) said(header string) string {
	if values := c.header[header]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// knock is called with the headers of a call: if it returns an error there will be no stream, and the call's body is
// discarded as it comes. grpc-go holds the connection up meanwhile, so a client that tries many tokens is slowed down.
func (c *collector) knock(ctx context.Context, i *tap.Info) (context.Context, error) {
	signal, ok := signals[i.FullMethodName]
	if !ok {
		return ctx, nil // grpc-go will say so
	}
	shown := creel.Credentials{
		Authorization: single(i.Header["authorization"]),
		Forwarded:     creel.Forwarded(i.Header),
	}
	var g *guest
	if p, ok := peer.FromContext(ctx); ok {
		shown.Local, shown.Remote = p.LocalAddr, p.Addr
		if l, ok := p.AuthInfo.(*link); ok {
			shown.TLS, g = l.tls, l.guest
		}
	}
	in := &call{Context: ctx, header: i.Header}
	var err error
	if in.who, err = c.authenticate(g, shown, signal, in.said(headerSender)); err != nil {
		c.refused.Inc()
		return ctx, c.status(ctx, err)
	}
	return in, nil
}

// status returns what is answered to a call that ended in err.
func (c *collector) status(ctx context.Context, err error) error {
	code := codes.Unavailable
	switch bad, no, nobody := (malformed{}), (forbidden{}), (unauthenticated{}); {
	case errors.As(err, &bad):
		code = codes.InvalidArgument
	case errors.As(err, &no):
		code = codes.PermissionDenied
	case errors.As(err, &nobody):
		code = codes.Unauthenticated
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	default:
		return c.later(err)
	}
	return status.Error(code, err.Error())
}
