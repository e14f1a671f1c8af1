package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/control"
)

// Registration says with which centers a hub registers, so that agents find it there (agent.hub.discover). Without Text it
// does not.
type Registration struct {
	Centers []center.Center // that there are
	File    string          // what errors call Text
	Text    []byte          // RegisterSchema says what may stand there
}

// registerConfig is the text of a Registration.
type registerConfig struct {
	Service string          `doc:"The name of the service that hubs offer." default:"creel-hub"`
	URL     string          `doc:"Where others reach this hub. Left out, the address that it listens on, or the name of its host if that is all of them." optional:"true" example:"https://hub-a.example:4380"`
	Tags    []string        `doc:"Words that others choose by." optional:"true" example:"[north]"`
	Centers json.RawMessage `doc:"With which centers, by id, as in agent.centers: type or type/name." example:"{consul: {address: \"http://127.0.0.1:8500\"}}"`
}

// Validate checks the URL.
func (c registerConfig) Validate() error {
	if c.URL != "" {
		u, err := control.HubURL(c.URL)
		if err == nil && u.Hostname() == "" {
			err = errors.New("must have a host that others know")
		}
		if err != nil {
			return config.FieldError("url", err)
		}
	}
	return nil
}

// RegisterSchema describes the text of a Registration.
func RegisterSchema() config.Schema { return config.Of[registerConfig]() }

// registrar registers a hub.
type registrar struct {
	registerConfig
	centers []agent.CenterConfig
}

// registrar checks what the Registration says; nil: there is nothing to do. The error is a config.Errors.
func (o *Options) registrar() (*registrar, error) {
	if o.Register.Text == nil {
		return nil, nil
	}
	env := o.Env
	if env == nil {
		e := config.OSEnv()
		env = &e
	}
	root, err := config.Parse(o.Register.File, o.Register.Text, *env)
	if err != nil {
		return nil, err
	}
	options, errs := RegisterSchema().Check(root)
	section := root.Get("centers")
	var list []agent.CenterConfig
	if section != nil {
		var wrong config.Errors
		list, wrong = agent.Parts{Centers: o.Register.Centers}.CheckCenters(section)
		errs = append(errs, wrong...)
	}
	for _, c := range list {
		if c.Center.Registry == nil || c.Center.ReadOnly {
			errs = append(errs, section.Get(c.ID).KeyErrorf("nobody can register with a center %s", c.Center.Name))
		}
	}
	if len(errs) == 0 && len(list) == 0 {
		errs = append(errs, section.Errorf("must name a center to register with"))
	}
	if len(errs) > 0 {
		errs.Sort()
		return nil, errs
	}
	c, err := config.Decode[registerConfig](options)
	if err != nil {
		return nil, err
	}
	r := &registrar{c, list}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("read %s: %w", o.Register.File, err)
	}
	return r, nil
}

// check tries all but the hub's own address, which is not known yet.
func (r *registrar) check() error {
	return center.Instance{Service: r.Service, ID: "hub", Address: "hub:1", Tags: r.Tags}.Check()
}

// instance is what is registered of a hub that is at e.
func (r *registrar) instance(e Endpoints, listener net.Listener) (center.Instance, error) {
	at, err := url.Parse(e.URL)
	if err != nil {
		return center.Instance{}, fmt.Errorf("read the hub's URL: %w", err)
	}
	if host := r.host(listener); host != "" {
		at.Host = net.JoinHostPort(host, at.Port())
	}
	if r.URL != "" {
		if at, err = control.HubURL(r.URL); err != nil {
			return center.Instance{}, fmt.Errorf("read the hub's URL: %w", err)
		}
	}
	i := center.Instance{Service: r.Service, ID: e.ID, Address: at.Host, Tags: r.Tags, Meta: map[string]string{"url": at.String()}}
	if at.Port() == "" {
		i.Address = net.JoinHostPort(at.Hostname(), map[string]string{"http": "80", "https": "443"}[at.Scheme])
	}
	if second, err := url.Parse(e.OpAMP); err == nil && e.OpAMP != "" {
		second.Host = net.JoinHostPort(at.Hostname(), second.Port())
		i.Meta["opamp"] = second.String()
	}
	return i, i.Check()
}

// host returns what others call this host, if the hub listens on all of its addresses, else "".
func (r *registrar) host(l net.Listener) string {
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsUnspecified() {
		return ""
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// run keeps a hub registered with all centers until ctx is done, and returns when it is not any more.
func (r *registrar) run(ctx context.Context, h *hub, e Endpoints) {
	i, err := r.instance(e, h.listeners[0])
	if err != nil {
		h.log.Error("the hub is not registered", "error", err)
		return
	}
	var wg sync.WaitGroup
	for _, c := range r.centers {
		log := h.log.With("component", "register."+c.ID)
		registry, err := center.OpenRegistry(c.Center, c.Options, center.Host{ID: c.ID, Log: log})
		if err != nil {
			log.Error("the hub is not registered", "error", err)
			continue
		}
		wg.Go(func() { registry.Register(ctx, i) })
	}
	wg.Wait()
}
