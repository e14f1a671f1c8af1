package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
)

// spoolDir is the directory of the disk queue.
func (w *diskWorld) spoolDir() string { return filepath.Join(w.data, "spool", "otlp") }

// segments returns the disk queue's files that hold records, oldest first.
func (w *diskWorld) segments() []string {
	w.Helper()
	list, err := filepath.Glob(filepath.Join(w.spoolDir(), "*.seg"))
	if err != nil || len(list) == 0 {
		w.Fatalf("no segments: %v", err)
	}
	slices.Sort(list) // by generation
	return list
}

// hoard lets the disk queue fill while the far side is away, with some of it delivered before, and stops the agent.
func (w *diskWorld) hoard(kill bool) {
	w.Helper()
	w.configure("otlp", "{max_size: 8MiB, min_free: 0}", "process")
	w.comesAndGoes(true)
	w.start()
	w.clamour(8)
	w.soon("some is delivered", func() bool { w.lines(10); there, _ := w.arrived(); return len(there) > 1000 })
	w.comesAndGoes(false)
	w.soon("the rest waits", func() bool {
		w.lines(10)
		s := w.exporter("otlp").Spool
		return s != nil && s.Bytes > 4<<20 && s.Waiting > 500
	})
	w.rest()
	if kill {
		w.agent.kill()
	} else {
		w.agent.stop()
	}
}

// exported returns the lines that wait, by the program's own account, and how many there are in the largest item.
func (w *diskWorld) exported(wantCode int) (lines map[string]bool, largest int) {
	w.Helper()
	bin, err := creelBinary()
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(bin, "spool", "export", w.spoolDir())
	var out, says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &says
	err = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); wantCode >= 0 && code != wantCode {
		w.Errorf("export: exit code %d, %v: %s", code, err, says.String())
	}
	lines = map[string]bool{}
	for request := range bytes.Lines(out.Bytes()) {
		b, err := otlp.ParseJSON(creel.Logs, bytes.TrimSpace(request), nil)
		if err != nil {
			w.Fatalf("export wrote %.100q: %v", request, err)
		}
		largest = max(largest, b.Len())
		for _, l := range b.Logs() {
			lines[strings.Clone(l.Body.Str())] = true
		}
	}
	return lines, largest
}

// got reports whether a line has arrived.
func (w *diskWorld) got(line string) bool {
	w.far.mu.Lock()
	defer w.far.mu.Unlock()
	return w.far.lines[line] > 0
}

