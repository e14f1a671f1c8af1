package command

import "testing"

func TestProgramEndsWithTheAgent(t *testing.T) {
	f := newFIFO(t)
	agentKilled(t, f)
	f.ended(t)
}
