package pipeline

// Vitals is how an engine does, in numbers that can be compared with those of another moment.
type Vitals struct {
	Components  map[string]Vital // by key, of those that run
	Unexplained int64            // records that the audit has missed for long, wherever
}

// Vital is how one component does. Its counts grow for as long as the engine lives, across reloads of the component.
type Vital struct {
	Healthy bool
	Error   string // why it is not
	Failed  int64  // calls of the component that failed: of Collect, of Process and Run, attempts to export
	In      int64  // records: of a collector those that it has sent, of a processor those that its pipeline was given, of an exporter those that it was given
	Dropped int64  // records: of a processor those that its pipeline has dropped because a processor failed, of an exporter those that were dropped or are dead letters
}

// Vitals returns how the components do. It costs little: it may be called every second.
func (e *Engine) Vitals() Vitals {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := Vitals{Components: make(map[string]Vital, len(e.sources)+len(e.stages)+len(e.exports)), Unexplained: e.audit.missed()}
	add := func(c Component, h *health, in, dropped int64) {
		_, err := h.get()
		one := Vital{Healthy: err == nil, Failed: h.work.failed.Load(), In: in, Dropped: dropped}
		if err != nil {
			one.Error = err.Error()
		}
		v.Components[c.Key()] = one
	}
	for _, s := range e.sources {
		add(s.comp, s.health, s.health.work.collected.Load(), 0)
	}
	for _, st := range e.stages {
		add(st.comp, st.health, st.book.accepted.Load(), st.book.dropped[ProcessorError].Load())
	}
	in, dropped := e.books.byExporter()
	for id, x := range e.exports {
		add(x.comp, x.health, in[id], dropped[id])
	}
	return v
}

// byExporter returns how many records exporters were given, and how many of them were dropped or are dead letters.
func (bs *books) byExporter() (in, lost map[string]int64) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	in, lost = make(map[string]int64), make(map[string]int64)
	add := func(a *account) {
		lost[a.exporter] += a.deadLettered.Load()
		for r := range reasons {
			lost[a.exporter] += a.dropped[r].Load()
		}
	}
	for _, list := range bs.accounts {
		for _, a := range list {
			in[a.exporter] += a.in.Load()
			add(a)
		}
	}
	for _, a := range bs.spools { // what it has was given to the exporter before
		add(a)
	}
	return in, lost
}

// missed returns how many records are unexplained, of which that is certain.
func (a *audit) missed() (n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.open {
		if d.told {
			n += max(d.records, -d.records)
		}
	}
	return n
}
