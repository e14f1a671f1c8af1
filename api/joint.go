package api

import (
	"encoding/json"
	"net/http"
)

// Joint is in answers that the hubs of a control state give together, whichever of them is asked.
type Joint struct {
	Absent []Absent `json:"absent,omitempty" doc:"Hubs that did not answer in time: what only they know is lacking."`
}

// Lacks says which hubs did not answer.
func (j *Joint) Lacks(list []Absent) { j.Absent = list }

// Lacking returns the hubs that did not answer.
func (j Joint) Lacking() []Absent { return j.Absent }

// Absent is a hub that is there and did not answer another.
type Absent struct {
	Hub   string `json:"hub" doc:"Its id."`
	Name  string `json:"name,omitempty" doc:"Of its host."`
	Error string `json:"error" doc:"Why there is no answer of it."`
}

func (a Absent) String() string {
	who := a.Hub
	if a.Name != "" {
		who += " (" + a.Name + ")"
	}
	return "hub " + who + " did not answer: " + a.Error
}

// PartialHeader is a header of every answer that lacks something because a hub did not answer: each of its values is an Absent,
// as JSON. Most answers have that as a field as well.
const PartialHeader = "Creel-Partial"

// AbsentEvent is the event of a stream of single things that tells, as a Joint, which hubs do not answer, whenever those are
// others. A stream of whole answers has it in each.
const AbsentEvent = "absent"

// AbsentIn returns the hubs that a header says did not answer.
func AbsentIn(h http.Header) (list []Absent) {
	for _, text := range h.Values(PartialHeader) {
		var a Absent
		if json.Unmarshal([]byte(text), &a) == nil {
			list = append(list, a)
		}
	}
	return list
}
