package access

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
)

const (
	maxName   = 100       // characters of a token's name, and of a label's
	maxValue  = 256       // characters of a label's value
	maxLabels = 32        // of a token
	maxWithin = 1500      // bytes of a selector as JSON: a session cookie has it, and may have 4 KiB
	maxUses   = 10_000    // of an enrolment token
	enrolLife = time.Hour // of an enrolment token, at most
	maxLife   = 10 * 365 * 24 * time.Hour
	roleLabel = "creel.role"
)

// check finds what is wrong with a request, and fills in what is not given. It quotes no more than 14 bytes: a token that was
// put into a wrong place has its secret after that.
func check(r *api.AccessTokenRequest) *api.Error {
	r.Name = strings.TrimSpace(r.Name)
	switch {
	case !printable(r.Name, maxName) || r.Name == "":
		return badRequest("name says whose the token is: it must have 1 to %d characters, and those must be printable", maxName)
	case strings.EqualFold(r.Name, rootName):
		return badRequest("name must not be %s: that is the hub's own token", rootName)
	case !slices.Contains([]api.Role{api.Viewer, api.Operator, api.Admin, api.Enrol, api.Ingest, api.Member}, r.Role):
		return badRequest("role must be viewer, operator, admin, agent, ingest or hub, not %.14q", r.Role)
	case r.Seconds < 0 || r.Seconds > int64(maxLife/time.Second):
		return badRequest("seconds must be 1 to %d, or not given", int64(maxLife/time.Second))
	}
	if refusal := checkPeople(r); refusal != nil {
		return refusal
	}
	if refusal := checkIngest(r); refusal != nil {
		return refusal
	}
	return checkAgent(r)
}

// checkPeople checks what only people's tokens have.
func checkPeople(r *api.AccessTokenRequest) *api.Error {
	if r.Within = strings.TrimSpace(r.Within); r.Within == "" {
		return nil
	}
	if !r.Role.May(api.Viewer) {
		return badRequest("within is only of the roles viewer, operator and admin, not of %s", r.Role)
	}
	if text, err := json.Marshal(r.Within); err != nil || len(text) > maxWithin {
		return badRequest("within is too long: it may have %d bytes as JSON", maxWithin)
	}
	if _, err := expr.ParseSelector(r.Within); err != nil {
		return badRequest("within must be a condition on labels: %v", err)
	}
	return nil
}

// checkIngest checks what only tokens of applications have.
func checkIngest(r *api.AccessTokenRequest) *api.Error {
	switch {
	case r.Role != api.Ingest && len(r.Signals) > 0:
		return badRequest("signals is only of the role ingest, not of %s", r.Role)
	case r.Role != api.Ingest && r.Records != 0:
		return badRequest("records is only of the role ingest, not of %s", r.Role)
	case r.Records < 0:
		return badRequest("records must not be negative: it is how many are taken in any ten seconds, and 0 is no limit")
	}
	for i, name := range r.Signals {
		if signalOf(name) == 0 {
			return badRequest("signals must be of logs, metrics and traces; there is no %.14q", name)
		}
		if slices.Contains(r.Signals[:i], name) {
			return badRequest("signals has %s twice", name)
		}
	}
	return nil
}

// checkAgent checks what only enrolment tokens have.
func checkAgent(r *api.AccessTokenRequest) *api.Error {
	if r.Role == api.Member {
		return checkHub(r)
	}
	if r.Role != api.Enrol {
		switch {
		case r.Uses != 0:
			return badRequest("uses is only of the role agent, not of %s", r.Role)
		case len(r.Labels) > 0:
			return badRequest("labels is only of the role agent, not of %s: within bounds what people see", r.Role)
		}
		return nil
	}
	if r.Uses == 0 {
		r.Uses = 1
	}
	if r.Seconds == 0 {
		r.Seconds = int64(enrolLife / time.Second)
	}
	switch {
	case r.Uses < 0 || r.Uses > maxUses:
		return badRequest("uses must be 1 to %d", maxUses)
	case r.Seconds > int64(enrolLife/time.Second):
		return badRequest("seconds must be %d at most for the role agent: make another token for agents that come later", int64(enrolLife/time.Second))
	case len(r.Labels) > maxLabels:
		return badRequest("labels may be %d at most", maxLabels)
	}
	for name, value := range r.Labels {
		switch {
		case name == roleLabel:
			return badRequest("labels must not have %s: what somebody is, is not for a token to say", roleLabel)
		case name == "" || !printable(name, maxName):
			return badRequest("the names of labels must have 1 to %d printable characters; %.14q has not", maxName, name)
		case !printable(value, maxValue):
			return badRequest("the values of labels must have %d printable characters at most; that of %s has not", maxValue, name)
		}
	}
	return nil
}

// checkHub checks what tokens have that a hub joins with.
func checkHub(r *api.AccessTokenRequest) *api.Error {
	if r.Seconds == 0 {
		r.Seconds = int64(enrolLife / time.Second)
	}
	switch {
	case r.Uses > 1 || r.Uses < 0:
		return badRequest("uses must be 1 for the role hub: each hub that joins has a token of its own")
	case r.Seconds > int64(enrolLife/time.Second):
		return badRequest("seconds must be %d at most for the role hub", int64(enrolLife/time.Second))
	case len(r.Labels) > 0:
		return badRequest("labels is only of the role agent, not of hub")
	}
	r.Uses = 1
	return nil
}

func printable(s string, characters int) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= characters && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
