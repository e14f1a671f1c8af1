//go:build unix

package file

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

var (
	seed = flag.Uint64("seed", 0, "of the first run of TestRandomRotations; 0: another one each time")
	runs = flag.Int("runs", 8, "how many there are, each with the next seed")
)

// world is a machine whose log files are written and rotated at random, and a collector that is held up, abandoned,
// stopped and killed. It knows each line that was written, and how often it may arrive.
type world struct {
	t     *testing.T
	rnd   *rand.Rand
	dir   string
	copy  bool // files are copied and truncated, not renamed
	watch bool // the kernel tells what has changed
	lines int
	open  string // an unfinished line
	links int

	rig     *rig
	state   creel.State
	hold    bool
	kept    []*creel.Batch
	got     map[string]int
	spare   map[string]int // arrivals beyond the first that have a reason
	recent  []string       // lines that may have to be sent again
	counts  map[string]int
	history []string
	spool   *diskQueue // nil: there is none
}

func (w *world) did(what string) {
	w.counts[what]++
	w.history = append(w.history, fmt.Sprintf("%s@%d", what, w.lines))
}

// memoryState is a state that outlives the collector.
func (w *world) Load() ([]byte, uint64, error) { return w.state.Load() }
func (w *world) Save(data []byte, version uint64) (uint64, error) {
	return w.state.Save(data, version)
}

func (w *world) app() string { return filepath.Join(w.dir, "app.log") }

func (w *world) Send(ctx context.Context, b *creel.Batch) error { panic("BUG: there is room") }

func (w *world) TrySend(b *creel.Batch) bool {
	if w.spool != nil && !w.hold {
		w.take(b)
		return true
	} else if w.spool != nil {
		w.kept = append(w.kept, b)
		return true
	}
	for _, l := range b.Logs() {
		s := strings.Clone(l.Body.Str())
		w.got[s]++
		w.recent = append(w.recent, s)
	}
	if w.hold {
		w.kept = append(w.kept, b)
	} else {
		creel.Settle(b, nil)
	}
	return true
}

// again notes that what arrived lately may arrive again.
func (w *world) again() {
	if w.spool != nil {
		return
	}
	for _, s := range w.recent {
		w.spare[s]++
	}
}

func (w *world) start() {
	options := fmt.Sprintf("read_size: 1KiB, poll_interval: 1ms, max_open_files: 4, include: [%s/*.log, %s/*.gz]", w.dir, w.dir)
	if w.spool == nil {
		w.rig = newRig(w.t, w, options)
	} else {
		w.rig = newRig(w.t, w, options+", "+w.spool.options, w.spool.restarted())
	}
	w.rig.c.linger, w.rig.c.settleFor, w.rig.c.cfg.Multiline.Timeout = time.Second, 0, 0
	if w.watch {
		c := w.rig.c
		c.watch = newWatcher()
		c.finder.watch = c.watch
		w.t.Cleanup(c.watch.close)
	}
}

// step lets the collector read what there is.
func (w *world) step() {
	w.history = append(w.history, "step")
	c := w.rig.c
	c.polled = time.Time{}
	c.poll(time.Now())
	for range 1000 {
		if more, err := c.round(context.Background(), w, time.Now()); err != nil {
			w.t.Fatal(err)
		} else if !saveIfUrgent(c) && !more {
			break
		}
	}
	if (len(w.kept) == 0 || w.spool != nil) && w.rnd.IntN(3) == 0 {
		if err := c.save(); err != nil {
			w.t.Fatal(err)
		}
		w.recent = nil
	}
}

// look is a step before which so much time has passed that every directory is looked at, and every file.
func (w *world) look() {
	for _, l := range w.rig.c.finder.dirs {
		l.checked = l.checked.Add(-slowEvery)
	}
	w.rig.c.patrolled = time.Time{}
	w.step()
}

// catchUp lets the collector read and save everything.
func (w *world) catchUp() {
	w.release(0)
	w.hold = false
	for n := 0; n < 3 || len(w.rig.c.queue) > 0 && n < 100; n++ {
		w.look()
	}
	if err := w.rig.c.save(); err != nil {
		w.t.Fatal(err)
	}
	w.recent = nil
}

func (w *world) text() string {
	var b strings.Builder
	for range w.rnd.IntN(30) {
		b.WriteString(w.line(strings.Repeat("x", w.rnd.IntN(200))))
	}
	return b.String()
}

