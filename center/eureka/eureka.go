// Package eureka is the center Eureka: a registry of services. It holds no configuration.
//
// It speaks the REST API of Netflix' Eureka (https://github.com/Netflix/eureka/wiki/Eureka-REST-operations) as Spring Cloud
// serves it. Eureka tells nothing by itself, and its answers are half a minute old: a change may take a minute to be heard of.
package eureka

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
)

// Center is the center eureka.
var Center = center.New("eureka", "Eureka: services, which are asked for at an interval; no configuration.", nil, NewRegistry)

// Config says where Eureka is.
type Config struct {
	Addresses []string      `doc:"Where Eureka's servers are, with the path that applications are below. One of them is used; when it does not work, the next." default:"http://127.0.0.1:8761/eureka" example:"[http://eureka-1:8761/eureka, http://eureka-2:8761/eureka]"`
	Username  string        `doc:"Who asks, if Eureka wants to know." optional:"true"`
	Password  string        `doc:"The user's password." optional:"true" secret:"true" example:"${env:EUREKA_PASSWORD}"`
	Every     time.Duration `doc:"How often to ask for a service's instances." default:"30s" min:"1s"`
}

// Validate checks what no tag can.
func (c Config) Validate() error {
	if len(c.Addresses) == 0 {
		return config.FieldError("addresses", errors.New("give at least one, such as http://127.0.0.1:8761/eureka"))
	}
	for _, a := range c.Addresses {
		if _, err := center.BaseURL(a); err != nil {
			return config.FieldError("addresses", err)
		}
	}
	if (c.Username == "") != (c.Password == "") {
		return config.FieldError("username", errors.New("username and password go together"))
	}
	return nil
}

const (
	patience = 10 * time.Second
	renew    = 30 * time.Second // between two heartbeats
	lease    = 90 * time.Second // after which a server may forget an instance that says nothing
	answer   = 10 << 20         // bytes
)

type registry struct {
	Config
	host  center.Host
	bases []*url.URL

	renew, every, patience time.Duration // the constants and Every, but for tests
}

// NewRegistry returns the Registry.
func NewRegistry(c Config, h center.Host) (center.Registry, error) {
	r := &registry{Config: c, host: h, renew: renew, every: c.Every, patience: patience}
	for _, a := range c.Addresses {
		base, err := center.BaseURL(a)
		if err != nil {
			return nil, fmt.Errorf("read addresses: %w", err)
		}
		r.bases = append(r.bases, base)
	}
	return r, nil
}

// client asks one server, and another when that does not work. It serves one goroutine.
type client struct {
	*registry
	http *center.HTTP
	at   int // the server that has worked last
}

func (r *registry) client() *client { return &client{registry: r, http: center.NewHTTP()} }

