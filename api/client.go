package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Client asks a hub. Its methods may be called concurrently. Their errors are an *Error when the hub has answered so.
type Client struct {
	URL   string       // such as http://127.0.0.1:4380
	Token string       // of the hub
	HTTP  *http.Client // nil: http.DefaultClient

	// Others are the URLs of other hubs with the same control state, which take the same token: WatchDirectory and WatchTasks go on there.
	Others []string

	// Warn is called with what is wrong with an answer that is a success, such as that a hub has not answered the one that was
	// asked. nil: that does not matter.
	Warn func(text string)
}

// lacks warns of what an answer lacks.
func (c *Client) lacks(list []Absent) {
	for _, a := range list {
		c.warn(a.String())
	}
}

func (c *Client) warn(text string) {
	if c.Warn != nil {
		c.Warn(text)
	}
}

// maxAnswer is the largest answer in bytes that a Client takes.
const maxAnswer = 256 << 20

// ErrUnreachable is what a Client's errors wrap when the hub did not answer at all.
var ErrUnreachable = errors.New("hub not reached")

// Hub returns what the hub says of itself.
func (c *Client) Hub(ctx context.Context) (Hub, error) { return get[Hub](ctx, c, "/hub", nil) }

// Cluster returns the hubs that share a control state.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	return get[Cluster](ctx, c, "/cluster", nil)
}

// DrainHub asks the agents of a hub to go to others, or takes that back.
func (c *Client) DrainHub(ctx context.Context, id string, d HubDrain) (ClusterHub, error) {
	return send[ClusterHub](ctx, c, http.MethodPost, "/hubs/"+url.PathEscape(id)+"/drain", nil, d)
}

// Agents returns a page of the fleet, worst first.
func (c *Client) Agents(ctx context.Context, q AgentQuery) (AgentList, error) {
	return get[AgentList](ctx, c, "/agents", q)
}

// Agent returns all about one agent. A prefix of its id will do when it is unique.
func (c *Client) Agent(ctx context.Context, id string) (AgentDetail, error) {
	return get[AgentDetail](ctx, c, "/agents/"+url.PathEscape(id), nil)
}

// WatchAgents calls f with the first page of the fleet at once and whenever it has changed, until ctx is done or f fails.
func (c *Client) WatchAgents(ctx context.Context, q AgentQuery, f func(AgentList) error) error {
	return watch(ctx, c, "/agents/watch", q, f)
}

// Ledger returns the books of the fleet.
func (c *Client) Ledger(ctx context.Context, q LedgerQuery) (Ledger, error) {
	return get[Ledger](ctx, c, "/ledger", q)
}

// Configurations returns the configurations that run.
func (c *Client) Configurations(ctx context.Context) (ConfigurationList, error) {
	return get[ConfigurationList](ctx, c, "/configurations", nil)
}

// Configuration returns one configuration that runs, with its text.
func (c *Client) Configuration(ctx context.Context, id string) (Configuration, error) {
	return get[Configuration](ctx, c, "/configurations/"+url.PathEscape(id), nil)
}

// Order asks an agent to do something. A prefix of its id will do when it is unique.
func (c *Client) Order(ctx context.Context, agent string, o OrderRequest) (Order, error) {
	return send[Order](ctx, c, http.MethodPost, "/agents/"+url.PathEscape(agent)+"/orders", nil, o)
}

// Documents returns the documents that the hub hands out, without their text.
func (c *Client) Documents(ctx context.Context) (DocumentList, error) {
	return get[DocumentList](ctx, c, "/documents", nil)
}

// Document returns one document with its text, and how it is on each agent that it selects.
func (c *Client) Document(ctx context.Context, name string, q DocumentQuery) (DocumentDetail, error) {
	return get[DocumentDetail](ctx, c, "/documents/"+url.PathEscape(name), q)
}

