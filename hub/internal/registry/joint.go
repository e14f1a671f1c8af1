package registry

import (
	"cmp"
	"strings"

	"github.com/creelhq/creel/api"
)

// This file is what whoever puts lists of several hubs together must know of them.

// CompareAgents orders agents as a list has them.
func CompareAgents(a, b api.Agent) int { return keyOf(&a).compare(keyOf(&b)) }

// CursorAfter returns the cursor of what comes after an agent.
func CursorAfter(a api.Agent) string { return keyOf(&a).cursor() }

// CompareBooks orders agents as the ledger has them.
func CompareBooks(a, b api.AgentBooks) int {
	return cmp.Or(cmp.Compare(b.Unexplained, a.Unexplained), cmp.Compare(b.Lost(), a.Lost()), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
}

// CompareConfigurations orders configurations as their list has them.
func CompareConfigurations(a, b api.Configuration) int {
	return cmp.Or(cmp.Compare(len(b.Agents), len(a.Agents)), cmp.Compare(a.ID, b.ID))
}

// of reports whether a hub fulfils conditions: see api.AgentQuery.Hub.
func of(hub string, conditions []string) bool {
	for _, c := range conditions {
		other, not := strings.CutPrefix(c, "!")
		if (other == hub) == not {
			return false
		}
	}
	return true
}
