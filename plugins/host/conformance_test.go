package host_test

import (
	"testing"

	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/host"
)

func TestConformance(t *testing.T) { plugintest.Run(t, host.Plugin, plugintest.Options{}) }