// DocumentHistory returns the versions of a document.
func (c *Client) DocumentHistory(ctx context.Context, name string) (DocumentHistory, error) {
	return get[DocumentHistory](ctx, c, "/documents/"+url.PathEscape(name)+"/history", nil)
}

// ApplyDocument writes a document.
func (c *Client) ApplyDocument(ctx context.Context, d DocumentChange) (DocumentApplied, error) {
	return send[DocumentApplied](ctx, c, http.MethodPut, "/documents", nil, d)
}

// DeleteDocument deletes a document.
func (c *Client) DeleteDocument(ctx context.Context, name string, d DocumentDeletion) error {
	_, err := send[struct{}](ctx, c, http.MethodDelete, "/documents/"+url.PathEscape(name), d, nil)
	return err
}

// RollBackDocument makes an earlier version of a document the newest.
func (c *Client) RollBackDocument(ctx context.Context, name string, r Rollback) (DocumentApplied, error) {
	return send[DocumentApplied](ctx, c, http.MethodPost, "/documents/"+url.PathEscape(name)+"/rollback", nil, r)
}

// Task returns the tasks of one document.
func (c *Client) Task(ctx context.Context, document string) (TaskDetail, error) {
	return get[TaskDetail](ctx, c, "/tasks/"+url.PathEscape(document), nil)
}

// RunTask asks for a round of a document now.
func (c *Client) RunTask(ctx context.Context, document string, b Because) (TaskDetail, error) {
	return send[TaskDetail](ctx, c, http.MethodPost, "/tasks/"+url.PathEscape(document)+"/run", nil, b)
}

// CancelTask ends a document that is to be done once, or gives up the rounds under way.
func (c *Client) CancelTask(ctx context.Context, document string, b Because) (TaskDetail, error) {
	return send[TaskDetail](ctx, c, http.MethodPost, "/tasks/"+url.PathEscape(document)+"/cancel", nil, b)
}

// RetryTask has a document placed anew.
func (c *Client) RetryTask(ctx context.Context, document string, b Because) (TaskDetail, error) {
	return send[TaskDetail](ctx, c, http.MethodPost, "/tasks/"+url.PathEscape(document)+"/retry", nil, b)
}

// Tasks returns the places of documents that are to be on some agents.
func (c *Client) Tasks(ctx context.Context) (TaskList, error) {
	return get[TaskList](ctx, c, "/tasks", nil)
}

// Schema returns the JSON Schema of a document.
func (c *Client) Schema(ctx context.Context) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, "/schema", nil)
}

// Logs searches log records.
func (c *Client) Logs(ctx context.Context, q LogQuery) (LogResult, error) {
	return get[LogResult](ctx, c, "/logs", q)
}

// CountLogs counts log records over time.
func (c *Client) CountLogs(ctx context.Context, q LogQuery) (Histogram, error) {
	return get[Histogram](ctx, c, "/logs/histogram", q)
}

// TailLogs calls f with every matching log record that arrives, until ctx is done or f fails.
func (c *Client) TailLogs(ctx context.Context, q LogQuery, f func(Log) error) error {
	return watch(ctx, c, "/logs/tail", q, f)
}

// Traces searches traces.
func (c *Client) Traces(ctx context.Context, q TraceQuery) (TraceList, error) {
	return get[TraceList](ctx, c, "/traces", q)
}

// Trace returns all spans of a trace.
func (c *Client) Trace(ctx context.Context, id string) (Trace, error) {
	return get[Trace](ctx, c, "/traces/"+url.PathEscape(id), nil)
}

// Services returns the services that logs or spans came from.
func (c *Client) Services(ctx context.Context, w Window) (ServiceList, error) {
	return get[ServiceList](ctx, c, "/services", w)
}

// Me returns who asks, and what they may do.
func (c *Client) Me(ctx context.Context) (Me, error) { return get[Me](ctx, c, "/me", nil) }

// Tokens returns the tokens that agents, people and applications come in with.
func (c *Client) Tokens(ctx context.Context) (AccessTokenList, error) {
	return get[AccessTokenList](ctx, c, "/tokens", nil)
}

