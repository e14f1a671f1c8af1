package agent

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/agent/life"
	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/control"
)

// Service is what this agent offers to others, and where they can find out.
type Service struct {
	Center  string            `doc:"Who is to tell others: a center, by its id in agent.centers, or the agent's own hub, which has it in its directory." default:"hub" example:"consul/main"`
	Address string            `doc:"Where others reach it: host:port. The host is one that they know, not 0.0.0.0." example:"${env:HOSTNAME}:4317"`
	Tags    []string          `doc:"Words that others choose by. Where a center has no such thing, they are the entry tags of its metadata." optional:"true" example:"[otlp, north]"`
	Meta    map[string]string `doc:"What else others are to know." optional:"true" example:"{zone: north}"`
	Weight  int               `doc:"Its share of what there is to do, against the others'." default:"1" min:"1" max:"1000"`
}

// Discover says where hubs are found.
type Discover struct {
	Center  string `doc:"The center that knows: an id in agent.centers." optional:"true" example:"etcd/main"`
	Service string `doc:"The name of the service that hubs offer there. Each is at its meta.url or, if it has none, at https:// and its address." default:"creel-hub"`
}

// instance is what is registered of a service of the agent with the given ID.
func (s Service) instance(name, id string) center.Instance {
	return center.Instance{Service: name, ID: id, Address: s.Address, Tags: s.Tags, Meta: s.Meta, Weight: s.Weight}
}

// checkUse checks what the settings want of centers, and that each center is of some use.
func (c *Config) checkUse(section *config.Node) (errs config.Errors) {
	used := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(c.Settings.Services)) {
		s, node := c.Settings.Services[name], section.Get("services").Get(name)
		if err := s.instance(name, "agent").Check(); err != nil {
			errs = append(errs, node.KeyErrorf("%v", err))
		}
		if s.Center == HubSource {
			continue
		}
		used[s.Center] = true
		if cc, ok := c.registry(s.Center); !ok {
			errs = append(errs, c.noRegistry(s.Center, node.Get("center")))
		} else if cc.Center.ReadOnly {
			errs = append(errs, node.Get("center").Errorf("nobody can register with a center %s", cc.Center.Name))
		}
	}
	if d := c.Settings.Hub.Discover; d.Center != "" {
		used[d.Center] = true
		node := section.Get("hub").Get("discover")
		if _, ok := c.registry(d.Center); !ok {
			errs = append(errs, c.noRegistry(d.Center, node.Get("center")))
		}
		if err := center.CheckService(d.Service); err != nil {
			errs = append(errs, node.KeyErrorf("%v", err))
		}
	}
	for _, cc := range c.Centers {
		if cc.Nothing != nil && !used[cc.ID] {
			e := section.Get("centers").Get(cc.ID).KeyErrorf("%v", cc.Nothing)
			if cc.Center.Registry != nil {
				e.Hint = "name it in agent.services or in agent.hub.discover if it is meant for services"
			}
			errs = append(errs, e)
		}
	}
	return errs
}

// registry returns the center with an id, if it is a registry.
func (c *Config) registry(id string) (CenterConfig, bool) {
	i := slices.IndexFunc(c.Centers, func(cc CenterConfig) bool { return cc.ID == id })
	if i < 0 || c.Centers[i].Center.Registry == nil {
		return CenterConfig{}, false
	}
	return c.Centers[i], true
}

func (c *Config) noRegistry(id string, node *config.Node) *config.Error {
	var known []string
	for _, cc := range c.Centers {
		if cc.ID == id {
			return node.Errorf("a center %s does not know who offers a service: it only holds configuration", cc.Center.Name)
		}
		known = append(known, cc.ID)
	}
	e := node.Errorf("there is no center %q in agent.centers", id)
	if e.Hint = config.DidYouMean(id, known); e.Hint == "" && len(known) > 0 {
		e.Hint = "there are " + strings.Join(known, ", ")
	}
	return e
}

// Where trouble with centers is told of.
const (
	centersPath  = "agent.centers."
	servicesPath = "agent.services."
	discoverPath = "agent.hub.discover"
)

