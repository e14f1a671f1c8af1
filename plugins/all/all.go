// Package all is the list of the plugins that come with creel. A distribution of one's own is another list.
package all

import (
	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugins/aggregate"
	"github.com/creelhq/creel/plugins/command"
	"github.com/creelhq/creel/plugins/debug"
	"github.com/creelhq/creel/plugins/dedup"
	"github.com/creelhq/creel/plugins/diagnose"
	"github.com/creelhq/creel/plugins/enrich"
	"github.com/creelhq/creel/plugins/file"
	"github.com/creelhq/creel/plugins/filter"
	"github.com/creelhq/creel/plugins/generate"
	"github.com/creelhq/creel/plugins/host"
	"github.com/creelhq/creel/plugins/journald"
	"github.com/creelhq/creel/plugins/null"
	"github.com/creelhq/creel/plugins/otlp"
	"github.com/creelhq/creel/plugins/parse"
	"github.com/creelhq/creel/plugins/probe"
	"github.com/creelhq/creel/plugins/prometheus"
	"github.com/creelhq/creel/plugins/redact"
	"github.com/creelhq/creel/plugins/route"
	"github.com/creelhq/creel/plugins/sample"
	"github.com/creelhq/creel/plugins/self"
	"github.com/creelhq/creel/plugins/transform"
)

// Plugins returns the plugins, by kind and name.
func Plugins() []creel.Plugin {
	return []creel.Plugin{
		command.Plugin,
		diagnose.Plugin,
		file.Plugin,
		generate.Plugin,
		host.Plugin,
		journald.Plugin,
		otlp.Collector,
		probe.Plugin,
		prometheus.Plugin,
		self.Plugin,

		aggregate.Plugin,
		dedup.Plugin,
		enrich.Plugin,
		filter.Plugin,
		parse.Plugin,
		redact.Plugin,
		route.Plugin,
		sample.Plugin,
		transform.Plugin,

		debug.Plugin,
		null.Plugin,
		otlp.Exporter,
	}
}
