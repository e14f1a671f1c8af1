package api

import "time"

// A Task is a place of a document that is to be on some of the agents that it selects: it has exactly one owner, or none yet.
type Task struct {
	Document string    `json:"document" doc:"The document's name."`
	Version  int64     `json:"version" doc:"Of the document."`
	Place    int       `json:"place" doc:"On how many agents the document is to be: it has so many tasks."`
	Priority int       `json:"priority" doc:"From 0 to 9: higher ones are placed first."`
	Agent    string    `json:"agent,omitempty" doc:"The id of its owner; none if it has none."`
	Name     string    `json:"name,omitempty" doc:"The owner's name."`
	Epoch    int64     `json:"epoch,omitempty" doc:"Grows each time that a task of the document is placed on an agent."`
	Since    time.Time `json:"since,omitzero" doc:"When it was placed there."`
	Status   string    `json:"status" doc:"running, waiting, refused, rolled_back, unplaced, or parked: it has failed on several agents, and waits for another version of the document."`
	Error    string    `json:"error,omitempty" doc:"Why it does not run, or why it is placed nowhere."`
}

// TaskList is the tasks, by document.
type TaskList struct {
	Tasks []Task `json:"tasks"`
}
