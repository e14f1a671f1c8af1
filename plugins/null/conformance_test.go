package null_test

import (
	"testing"

	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/null"
)

func TestConformance(t *testing.T) { plugintest.Run(t, null.Plugin, plugintest.Options{}) }
