package probe

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// recordTypes are what one can ask for.
var recordTypes = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "CNAME": dnsmessage.TypeCNAME, "MX": dnsmessage.TypeMX, "NS": dnsmessage.TypeNS,
	"PTR": dnsmessage.TypePTR, "SOA": dnsmessage.TypeSOA, "SRV": dnsmessage.TypeSRV, "TXT": dnsmessage.TypeTXT,
}

const recordNames = "A, AAAA, CNAME, MX, NS, PTR, SOA, SRV and TXT"

// checkDNS asks a server, or as this machine does, and looks at the answers.
func (c *collector) checkDNS(ctx context.Context, t *target, r *result) error {
	var answers []string
	var err error
	if t.address.host == "" {
		start := time.Now()
		answers, err = lookUp(ctx, c.system, t.address)
		r.spent(phaseProcessing, start)
	} else {
		answers, err = c.query(ctx, t, r)
	}
	if err != nil {
		return err
	}
	r.answers = len(answers)
	switch re := t.Expect.Answer.re; {
	case len(answers) == 0:
		return failed(badAnswer, fmt.Errorf("there is no record of type %s for %s", t.address.record, t.address.query))
	case re != nil && !slices.ContainsFunc(answers, re.MatchString):
		return failed(badAnswer, fmt.Errorf("none of %d records of type %s for %s matches %s; the first is %.100q", len(answers), t.address.record, t.address.query, re, answers[0]))
	}
	return nil
}

// questionName returns the name to ask for; of an IP address, that of its PTR.
func questionName(query string) (dnsmessage.Name, error) {
	if a, err := netip.ParseAddr(query); err == nil {
		query = reverse(a.Unmap())
	}
	if !strings.HasSuffix(query, ".") {
		query += "."
	}
	name, err := dnsmessage.NewName(query)
	if err != nil {
		return name, err
	}
	if query != "." {
		for _, label := range strings.Split(strings.TrimSuffix(query, "."), ".") {
			if label == "" || len(label) > 63 {
				return name, fmt.Errorf("%q has a label without or with more than 63 characters", query)
			}
		}
	}
	return name, nil
}

// reverse returns the name of an address' PTR (RFC 1035, section 3.5, and RFC 3596, section 2.5).
func reverse(a netip.Addr) string {
	b := a.AsSlice()
	slices.Reverse(b)
	var s strings.Builder
	for _, x := range b {
		if a.Is4() {
			fmt.Fprintf(&s, "%d.", x)
		} else {
			fmt.Fprintf(&s, "%x.%x.", x&15, x>>4)
		}
	}
	if a.Is4() {
		return s.String() + "in-addr.arpa."
	}
	return s.String() + "ip6.arpa."
}

// lookUp asks as this machine does.
func lookUp(ctx context.Context, system *net.Resolver, a address) (answers []string, err error) {
	switch a.record {
	case "A", "AAAA":
		var found []netip.Addr
		found, err = system.LookupNetIP(ctx, map[string]string{"A": "ip4", "AAAA": "ip6"}[a.record], a.query)
		for _, f := range found {
			answers = append(answers, f.Unmap().String())
		}
	case "CNAME":
		var name string
		if name, err = system.LookupCNAME(ctx, a.query); name != "" {
			answers = []string{name}
		}
	case "MX":
		var found []*net.MX
		found, err = system.LookupMX(ctx, a.query)
		for _, f := range found {
			answers = append(answers, fmt.Sprintf("%d %s", f.Pref, f.Host))
		}
	case "NS":
		var found []*net.NS
		found, err = system.LookupNS(ctx, a.query)
		for _, f := range found {
			answers = append(answers, f.Host)
		}
	case "PTR":
		answers, err = system.LookupAddr(ctx, a.query)
	case "SRV":
		var found []*net.SRV
		_, found, err = system.LookupSRV(ctx, "", "", a.query)
		for _, f := range found {
			answers = append(answers, fmt.Sprintf("%d %d %d %s", f.Priority, f.Weight, f.Port, f.Target))
		}
	case "TXT":
		answers, err = system.LookupTXT(ctx, a.query)
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
		return nil, nil // it was answered
	}
	if err != nil {
		return nil, failed(kindOf(err, cannotResolve), fmt.Errorf("resolve %s: %w", a.query, inner(err)))
	}
	return answers, nil
}

