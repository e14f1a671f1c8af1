package pipeline

import "time"

// An Effort is what a collector of a placed document has taken of the scheduler since the collector was opened.
type Effort struct {
	Document string
	Rounds   int           // that have ended
	Busy     time.Duration // for how long it has owned slots
}

// Efforts returns, by path, those of the collectors that work in rounds and whose documents have terms. Documents that are to be done
// once are left out.
func (e *Engine) Efforts() map[string]Effort {
	list := make(map[string]Effort)
	if e.tasks == nil {
		return list
	}
	all := e.tasks.Tasks()
	e.mu.Lock()
	defer e.mu.Unlock()
	of := make(map[string]string, len(e.sources))
	for _, s := range e.sources {
		if d, t, _ := s.terms(e.current.Load()); t != nil && !t.Once {
			of[s.comp.Path()] = d.Name
		}
	}
	for _, t := range all {
		if name, is := of[t.ID]; is {
			list[t.ID] = Effort{name, t.Rounds, t.Busy}
		}
	}
	return list
}
