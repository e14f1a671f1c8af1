package expr

import (
	"strings"

	"github.com/creelhq/creel"
)

// kinds is the set of what a part of an expression can give, as far as that is known before there is a record. The first
// bits are those of creel.ValueKind. Times, durations and severities are integers once there is a record; that they are
// told apart until then finds mistakes.
type kinds uint16

const (
	nothing kinds = 1 << iota
	text
	boolean
	integer
	double
	binary
	list
	dict
	moment // nanoseconds since the Unix epoch
	span   // nanoseconds
	level  // creel.Severity

	number   = integer | double
	anything = 1<<11 - 1
)

var kindNames = [...]string{"nothing", "a string", "a boolean", "an integer", "a floating-point number", "bytes", "a list", "a map", "a time", "a duration", "a severity"}

func (k kinds) String() string {
	switch {
	case k|moment|span|level == anything:
		return "anything"
	case k == number:
		return "a number"
	}
	var names []string
	for i, name := range kindNames {
		if k&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " or ")
}

// has reports whether v can be one of k.
func (k kinds) has(v creel.Value) bool {
	if k&(moment|span|level) != 0 {
		k |= integer
	}
	return k&(1<<v.Kind()) != 0
}

// meets reports whether something of k can be compared with something of o.
func (k kinds) meets(o kinds) bool { return k.wide()&o.wide()&^nothing != 0 }

func (k kinds) wide() kinds {
	if k&(number|level) != 0 {
		k |= number
	}
	return k
}
