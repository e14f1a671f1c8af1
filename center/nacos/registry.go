package nacos

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/creelhq/creel/center"
)

const (
	beat      = 5 * time.Second // between two; after three Nacos takes an instance for ill, after six it forgets it
	every     = 5 * time.Second // between two questions for instances
	cluster   = "DEFAULT"       // of instances within a service
	sinceKey  = "since"         // in the metadata, when an instance was registered
	codeGone  = 20404           // in the answer to a beat: the instance is not there
	allIsWell = "ok"            // is answered to a registration
)

type registry struct {
	Config
	host center.Host

	beat, every, patience time.Duration // the constants, but for tests
}

// NewRegistry returns the Registry.
func NewRegistry(c Config, h center.Host) (center.Registry, error) {
	if _, err := center.BaseURL(c.Address); err != nil {
		return nil, fmt.Errorf("read address: %w", err)
	}
	return &registry{c, h, beat, every, patience}, nil
}

// client returns one for one goroutine.
func (r *registry) client() client {
	c, err := newClient(r.Config, r.host)
	if err != nil {
		panic("BUG: " + err.Error()) // it was read before
	}
	c.patience = r.patience
	return c
}

// where are the parameters that name a service.
func (r *registry) where(service string) url.Values {
	q := url.Values{"serviceName": {r.Group + "@@" + service}, "groupName": {r.Group}}
	if r.Namespace != "" {
		q.Set("namespaceId", r.Namespace)
	}
	return q
}

// Register registers an ephemeral instance, which needs beats. To Nacos it is its address that makes it unique: where the
// same ID is there twice, Watch lists the one that came last.
func (r *registry) Register(ctx context.Context, i center.Instance) {
	c := r.client()
	defer c.http.Close()
	meta := i.Flat()
	meta[sinceKey] = strconv.FormatInt(time.Now().UnixMilli(), 10)
	text, err := json.Marshal(meta)
	if err != nil {
		panic("BUG: " + err.Error()) // there are only strings
	}
	host, port := i.Split()
	named := r.where(i.Service)
	for key, value := range map[string]string{"ip": host, "port": strconv.Itoa(port), "clusterName": cluster, "ephemeral": "true"} {
		named.Set(key, value)
	}
	whole := maps.Clone(named)
	for key, value := range map[string]string{"weight": strconv.Itoa(max(i.Weight, 1)), "enabled": "true", "healthy": "true", "metadata": string(text)} {
		whole.Set(key, value)
	}
	say := func(ctx context.Context, method, path string, form url.Values) ([]byte, error) {
		a, err := c.call(ctx, request{method: method, path: path, query: form, timeout: r.patience})
		if err == nil && a.Status != http.StatusOK {
			err = a.Refused(c.hint(a.Status))
		}
		if err != nil {
			return nil, fmt.Errorf("register with Nacos: %w", err)
		}
		return a.Body, nil
	}
	center.Lease{
		Every: r.beat,
		Register: func(ctx context.Context) error {
			said, err := say(ctx, http.MethodPost, "/v1/ns/instance", whole)
			if err == nil && string(said) != allIsWell {
				err = fmt.Errorf("register with Nacos: it answers %.100q, not ok; is that Nacos?", said)
			}
			return err
		},
		Beat: func(ctx context.Context) error {
			said, err := say(ctx, http.MethodPut, "/v1/ns/instance/beat", named)
			if err != nil {
				return err
			}
			var answer struct {
				Code int `json:"code"`
			}
			if err := json.Unmarshal(said, &answer); err != nil || answer.Code == 0 {
				return fmt.Errorf("register with Nacos: it answers %.100q to a beat; is that Nacos?", said)
			}
			if answer.Code == codeGone {
				return center.ErrForgotten
			}
			return nil
		},
		Leave: func(ctx context.Context) error {
			_, err := say(ctx, http.MethodDelete, "/v1/ns/instance", named)
			return err
		},
	}.Keep(ctx, r.host)
}

// Watch asks again and again: without gRPC Nacos does not tell by itself.
func (r *registry) Watch(ctx context.Context, service string, f func([]center.Instance)) {
	c := r.client()
	defer c.http.Close()
	center.Keep(ctx, r.host, func(worked func()) error {
		for {
			list, err := r.list(ctx, &c, service)
			if err != nil {
				return fmt.Errorf("ask Nacos for %s: %w", service, err)
			}
			worked()
			f(list)
			if err := center.Sleep(ctx, r.every); err != nil {
				return err
			}
		}
	})
}

func (r *registry) list(ctx context.Context, c *client, service string) ([]center.Instance, error) {
	q := r.where(service)
	q.Set("healthyOnly", "true")
	a, err := c.call(ctx, request{method: http.MethodGet, path: "/v1/ns/instance/list", query: q, timeout: r.patience})
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK {
		return nil, a.Refused(c.hint(a.Status))
	}
	var answer struct {
		Hosts *[]struct {
			InstanceID string            `json:"instanceId"`
			IP         string            `json:"ip"`
			Port       int               `json:"port"`
			Weight     float64           `json:"weight"`
			Healthy    bool              `json:"healthy"`
			Enabled    bool              `json:"enabled"`
			Metadata   map[string]string `json:"metadata"`
		} `json:"hosts"`
	}
	if err := json.Unmarshal(a.Body, &answer); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if answer.Hosts == nil {
		return nil, fmt.Errorf("read the answer: there are no hosts in it; is that Nacos?")
	}
	type dated struct {
		center.Instance
		since int64
	}
	byID := map[string]dated{}
	for _, h := range *answer.Hosts {
		if !h.Healthy || !h.Enabled {
			continue
		}
		address := net.JoinHostPort(h.IP, strconv.Itoa(h.Port))
		i := center.Instance{Service: service, ID: address, Address: address, Meta: h.Metadata, Weight: int(h.Weight)}.Unflat()
		since, _ := strconv.ParseInt(i.Meta[sinceKey], 10, 64) // others say none
		delete(i.Meta, sinceKey)
		if old, twice := byID[i.ID]; !twice || old.since <= since {
			byID[i.ID] = dated{i, since}
		}
	}
	list := make([]center.Instance, 0, len(byID))
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		list = append(list, byID[id].Instance)
	}
	return list, nil
}
