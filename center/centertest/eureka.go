package centertest

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Eureka is one as Spring Cloud has it (https://github.com/Netflix/eureka/wiki/Eureka-REST-operations), below /eureka. It
// answers without a cache, and does not preserve itself.
type Eureka struct {
	server
	Username, Password string        // that are needed, if any; set before the first request
	Second             time.Duration // of leases; 0: a second. Set before the first request
	NoList             bool          // one instance stands alone, as older servers write it

	mu   sync.Mutex
	apps map[string]map[string]*eurekaInstance // by name and ID
}

type eurekaInstance struct {
	told  map[string]any // as it was registered
	dirty int64
	lease time.Duration
	until time.Time
}

// NewEureka starts a Eureka, which ends with the test.
func NewEureka(t testing.TB) *Eureka {
	e := &Eureka{apps: map[string]map[string]*eurekaInstance{}}
	e.begin(t, e)
	return e
}

// ForgetServices makes it one that has restarted.
func (e *Eureka) ForgetServices() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.apps)
}

// Put registers an instance for a day, as somebody else does: JSON of what is in "instance".
func (e *Eureka) Put(app, text string) {
	told := map[string]any{}
	if err := json.Unmarshal([]byte(text), &told); err != nil {
		e.t.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.apps[app] == nil {
		e.apps[app] = map[string]*eurekaInstance{}
	}
	id, _ := told["instanceId"].(string)
	e.apps[app][id] = &eurekaInstance{told: told, until: time.Now().Add(24 * time.Hour)}
}

// ServeHTTP answers requests for applications.
func (e *Eureka) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/eureka/apps/")
	user, password, _ := r.BasicAuth()
	switch {
	case user != e.Username || password != e.Password:
		w.WriteHeader(http.StatusUnauthorized)
		return
	case !ok:
		http.Error(w, `{"timestamp":"2026-01-01T00:00:00.000+00:00","status":404,"error":"Not Found","path":"`+r.URL.Path+`"}`, http.StatusNotFound)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for app, instances := range e.apps {
		maps.DeleteFunc(instances, func(_ string, i *eurekaInstance) bool { return time.Now().After(i.until) })
		if len(instances) == 0 {
			delete(e.apps, app)
		}
	}
	app, id, one := strings.Cut(path, "/")
	i := e.apps[app][id]
	switch {
	case r.Method == http.MethodGet && !one:
		e.list(w, r, app)
	case r.Method == http.MethodPost && !one:
		e.register(w, r, app)
	case i == nil:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		delete(e.apps[app], id)
	case r.Method == http.MethodPut:
		if dirty, err := strconv.ParseInt(r.URL.Query().Get("lastDirtyTimestamp"), 10, 64); err == nil && dirty > i.dirty {
			w.WriteHeader(http.StatusNotFound) // it has an older one
			return
		}
		i.until = time.Now().Add(i.lease)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (e *Eureka) list(w http.ResponseWriter, r *http.Request, app string) {
	if r.Header.Get("Accept") != "application/json" {
		w.Header().Set("Content-Type", "application/xml")
		_, _ = w.Write([]byte("<application><name>" + app + "</name></application>")) // the client may be gone
		return
	}
	if len(e.apps[app]) == 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	var list []map[string]any
	for _, id := range slices.Sorted(maps.Keys(e.apps[app])) {
		list = append(list, e.apps[app][id].told)
	}
	instances := any(list)
	if e.NoList && len(list) == 1 {
		instances = list[0]
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"application": map[string]any{"name": app, "instance": instances}}) // likewise
}

func (e *Eureka) register(w http.ResponseWriter, r *http.Request, app string) {
	var body struct{ Instance map[string]any }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, "Cannot deserialize", http.StatusBadRequest)
		return
	}
	told := body.Instance
	center, _ := told["dataCenterInfo"].(map[string]any)
	for _, missing := range []bool{told["instanceId"] == nil, told["hostName"] == nil, told["ipAddr"] == nil, told["app"] != app, center["name"] == nil, center["@class"] == nil} {
		if missing {
			http.Error(w, "Missing something, or appName mismatch", http.StatusBadRequest)
			return
		}
	}
	second := e.Second
	if second == 0 {
		second = time.Second
	}
	duration := 90.0
	if lease, ok := told["leaseInfo"].(map[string]any); ok {
		if d, ok := lease["durationInSecs"].(float64); ok {
			duration = d
		}
	}
	i := &eurekaInstance{told: told, lease: time.Duration(duration * float64(second))}
	if text, ok := told["lastDirtyTimestamp"].(string); ok {
		i.dirty, _ = strconv.ParseInt(text, 10, 64) // 0: it has none
	}
	i.until = time.Now().Add(i.lease)
	id, _ := told["instanceId"].(string)
	if e.apps[app] == nil {
		e.apps[app] = map[string]*eurekaInstance{}
	}
	if old := e.apps[app][id]; old != nil && old.dirty > i.dirty {
		i.told = old.told // the later one counts
	}
	e.apps[app][id] = i
	w.WriteHeader(http.StatusNoContent)
}
