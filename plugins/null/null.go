// Package null is the exporter that takes everything and keeps nothing: for trying out what stands before it.
package null

import (
	"context"
	_ "embed"

	"github.com/creelhq/creel"
)

//go:embed example.yaml
var example string

// Plugin is the exporter null.
var Plugin = creel.NewExporter("null", "Takes everything and keeps nothing.", New).WithExample(example)

// Config has no options.
type Config struct{}

// New returns the exporter.
func New(Config, creel.Host) (creel.Exporter, error) {
	return creel.ExporterFunc(func(context.Context, []*creel.Batch) error { return nil }), nil
}
