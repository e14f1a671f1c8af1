package pipeline

// Moments returns how many quiet moments the audit has seen of the pipelines, the exporters and the disk queues, at least of
// each that it has seen at all.
func (e *Engine) Moments() (pipelines, exporters, spools int) {
	e.audit.mu.Lock()
	defer e.audit.mu.Unlock()
	for of, n := range e.audit.judged {
		switch of := of.(type) {
		case *book:
			pipelines += n
		case *account:
			if of.pipeline == "" {
				spools += n
			} else {
				exporters += n
			}
		}
	}
	return pipelines, exporters, spools
}

// Lose makes the books of a pipeline and its first exporter, and of the first disk queue, say that records came which never
// did.
func (e *Engine) Lose(pipeline string, inPipeline, atExporter, onDisk int64) {
	e.books.book(pipeline).accepted.Add(inPipeline)
	e.books.accounts[pipeline][0].in.Add(atExporter)
	if onDisk != 0 {
		e.books.spools[0].in.Add(onDisk)
	}
}
