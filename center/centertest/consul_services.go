package centertest

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// offered are the services of a Consul (https://developer.hashicorp.com/consul/api-docs/agent/service).
type offered struct {
	instances map[string]*consulInstance // by ID
	offeredAt uint64                     // the index of the last change
}

type consulInstance struct {
	ID, Name, Address string
	Port              int
	Tags              []string
	Meta              map[string]string
	Weights           struct{ Passing, Warning int }
	Check             struct {
		CheckID, Name, TTL, Status, DeregisterCriticalServiceAfter string
	}

	ttl    time.Duration
	passes bool
	timer  *time.Timer // ends the passing
}

// ForgetServices makes it one whose services are gone: its agent was started anew with an empty disk.
func (c *Consul) ForgetServices() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.instances {
		i.timer.Stop()
	}
	clear(c.instances)
	c.changed()
}

func (c *Consul) changed() {
	c.index++
	c.offeredAt = c.index
	c.wake()
}

// alive returns instances as they are listed, and the index of the answer.
func (c *Consul) alive(service string, passing bool) (any, uint64) {
	type node struct{ Node, Address string }
	type found struct {
		ID, Service, Address string
		Port                 int
		Tags                 []string
		Meta                 map[string]string
		Weights              struct{ Passing, Warning int }
		ModifyIndex          uint64
	}
	type state struct{ CheckID, Status, ServiceID string }
	type entry struct {
		Node    node
		Service found
		Checks  []state
	}
	list := []entry{}
	for _, id := range slices.Sorted(maps.Keys(c.instances)) {
		i := c.instances[id]
		if i.Name != service || passing && !i.passes {
			continue
		}
		status := "critical"
		if i.passes {
			status = "passing"
		}
		list = append(list, entry{node{"node-1", "127.0.0.1"}, found{i.ID, i.Name, i.Address, i.Port, i.Tags, i.Meta, i.Weights, c.offeredAt}, []state{{i.Check.CheckID, status, i.ID}}})
	}
	return list, max(c.offeredAt, 1)
}

func (c *Consul) serveAgent(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch path := strings.TrimPrefix(r.URL.Path, "/v1/agent/"); {
	case path == "service/register":
		i := &consulInstance{}
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		err := d.Decode(i)
		if err == nil {
			i.ttl, err = time.ParseDuration(i.Check.TTL)
		}
		if err == nil {
			_, err = time.ParseDuration(i.Check.DeregisterCriticalServiceAfter)
		}
		if err != nil || i.Name == "" {
			http.Error(w, "Request decode failed", http.StatusBadRequest)
			return
		}
		if old := c.instances[i.ID]; old != nil {
			old.timer.Stop()
		}
		i.passes = i.Check.Status == "passing"
		i.timer = time.AfterFunc(i.ttl, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.instances[i.ID] == i && i.passes {
				i.passes = false
				c.changed()
			}
		})
		c.instances[i.ID] = i
		c.changed()
	case strings.HasPrefix(path, "service/deregister/"):
		id := strings.TrimPrefix(path, "service/deregister/")
		if c.instances[id] == nil {
			http.Error(w, "Unknown service ID \""+id+"\". Ensure that the service ID is passed, not the service name.", http.StatusNotFound)
			return
		}
		c.instances[id].timer.Stop()
		delete(c.instances, id)
		c.changed()
	case strings.HasPrefix(path, "check/pass/"):
		check := strings.TrimPrefix(path, "check/pass/")
		for _, i := range c.instances {
			if i.Check.CheckID != check {
				continue
			}
			i.timer.Reset(i.ttl)
			if !i.passes {
				i.passes = true
				c.changed()
			}
			return
		}
		http.Error(w, "Unknown check ID \""+check+"\". Ensure that the check ID is passed, not the check name.", http.StatusNotFound)
	default:
		http.Error(w, "Invalid URL path: not a recognized HTTP API endpoint", http.StatusNotFound)
	}
}