// call asks each server until one answers something that is no error of the server.
func (c *client) call(ctx context.Context, method, path string, q url.Values, body []byte) (*center.Answer, error) {
	var errs []error
	for range c.bases {
		a, err := c.ask(ctx, c.bases[c.at], method, path, q, body)
		if err == nil {
			return a, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
		c.at = (c.at + 1) % len(c.bases)
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, errors.Join(errs...)
}

func (c *client) ask(ctx context.Context, base *url.URL, method, path string, q url.Values, body []byte) (*center.Answer, error) {
	u := *base
	u.Path += path
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json") // else it is XML
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Username != "" {
		r.SetBasicAuth(c.Username, c.Password)
	}
	a, err := c.http.Ask(r, c.patience, answer)
	if err != nil {
		return nil, err
	}
	hint := ""
	switch a.Status {
	case http.StatusOK, http.StatusNoContent:
		return a, nil
	case http.StatusNotFound:
		if len(bytes.TrimSpace(a.Body)) == 0 { // Eureka does not know it; others explain themselves
			return a, nil
		}
		hint = "is the path in addresses right, such as /eureka?"
	case http.StatusUnauthorized, http.StatusForbidden:
		hint = "check username and password"
	}
	return nil, fmt.Errorf("%s %s: %w", method, center.Shown(&u), a.Refused(hint))
}

// instance is one as Eureka has it. That numbers and flags may be strings, it has from its XML.
type instance struct {
	InstanceID       string            `json:"instanceId"`
	HostName         string            `json:"hostName"`
	App              string            `json:"app"`
	IPAddr           string            `json:"ipAddr"`
	VIPAddress       string            `json:"vipAddress,omitempty"`
	Status           string            `json:"status"`
	Port             port              `json:"port"`
	SecurePort       *port             `json:"securePort,omitempty"`
	DataCenterInfo   *dataCenter       `json:"dataCenterInfo,omitempty"`
	LeaseInfo        *leaseInfo        `json:"leaseInfo,omitempty"`
	Metadata         map[string]string `json:"metadata,omitempty"`
	LastDirty        json.RawMessage   `json:"lastDirtyTimestamp,omitempty"`
	OverriddenStatus string            `json:"overriddenStatus,omitempty"`
}

type port struct {
	Number  json.RawMessage `json:"$"`
	Enabled json.RawMessage `json:"@enabled"`
}

func (p port) number() (int, error) { return strconv.Atoi(strings.Trim(string(p.Number), `"`)) }

type dataCenter struct {
	Class string `json:"@class"`
	Name  string `json:"name"`
}

type leaseInfo struct {
	Renewal  int `json:"renewalIntervalInSecs"`
	Duration int `json:"durationInSecs"`
}

// Register registers an instance, which is UP, and renews its lease.
func (r *registry) Register(ctx context.Context, i center.Instance) {
	c := r.client()
	defer c.http.Close()
	host, number := i.Split()
	dirty := strconv.FormatInt(time.Now().UnixMilli(), 10) // of two with the same ID the later one counts
	text, err := json.Marshal(map[string]instance{"instance": {
		InstanceID: i.ID, HostName: host, App: app(i.Service), IPAddr: host, VIPAddress: i.Service, Status: "UP",
		Port:           port{json.RawMessage(strconv.Itoa(number)), json.RawMessage(`"true"`)},
		DataCenterInfo: &dataCenter{"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "MyOwn"},
		LeaseInfo:      &leaseInfo{int(renew / time.Second), int(lease / time.Second)}, Metadata: i.Flat(), LastDirty: json.RawMessage(strconv.Quote(dirty)),
	}})
	if err != nil {
		panic("BUG: " + err.Error()) // there are only strings and numbers
	}
	apps := "/apps/" + app(i.Service)
	mine := apps + "/" + i.ID
	center.Lease{
		Every: r.renew,
		Register: func(ctx context.Context) error {
			a, err := c.call(ctx, http.MethodPost, apps, nil, text)
			if err == nil && a.Status != http.StatusNoContent {
				err = fmt.Errorf("it answers %d, not 204; is that Eureka, and the path in addresses right, such as /eureka?", a.Status)
			}
			return about("register with Eureka", err)
		},
		Beat: func(ctx context.Context) error {
			a, err := c.call(ctx, http.MethodPut, mine, url.Values{"status": {"UP"}, "lastDirtyTimestamp": {dirty}}, nil)
			if err == nil && a.Status == http.StatusNotFound {
				return center.ErrForgotten
			}
			return about("renew the lease at Eureka", err)
		},
		Leave: func(ctx context.Context) error {
			_, err := c.call(ctx, http.MethodDelete, mine, nil, nil) // 404: somebody else has
			return about("leave Eureka", err)
		},
	}.Keep(ctx, r.host)
}

func about(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// app is what a service is called as an application.
func app(service string) string { return strings.ToUpper(service) }

// Watch asks again and again.
func (r *registry) Watch(ctx context.Context, service string, f func([]center.Instance)) {
	c := r.client()
	defer c.http.Close()
	center.Keep(ctx, r.host, func(worked func()) error {
		for {
			list, err := c.list(ctx, service)
			if err != nil {
				return fmt.Errorf("ask Eureka for %s: %w", service, err)
			}
			worked()
			f(list)
			if err := center.Sleep(ctx, r.every); err != nil {
				return err
			}
		}
	})
}

func (c *client) list(ctx context.Context, service string) ([]center.Instance, error) {
	a, err := c.call(ctx, http.MethodGet, "/apps/"+app(service), nil, nil)
	if err != nil {
		return nil, err
	}
	if a.Status == http.StatusNotFound {
		return nil, nil
	}
	var answer struct {
		Application *struct {
			Name      string
			Instances several `json:"instance"`
		}
	}
	if err := json.Unmarshal(a.Body, &answer); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if answer.Application == nil || !strings.EqualFold(answer.Application.Name, service) {
		return nil, errors.New("read the answer: it is not of this application; is that Eureka?")
	}
	var list []center.Instance
	for _, e := range answer.Application.Instances {
		if e.Status != "UP" {
			continue
		}
		at := e.Port
		if strings.Trim(string(at.Enabled), `"`) == "false" && e.SecurePort != nil {
			at = *e.SecurePort
		}
		number, err := at.number()
		host := e.HostName
		if host == "" {
			host = e.IPAddr
		}
		if err != nil || host == "" || e.InstanceID == "" { // the others are none the worse for it
			c.host.Log.Warn("an instance has no address or id, and is left out", "service", service, "instance", e.InstanceID)
			continue
		}
		delete(e.Metadata, "@class") // how Eureka writes that there are none
		list = append(list, center.Instance{Service: service, ID: e.InstanceID, Address: net.JoinHostPort(host, strconv.Itoa(number)), Meta: e.Metadata}.Unflat())
	}
	return list, nil
}

// several are instances. Of one, older servers make no list.
type several []instance

// UnmarshalJSON reads a list, or what would be its only element.
func (s *several) UnmarshalJSON(text []byte) error {
	if text = bytes.TrimSpace(text); len(text) > 0 && text[0] == '{' {
		text = append(append([]byte("["), text...), ']')
	}
	return json.Unmarshal(text, (*[]instance)(s))
}
