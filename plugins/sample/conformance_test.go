package sample_test

import (
	"testing"

	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/sample"
)

func TestConformance(t *testing.T) { plugintest.Run(t, sample.Plugin, plugintest.Options{}) }