// query asks the target's server, over UDP, and over TCP if the answer is too long for that (RFC 7766).
func (c *collector) query(ctx context.Context, t *target, r *result) ([]string, error) {
	name, err := questionName(t.address.query)
	if err != nil {
		return nil, err
	}
	question := dnsmessage.Question{Name: name, Type: recordTypes[t.address.record], Class: dnsmessage.ClassINET}
	for _, network := range []string{"udp", "tcp"} {
		answer, err := c.exchange(ctx, t, r, network, question)
		switch {
		case err != nil:
			return nil, err
		case answer.Truncated && network == "udp":
			continue
		case answer.RCode != dnsmessage.RCodeSuccess:
			return nil, failed(badAnswer, fmt.Errorf("ask %s for %s: the answer is %s", t.address.host, name, rcodeName(answer.RCode)))
		}
		return records(answer.Answers, question.Type), nil
	}
	return nil, failed(protocol, fmt.Errorf("ask %s for %s: the answer is cut off over TCP, too", t.address.host, name))
}

func rcodeName(code dnsmessage.RCode) string {
	names := map[dnsmessage.RCode]string{
		dnsmessage.RCodeFormatError: "FORMERR", dnsmessage.RCodeServerFailure: "SERVFAIL", dnsmessage.RCodeNameError: "NXDOMAIN",
		dnsmessage.RCodeNotImplemented: "NOTIMP", dnsmessage.RCodeRefused: "REFUSED",
	}
	if n, ok := names[code]; ok {
		return n
	}
	return fmt.Sprintf("response code %d", code)
}

// exchange sends one question and returns its answer.
func (c *collector) exchange(ctx context.Context, t *target, r *result, network string, q dnsmessage.Question) (*dnsmessage.Message, error) {
	ask := dnsmessage.Message{Header: dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true}, Questions: []dnsmessage.Question{q}}
	packet, err := ask.Pack()
	if err != nil {
		return nil, fmt.Errorf("write the question for %s: %w", q.Name, err)
	}
	conn, err := c.guard.dial(ctx, r, network, t.family(), t.address.host, t.address.port)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer interrupt(ctx, conn)()
	start := time.Now()
	defer r.spent(phaseProcessing, start)
	if network == "tcp" { // RFC 1035, section 4.2.2
		packet = append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
	}
	_, err = conn.Write(packet)
	for err == nil {
		var answer *dnsmessage.Message
		if answer, err = readMessage(conn, network); err != nil {
			break
		}
		// What is not the answer to this question may come from anybody: over UDP it is waited on.
		if answer != nil && answer.Response && answer.ID == ask.ID && len(answer.Questions) == 1 && sameQuestion(answer.Questions[0], q) {
			return answer, nil
		}
		if network == "tcp" {
			err = errors.New("what came is no answer to the question")
		}
	}
	return nil, failed(kindOf(err, protocol), fmt.Errorf("ask %s for %s: %w", t.address.host, q.Name, inner(err)))
}

func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && strings.EqualFold(a.Name.String(), b.Name.String())
}

// readMessage reads one message, nil if what came is none.
func readMessage(conn net.Conn, network string) (*dnsmessage.Message, error) {
	buf := make([]byte, 64<<10)
	var n int
	var err error
	if network == "tcp" {
		if _, err = io.ReadFull(conn, buf[:2]); err == nil {
			n, err = io.ReadFull(conn, buf[:binary.BigEndian.Uint16(buf)])
		}
	} else {
		n, err = conn.Read(buf)
	}
	if err != nil {
		return nil, err
	}
	var m dnsmessage.Message
	if err := m.Unpack(buf[:n]); err != nil {
		return nil, nil
	}
	return &m, nil
}

// records returns the records of the wanted type as zone files write them.
func records(answers []dnsmessage.Resource, wanted dnsmessage.Type) (list []string) {
	for _, a := range answers {
		if a.Header.Type != wanted {
			continue // a CNAME on the way
		}
		list = append(list, recordText(a.Body))
	}
	return list
}

func recordText(body dnsmessage.ResourceBody) string {
	switch b := body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(b.A).String()
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(b.AAAA).String()
	case *dnsmessage.CNAMEResource:
		return b.CNAME.String()
	case *dnsmessage.MXResource:
		return fmt.Sprintf("%d %s", b.Pref, b.MX)
	case *dnsmessage.NSResource:
		return b.NS.String()
	case *dnsmessage.PTRResource:
		return b.PTR.String()
	case *dnsmessage.SOAResource:
		return fmt.Sprintf("%s %s %d %d %d %d %d", b.NS, b.MBox, b.Serial, b.Refresh, b.Retry, b.Expire, b.MinTTL)
	case *dnsmessage.SRVResource:
		return fmt.Sprintf("%d %d %d %s", b.Priority, b.Weight, b.Port, b.Target)
	case *dnsmessage.TXTResource:
		return strings.Join(b.TXT, "")
	case *dnsmessage.UnknownResource:
		return `\# ` + hex.EncodeToString(b.Data)
	}
	return ""
}
