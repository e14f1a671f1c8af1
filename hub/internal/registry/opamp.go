package registry

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/creelhq/creel/control"
)

const (
	goingAway = websocket.CloseGoingAway

	// Agents that are not creel's are asked for nothing; the specification has them speak every 30 s.
	foreignHeartbeat = 30 * time.Second
	firstMessage     = 10 * time.Second // how long a new connection may be silent
	capabilities     = uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus | protobufs.ServerCapabilities_ServerCapabilities_AcceptsEffectiveConfig | protobufs.ServerCapabilities_ServerCapabilities_OffersRemoteConfig)
	fullState        = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)
	contentType      = "application/x-protobuf"
)

// ServeHTTP takes agents' OpAMP, over WebSocket and plain HTTP.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case req.Header.Get("Origin") != "":
		r.rejected("origin")
		http.Error(w, "requests of web pages are refused", http.StatusForbidden)
	case websocket.IsWebSocketUpgrade(req):
		r.serveConn(w, req)
	case req.Method == http.MethodPost && strings.HasPrefix(req.Header.Get("Content-Type"), contentType):
		r.servePoll(w, req)
	default:
		http.Error(w, "this is where agents connect: OpAMP, over WebSocket or POST of "+contentType, http.StatusBadRequest)
	}
}

// A refusal is an error that the agent is told before its connection is closed.
type refusal struct {
	reason string // in the metric
	kind   protobufs.ServerErrorResponseType
	text   string
}

func (e *refusal) Error() string { return e.text }

func badRequest(reason, format string, args ...any) error {
	return &refusal{reason, protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, fmt.Sprintf(format, args...)}
}

// serveConn takes in a WebSocket and what it says first. The rest it leaves to a goroutine of its own: this one has what a request needs,
// which is more than all that a silent agent does.
func (r *Registry) serveConn(w http.ResponseWriter, req *http.Request) {
	who, ok := r.enter(w, req)
	if !ok {
		return
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the hub stops", http.StatusServiceUnavailable)
		return
	}
	r.wg.Add(1)
	r.mu.Unlock()
	served := false
	defer func() {
		if !served {
			r.wg.Done()
		}
	}()
	t := &talk{r: r}
	var err error
	if t.conn, err = control.Upgrade(w, req, r.o.MaxMessage, firstMessage, t.heard); err != nil {
		r.rejected("handshake")
		return
	}
	goodbye, err := t.begin(who, req)
	if goodbye || err != nil {
		r.end(t.conn, t.a, err, goodbye)
		return
	}
	served = true
	go func() {
		defer r.wg.Done()
		t.goOn()
	}()
}

// A talk is what is said over one WebSocket. One goroutine has it.
type talk struct {
	r    *Registry
	conn *control.Conn
	a    *agent // nil before the first message: nobody
}

// heard notes a sign of life.
func (t *talk) heard() {
	if t.a != nil {
		t.a.heard()
	}
}

// receive returns the next message, and whose it is.
func (t *talk) receive() (m *protobufs.AgentToServer, id string, err error) {
	m = &protobufs.AgentToServer{}
	if err = t.conn.Receive(m); err == nil {
		id, err = agentID(m)
	}
	return m, id, err
}

// begin takes in the first message, which says which agent it is.
func (t *talk) begin(who visitor, req *http.Request) (goodbye bool, err error) {
	m, id, err := t.receive()
	if err != nil {
		return false, err
	}
	if err := t.r.matches(who, id, m, req); err != nil {
		return false, err
	}
	if t.a = t.r.get(id); t.a == nil {
		return false, &refusal{"too_many", protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, "the hub knows too many agents already"}
	}
	if err := t.r.second(t.a, m, req.RemoteAddr); err != nil {
		return false, err
	}
	t.a.connect(t.conn, who, req.RemoteAddr)
	if err := t.r.still(who, req); err != nil {
		return false, err
	}
	return t.answer(m, true)
}

