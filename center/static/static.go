// Package static is the center static: a list in the configuration says who offers a service. It is for networks where
// nothing else knows; the list changes when the configuration does.
package static

import (
	"context"
	"errors"
	"fmt"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
)

// Center is the center static.
var Center = center.NewReadOnly("static", "A list, right here, of who offers a service; nobody can register, and there is no configuration.", NewRegistry)

// Config is the list.
type Config struct {
	Services map[string][]string `doc:"For each service, the addresses of who offers it." example:"{creel-hub: [\"hub-a.example:4380\", \"hub-b.example:4380\"]}"`
}

// Validate checks each address.
func (c Config) Validate() error {
	if len(c.Services) == 0 {
		return config.FieldError("services", errors.New("must name a service"))
	}
	for service, addresses := range c.Services {
		for n, address := range addresses {
			if err := instance(service, n, address).Check(); err != nil {
				return config.FieldError("services", err)
			}
		}
	}
	return nil
}

func instance(service string, n int, address string) center.Instance {
	return center.Instance{Service: service, ID: fmt.Sprintf("%03d", n+1), Address: address}
}

type registry struct {
	Config
	host center.Host
}

// NewRegistry returns the Registry.
func NewRegistry(c Config, h center.Host) (center.Registry, error) { return &registry{c, h}, nil }

// Register only says that it cannot.
func (r *registry) Register(ctx context.Context, _ center.Instance) {
	center.Refuse(ctx, r.host, Center.Name)
}

// Watch says what is in the list, which is all that there ever is.
func (r *registry) Watch(ctx context.Context, service string, f func([]center.Instance)) {
	var list []center.Instance
	for n, address := range r.Services[service] {
		list = append(list, instance(service, n, address))
	}
	f(list)
	<-ctx.Done()
}