// line returns the next line, as it is written.
func (w *world) line(text string) string {
	text = fmt.Sprintf("line %d %s", w.lines, text)
	w.lines++
	if w.spool != nil {
		return w.spool.format(w.rnd, text)
	}
	return text + "\n"
}

func (w *world) write() {
	text := w.open + w.text()
	w.open = ""
	if w.rnd.IntN(3) == 0 {
		line := w.line("unfinished")
		n := 1 + w.rnd.IntN(strings.IndexByte(line, '\n'))
		text, w.open = text+line[:n], line[n:]
	}
	write(w.t, w.app(), []byte(text))
	if w.rnd.IntN(4) == 0 {
		write(w.t, filepath.Join(w.dir, "link.log"), []byte(w.text()))
	}
}

func (w *world) rotated(i int) string { return fmt.Sprintf("%s.%d", w.app(), i) }

func (w *world) rotate() {
	write(w.t, w.app(), []byte(w.open))
	w.open = ""
	if w.copy {
		w.catchUp()
	}
	for i := 60; i > 0; i-- {
		for _, ext := range []string{"", ".gz"} {
			if _, err := os.Stat(w.rotated(i) + ext); err == nil {
				w.must(os.Rename(w.rotated(i)+ext, w.rotated(i+1)+ext))
			}
		}
	}
	if w.copy {
		text, err := os.ReadFile(w.app())
		w.must(err, os.WriteFile(w.rotated(1), text, 0o600), os.Truncate(w.app(), 0))
		w.did("copytruncate")
		return
	}
	w.must(os.Rename(w.app(), w.rotated(1)))
	if w.rnd.IntN(2) == 0 { // the writer still has the old file open
		write(w.t, w.rotated(1), []byte(w.text()))
		w.did("late")
	}
	w.must(os.WriteFile(w.app(), []byte(w.text()), 0o600))
	w.did("rename")
	if id, _, err := identify(w.rotated(1)); err == nil && w.rig != nil && w.rnd.IntN(2) == 0 {
		w.step()
		if t := w.rig.c.byID[id]; t != nil && t.f != nil && !t.gone.IsZero() { // it is kept open for that
			write(w.t, w.rotated(1), []byte(w.text()))
			w.did("later")
		}
	}
}

func (w *world) must(errs ...error) {
	w.t.Helper()
	if err := errors.Join(errs...); err != nil {
		w.t.Fatal(err)
	}
}

// compress does what gzip does with a rotated file that is no longer written.
func (w *world) compress() {
	for i := 60; i > 0; i-- {
		text, err := os.ReadFile(w.rotated(i))
		if err != nil || len(text) == 0 {
			continue
		}
		z := zipped(w.t, string(text))
		n := w.rnd.IntN(len(z))
		write(w.t, w.rotated(i)+".gz", z[:n])
		w.step() // while it is being written
		write(w.t, w.rotated(i)+".gz", z[n:])
		w.must(os.Remove(w.rotated(i)))
		w.did("compress")
		return
	}
}

// relink makes the link lead to another file.
func (w *world) relink() {
	if w.links > 0 { // what it led to has been seen
		w.look()
	}
	w.links++
	to, link := filepath.Join(w.dir, "behind", fmt.Sprintf("%d.txt", w.links)), filepath.Join(w.dir, "link.log")
	write(w.t, to, []byte(w.text()))
	w.must(os.Symlink(to, link+".new"), os.Rename(link+".new", link))
	w.did("link")
}

// find returns the files that have the first of some lines, and what the collector knows of them.
func (w *world) find(lines []int) string {
	if len(lines) == 0 {
		return "none"
	}
	var found []string
	filepath.WalkDir(w.dir, func(path string, e os.DirEntry, _ error) error {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), fmt.Sprintf("line %d ", lines[0])) {
			id, fi, _ := identify(path)
			found = append(found, fmt.Sprintf("%s of %d bytes", path, fi.Size()))
			if t := w.rig.c.byID[id]; t != nil {
				found = append(found, fmt.Sprintf("known as %s at %d", t.path, t.pos))
			}
		}
		return nil
	})
	return strings.Join(found, ", ")
}

// release settles all but some of the batches that were held.
func (w *world) release(abandon int) {
	w.rnd.Shuffle(len(w.kept), func(i, j int) { w.kept[i], w.kept[j] = w.kept[j], w.kept[i] })
	for i, b := range w.kept {
		if i < abandon {
			w.did("abandon")
			creel.Settle(b, creel.ErrAbandoned)
		} else if w.spool != nil {
			w.take(b)
		} else {
			creel.Settle(b, nil)
		}
	}
	if abandon > 0 && len(w.kept) > 0 {
		w.again()
	}
	w.kept = nil
}

