package api

import (
	"encoding/json"
	"net/http"
	"time"
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

// Member is one of the hubs of a control state.
type Member struct {
	ID        string     `json:"id"`
	Name      string     `json:"name" doc:"Of its host."`
	Version   string     `json:"version"`
	Started   time.Time  `json:"started"`
	URL       string     `json:"url" doc:"Where it is reached."`
	Draining  bool       `json:"draining,omitempty" doc:"It is to be left: agents go to other hubs."`
	Agents    int        `json:"agents" doc:"About how many are connected to it."`
	QuickLook *QuickLook `json:"quick_look,omitempty" doc:"How its store is; none if it did not answer, or that is not for who asks."`
}
