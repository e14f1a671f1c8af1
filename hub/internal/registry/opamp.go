package registry

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
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

// serveConn serves one WebSocket until it is over.
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
	defer r.wg.Done()

	var a *agent // before the first message: nobody. Only this goroutine uses it
	conn, err := control.Upgrade(w, req, r.o.MaxMessage, firstMessage, func() {
		if a != nil {
			a.heard()
		}
	})
	if err != nil {
		r.rejected("handshake")
		return
	}
	goodbye := false
	for !goodbye {
		m := &protobufs.AgentToServer{}
		if err = conn.Receive(m); err != nil {
			break
		}
		var id string
		if id, err = agentID(m); err != nil {
			break
		}
		first := a == nil
		if first {
			if err = r.matches(who, id, m, req); err != nil {
				break
			}
			if a = r.get(id); a == nil {
				err = &refusal{"too_many", protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, "the hub knows too many agents already"}
				break
			}
			if err = r.second(a, m, req.RemoteAddr); err != nil {
				break
			}
			a.connect(conn, who, req.RemoteAddr)
			if err = r.still(who, req); err != nil {
				break
			}
		} else if a.ID != id {
			err = badRequest("identity", "the connection is agent %s's: another instance_uid must connect for itself", a.ID)
			break
		}
		if !a.has(conn) {
			err = errors.New("the agent has another connection")
			break
		}
		var reply *protobufs.ServerToAgent
		if reply, err = r.hear(a, m, first); err != nil {
			break
		}
		r.pace(conn, a, m)
		if reply != nil {
			if err = conn.Send(reply); err != nil {
				break
			}
		}
		a.tell()
		goodbye = m.AgentDisconnect != nil
	}
	r.end(conn, a, err, goodbye)
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