// CreateToken makes a token.
func (c *Client) CreateToken(ctx context.Context, r AccessTokenRequest) (AccessTokenCreated, error) {
	return send[AccessTokenCreated](ctx, c, http.MethodPost, "/tokens", nil, r)
}

// DeleteToken makes a token worth nothing.
func (c *Client) DeleteToken(ctx context.Context, id string) error {
	_, err := send[struct{}](ctx, c, http.MethodDelete, "/tokens/"+url.PathEscape(id), nil, nil)
	return err
}

// RemoveHub removes a hub for good from those that keep the control state together.
func (c *Client) RemoveHub(ctx context.Context, id string) error {
	_, err := send[struct{}](ctx, c, http.MethodDelete, "/hubs/"+url.PathEscape(id), nil, nil)
	return err
}

// Knocks returns who was refused.
func (c *Client) Knocks(ctx context.Context) (KnockList, error) {
	return get[KnockList](ctx, c, "/knocks", nil)
}

// Revoke lets an agent in no more. A prefix of its id will do when it is unique.
func (c *Client) Revoke(ctx context.Context, agent string, b Because) error {
	_, err := send[struct{}](ctx, c, http.MethodPost, "/agents/"+url.PathEscape(agent)+"/revoke", nil, b)
	return err
}

// Admit lets an agent in again.
func (c *Client) Admit(ctx context.Context, agent string, b Because) error {
	_, err := send[struct{}](ctx, c, http.MethodPost, "/agents/"+url.PathEscape(agent)+"/admit", nil, b)
	return err
}

// Audit returns what was changed.
func (c *Client) Audit(ctx context.Context, q AuditQuery) (AuditList, error) {
	return get[AuditList](ctx, c, "/audit", q)
}

// Authority returns how the hub's authority is.
func (c *Client) Authority(ctx context.Context) (Authority, error) {
	return get[Authority](ctx, c, "/authority", nil)
}

// ChangeAuthority takes a step of changing it.
func (c *Client) ChangeAuthority(ctx context.Context, a AuthorityChange) (Authority, error) {
	return send[Authority](ctx, c, http.MethodPost, "/authority", nil, a)
}

// Backup writes all that the hub must not lose, a tar archive, and returns its size in bytes. It is whole if its last member says so.
func (c *Client) Backup(ctx context.Context, to io.Writer) (int64, error) {
	resp, err := c.do(ctx, http.MethodGet, Prefix+"/backup", nil, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what there is of it will do
		return 0, failure(resp.Status, text)
	}
	size, err := io.Copy(to, resp.Body)
	if err != nil {
		return size, fmt.Errorf("read the hub's answer: %w", err)
	}
	return size, nil
}

// Login changes the client's token, which it does not change itself, for a JWT.
func (c *Client) Login(ctx context.Context, token string) (LoginResponse, error) {
	return send[LoginResponse](ctx, c, http.MethodPost, "/login", nil, LoginRequest{token})
}

