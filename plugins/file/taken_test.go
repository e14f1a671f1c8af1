//go:build unix

package file

import (
	"cmp"
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

// books are what a disk queue knows it has taken.
type books map[uint64][]creel.Range

func (k books) add(parts []creel.Part) {
	for _, p := range parts {
		k[p.Source] = append(k[p.Source], creel.Range{From: p.From, To: p.To})
	}
}

// taken returns the ranges of a source as Host.Taken does: sorted, and those that touch are one.
func (k books) taken(source uint64) (out []creel.Range) {
	sorted := slices.SortedFunc(slices.Values(k[source]), func(a, b creel.Range) int { return cmp.Compare(a.From, b.From) })
	for _, r := range sorted {
		if n := len(out); n > 0 && out[n-1].To >= r.From {
			out[n-1].To = max(out[n-1].To, r.To)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// needBoot skips a test of what is only believed where it is known that the machine was not started anew.
func needBoot(t testing.TB) {
	t.Helper()
	if boot() == "" {
		t.Skip("it is not known here when the machine was started")
	}
}

// copyOf returns a State with what s has now.
func copyOf(t testing.TB, s creel.State) creel.State {
	t.Helper()
	c := creel.Host{}.Ready().State
	data, _, err := s.Load()
	if err == nil {
		_, err = c.Save(data, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// FuzzTaken: what a disk queue has taken is not read again, and everything else is, whichever batches those were: in
// every format, however the file was cut into reads.
func FuzzTaken(f *testing.F) {
	needBoot(f)
	cri := t0 + " stdout P a\n" + t1 + " stderr F b c\n" + t0 + " stdout F d\nnonsense\n" + t0 + " stdout P e\n" + t0 + " stdout F f\n" + t1 + " stderr P g\n" + t0 + " stdout F h\n" + t1 + " stderr F i\n"
	docker := strings.Repeat(`{"log":"a","stream":"stdout"}`+"\n"+`{"log":"b\n","stream":"stderr"}`+"\n"+`{"log":"c\n","stream":"stdout"}`+"\n", 4)
	lines := "A\n b\r\n c\n\nB\nC\xff\n" + strings.Repeat("long ", 30) + "\r\n0123456789abcdef\r\nD;\ne\nF\n" + strings.Repeat("longer", 40) + "\nx\n"
	for mode := range modes {
		for i, text := range []string{cri, docker, lines, "\ufeff" + lines, wideText(lines)} {
			f.Add(uint8(mode), uint16(9+20*i), uint64(i), []byte(text))
			f.Add(uint8(mode), uint16(40), uint64(mode), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, mode uint8, cut uint16, seed uint64, text []byte) {
		if len(text) <= 2000 {
			checkTaken(t, modes[int(mode)%len(modes)], text, max(1, int(cut)%100, len(text)/100), seed)
		}
	})
}

// checkTaken reads text in pieces of a size, has some of the batches taken by a disk queue, and reads it again after a
// crash. It returns how many were claimed, and how many of them were taken.
func checkTaken(t *testing.T, options string, text []byte, size int, seed uint64) (claims, taken int) {
	path := filepath.Join(t.TempDir(), "a.log")
	options += ", include: [" + path + "]"
	write(t, path, nil)
	s, k := creel.Host{}.Ready().State, books{}
	rnd := rand.New(rand.NewPCG(seed, 0))
	var saved creel.State
	var want, all []string
	last := uint64(0)
	r := newRig(t, s, options)
	r.onBatch = func(b *creel.Batch) {
		if saved == nil {
			saved = copyOf(t, s)
		}
		for _, p := range b.Parts() {
			if claims++; p.From >= p.To || p.From < last {
				t.Errorf("%s: a part %v behind %d", options, p, last)
			}
			last = p.To
		}
		records := describe(b)
		all = append(all, records...)
		if len(b.Parts()) > 0 && rnd.IntN(2) == 0 {
			taken++
			k.add(b.Parts())
			return
		}
		want = append(want, records...)
	}
	for p := range slices.Chunk(text, size) {
		write(t, path, p)
		r.step(0)
	}
	r.step(time.Hour)
	if saved == nil {
		return 0, 0 // nothing was sent
	}
	again := newRig(t, saved, options, k.taken)
	again.now = r.now
	again.step(0)
	again.step(time.Hour)
	got := again.take()
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("%s: %q in pieces of %d; all was %q; taken was %v\nread was %q\nwant     %q", options, text, size, all, k, got, want)
	}
	if tail := again.c.tails[0]; tail.acked.committed != tail.pos {
		t.Errorf("%s: the position is %d, and %d is acknowledged", options, tail.pos, tail.acked.committed)
	}
	return claims, taken
}

func wideText(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.Write([]byte{c, 0})
	}
	return b.String()
}

// diskQueue is one that takes batches before anybody hears of it.
type diskQueue struct {
	options    string // of the collector
	format     func(rnd *rand.Rand, line string) string
	books      books
	unanswered []*creel.Batch
}

// restarted returns Host.Taken as it is when the agent starts.
func (q *diskQueue) restarted() func(source uint64) []creel.Range {
	known := books{}
	for source, ranges := range q.books {
		known[source] = slices.Clone(ranges)
	}
	q.unanswered = nil
	return known.taken
}

// take puts b into the disk queue: only now it has arrived. Nobody is told of it yet, now and then.
func (w *world) take(b *creel.Batch) {
	q := w.spool
	q.books.add(b.Parts())
	w.did("taken")
	for _, record := range describe(b) {
		body, _, _ := strings.Cut(record, " [log.iostream")
		w.got[body]++
		if len(b.Parts()) == 0 {
			w.spare[body] += 100 // again after each crash
			w.did("unclaimed")
		}
	}
	if w.rnd.IntN(4) == 0 {
		q.unanswered = append(q.unanswered, b)
	} else {
		creel.Settle(b, nil)
	}
}

// answer tells that what was taken was taken.
func (w *world) answer() {
	for _, b := range w.spool.unanswered {
		creel.Settle(b, nil)
	}
	w.spool.unanswered = nil
}

// worlds are what lines look like in each, and the options for it.
var worlds = []diskQueue{
	{"format: text", func(_ *rand.Rand, line string) string { return line + "\n" }, nil, nil},
	{"multiline: {line_start_pattern: '^line'}", func(rnd *rand.Rand, line string) string {
		return line + strings.Repeat("\n more", rnd.IntN(4)) + "\n"
	}, nil, nil},
	{"format: cri", func(rnd *rand.Rand, line string) string {
		n := rnd.IntN(len(line))
		from := [...]string{"stdout", "stderr"}[rnd.IntN(2)]
		if rnd.IntN(2) == 0 {
			return fmt.Sprintf("%s %s F %s\n", t0, from, line)
		}
		return fmt.Sprintf("%s %s P %s\n%s %s F %s\n", t0, from, line[:n], t0, from, line[n:])
	}, nil, nil},
	{"max_line_size: 64", func(_ *rand.Rand, line string) string { return line[:min(64, len(line))] + "\n" }, nil, nil},
}

// TestRandomCrashes: with a disk queue each line arrives once, whatever happens to files, and however often the collector
// is killed.
func TestRandomCrashes(t *testing.T) {
	needBoot(t)
	first, n := *seed, *runs
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	counts := map[string]int{}
	for run := range n {
		s := first + uint64(run)
		t.Run(fmt.Sprint("seed ", s), func(t *testing.T) {
			q := worlds[s%uint64(len(worlds))]
			q.books = books{}
			w := &world{t: t, rnd: rand.New(rand.NewPCG(s, 0)), dir: t.TempDir(), copy: s/4%2 == 1, watch: s%3 == 0, state: creel.Host{}.Ready().State,
				got: map[string]int{}, spare: map[string]int{}, counts: counts, spool: &q}
			w.must(os.Mkdir(filepath.Join(w.dir, "behind"), 0o700))
			w.relink()
			w.start()
			w.run(80)
			w.answer()
			w.judge()
		})
	}
	t.Log(counts)
	if n < 8 {
		return
	}
	for _, what := range []string{"rename", "late", "later", "copytruncate", "link", "kill", "stop", "taken"} {
		if counts[what] == 0 {
			t.Errorf("%s did not happen", what)
		}
	}
}

// TestEdges: of what is said to be taken only that is passed over which can be true of the file.
func TestEdges(t *testing.T) {
	needBoot(t)
	const text = "0123456\n8901234\n6789012\n4567890\n" // lines of eight bytes
	long := strings.Repeat("x", 40) + "\nend\n"
	f := func(options, text string, taken []creel.Range, want ...string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "a.log")
		write(t, path, []byte(text))
		options += ", include: [" + path + "]"
		s := creel.Host{}.Ready().State
		r := newRig(t, s, options)
		var saved creel.State
		r.onBatch = func(*creel.Batch) { saved = copyOf(t, s) }
		r.step(0)
		life := r.c.tails[0].life
		r = newRig(t, saved, options, func(source uint64) []creel.Range {
			if source != life {
				t.Errorf("asked for %d, not %d", source, life)
			}
			return taken
		})
		r.step(0)
		r.want(want...)
		if at := r.c.tails[0].acked.committed; at != int64(len(text)) {
			t.Errorf("%v: the position is %d", taken, at)
		}
	}
	all := []string{"0123456", "8901234", "6789012", "4567890"}
	plain := "read_size: 1KiB"
	f(plain, text, nil, all...)
	f(plain, text, []creel.Range{{From: 0, To: 8}}, all[1:]...)
	f(plain, text, []creel.Range{{From: 8, To: 16}, {From: 24, To: 32}}, all[0], all[2])
	f(plain, text, []creel.Range{{From: 8, To: 20}}, all...)                     // it ends within a line
	f(plain, text, []creel.Range{{From: 4, To: 16}}, all...)                     // it begins within a line
	f(plain, text, []creel.Range{{From: 8, To: 40}}, all...)                     // it ends beyond the file
	f(plain, text, []creel.Range{{From: 16, To: 16}, {From: 24, To: 8}}, all...) // nothing
	f(plain, text, []creel.Range{{From: 8, To: 16}, {From: 24, To: 1 << 63}}, all[0], all[2], all[3])
	f(plain, text, []creel.Range{{From: 0, To: 32}})
	f("max_line_size: 16", long, []creel.Range{{From: 16, To: 32}}, strings.Repeat("x", 16)+" [creel.line start]", "xxxxxxxx [creel.line end]", "end")
	f("max_line_size: 16", long, []creel.Range{{From: 0, To: 8}}, strings.Repeat("x", 16)+" [creel.line start]", strings.Repeat("x", 16)+" [creel.line middle]", "xxxxxxxx [creel.line end]", "end")
}

// TestRewritten: nothing holds of a file any more when it was rewritten, even if it begins as it did.
func TestRewritten(t *testing.T) {
	const head = "a header that is always the same\n"
	old, young := head+"line 1\nline 2\nline 3\n", head+"LINE 1\nLINE 2\nLINE 3\nLINE 4\n"
	for _, killed := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "a.log")
		options := "fingerprint_size: 16, include: [" + path + "]"
		write(t, path, []byte(old[:len(old)-7]))
		s, k := creel.Host{}.Ready().State, books{}
		r := newRig(t, s, options)
		r.onBatch = func(b *creel.Batch) { k.add(b.Parts()) }
		r.step(0)
		if err := r.c.save(); err != nil {
			t.Fatal(err)
		}
		life := r.c.tails[0].life
		write(t, path, []byte("line 3\n"))
		r.step(0)
		r.take()
		if got := k.taken(life); len(got) != 1 || got[0].To != uint64(len(old)) {
			t.Fatalf("taken is %v", got)
		}
		if err := os.WriteFile(path, []byte(young), 0o600); err != nil { // truncates it
			t.Fatal(err)
		}
		if killed {
			r = newRig(t, copyOf(t, s), options, k.taken)
		}
		r.step(time.Second)
		r.want(strings.Split(strings.TrimSpace(young), "\n")...)
		if r.c.tails[0].life == life {
			t.Error("it is said to be the same source")
		}
	}
}

// TestOtherBoot: nothing is believed of what was taken before the machine was started anew.
func TestOtherBoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	write(t, path, []byte("line\n"))
	options := "include: [" + path + "]"
	s, k := creel.Host{}.Ready().State, books{}
	r := newRig(t, s, options)
	r.c.boot = "another"
	r.onBatch = func(b *creel.Batch) { k.add(b.Parts()) }
	r.step(0)
	r.want("line")
	r = newRig(t, copyOf(t, s), options, k.taken)
	r.step(0)
	r.want("line")
}

// countingState counts how often it is saved.
type countingState struct {
	creel.State
	saves int
}

func (s *countingState) Save(data []byte, version uint64) (uint64, error) {
	s.saves++
	return s.State.Save(data, version)
}

// TestNewFilesShareSaves: each file is known before its first line is sent, and a thousand are with a few saves.
func TestNewFilesShareSaves(t *testing.T) {
	const files = 1000
	dir := t.TempDir()
	for i := range files {
		write(t, filepath.Join(dir, fmt.Sprintf("%d.log", i)), []byte("line\n"))
	}
	s := &countingState{State: creel.Host{}.Ready().State}
	r := newRig(t, s, "max_open_files: 100, include: ["+dir+"/*.log]")
	r.onBatch = func(b *creel.Batch) {
		data, _, err := s.Load()
		if p := b.Parts(); err != nil || len(p) != 1 || !strings.Contains(string(data), fmt.Sprintf(`"life":%d,`, p[0].Source)) {
			t.Fatalf("%v is sent, and not saved", p)
		}
	}
	for range 2 * files / 100 {
		r.step(time.Second)
	}
	if n := len(r.take()); n != files {
		t.Errorf("%d lines of %d", n, files)
	}
	if s.saves > 2*files/100+2 { // those that there was no room to open have no fingerprint at first
		t.Errorf("%d saves", s.saves)
	}
	t.Logf("%d saves for %d files", s.saves, files)
}

// TestHurry: a save is asked for when much was acknowledged since the last.
func TestHurry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	write(t, path, []byte(strings.Repeat(strings.Repeat("x", 1023)+"\n", 3*saveBytes>>10)))
	s := &countingState{State: creel.Host{}.Ready().State}
	r := newRig(t, s, "include: ["+path+"]")
	acked := int64(0)
	r.onBatch = func(b *creel.Batch) {
		p := b.Parts()[0]
		if acked = max(acked, r.c.unsaved); int64(p.To-p.From) > int64(r.c.cfg.ReadSize) {
			t.Errorf("a part of %d bytes", p.To-p.From)
		}
	}
	r.now = r.now.Add(time.Second)
	r.c.poll(r.now)
	for more := true; more; { // not round: it would read on while nobody saves
		var err error
		if more, err = r.c.turn(t.Context(), r.c.tails[0], r, r.now); err != nil {
			t.Fatal(err)
		}
		more = saveIfUrgent(r.c) || more
	}
	if s.saves != 1+3 || acked > saveBytes {
		t.Errorf("%d saves, and %d bytes at most that were not", s.saves, acked)
	}
}

// TestTakenAtRandom is FuzzTaken with text whose lines are of two streams, in parts that are interleaved, and groups.
func TestTakenAtRandom(t *testing.T) {
	needBoot(t)
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	claimed, taken, interleaved := 0, 0, 0
	for s := first; s < first+200; s++ {
		rnd := rand.New(rand.NewPCG(s, 1))
		options := modes[rnd.IntN(len(modes))]
		var b strings.Builder
		for i := range 1 + rnd.IntN(30) {
			word := fmt.Sprintf("%s%d %s", [...]string{"A", " ", "b"}[rnd.IntN(3)], i, strings.Repeat("x", rnd.IntN(20)))
			from := [...]string{"stdout", "stderr"}[rnd.IntN(2)]
			switch {
			case strings.Contains(options, "docker"):
				fmt.Fprintf(&b, "{\"log\":\"%s%s\",\"stream\":\"%s\"}\n", word, [...]string{"", `\n`}[rnd.IntN(2)], from)
			case strings.Contains(options, "format"):
				fmt.Fprintf(&b, "%s %s %c %s\n", t0, from, "PF"[rnd.IntN(2)], word)
			default:
				b.WriteString(word + [...]string{"\n", "\r\n", ";\n"}[rnd.IntN(3)])
			}
		}
		text := b.String()
		if strings.Contains(options, "utf-16") {
			text = wideText(text)
		}
		c, n := checkTaken(t, options, []byte(text), 1+rnd.IntN(150), rnd.Uint64())
		claimed, taken = claimed+c, taken+n
		if c == 0 {
			interleaved++
		}
		if t.Failed() {
			t.Fatalf("seed %d", s)
		}
	}
	if t.Logf("%d batches were claimed, %d were taken; of %d texts nothing was claimed", claimed, taken, interleaved); claimed == 0 || taken == 0 {
		t.Error("nothing was taken")
	}
}