func (w *world) restart(kill bool) {
	c := w.rig.c
	if kill {
		w.did("kill")
		c.closed = true // it saves no more
	} else {
		w.did("stop")
	}
	if kill || len(w.kept) > 0 {
		w.again()
	} else {
		w.recent = nil
	}
	kept := w.kept
	w.kept, w.hold = nil, false
	if w.spool != nil && kill {
		kept = append(kept, w.spool.unanswered...)
	} else if w.spool != nil {
		w.answer()
	}
	w.must(c.Close())
	for _, b := range kept {
		creel.Settle(b, creel.ErrAbandoned)
	}
	w.rig = nil
	if w.rnd.IntN(2) == 0 {
		w.write()
	}
	if !w.copy && w.rnd.IntN(2) == 0 {
		w.rotate()
	}
	w.start()
}

func (w *world) run(steps int) {
	for range steps {
		w.write()
		switch n := w.rnd.IntN(20); {
		case n < 5:
			w.rotate()
			if !w.copy && n == 0 { // back to back
				w.rotate()
			}
		case n < 7 && w.spool == nil:
			w.compress()
		case n < 8:
			w.relink()
		case n < 10:
			w.hold = true
		case n < 12 && w.spool != nil:
			w.answer()
			w.release(0)
			w.hold = false
		case n < 12:
			w.release(w.rnd.IntN(2))
			w.hold = false
		case n < 13:
			w.restart(w.rnd.IntN(2) == 0)
		case n < 14:
			w.look()
			w.rig.c.linger = 0 // rotated files are closed
			w.step()
			w.rig.c.linger = time.Second
		}
		if w.rnd.IntN(3) > 0 {
			w.step()
		}
	}
	write(w.t, w.app(), []byte(w.open))
	w.catchUp()
	for deadline := time.Now().Add(2 * time.Second); len(w.got) < w.lines && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		w.step()
	}
	for range 5 { // what would arrive twice
		w.step()
	}
}

// judge tells what is missing, and what arrived twice without a reason.
func (w *world) judge() {
	w.t.Helper()
	if len(w.got) != w.lines {
		seen := map[int]bool{}
		for line := range w.got {
			var n int
			if _, err := fmt.Sscanf(line, "line %d", &n); err != nil || seen[n] {
				w.t.Errorf("nobody wrote %q", line)
			}
			seen[n] = true
		}
		var missing []int
		for n := range w.lines {
			if !seen[n] {
				missing = append(missing, n)
			}
		}
		w.t.Errorf("%d of %d lines arrived; missing are %v, first in %s\n%s\n%s", len(w.got), w.lines, missing[:min(20, len(missing))], w.find(missing),
			strings.Join(w.history, " "), w.rig.logged.String())
	}
	var twice []string
	for line, n := range w.got {
		if n > 1+w.spare[line] {
			twice = append(twice, fmt.Sprintf("%.20s: %d times, %d expected at most", line, n, 1+w.spare[line]))
		}
	}
	if slices.Sort(twice); len(twice) > 0 {
		w.t.Errorf("%d lines arrived too often, such as %q\n%s", len(twice), twice[:min(3, len(twice))], w.rig.logged.String())
	}
}

// TestRandomRotations: whatever happens to files and to the collector, no line is lost, and none arrives twice without a
// reason.
func TestRandomRotations(t *testing.T) {
	first, n := *seed, *runs
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	if testing.Short() {
		n = min(n, 4)
	}
	counts := map[string]int{}
	for run := range n {
		s := first + uint64(run)
		t.Run(fmt.Sprint("seed ", s), func(t *testing.T) {
			w := &world{t: t, rnd: rand.New(rand.NewPCG(s, 0)), dir: t.TempDir(), copy: s%4 == 3, watch: s%4 < 2, state: creel.Host{}.Ready().State,
				got: map[string]int{}, spare: map[string]int{}, counts: counts}
			w.must(os.Mkdir(filepath.Join(w.dir, "behind"), 0o700))
			w.relink()
			w.start()
			w.run(80)
			w.judge()
		})
	}
	t.Log(counts)
	if n < 4 {
		return
	}
	for _, what := range []string{"rename", "late", "later", "copytruncate", "compress", "link", "abandon", "kill", "stop"} {
		if counts[what] == 0 {
			t.Errorf("%s did not happen", what)
		}
	}
}
