package prometheus

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/creelhq/creel"
)

// group is targets that have labels in common, as Prometheus' discovery by file and HTTP has it.
type group struct {
	Targets []string          `json:"targets" yaml:"targets"`
	Labels  map[string]string `json:"labels" yaml:"labels"`
}

// target is one place to scrape, and what is remembered of it. It belongs to the round, but for what never changes: url,
// client, auth.
type target struct {
	key    string // tells targets apart
	url    *url.URL
	client *http.Client
	own    bool        // client is nobody else's
	labels creel.Attrs // of each point, besides those that are exposed

	plain   *creel.Origin // as the target is known by its configuration
	origin  *creel.Origin // and with what it says of itself
	info    string        // how it said it
	origins map[variant]*creel.Origin

	series  map[uint64]*series
	round   uint32
	down    bool   // the scrape before has failed
	failing string // at what it fails, as the log has it; "" if it does not
	size    int    // of its last exposition
	current bool   // it is among those of this round
}

// newTarget makes a target of an address, host:port or a URL, and the labels that came with it. As in Prometheus __scheme__,
// __metrics_path__ and __param_NAME say how to reach it, other labels that begin with two underscores are left out, and job and
// instance name the service and its instance.
func newTarget(c *Config, address string, labels map[string]string) (*target, error) {
	u, err := parseAddress(address, c.Scheme, c.Path)
	if err != nil {
		return nil, err
	}
	query := u.Query()
	for name, values := range c.Params {
		query[name] = values
	}
	job, instance := c.Job, u.Host
	all := maps.Clone(c.Labels)
	if all == nil {
		all = make(map[string]string)
	}
	for name, value := range labels {
		param, isParam := strings.CutPrefix(name, "__param_")
		switch {
		case isParam:
			query.Set(param, value)
		case name == "__scheme__":
			if u.Scheme = value; value != "http" && value != "https" {
				return nil, fmt.Errorf("read label __scheme__ of target %s: must be http or https, got %q", address, value)
			}
		case name == "__metrics_path__":
			u.Path = "/" + strings.TrimPrefix(value, "/")
		case !strings.HasPrefix(name, "__"):
			all[name] = value
		}
	}
	if u.Port() == "" {
		port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
		if instance == u.Host {
			instance = net.JoinHostPort(u.Hostname(), port)
		}
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	u.RawQuery = query.Encode()
	if all["job"] != "" {
		job = all["job"]
	}
	if all["instance"] != "" {
		instance = all["instance"]
	}
	t := &target{url: u, series: make(map[uint64]*series)}
	key := []string{u.String(), job, instance}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if value := all[name]; value != "" && name != "job" && name != "instance" {
			t.labels = append(t.labels, creel.Attr{Key: name, Value: creel.String(value)})
			key = append(key, name, value)
		}
	}
	t.key = strings.Join(key, "\x00")
	port, _ := strconv.Atoi(u.Port())
	t.plain = &creel.Origin{
		Resource: creel.Resource{Attrs: creel.Attrs{
			{Key: "service.name", Value: creel.String(job)},
			{Key: "service.instance.id", Value: creel.String(instance)},
			{Key: "server.address", Value: creel.String(u.Hostname())},
			{Key: "server.port", Value: creel.Int(int64(port))},
			{Key: "url.scheme", Value: creel.String(u.Scheme)},
		}},
		Scope: creel.Scope{Name: scopeName},
	}
	t.origin = t.plain
	return t, nil
}

// parseAddress reads host:port, host or a URL.
func parseAddress(address, scheme, path string) (*url.URL, error) {
	whole := strings.Contains(address, "://")
	if !whole {
		address = scheme + "://" + address
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read target: must be host:port or a URL: %w", errors.Unwrap(err)) // which may hold a password
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !whole && (u.Path != "" || u.RawQuery != ""):
		return nil, errors.New("read target: must be host:port, http://host:port/path or https://host:port/path")
	case u.User != nil:
		return nil, errors.New("read target: a user does not belong into a URL; see basic")
	}
	u.Fragment = ""
	if u.Path == "" || u.Path == "/" {
		u.Path = "/" + strings.TrimPrefix(path, "/")
	}
	return u, nil
}

// owner returns which of the shards has the target at host, host:port: the one with the highest hash of both (rendezvous
// hashing), so that with another number of shards only the share of those that come or go moves. All agents and versions
// must say the same.
func owner(host string, shards int) int {
	h := fnv.New64a()
	h.Write([]byte(host))
	base := h.Sum64()
	best, highest := 0, uint64(0)
	for i := range shards {
		x := base + uint64(i+1)*0x9e3779b97f4a7c15 // splitmix64
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		if x ^= x >> 31; i == 0 || x > highest {
			best, highest = i, x
		}
	}
	return best
}
