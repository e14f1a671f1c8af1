package centertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// nacosInstance is an ephemeral instance as it is listed.
type nacosInstance struct {
	InstanceID  string            `json:"instanceId"`
	IP          string            `json:"ip"`
	Port        int               `json:"port"`
	Weight      float64           `json:"weight"`
	Healthy     bool              `json:"healthy"`
	Enabled     bool              `json:"enabled"`
	Ephemeral   bool              `json:"ephemeral"`
	ClusterName string            `json:"clusterName"`
	ServiceName string            `json:"serviceName"`
	Metadata    map[string]string `json:"metadata"`

	beat time.Time
}

// After so many seconds without a beat an instance is ill, and then forgotten.
const (
	nacosIll  = 15
	nacosGone = 30
)

// ForgetServices makes it one that has lost its ephemeral instances: it has restarted.
func (n *Nacos) ForgetServices() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.named)
}

// name answers requests for instances.
func (n *Nacos) name(w http.ResponseWriter, r *http.Request, route string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	second := n.Second
	if second == 0 {
		second = time.Second
	}
	for key, i := range n.named {
		switch silent := time.Since(i.beat); {
		case silent > nacosGone*second:
			delete(n.named, key)
		case silent > nacosIll*second:
			i.Healthy = false
		}
	}
	service := r.Form.Get("serviceName")
	if group := r.Form.Get("groupName"); !strings.Contains(service, "@@") {
		if group == "" {
			group = "DEFAULT_GROUP"
		}
		service = group + "@@" + service
	}
	if strings.HasSuffix(service, "@@") {
		http.Error(w, "caused: Param 'serviceName' is required.;", http.StatusBadRequest)
		return
	}
	in := r.Form.Get("namespaceId") + "##" + service + "##"
	if route == "GET /nacos/v1/ns/instance/list" {
		hosts := []*nacosInstance{}
		for _, key := range slices.Sorted(maps.Keys(n.named)) {
			if i := n.named[key]; strings.HasPrefix(key, in) && (i.Healthy || r.Form.Get("healthyOnly") != "true") {
				hosts = append(hosts, i)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"name": service, "groupName": "DEFAULT_GROUP", "clusters": "", "cacheMillis": 10000, "hosts": hosts, "lastRefTime": time.Now().UnixMilli(), "checksum": "", "allIPs": false, "valid": true}) // the client may be gone
		return
	}
	port, err := strconv.Atoi(r.Form.Get("port"))
	if err != nil || r.Form.Get("ip") == "" {
		http.Error(w, "caused: Param 'ip' is required.;", http.StatusBadRequest)
		return
	}
	cluster := r.Form.Get("clusterName")
	if cluster == "" {
		cluster = "DEFAULT"
	}
	id := fmt.Sprintf("%s#%d#%s#%s", r.Form.Get("ip"), port, cluster, service)
	switch route {
	case "POST /nacos/v1/ns/instance":
		i := &nacosInstance{InstanceID: id, IP: r.Form.Get("ip"), Port: port, ClusterName: cluster, ServiceName: service, beat: time.Now()}
		i.Healthy, i.Enabled, i.Ephemeral = r.Form.Get("healthy") != "false", r.Form.Get("enabled") != "false", r.Form.Get("ephemeral") != "false"
		if i.Weight, err = strconv.ParseFloat(r.Form.Get("weight"), 64); err != nil {
			i.Weight = 1
		}
		if err := json.Unmarshal([]byte(r.Form.Get("metadata")), &i.Metadata); err != nil && r.Form.Get("metadata") != "" {
			http.Error(w, "caused: metadata is no JSON;", http.StatusBadRequest)
			return
		}
		n.named[in+id] = i
		fmt.Fprint(w, "ok")
	case "PUT /nacos/v1/ns/instance/beat":
		code := 20404
		if i := n.named[in+id]; i != nil {
			i.beat, i.Healthy, code = time.Now(), true, 10200
		}
		fmt.Fprintf(w, `{"clientBeatInterval":5000,"code":%d,"lightBeatEnabled":true}`, code)
	case "DELETE /nacos/v1/ns/instance":
		delete(n.named, in+id)
		fmt.Fprint(w, "ok")
	default:
		http.Error(w, "Request method not supported", http.StatusMethodNotAllowed)
	}
}
