package debug_test

import (
	"testing"

	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/debug"
)

func TestConformance(t *testing.T) { plugintest.Run(t, debug.Plugin, plugintest.Options{}) }
