package consul

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel/center"
)

const (
	ttl  = 15 * time.Second // after which an instance that says nothing is not listed any more
	gone = time.Minute      // after which Consul removes it; there is no less
)

type registry struct {
	client
	ttl time.Duration // ttl, but for tests
}

// NewRegistry returns the Registry.
func NewRegistry(c Config, h center.Host) (center.Registry, error) {
	asks, err := newClient(c, h)
	return &registry{asks, ttl}, err
}

// registration is an instance as Consul's agent takes it (https://developer.hashicorp.com/consul/api-docs/agent/service).
type registration struct {
	ID, Name, Address string
	Port              int
	Tags              []string
	Meta              map[string]string
	Weights           weights
	Check             check
}

type weights struct{ Passing, Warning int }

type check struct {
	CheckID, Name, TTL, Status     string
	DeregisterCriticalServiceAfter string
}

// name is an instance's ID in Consul, where IDs are unique among all services of an agent.
func name(i center.Instance) string { return i.Service + ":" + i.ID }

// Register registers with Consul's agent, and passes a check three times in its TTL.
func (r *registry) Register(ctx context.Context, i center.Instance) {
	defer r.http.Close()
	id := name(i)
	host, port := i.Split()
	text, err := json.Marshal(registration{
		ID: id, Name: i.Service, Address: host, Port: port, Tags: i.Tags, Meta: i.Meta, Weights: weights{max(i.Weight, 1), 1},
		Check: check{CheckID: "service:" + id, Name: "it says that it is alive", TTL: r.ttl.String(), Status: "passing", DeregisterCriticalServiceAfter: gone.String()},
	})
	if err != nil {
		panic("BUG: " + err.Error()) // there are only strings and numbers
	}
	center.Lease{
		Every: r.ttl / 3,
		Register: func(ctx context.Context) error {
			_, err := r.put(ctx, "/v1/agent/service/register", url.Values{"replace-existing-checks": {"true"}}, text)
			return err
		},
		Beat: func(ctx context.Context) error {
			a, err := r.put(ctx, "/v1/agent/check/pass/service:"+id, nil, nil)
			if a != nil && unknown(a) {
				return center.ErrForgotten
			}
			return err
		},
		Leave: func(ctx context.Context) error {
			a, err := r.put(ctx, "/v1/agent/service/deregister/"+id, nil, nil)
			if a != nil && unknown(a) {
				return nil
			}
			return err
		},
	}.Keep(ctx, r.host)
}

// unknown tells whether the agent knows no such service or check. Agents before 1.11 said so with a 500.
func unknown(a *center.Answer) bool {
	return a.Status == http.StatusNotFound && strings.Contains(string(a.Body), "nknown ") ||
		a.Status == http.StatusInternalServerError && strings.Contains(string(a.Body), "does not have associated TTL")
}

// put sends a request, and returns the answer also if that is an error.
func (r *registry) put(ctx context.Context, path string, q url.Values, body []byte) (*center.Answer, error) {
	a, err := r.call(ctx, http.MethodPut, path, q, body, r.patience)
	if err != nil {
		return nil, fmt.Errorf("register with Consul: %w", err)
	}
	hint := ""
	switch a.Status {
	case http.StatusOK:
		if len(a.Body) > 0 && !json.Valid(a.Body) {
			return nil, fmt.Errorf("register with Consul: PUT %s%s: it answers %.100q; is that Consul?", center.Shown(r.base), path, a.Body)
		}
		return a, nil
	case http.StatusForbidden, http.StatusUnauthorized:
		hint = "check token: its policy must allow the service to be written"
	case http.StatusNotFound:
		hint = "is address right?"
	}
	return a, fmt.Errorf("register with Consul: PUT %s%s: %w", center.Shown(r.base), path, a.Refused(hint))
}

// Watch makes blocking queries for the instances whose checks pass.
func (r *registry) Watch(ctx context.Context, service string, f func([]center.Instance)) {
	defer r.http.Close()
	watcher := r.client // whose pace is its own
	watcher.follow(ctx, func(ctx context.Context, index uint64) (uint64, error) {
		a, now, err := watcher.query(ctx, "/v1/health/service/"+service, url.Values{"passing": {"true"}}, index, "check token: its policy must allow the service and its nodes to be read")
		if err != nil {
			return 0, err
		}
		list, err := instances(service, a)
		if err == nil && now >= index {
			f(list)
		}
		return now, err
	})
}

// instances reads an answer.
func instances(service string, a *center.Answer) ([]center.Instance, error) {
	var found []struct {
		Node    struct{ Address string }
		Service struct {
			ID, Service, Address string
			Port                 int
			Tags                 []string
			Meta                 map[string]string
			Weights              weights
		}
	}
	if a.Status == http.StatusNotFound {
		return nil, fmt.Errorf("ask Consul: %w", a.Refused("is address right?"))
	}
	if err := json.Unmarshal(a.Body, &found); err != nil {
		return nil, fmt.Errorf("ask Consul: read the answer: %w", err)
	}
	byID := make(map[string]center.Instance, len(found)) // an ID may be there at two of Consul's agents
	for _, s := range found {
		if s.Service.Service != service {
			return nil, fmt.Errorf("ask Consul: the answer has an instance of %q, which was not asked for", s.Service.Service)
		}
		id := strings.TrimPrefix(s.Service.ID, service+":")
		byID[id] = center.Instance{
			Service: service, ID: id, Address: net.JoinHostPort(cmp.Or(s.Service.Address, s.Node.Address), strconv.Itoa(s.Service.Port)),
			Tags: s.Service.Tags, Meta: s.Service.Meta, Weight: s.Service.Weights.Passing,
		}
	}
	return slices.Collect(maps.Values(byID)), nil
}