// openRegistry makes the registry of a center, whose trouble is told of at path.
func (a *agent) openRegistry(cc CenterConfig, path string) (center.Registry, error) {
	return center.OpenRegistry(cc.Center, cc.Options, center.Host{
		ID: cc.ID, Log: a.log.With("component", path), Health: func(err error) { a.centerIs(path, err) },
	})
}

// errNoHub is the trouble of services for which there is no hub.
var errNoHub = errors.New("the agent has no hub that could tell others of it: name one in agent.hub.url, or a center")

// services returns what the hub is to tell others of: what the configuration says, if the agent runs.
func (a *agent) services() (list []control.Service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.config == nil || a.life.State() != life.Running {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(a.settings.Services)) {
		if s := a.settings.Services[name]; s.Center == HubSource {
			list = append(list, control.Service{Name: name, Address: s.Address, Tags: s.Tags, Meta: s.Meta, Weight: s.Weight})
		}
	}
	return list
}

// offer has the services registered that the configuration names, if the agent runs, and no others any more.
func (a *agent) offer() {
	if a.hub != nil {
		a.notify()
	} else {
		for _, s := range a.services() {
			a.centerIs(servicesPath+s.Name, errNoHub)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	want := map[string][]byte{} // all that a registration is made of
	if a.config != nil && a.life.State() == life.Running {
		for name, s := range a.settings.Services {
			if s.Center == HubSource {
				continue
			}
			cc, _ := a.config.registry(s.Center) // it was checked
			text, err := json.Marshal(map[string]any{"service": s, "center": json.RawMessage(cc.Options)})
			if err != nil {
				panic("BUG: " + err.Error()) // it was JSON before
			}
			want[name] = text
		}
	}
	for name, w := range a.offers {
		if string(want[name]) != string(w.options) {
			w.cancel() // it stays in the map, for the next one to wait for
			w.options = nil
		}
	}
	for name, text := range want {
		before := a.offers[name]
		if before != nil && before.options != nil {
			continue
		}
		s := a.settings.Services[name]
		cc, _ := a.config.registry(s.Center)
		a.offers[name] = watch(text, func(ctx context.Context) {
			if before != nil {
				<-before.over
			}
			a.register(ctx, cc, servicesPath+name, s.instance(name, a.dir.id))
		})
	}
}

// register registers an instance until ctx is done.
func (a *agent) register(ctx context.Context, cc CenterConfig, path string, i center.Instance) {
	r, err := a.openRegistry(cc, path)
	if err != nil {
		a.centerIs(path, err)
		a.log.Error("service is not registered", "component", path, "error", err)
		return
	}
	r.Register(ctx, i)
	a.centerIs(path, nil)
}

// farewell is how long it is waited at the end for services to be taken away.
const farewell = 4 * time.Second

// withdraw takes all services away, when the agent does not run any more: before it drains, so that nobody comes any more.
func (a *agent) withdraw() {
	a.offer()
	a.mu.Lock()
	list := slices.Collect(maps.Values(a.offers))
	a.mu.Unlock()
	late := time.After(farewell)
	for _, w := range list {
		select {
		case <-w.over:
		case <-late:
			return
		}
	}
}

// discover finds hubs until ctx is done.
func (a *agent) discover(ctx context.Context, d Discover) {
	a.mu.Lock()
	cc, _ := a.config.registry(d.Center) // it was checked
	a.mu.Unlock()
	log := a.log.With("component", discoverPath)
	r, err := a.openRegistry(cc, discoverPath)
	if err != nil {
		a.centerIs(discoverPath, err)
		log.Error("hubs are not found", "error", err)
		return
	}
	r.Watch(ctx, d.Service, func(list []center.Instance) {
		var urls []string
		for _, i := range list {
			url := i.Meta["url"]
			if url == "" {
				url = "https://" + i.Address
			}
			if _, err := control.HubURL(url); err != nil {
				log.Warn("a hub is left out", "id", i.ID, "url", url, "error", err)
				continue
			}
			urls = append(urls, url)
		}
		log.Info("hubs were found", "urls", urls)
		if err := a.hub.Find(urls); err != nil { // each was checked
			log.Error("hubs are not found", "error", err)
		}
	})
}
