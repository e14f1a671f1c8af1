// Package dns is the center DNS: SRV records say who offers a service (RFC 2782). Nobody can register there, and it holds no
// configuration.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
)

// Center is the center dns.
var Center = center.NewReadOnly("dns", "The DNS: SRV records say who offers a service; nobody can register, and there is no configuration.", NewRegistry)

// Config says where to ask for what.
type Config struct {
	Domain string        `doc:"What the names of services end in: asked for is _SERVICE._tcp.DOMAIN." example:"prod.example.com"`
	Server string        `doc:"The server to ask, host:port; left out, those of this machine." optional:"true" example:"127.0.0.1:8600"`
	Every  time.Duration `doc:"How often to ask. What is in between is up to the servers' caches." default:"30s" min:"1s"`
}

// Validate checks what no tag can.
func (c Config) Validate() error {
	if strings.Trim(c.Domain, ".") == "" || strings.ContainsAny(c.Domain, " /:") {
		return config.FieldError("domain", errors.New("must be a domain, such as prod.example.com"))
	}
	if c.Server != "" {
		if host, _, err := net.SplitHostPort(c.Server); err != nil || host == "" {
			return config.FieldError("server", errors.New("must be host:port, such as 127.0.0.1:53"))
		}
	}
	return nil
}

const patience = 10 * time.Second

type registry struct {
	Config
	host     center.Host
	resolver *net.Resolver

	every, patience time.Duration // Every and the constant, but for tests
}

// NewRegistry returns the Registry.
func NewRegistry(c Config, h center.Host) (center.Registry, error) {
	r := &registry{Config: c, host: h, resolver: &net.Resolver{}, every: c.Every, patience: patience}
	if c.Server != "" {
		r.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, c.Server)
		}}
	}
	return r, nil
}

// Register only says that it cannot.
func (r *registry) Register(ctx context.Context, _ center.Instance) {
	center.Refuse(ctx, r.host, Center.Name)
}

// Watch asks again and again. The instances are named by their addresses; meta.priority is what SRV calls so, and the
// lowest is to be used first.
func (r *registry) Watch(ctx context.Context, service string, f func([]center.Instance)) {
	center.Keep(ctx, r.host, func(worked func()) error {
		for {
			list, err := r.list(ctx, service)
			if err != nil {
				return err
			}
			worked()
			f(list)
			if err := center.Sleep(ctx, r.every); err != nil {
				return err
			}
		}
	})
}

func (r *registry) list(ctx context.Context, service string) ([]center.Instance, error) {
	name := fmt.Sprintf("_%s._tcp.%s.", service, strings.Trim(r.Domain, "."))
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	_, found, err := r.resolver.LookupSRV(ctx, "", "", name)
	if e := (*net.DNSError)(nil); errors.As(err, &e) && e.IsNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask the DNS: %w", err)
	}
	var list []center.Instance
	for _, s := range found {
		target := strings.TrimSuffix(s.Target, ".")
		if target == "" { // "." says that there decidedly is none
			continue
		}
		address := net.JoinHostPort(target, strconv.Itoa(int(s.Port)))
		if slices.ContainsFunc(list, func(i center.Instance) bool { return i.ID == address }) {
			continue
		}
		list = append(list, center.Instance{Service: service, ID: address, Address: address, Weight: int(s.Weight), Meta: map[string]string{"priority": strconv.Itoa(int(s.Priority))}})
	}
	return list, nil
}
