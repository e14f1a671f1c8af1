package otlp

import (
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel"
)

// What one agent says to another beside the records, as HTTP headers and gRPC metadata: the batch's name, so that a repeat
// of it is recognised, and who sends. Others ignore both.
const (
	headerBatchID = "creel-batch-id" // 32 hexadecimal digits
	headerSender  = "creel-sender"   // the agent's id;when it started, Unix nanoseconds;the exporter's id

	canonicalBatchID, canonicalSender = "Creel-Batch-Id", "Creel-Sender" // as net/http has them: to make them so would allocate
)

// longestSender bounds what is believed to be a sender: names that others choose are kept for a while.
const longestSender = 512

func formatID(id creel.ID) string { return hex.EncodeToString(id[:]) }

// parseID returns the zero ID for anything that is none.
func parseID(text string) (id creel.ID) {
	if len(text) != 2*len(id) {
		return creel.ID{}
	}
	if _, err := hex.Decode(id[:], []byte(text)); err != nil {
		return creel.ID{}
	}
	return id
}

// formatSender returns "" for who says nothing of itself. What headers cannot hold is escaped as in URLs.
func formatSender(s creel.Sender) string {
	if s.Agent == "" {
		return ""
	}
	escape := func(id string) string { return strings.ReplaceAll((&url.URL{Path: id}).EscapedPath(), ";", "%3B") }
	return escape(s.Agent) + ";" + strconv.FormatInt(s.Started.UnixNano(), 10) + ";" + escape(s.Exporter)
}

// parseSender returns the zero Sender for anything that is none.
func parseSender(text string) creel.Sender {
	agent, rest, _ := strings.Cut(text, ";")
	start, exporter, _ := strings.Cut(rest, ";")
	ns, err := strconv.ParseInt(start, 10, 64)
	if err != nil || len(text) > longestSender {
		return creel.Sender{}
	}
	if agent, err = url.PathUnescape(agent); err != nil || agent == "" {
		return creel.Sender{}
	}
	if exporter, err = url.PathUnescape(exporter); err != nil {
		return creel.Sender{}
	}
	return creel.Sender{Agent: agent, Started: time.Unix(0, ns), Exporter: exporter}
}