// goOn takes in all other messages, until the connection is over.
func (t *talk) goOn() {
	goodbye, err := false, error(nil)
	defer func() {
		if p := recover(); p != nil { // as net/http does with its connections: it costs this agent's, and no other's
			t.r.o.Log.Error("BUG: a message of an agent could not be worked on", "agent", t.a.ID, "panic", p, "stack", string(debug.Stack()))
			go t.r.end(t.conn, t.a, errors.New("the hub has failed at a message"), false) // the agent may be locked for ever
			return
		}
		t.r.end(t.conn, t.a, err, goodbye)
	}()
	for !goodbye && err == nil {
		var m *protobufs.AgentToServer
		var id string
		if m, id, err = t.receive(); err != nil {
			return
		}
		if t.a.ID != id {
			err = badRequest("identity", "the connection is agent %s's: another instance_uid must connect for itself", t.a.ID)
			return
		}
		goodbye, err = t.answer(m, false)
	}
}

// answer answers a message, and tells the agent what has come up meanwhile.
func (t *talk) answer(m *protobufs.AgentToServer, first bool) (goodbye bool, err error) {
	if !t.a.has(t.conn) {
		return false, errors.New("the agent has another connection")
	}
	reply, err := t.r.hear(t.a, m, first)
	if err != nil {
		return false, err
	}
	t.r.pace(t.conn, t.a, m)
	if reply != nil {
		if err := t.conn.Send(reply); err != nil {
			return false, err
		}
	}
	t.a.tell()
	return m.AgentDisconnect != nil, nil
}

// end closes a connection, telling both sides why.
func (r *Registry) end(conn *control.Conn, a *agent, err error, goodbye bool) {
	var refused *refusal
	var wrong *control.ProtocolError
	var stranger *control.Refusal
	errors.As(err, &refused)
	if errors.As(err, &stranger) {
		refused = badRequest(stranger.Code, "%s", stranger.Error()).(*refusal)
	}
	if errors.As(err, &wrong) {
		refused = badRequest("malformed", "%s", wrong.Reason).(*refusal)
	}
	switch {
	case goodbye:
		conn.Close(websocket.CloseNormalClosure, "")
		err = errors.New("it was stopped")
	case refused != nil:
		r.rejected(refused.reason)
		r.o.Log.Warn("an agent's connection is refused", "agent", idOf(a), "reason", refused.text)
		_ = conn.Send(&protobufs.ServerToAgent{ErrorResponse: &protobufs.ServerErrorResponse{Type: refused.kind, ErrorMessage: refused.text}}) // it is closed anyway
		conn.Flush(time.Second)
		conn.Close(websocket.CloseProtocolError, refused.text)
		err = refused
	default:
		conn.Close(websocket.CloseNormalClosure, err.Error())
	}
	if a != nil {
		a.left(conn, err.Error(), goodbye)
	}
}

func idOf(a *agent) string {
	if a == nil {
		return ""
	}
	return a.ID
}

// pace says how long the agent may be silent from now on.
func (r *Registry) pace(conn *control.Conn, a *agent, m *protobufs.AgentToServer) {
	heartbeat := r.Heartbeat()
	if m.CustomMessage.GetCapability() != control.Capability {
		heartbeat = max(heartbeat, foreignHeartbeat)
		conn.KeepAlive(heartbeat) // it may have no heartbeat of its own
	}
	conn.SetPatience(missed * heartbeat)
}

// agentID checks what every message must have.
func agentID(m *protobufs.AgentToServer) (string, error) {
	id, err := uuid.FromBytes(m.InstanceUid)
	if err != nil || id == uuid.Nil {
		return "", badRequest("identity", "instance_uid must be the 16 bytes of a UUID, got %d bytes", len(m.InstanceUid))
	}
	return id.String(), nil
}

