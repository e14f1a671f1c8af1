package probe

import (
	"testing"

	"github.com/creelhq/creel/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	address := accepting(t)
	plugintest.Run(t, Plugin, plugintest.Options{Config: "{targets: [{url: 'tcp://" + address + "'}, {url: 'http://" + address + "/'}]}"})
}