// PromQL asks the hub's Prometheus API, such as query_range, and returns the field data of the answer.
func (c *Client) PromQL(ctx context.Context, call string, parameters url.Values) (json.RawMessage, error) {
	resp, err := c.do(ctx, http.MethodGet, "/prom/api/v1/"+call, parameters, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Data             json.RawMessage
		ErrorType, Error string
		Warnings         []string
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the hub's answer: %w", err)
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Error != "" || resp.StatusCode != http.StatusOK {
		if answer.Error != "" {
			return nil, &Error{Code: answer.ErrorType, Message: answer.Error}
		}
		return nil, failure(resp.Status, text)
	}
	for _, w := range answer.Warnings {
		c.warn(w)
	}
	return answer.Data, nil
}

// do sends a request, with body as JSON if there is one, and explains why nobody answers.
func (c *Client) do(ctx context.Context, method, path string, parameters url.Values, body any) (*http.Response, error) {
	u := strings.TrimRight(c.URL, "/") + path
	if len(parameters) > 0 {
		u += "?" + parameters.Encode()
	}
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("ask the hub: %w", err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, u, content)
	if err != nil {
		return nil, fmt.Errorf("ask the hub: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	h := c.HTTP
	if h == nil {
		h = http.DefaultClient
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, c.URL, errors.Unwrap(err))
	}
	c.lacks(AbsentIn(resp.Header))
	return resp, nil
}

func get[T any](ctx context.Context, c *Client, path string, request any) (T, error) {
	return send[T](ctx, c, http.MethodGet, path, request, nil)
}

// send asks for an operation. Without content in the answer v is zero.
func send[T any](ctx context.Context, c *Client, method, path string, request, body any) (v T, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	resp, err := c.do(ctx, method, Prefix+path, EncodeQuery(request), body)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return v, fmt.Errorf("read the hub's answer: %w", err)
	}
	if resp.StatusCode == http.StatusNoContent {
		return v, nil
	}
	if resp.StatusCode != http.StatusOK {
		return v, failure(resp.Status, text)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return v, fmt.Errorf("read the hub's answer: %w; is a creel hub there?", err)
	}
	return v, nil
}

// failure makes an error of an answer that is none.
func failure(status string, text []byte) error {
	var e Error
	if json.Unmarshal(text, &e) == nil && e.Message != "" {
		return &e
	}
	return fmt.Errorf("the hub answers %s: %s", status, bytes.TrimSpace(text[:min(len(text), 200)]))
}

// watch reads server-sent events (HTML Living Standard, section 9.2) and calls f with the data of each.
func watch[T any](ctx context.Context, c *Client, path string, request any, f func(T) error) error {
	resp, err := c.do(ctx, http.MethodGet, Prefix+path, EncodeQuery(request), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return fmt.Errorf("read the hub's answer: %w", err)
		}
		return failure(resp.Status, text)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxAnswer)
	event := ""
	for lines.Scan() {
		if name, ok := bytes.CutPrefix(lines.Bytes(), []byte("event: ")); ok {
			event = string(name)
		}
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		if event == AbsentEvent {
			var j Joint
			if err := json.Unmarshal(data, &j); err != nil {
				return fmt.Errorf("read the hub's answer: %w", err)
			}
			c.lacks(j.Absent)
			continue
		}
		var v T
		if err := json.Unmarshal(data, &v); err != nil {
			return fmt.Errorf("read the hub's answer: %w", err)
		}
		if err := f(v); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w any more: the stream has ended", ErrUnreachable)
}

// Pauses between asking all hubs, which double.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 10 * time.Second
)

// goOn calls watch with this hub's client, and when that has ended, as when the hub goes away, again or with that of the next of
// c.Others; those of them that do not know the token are passed over. watch calls note with what became of each event, and ends if that is an error. goOn returns that error, or ctx's, or that
// who asks may not.
func (c *Client) goOn(ctx context.Context, watch func(hub *Client, note func(error) error) error) error {
	urls := append([]string{c.URL}, c.Others...)
	pause := firstPause
	for i := 0; ; {
		hub := *c
		hub.URL = urls[i]
		heard := false
		var failed error
		err := watch(&hub, func(err error) error {
			heard, pause, failed = true, firstPause, err
			return err
		})
		var refused *Error
		switch {
		case failed != nil:
			return failed
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused) && refused.Code == "unauthorized" && i > 0 && !heard:
			urls = slices.Delete(urls, i, i+1)
			i--
		case errors.As(err, &refused) && refused.Code != "unavailable" && refused.Code != "internal" && refused.Code != "timeout":
			return err
		}
		if i++; i == len(urls) { // all were tried
			i = 0
			select {
			case <-time.After(pause/2 + rand.N(pause)):
			case <-ctx.Done():
				return ctx.Err()
			}
			pause = min(2*pause, mostPause)
		}
	}
}
