package tlsconf

import "strings"

// Hint returns what to do about an error of a connection, to be put behind it, if the error has to do with certificates or
// with TLS on one side only; else "". Options are named as the user writes them: ca for the authorities to trust, pair for
// the client's certificate and key.
//
// It goes by the texts of crypto/tls, crypto/x509 and net/http: gRPC leaves nothing else of an error.
func Hint(err error, ca, pair string) string {
	text := err.Error()
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("first record does not look like a TLS handshake", "server gave HTTP response to HTTPS client"):
		return "; it talks without TLS: write http:// if that is meant"
	case has("HTTP request to an HTTPS server"):
		return "; it talks TLS: write https://"
	case has("remote error: tls: certificate required", "remote error: tls: bad certificate", "remote error: tls: unknown certificate", "remote error: tls: expired certificate"):
		return "; it wants a certificate of this side that it trusts and that has not expired: " + pair + " name one"
	case has("http2: client conn could not be established"): // with TLS 1.3 a client hears after the handshake that it is refused, and HTTP/2 does not pass on why
		return "; it hangs up after the handshake: if it wants a certificate of this side, " + pair + " name one"
	case has("remote error: tls: protocol version", "remote error: tls: handshake failure", "server selected unsupported protocol version"):
		return "; the sides have no version of TLS, or no cipher, in common: 1.3, or 1.2 with ECDHE and an AEAD, is needed"
	case has("signed by unknown authority", "certificate is not trusted"):
		return "; " + ca + " names authorities to trust: the server's authority, or its own certificate if it has signed that itself"
	case has("certificate is valid for", "certificate is not valid for any names", "doesn't contain any IP SANs", "relies on legacy Common Name"):
		return "; ask for the server by a name that is in its certificate"
	case has("certificate has expired or is not yet valid"):
		return "; give the server a new certificate, unless the clock of this machine is wrong"
	case has("certificate"):
		return "; " + ca + " names authorities to trust"
	}
	return ""
}
