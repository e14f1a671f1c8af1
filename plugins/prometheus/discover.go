package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/creelhq/creel"
)

// settled is how old a file must be for its time to tell whether it has changed.
const settled = 2 * time.Second

// discovery finds targets in files and at a URL. What cannot be read leaves the targets that it had as they were.
type discovery struct {
	options *Config
	host    creel.Host
	fetcher *fetcher
	files   map[string]*listFile
	listed  []group   // what the URL said last
	asked   time.Time // it
	said    map[string]string
	changed bool // since the last look
}

// listFile is a file of targets.
type listFile struct {
	info   os.FileInfo
	young  bool
	groups []group
}

// look looks for changes.
func (d *discovery) look(ctx context.Context, now time.Time) error {
	d.lookAtFiles(now)
	h := d.options.HTTPDiscovery
	if h == nil || !d.asked.IsZero() && now.Sub(d.asked) < h.Every {
		return ctx.Err()
	}
	var groups []group
	err := creel.Blocking(ctx, func() (err error) {
		groups, err = d.ask(ctx, h)
		return err
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d.note(h.URL, "URL", err)
	if err == nil {
		d.listed, d.asked, d.changed = groups, now, true
	}
	return nil
}

// groups returns all that was found.
func (d *discovery) groups() []group {
	list := slices.Clone(d.listed)
	for _, name := range slices.Sorted(keys(d.files)) {
		list = append(list, d.files[name].groups...)
	}
	return list
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (d *discovery) lookAtFiles(now time.Time) {
	seen := make(map[string]bool)
	for _, pattern := range d.options.FileDiscovery {
		names, err := filepath.Glob(pattern)
		d.note(pattern, "pattern", err)
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			f := d.files[name]
			if f == nil {
				f = &listFile{}
				d.files[name] = f
			}
			changed, err := f.read(name, now)
			d.note(name, "file", err)
			d.changed = d.changed || changed
		}
	}
	for name := range d.files {
		if !seen[name] {
			delete(d.files, name)
			delete(d.said, name)
			d.changed = true
		}
	}
}

// read reads the file if it has changed.
func (f *listFile) read(name string, now time.Time) (changed bool, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return false, fmt.Errorf("look at file: %w", err)
	}
	if f.info != nil && !f.young && os.SameFile(info, f.info) && info.Size() == f.info.Size() && info.ModTime().Equal(f.info.ModTime()) {
		return false, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return false, fmt.Errorf("read file: %w", err)
	}
	var groups []group
	if filepath.Ext(name) == ".json" {
		err = json.Unmarshal(text, &groups)
	} else {
		err = yaml.Unmarshal(text, &groups)
	}
	if err != nil { // perhaps it is being written: once more next time
		f.info = nil
		return false, fmt.Errorf("read file: must be a list of {targets, labels}: %w", err)
	}
	f.info, f.young, f.groups = info, now.Sub(info.ModTime()) < settled, groups
	return true, nil
}

// ask gets the list at the URL.
func (d *discovery) ask(ctx context.Context, h *HTTPDiscovery) ([]group, error) {
	u, err := url.Parse(h.URL)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.options.TargetTimeout)
	defer cancel()
	header := http.Header{"Accept": {"application/json"}, "X-Prometheus-Refresh-Interval-Seconds": {fmt.Sprint(h.Every.Seconds())}}
	for k, v := range h.Headers {
		header.Set(k, v)
	}
	client, own, err := d.fetcher.clientOf(u)
	if err != nil {
		return nil, err
	}
	if own {
		defer client.CloseIdleConnections()
	}
	kind, body, err := d.fetcher.get(ctx, client, u, header, 0)
	if err != nil {
		return nil, err
	}
	if media, _, _ := strings.Cut(kind, ";"); strings.TrimSpace(media) != "application/json" {
		return nil, fmt.Errorf("read answer: its content type must be application/json, got %s", excerpt(kind))
	}
	var groups []group
	if err := json.Unmarshal(body, &groups); err != nil {
		return nil, fmt.Errorf("read answer: must be a list of {targets, labels}: %w", err)
	}
	return groups, nil
}

// note logs an outcome that is another than the one before. A URL may hold a secret: it is named without its query.
func (d *discovery) note(name, what string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if before := d.said[name]; text == before {
		return
	}
	shown, _, _ := strings.Cut(name, "?")
	if text == "" {
		delete(d.said, name)
		d.host.Log.Info("targets can be read again", what, shown)
		return
	}
	first := d.said[name] == ""
	d.said[name] = text
	if first {
		d.host.Log.Warn("cannot read targets; those that it named before stay", what, shown, "error", err)
	}
}
