package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/creelhq/creel/api"
)

// List returns a page of the log, newest first, and holds every entry that it looks at against the one before.
func (l *Log) List(ctx context.Context, q api.AuditQuery) (api.AuditList, error) {
	newest, err := l.newest(ctx)
	if err != nil {
		return api.AuditList{}, fmt.Errorf("read the audit log: %w", err)
	}
	p := page{limit: q.Limit, words: strings.Fields(strings.ToLower(q.Search))}
	p.Entries = []api.AuditEntry{}
	if p.limit <= 0 {
		p.limit = 100
	}
	p.limit = min(p.limit, 1000)
	from := newest
	if q.Before > 0 {
		from = min(from, q.Before-1)
	}
	if err := l.walk(ctx, from, newest-l.o.keep, p.add); err != nil {
		return api.AuditList{}, fmt.Errorf("read the audit log: %w", err)
	}
	if p.above != nil && p.above.Number == 1 {
		p.check("")
	}
	return p.AuditList, nil
}

// newest returns the number of the newest entry.
func (l *Log) newest(ctx context.Context) (int64, error) {
	t := l.known()
	if err := l.advance(ctx, &t); err != nil {
		return 0, err
	}
	l.learn(t)
	return t.number, nil
}

// walk calls f with entries from a number down until it returns false or there are no more. One that is missing has no value:
// that is the log's end only where entries may have been removed, which is up to the number old.
func (l *Log) walk(ctx context.Context, from, old int64, f func(number int64, value []byte) bool) error {
	for number := from; number > 0; {
		list, _, err := l.o.Store.List(ctx, blockOf(number))
		if err != nil {
			return err
		}
		values := make(map[int64][]byte, len(list))
		for _, e := range list {
			if n, err := strconv.ParseInt(strings.TrimPrefix(e.Key, prefix), 10, 64); err == nil {
				values[n] = e.Value
			}
		}
		for first := max(1, number-number%block); number >= first; number-- {
			value, ok := values[number]
			if !ok && number <= old || !f(number, value) {
				return nil
			}
		}
	}
	return nil
}

// page is one that is being filled.
type page struct {
	api.AuditList
	limit int
	words []string
	above *api.AuditEntry // the last that was looked at, if its hash has to be held against that of the one before
	done  bool            // the page is full, and what is on it is checked
}

// add takes the next entry, and returns false when no more are needed: that is when there is one for another page.
func (p *page) add(number int64, value []byte) bool {
	e, ok := read(number, value)
	full := len(p.Entries) == p.limit
	if !p.done {
		if p.above != nil {
			p.check(e.Hash)
		}
		p.above = nil
		switch p.done = full; {
		case full:
		case ok:
			p.above = &e
		default:
			p.broken(number)
		}
	}
	if value == nil || !matches(e, p.words) {
		return true
	}
	if full {
		p.Next = p.Entries[len(p.Entries)-1].Number
		return false
	}
	p.Entries = append(p.Entries, e)
	return true
}

// check holds the entry above against the hash of the one before it.
func (p *page) check(before string) {
	if p.above.Hash != sum(before, *p.above) {
		p.broken(p.above.Number)
	}
}

func (p *page) broken(number int64) {
	if p.Broken == 0 {
		p.Broken = number
	}
}

// read returns the entry that lies under a number, and false if it is not that one.
func read(number int64, value []byte) (api.AuditEntry, bool) {
	var e api.AuditEntry
	if err := json.Unmarshal(value, &e); err != nil {
		return api.AuditEntry{Number: number, Action: "unreadable", Detail: "the entry cannot be read"}, false
	}
	ok := e.Number == number
	e.Number = number
	return e, ok
}

// matches reports whether an entry has all words, which are lower case.
func matches(e api.AuditEntry, words []string) bool {
	if len(words) == 0 {
		return true
	}
	text := strings.ToLower(strings.Join([]string{e.Who, e.Action, e.Target, e.Outcome, e.Detail}, "\n"))
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
