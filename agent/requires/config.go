// Package requires watches what an agent must have around it to work: memory, disk, file descriptors, paths, ports, and
// others that it talks to. Each kind is a guard, which says what is missing, or that nothing is.
//
// It knows nothing of what is done then: it tells.
package requires

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel/config"
)

// Config says what there must be. The zero Config requires nothing.
type Config struct {
	Memory      config.Size   `doc:"Bytes of memory that must be free on this machine and in the agent's control group. What the kernel can take back from caches is free." optional:"true" min:"1MiB" example:"64MiB"`
	Disk        config.Size   `doc:"Bytes that must be free on the file system of the state directory." optional:"true" min:"1MiB" example:"1GiB"`
	Descriptors int           `doc:"File descriptors that the agent must still be able to open." optional:"true" min:"1" example:"200"`
	Paths       []string      `doc:"Files and directories that must be there and be readable. Of a pattern with *, ? or [ one match must be." optional:"true" example:"[/var/log/nginx]"`
	Ports       []string      `doc:"Where the agent shall be able to listen: TCP addresses that are free, or its own." optional:"true" example:"[\"127.0.0.1:4317\"]"`
	Endpoints   []string      `doc:"TCP addresses that must take a connection." optional:"true" example:"[\"db.example:5432\"]"`
	Timeout     time.Duration `doc:"How long to wait for an endpoint, or the file system of a path, before it counts as missing." default:"3s" min:"1ms"`
	Every       time.Duration `doc:"How often all this is looked at." default:"5s" min:"100ms"`
}

// Validate checks addresses and patterns.
func (c Config) Validate() error {
	for _, p := range c.Paths {
		if _, err := filepath.Match(p, ""); err != nil || p == "" || strings.Contains(p, "**") {
			return config.FieldError("paths", fmt.Errorf("%q is no path, and no pattern of one with *, ? and [a-z] within names", p))
		}
	}
	for _, list := range []struct {
		field     string
		addresses []string
		host      bool // there must be one
	}{{"ports", c.Ports, false}, {"endpoints", c.Endpoints, true}} {
		for _, a := range list.addresses {
			if err := address(a, list.host); err != nil {
				return config.FieldError(list.field, err)
			}
		}
	}
	return nil
}

func address(a string, wantHost bool) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return fmt.Errorf("must be host:port: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%s: the port must be a number from 1 to 65535", a)
	}
	if host == "" && wantHost {
		return errors.New(a + " has no host")
	}
	return nil
}