func diskFlip(t *testing.T, r *rand.Rand, name string, from int) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil || len(b) <= from {
		t.Fatalf("%s has %d bytes: %v", name, len(b), err)
	}
	b[from+r.IntN(len(b)-from)] ^= 1 << r.IntN(8)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func diskTruncate(t *testing.T, r *rand.Rand, name string) {
	t.Helper()
	i, err := os.Stat(name)
	if err == nil {
		err = os.Truncate(name, r.Int64N(i.Size()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// diskDirectory puts a directory, with something in it, where a file was.
func diskDirectory(t *testing.T, name string) {
	t.Helper()
	_ = os.Remove(name)
	if err := os.MkdirAll(filepath.Join(name, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// A diskDamage is done to the state directory of an agent that is stopped.
type diskDamage struct {
	name      string
	do        func(w *diskWorld, r *rand.Rand)
	items     int    // of the disk queue that it may cost; -1: any number
	uncertain bool   // it may go uncounted: nothing tells of it
	says      string // what the log must say
}

var diskDamages = []diskDamage{
	{name: "flips in segments", items: 3, says: "lost by damage", do: func(w *diskWorld, r *rand.Rand) {
		list := w.segments()
		for range 3 {
			diskFlip(w.T, r, list[r.IntN(len(list))], 0)
		}
	}},
	{name: "flips in acks", do: func(w *diskWorld, r *rand.Rand) {
		for range 5 {
			diskFlip(w.T, r, filepath.Join(w.spoolDir(), "acks"), 0)
		}
	}},
	{name: "flips in positions", says: "damaged state set aside", do: func(w *diskWorld, r *rand.Rand) {
		diskFlip(w.T, r, filepath.Join(w.data, "state", "collectors.file"), 0)
	}},
	{name: "truncated segment", items: -1, says: "lost by damage", do: func(w *diskWorld, r *rand.Rand) {
		list := w.segments()
		diskTruncate(w.T, r, list[1+r.IntN(len(list)-2)])
	}},
	{name: "truncated last segment", items: -1, uncertain: true, do: func(w *diskWorld, r *rand.Rand) {
		list := w.segments()
		diskTruncate(w.T, r, list[len(list)-1])
	}},
	{name: "truncated acks", do: func(w *diskWorld, r *rand.Rand) { diskTruncate(w.T, r, filepath.Join(w.spoolDir(), "acks")) }},
	{name: "truncated positions", says: "damaged state set aside", do: func(w *diskWorld, r *rand.Rand) {
		diskTruncate(w.T, r, filepath.Join(w.data, "state", "collectors.file"))
	}},
	{name: "segment removed", items: -1, says: "lost by damage", do: func(w *diskWorld, r *rand.Rand) {
		list := w.segments()
		if err := os.Remove(list[1+r.IntN(len(list)-2)]); err != nil {
			w.Fatal(err)
		}
	}},
	{name: "first segment removed", items: -1, uncertain: true, do: func(w *diskWorld, _ *rand.Rand) {
		if err := os.Remove(w.segments()[0]); err != nil {
			w.Fatal(err)
		}
	}},
	{name: "acks a directory", do: func(w *diskWorld, _ *rand.Rand) { diskDirectory(w.T, filepath.Join(w.spoolDir(), "acks")) }},
	{name: "reserve a directory", do: func(w *diskWorld, _ *rand.Rand) {
		diskDirectory(w.T, filepath.Join(w.spoolDir(), "reserve"))
		diskDirectory(w.T, filepath.Join(w.spoolDir(), "acks.tmp"))
		diskDirectory(w.T, filepath.Join(w.spoolDir(), "suspect"))
	}},
	{name: "a segment is a directory", items: -1, says: "lost by damage", do: func(w *diskWorld, _ *rand.Rand) { diskDirectory(w.T, w.segments()[1]) }},
	{name: "positions a directory", says: "positions cannot be loaded", do: func(w *diskWorld, _ *rand.Rand) {
		diskDirectory(w.T, filepath.Join(w.data, "state", "collectors.file"))
	}},
	{name: "endpoints.json a directory", says: "endpoints.json is not written", do: func(w *diskWorld, _ *rand.Rand) {
		diskDirectory(w.T, filepath.Join(w.data, "endpoints.json"))
	}},
	{name: "damaged identity", do: func(w *diskWorld, r *rand.Rand) { diskTruncate(w.T, r, filepath.Join(w.data, "identity.json")) }},
}

// TestDiskDamage: whatever happens to the files of an agent that is stopped, it starts, misses at most what was damaged, and
// says how much that was. What spool export takes out before is the same.
func TestDiskDamage(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	rounds, each := 1, 5 // every fifth kind of damage, another one each time
	if *torture {
		rounds, each = 10, 1
	}
	for round := range rounds {
		for i := r.IntN(each); i < len(diskDamages); i += each {
			d := diskDamages[i]
			kill, repair := r.IntN(2) > 0, r.IntN(2) > 0
			t.Run(fmt.Sprintf("%s %d", d.name, round), func(t *testing.T) { d.test(t, r, kill, repair) })
		}
	}
}

func (d diskDamage) test(t *testing.T, r *rand.Rand, kill, repair bool) {
	w := newDiskWorld(t)
	w.hoard(kill)
	before, largest := w.exported(0)
	_ = os.Truncate(w.agent.log, 0)
	d.do(w, r)
	after, _ := w.exported(-1)
	if repair {
		out, code := w.creel("spool", "repair", w.spoolDir())
		if code != 0 {
			t.Errorf("repair: exit code %d: %s", code, out)
		}
		if again, _ := w.exported(0); len(again) != len(after) {
			t.Errorf("before the repair %d lines could be taken out, then %d", len(after), len(again))
		}
		if out, code := w.creel("spool", "inspect", w.spoolDir()); code != 0 {
			t.Errorf("inspect after repair: exit code %d: %s", code, out)
		}
	}
	w.start()
	w.comesAndGoes(true)
	w.lines(50)
	w.soon("what waited is delivered", func() bool { return w.ledger().Spools[0].Waiting == 0 && w.got(w.lastLine()) })
	missing, gone := 0, 0
	for l := range before {
		if !after[l] {
			gone++
		}
		if !w.got(l) { // else it had been delivered before, or was read again
			missing++
		}
	}
	for l := range after {
		if !w.got(l) {
			t.Fatalf("%q could be taken out, and does not arrive", l)
		}
	}
	l := w.wantBalance()
	damaged := int(l.Spools[0].Dropped["damaged"])
	text, _ := os.ReadFile(w.agent.log)
	if d.items >= 0 && missing > d.items*largest {
		t.Errorf("%d records are missing, in more than %d items of at most %d", missing, d.items, largest)
	}
	if !repair && !d.uncertain && damaged != gone && (damaged > gone || !kill) { // at the open end a damaged record is one that was not written
		t.Errorf("%d records are damaged, and %d are counted", gone, damaged)
	}
	if !repair && d.says != "" && (gone == damaged && gone > 0 || d.items == 0) && !strings.Contains(string(text), d.says) {
		t.Errorf("the log does not say %q:\n%s", d.says, text)
	}
	for n := range w.written {
		if l := w.line(n); !w.got(l) && !before[l] {
			t.Errorf("line %d of the file was not in the disk queue, and does not arrive", n)
		}
	}
	t.Logf("killed %v, repaired %v: %d records waited, %d are missing, %d damaged, %d counted", kill, repair, len(before), missing, gone, damaged)
	w.agent.stop()
}

func (w *diskWorld) line(n int) string {
	return fmt.Sprintf("file %d %s", n, strings.Repeat("x", n%200))
}

func (w *diskWorld) lastLine() string { return w.line(w.written - 1) }

// TestDiskNewer: a disk queue, and dead letters, of a newer format are refused with a clear word, and left byte for byte.
func TestDiskNewer(t *testing.T) {
	w := newDiskWorld(t)
	w.hoard(false)
	for _, name := range []string{w.segments()[0], filepath.Join(w.spoolDir(), "acks"), filepath.Join(w.data, "deadletters", "acks")} {
		old, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(old)
		table := crc32.MakeTable(crc32.Castagnoli)
		binary.LittleEndian.PutUint32(b[8:], 2)
		binary.LittleEndian.PutUint32(b[12:], crc32.Update(crc32.Checksum(b[:12], table), table, b[16:64]))
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		before := diskTree(t, filepath.Dir(name))
		says := w.refuses()
		if !strings.Contains(says, "newer version") || !strings.Contains(says, filepath.Dir(name)) {
			t.Errorf("it says: %s", says)
		}
		for _, command := range []string{"ls", "inspect", "export", "repair"} {
			if out, code := w.creel("spool", command, filepath.Dir(name)); code != 1 || !strings.Contains(out, "newer version") {
				t.Errorf("spool %s: exit code %d: %s", command, code, out)
			}
		}
		if after := diskTree(t, filepath.Dir(name)); after != before {
			t.Errorf("it was touched; before:\n%s\nafter:\n%s", before, after)
		}
		t.Logf("it says: %s", says)
		if err := os.WriteFile(name, old, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	w.comesAndGoes(true)
	w.wantAll()
}

// diskTree describes all files in a directory.
func diskTree(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range list {
		i, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		fmt.Fprintf(&b, "%s %v %d %v %08x\n", i.Name(), i.Mode(), i.Size(), i.ModTime().UnixNano(), crc32.ChecksumIEEE(text))
	}
	return b.String()
}
