package api

import (
	"context"
	"time"
)

// A Task is a place of a document that is to be on some of the agents that it selects: it has exactly one owner, or none yet.
type Task struct {
	Document string    `json:"document" doc:"The document's name."`
	Version  int64     `json:"version" doc:"Of the document."`
	Place    int       `json:"place" doc:"On how many agents the document is to be: it has so many tasks."`
	Priority int       `json:"priority" doc:"From 0 to 9: higher ones are placed first."`
	Agent    string    `json:"agent,omitempty" doc:"The id of its owner; none if it has none. Of one that is done, who has done it."`
	Name     string    `json:"name,omitempty" doc:"The agent's name."`
	Epoch    int64     `json:"epoch,omitempty" doc:"Grows each time that a task of the document is placed on an agent."`
	Since    time.Time `json:"since,omitzero" doc:"When it was placed there, or done."`
	Status   string    `json:"status" doc:"running, waiting, refused, rolled_back, unplaced, or parked: it has failed on several agents, and waits for another version of the document or to be retried. Of a document that is to be done once also done, failed and cancelled."`
	Error    string    `json:"error,omitempty" doc:"Why it does not run, or why it is placed nowhere."`
	Measured float64   `json:"measured,omitempty" doc:"The share of a slot that it takes at its owner, as measured over minutes: it stays until it has doubled or halved. None if it is not known yet, or does not work in rounds."`
}

// TaskList is the tasks, by document.
type TaskList struct {
	Tasks []Task `json:"tasks"`
}

// TaskChange is tasks that are not as they were. Who watches begins with all, also when it comes back.
type TaskChange struct {
	All       bool     `json:"all" doc:"These are all tasks: forget what was known."`
	Documents []string `json:"documents" doc:"Those whose tasks have changed: forget what was known of these. One of which there is no task here has none any more."`
	Tasks     []Task   `json:"tasks" doc:"All of these documents', as they are now."`
}

// TaskDetail is all of the tasks of one document.
type TaskDetail struct {
	Document  string        `json:"document" doc:"The document's name."`
	Version   int64         `json:"version" doc:"Of the document."`
	Selector  string        `json:"selector,omitempty" doc:"Which agents may have it."`
	Place     int           `json:"place" doc:"On how many agents it is to be."`
	Spread    string        `json:"spread,omitempty" doc:"The label over whose values these are spread."`
	Priority  int           `json:"priority" doc:"From 0 to 9: higher ones are placed first."`
	Cost      float64       `json:"cost" doc:"What each of its tasks takes of an agent's capacity: 1 unless the document says otherwise. How even agents are is reckoned from what is measured where it does not."`
	Once      bool          `json:"once" doc:"A task is done when a round of each of its collectors is."`
	Exclusive bool          `json:"exclusive" doc:"No two agents ever work on the same task."`
	Parked    bool          `json:"parked" doc:"It has failed on several agents, and waits for another version or to be retried."`
	Waits     string        `json:"waits,omitempty" doc:"Why it is on fewer agents than it is to be."`
	Tasks     []Task        `json:"tasks"`
	Failed    []TaskFailure `json:"failed" doc:"Where this version has failed."`
	History   []TaskEvent   `json:"history" doc:"The last of what has become of it, newest first."`
}

// TaskFailure is that a document could not be made to run on an agent, or that its one round failed there.
type TaskFailure struct {
	Agent   string `json:"agent,omitempty" doc:"Its id."`
	Name    string `json:"name,omitempty" doc:"Its name."`
	Version int64  `json:"version"`
	Error   string `json:"error,omitempty"`
}

// TaskEvent is something that has become of a document that is on some agents.
type TaskEvent struct {
	Time  time.Time `json:"time"`
	What  string    `json:"what" doc:"placed, taken, leaving, let_go, failed, parked, done, cancelled, retried or run."`
	Place int       `json:"place,omitempty" doc:"Which of the tasks, from 1; none: all."`
	From  string    `json:"from,omitempty" doc:"The id of the agent that had it."`
	To    string    `json:"to,omitempty" doc:"The id of the agent that has it since."`
	Epoch int64     `json:"epoch,omitempty"`
	Why   string    `json:"why,omitempty"`
}

// WatchTasks calls f with all tasks and then with every change, until ctx is done, f fails, or a hub says that who asks may not. When the
// hub goes away it asks it again, or the next of c.Others, and begins with all.
func (c *Client) WatchTasks(ctx context.Context, f func(TaskChange) error) error {
	return c.goOn(ctx, func(hub *Client, note func(error) error) error {
		return watch(ctx, hub, "/watch/tasks", nil, func(t TaskChange) error { return note(f(t)) })
	})
}
