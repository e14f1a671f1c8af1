// Package all is the list of the centers that come with creel.
package all

import (
	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/center/consul"
	"github.com/creelhq/creel/center/dns"
	"github.com/creelhq/creel/center/etcd"
	"github.com/creelhq/creel/center/eureka"
	"github.com/creelhq/creel/center/file"
	"github.com/creelhq/creel/center/http"
	"github.com/creelhq/creel/center/nacos"
	"github.com/creelhq/creel/center/static"
)

// Centers returns all centers.
func Centers() []center.Center {
	return []center.Center{file.Center, http.Center, etcd.Center, consul.Center, nacos.Center, eureka.Center, dns.Center, static.Center}
}