// hear takes in a message, and returns what to answer; nil is nothing.
func (r *Registry) hear(a *agent, m *protobufs.AgentToServer, first bool) (*protobufs.ServerToAgent, error) {
	beat, err := control.BeatOf(m.CustomMessage)
	if err != nil {
		return nil, badRequest("malformed", "%v", err)
	}
	full, news := a.report(m, beat, first)
	if news {
		r.alter()
	} else {
		r.notify()
	}
	if !first && !full && beat == nil {
		return nil, nil
	}
	reply := &protobufs.ServerToAgent{InstanceUid: m.InstanceUid, Capabilities: capabilities}
	if full {
		reply.Flags = fullState
	}
	if first {
		reply.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{control.Capability}}
	}
	if beat != nil {
		a.mu.Lock()
		lease := a.lease()
		a.offerWith(reply)
		a.mu.Unlock()
		a.elsewhere(&lease)
		reply.CustomMessage = lease.Message()
	}
	return reply, nil
}

// servePoll serves one message of an agent that polls over HTTP.
func (r *Registry) servePoll(w http.ResponseWriter, req *http.Request) {
	who, ok := r.enter(w, req)
	if !ok {
		return
	}
	m, err := r.readPoll(w, req)
	var id string
	if err == nil {
		id, err = agentID(m)
	}
	if err == nil {
		err = r.matches(who, id, m, req)
	}
	var a *agent
	if err == nil {
		if a = r.get(id); a == nil {
			w.Header().Set("Retry-After", "30")
			http.Error(w, "the hub knows too many agents already", http.StatusServiceUnavailable)
			return
		}
	}
	var reply *protobufs.ServerToAgent
	if err == nil {
		first := a.poll(who, req.RemoteAddr)
		if err = r.still(who, req); err == nil {
			reply, err = r.hear(a, m, first)
		}
		if reply == nil && err == nil {
			reply = &protobufs.ServerToAgent{InstanceUid: m.InstanceUid, Capabilities: capabilities}
		}
	}
	if err == nil {
		reply.RemoteConfig = a.pollOffer()
	}
	var tooLarge *http.MaxBytesError
	var refused *refusal
	var stranger *control.Refusal
	switch {
	case errors.As(err, &stranger):
		r.turnAway(w, stranger)
		return
	case errors.As(err, &tooLarge):
		r.rejected("malformed")
		http.Error(w, fmt.Sprintf("the message is over %d bytes", r.o.MaxMessage), http.StatusRequestEntityTooLarge)
		return
	case errors.As(err, &refused):
		r.rejected(refused.reason)
		reply = &protobufs.ServerToAgent{ErrorResponse: &protobufs.ServerErrorResponse{Type: refused.kind, ErrorMessage: refused.text}}
	case err != nil:
		r.rejected("malformed")
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	case m.AgentDisconnect != nil:
		a.left(nil, "it was stopped", true)
	}
	data, err := proto.Marshal(reply)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(data) // the agent has gone
}

func (r *Registry) readPoll(w http.ResponseWriter, req *http.Request) (*protobufs.AgentToServer, error) {
	body := io.Reader(http.MaxBytesReader(w, req.Body, r.o.MaxMessage))
	if req.Header.Get("Content-Encoding") == "gzip" {
		gz, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w", err)
		}
		body = http.MaxBytesReader(w, gz, r.o.MaxMessage)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	m := &protobufs.AgentToServer{}
	if err := proto.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("read OpAMP: %w", err)
	}
	return m, nil
}

// poll notes that an agent without a connection was heard, and reports whether it was not there before.
func (a *agent) poll(who visitor, from string) (first bool) {
	a.mu.Lock()
	first = !a.held || a.conn != nil
	a.mu.Unlock()
	if first {
		a.connect(nil, who, from)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known(who)
	a.LastSeen = time.Now().UTC()
	a.wait("it does not poll any more", a.LastSeen.Add(missed*foreignHeartbeat-missed*a.r.Heartbeat()))
	a.Cause = ""
	return first
}
