package centertest

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Nacos is one with configurations and services, its HTTP API v1 and the long poll of that.
type Nacos struct {
	server
	Username, Password string        // that are needed, if any; set before the first request
	TTL                time.Duration // of tokens; 0: 5 h
	Hold               time.Duration // of a listen; 0: what the protocol says, ten seconds and more
	NoV1Login          bool          // only the login of API v3 is there

	Second time.Duration // of the times after which an instance is ill and forgotten; 0: a second. Set before the first request

	mu      sync.Mutex
	named   map[string]*nacosInstance // instances by service and address
	configs map[string]string         // by where
	tokens  map[string]time.Time
	logins  int
	news    chan struct{} // closed at a change
}

// NewNacos starts a Nacos, which ends with the test.
func NewNacos(t testing.TB) *Nacos {
	n := &Nacos{named: map[string]*nacosInstance{}, configs: map[string]string{}, tokens: map[string]time.Time{}, news: make(chan struct{})}
	n.begin(t, n)
	return n
}

func where(dataID, group, tenant string) string { return dataID + "\x02" + group + "\x02" + tenant }

// Publish writes a configuration. tenant "" is the public namespace.
func (n *Nacos) Publish(dataID, group, tenant, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.configs[where(dataID, group, tenant)] = text
	n.wake()
}

// Remove deletes a configuration.
func (n *Nacos) Remove(dataID, group, tenant string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.configs, where(dataID, group, tenant))
	n.wake()
}

// ExpireTokens makes all tokens invalid, as a restart does.
func (n *Nacos) ExpireTokens() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.tokens)
}

// Logins returns how often somebody has logged in.
func (n *Nacos) Logins() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.logins
}

func (n *Nacos) wake() {
	close(n.news)
	n.news = make(chan struct{})
}

// ServeHTTP answers requests.
func (n *Nacos) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch route := r.Method + " " + r.URL.Path; {
	case route == "POST /nacos/v3/auth/user/login", route == "POST /nacos/v1/auth/login" && !n.NoV1Login:
		n.login(w, r)
	case !strings.HasPrefix(r.URL.Path, "/nacos/v1/ns/instance") && route != "GET /nacos/v1/cs/configs" && route != "POST /nacos/v1/cs/configs/listener":
		http.Error(w, `{"status":404,"error":"Not Found","path":"`+r.URL.Path+`"}`, http.StatusNotFound)
	case !n.knows(r.Form.Get("accessToken")):
		http.Error(w, `{"status":403,"error":"Forbidden","message":"token invalid!"}`, http.StatusForbidden)
	case strings.HasPrefix(r.URL.Path, "/nacos/v1/ns/"):
		n.name(w, r, route)
	case r.Method == http.MethodGet:
		n.get(w, r)
	default:
		n.listen(w, r)
	}
}

func (n *Nacos) login(w http.ResponseWriter, r *http.Request) {
	if r.PostForm.Get("username") != n.Username || r.PostForm.Get("password") != n.Password {
		http.Error(w, "unknown user!", http.StatusForbidden)
		return
	}
	ttl := n.TTL
	if ttl == 0 {
		ttl = 5 * time.Hour
	}
	n.mu.Lock()
	n.logins++
	token := fmt.Sprintf("token-%d", n.logins)
	n.tokens[token] = time.Now().Add(ttl)
	n.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"accessToken":%q,"tokenTtl":%d,"globalAdmin":false,"username":%q}`, token, int(ttl.Seconds()), n.Username)
}

func (n *Nacos) knows(token string) bool {
	if n.Username == "" {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Now().Before(n.tokens[token])
}

func (n *Nacos) get(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	text, ok := n.configs[where(r.Form.Get("dataId"), r.Form.Get("group"), r.Form.Get("tenant"))]
	n.mu.Unlock()
	if !ok {
		http.Error(w, "config data not exist", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-MD5", sum(text))
	_, _ = w.Write([]byte(text)) // the client may be gone
}

func sum(text string) string {
	s := md5.Sum([]byte(text))
	return hex.EncodeToString(s[:])
}

// listen answers when something is not as the client has it, or with nothing when it has waited for long.
func (n *Nacos) listen(w http.ResponseWriter, r *http.Request) {
	lines := strings.Split(r.PostForm.Get("Listening-Configs"), "\x01")
	timeout, err := strconv.Atoi(r.Header.Get("Long-Pulling-Timeout"))
	if err != nil || len(lines) < 2 || lines[len(lines)-1] != "" {
		http.Error(w, "invalid probeModify", http.StatusBadRequest)
		return
	}
	lines = lines[:len(lines)-1]
	if len(lines) > 10000 {
		http.Error(w, "too many listeners", http.StatusBadRequest)
		return
	}
	hold := max(10*time.Second, time.Duration(timeout-500)*time.Millisecond)
	if n.Hold > 0 {
		hold = n.Hold
	}
	if r.Header.Get("Long-Pulling-Timeout-No-Hangup") == "true" {
		hold = 0
	}
	late := time.NewTimer(hold)
	defer late.Stop()
	for waiting := true; ; {
		n.mu.Lock()
		news := n.news
		answer, err := n.changed(lines)
		n.mu.Unlock()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if answer != "" || !waiting {
			_, _ = w.Write([]byte(url.QueryEscape(answer))) // the client may be gone
			return
		}
		select {
		case <-news:
		case <-late.C:
			waiting = false
		case <-r.Context().Done():
			return
		}
	}
}

// changed returns the lines of what is not as the client has it, as they are answered.
func (n *Nacos) changed(lines []string) (string, error) {
	var answer strings.Builder
	for _, line := range lines {
		words := strings.Split(line, "\x02")
		if len(words) != 3 && len(words) != 4 {
			return "", fmt.Errorf("invalid probeModify: %q", line)
		}
		tenant := ""
		if len(words) == 4 {
			tenant = words[3]
		}
		has := ""
		if text, ok := n.configs[where(words[0], words[1], tenant)]; ok {
			has = sum(text)
		}
		if has == words[2] {
			continue
		}
		answer.WriteString(words[0] + "\x02" + words[1])
		if tenant != "" {
			answer.WriteString("\x02" + tenant)
		}
		answer.WriteString("\x01")
	}
	return answer.String(), nil
}
