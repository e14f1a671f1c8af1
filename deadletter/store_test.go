package deadletter_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/spool"
)

const childEnv = "CREEL_DEADLETTER_TEST_CHILD"

// TestMain lets the test be its own victim.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		s, err := deadletter.Open(dir, deadletter.Options{})
		for n := 0; err == nil; n++ {
			if err = s.Put(letter(n, 100)); err == nil {
				fmt.Println("put", n) // it is promised
			}
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// letter is the n-th letter: of 1 + n%3 logs of about so many bytes each, refused by one of two exporters.
func letter(n, size int) deadletter.Letter {
	logs := make([]creel.Log, 1+n%3)
	for i := range logs {
		logs[i].Body = creel.String(fmt.Sprintf("letter %d record %d %s", n, i, strings.Repeat("x", size)))
	}
	return deadletter.Letter{
		Exporter: fmt.Sprintf("otlp/%d", n%2), Pipeline: "p", Signal: creel.Logs, Records: len(logs),
		Reason: "refused", Answer: fmt.Sprintf("letter %d is bad", n), Payload: otlp.Append(nil, creel.NewLogs(logs)),
	}
}

func open(t testing.TB, dir string, o deadletter.Options) *deadletter.Store {
	t.Helper()
	o.Log = func(s string) { t.Log(s) }
	s, err := deadletter.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *deadletter.Store, letters ...deadletter.Letter) {
	t.Helper()
	for _, l := range letters {
		if err := s.Put(l); err != nil {
			t.Fatal(err)
		}
	}
}

// answers lists what waits by its answers, and checks that all of a letter is as it was put.
func answers(t testing.TB, list func(func(deadletter.Letter) error) error) (all []string) {
	t.Helper()
	last := -1
	if err := list(func(l deadletter.Letter) error {
		var n int
		if _, err := fmt.Sscanf(l.Answer, "letter %d", &n); err != nil {
			t.Fatalf("letter %+v: %v", l, err)
		}
		want := letter(n, 0)
		want.Payload = l.Payload
		if time.Since(l.Time) > time.Hour || int(l.Seq) <= last {
			t.Errorf("letter %d is %d of %v", n, l.Seq, l.Time)
		}
		last = int(l.Seq)
		want.Seq, want.Time = l.Seq, l.Time
		if !reflect.DeepEqual(l, want) {
			t.Errorf("got %+v, want %+v", l, want)
		}
		b, err := l.Batch(nil)
		if err != nil || b.Len() != l.Records || !strings.HasPrefix(b.Logs()[0].Body.Str(), fmt.Sprintf("letter %d record 0 x", n)) {
			t.Errorf("letter %d holds %v, %v", n, b, err)
		}
		all = append(all, l.Answer)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLetters(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, deadletter.Options{})
	var want []string
	for n := range 10 {
		put(t, s, letter(n, 10))
		want = append(want, letter(n, 10).Answer)
	}
	if got := answers(t, s.List); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if got := answers(t, func(each func(deadletter.Letter) error) error { return deadletter.List(dir, each) }); !reflect.DeepEqual(got, want) {
		t.Errorf("another process sees %v", got)
	}
	if _, err := deadletter.Open(dir, deadletter.Options{}); !errors.Is(err, spool.ErrInUse) {
		t.Errorf("a second store: %v", err)
	}
	heads, err := s.Select(deadletter.Filter{Exporter: "otlp/1"})
	if err != nil || len(heads) != 5 {
		t.Fatalf("selected %v, %v", heads, err)
	}
	if none, err := s.Select(deadletter.Filter{Since: time.Now()}); err != nil || len(none) != 0 {
		t.Errorf("selected %v, %v", none, err)
	}
	l, err := s.Get(heads[1].Seq)
	if err != nil || l.Answer != want[3] || l.Records != heads[1].Records || !l.Time.Equal(heads[1].Time) || heads[1].Exporter != l.Exporter {
		t.Errorf("got %+v of %+v, %v", l, heads[1], err)
	}

	// What is dropped is gone, at once and after the next start; and so that others see it.
	if err := s.Drop(heads[1].Seq, heads[2].Seq); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(heads[1].Seq, heads[3].Seq); !errors.Is(err, deadletter.ErrNotFound) {
		t.Errorf("dropped twice: %v", err)
	}
	if _, err := s.Get(heads[2].Seq); !errors.Is(err, deadletter.ErrNotFound) {
		t.Errorf("got what was dropped: %v", err)
	}
	want = append(append(want[:3:3], want[4]), want[6], want[8], want[9])
	for range 2 {
		if got := answers(t, s.List); !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if got := answers(t, func(each func(deadletter.Letter) error) error { return deadletter.List(dir, each) }); !reflect.DeepEqual(got, want) {
			t.Errorf("another process sees %v", got)
		}
		if st := s.Stats(); st.Records != 1+2+3+2+1+3+1 || st.Dropped != 0 || st.Bytes == 0 || st.Oldest.IsZero() || st.Err != nil {
			t.Errorf("stats are %+v", st)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{"put": s.Put(letter(1, 1)), "drop": s.Drop(1), "list": s.List(nil)} {
			if err == nil {
				t.Errorf("%s works when it is closed", what)
			}
		}
		s = open(t, dir, deadletter.Options{})
	}

	// The answer is cut, whole runes only; a letter of any bytes is kept.
	long := letter(0, 1)
	long.Answer = strings.Repeat("ä", 3000)[1:]
	long.Payload = []byte("no request")
	put(t, s, long)
	heads, _ = s.Select(deadletter.Filter{})
	l, err = s.Get(heads[len(heads)-1].Seq)
	if err != nil || len(l.Answer) > 4096 || len(l.Answer) < 4090 || strings.Trim(l.Answer, "ä") != "" || string(l.Payload) != "no request" {
		t.Errorf("got %d bytes of answer: %v", len(l.Answer), err)
	}
	if _, err := l.Batch(nil); err == nil {
		t.Error("what is no request was read")
	}
}

func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	promised := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if promised++; promised == 100 {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if promised < 100 {
		t.Fatalf("only %d were promised", promised)
	}
	s := open(t, dir, deadletter.Options{})
	got := answers(t, s.List)
	if len(got) < promised || len(got) > promised+1 {
		t.Errorf("%d wait, %d were promised", len(got), promised)
	}
	for n, a := range got {
		if a != letter(n, 0).Answer {
			t.Fatalf("letter %d is %q", n, a)
		}
	}
	put(t, s, letter(len(got), 1))
	if again := answers(t, s.List); len(again) != len(got)+1 {
		t.Errorf("%d wait after one more", len(again))
	}
}

// A damaged byte costs one letter, wherever it is.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, deadletter.Options{})
	const n = 6
	for i := range n {
		put(t, s, letter(i, 20))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(files) != 1 {
		t.Fatalf("there are %v, %v", files, err)
	}
	sound, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	hurt := 0
	for at := 0; at < len(sound); at += 7 {
		bad := bytes.Clone(sound)
		bad[at] ^= 0x10
		copyDir := t.TempDir()
		if err := os.WriteFile(filepath.Join(copyDir, filepath.Base(files[0])), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := answers(t, func(each func(deadletter.Letter) error) error { return deadletter.List(copyDir, each) }); len(got) < n-1 {
			t.Errorf("byte %d costs another process %d letters", at, n-len(got))
		}
		s := open(t, copyDir, deadletter.Options{})
		got := answers(t, s.List)
		if len(got) < n-1 {
			t.Errorf("byte %d costs %d letters", at, n-len(got))
		}
		if lost := s.Stats().Lost; (lost > 0) != (len(got) < n) && at < len(sound)-100 { // of the last one nobody knows
			t.Errorf("byte %d: %d letters are left, %d records are counted as lost", at, len(got), lost)
		}
		hurt += n - len(got)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if hurt == 0 {
		t.Error("nothing was damaged")
	}
}

// What is damaged while it waits is not found any more, and costs nothing else.
func TestDamageWhileOpen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, deadletter.Options{})
	for i := range 4 {
		put(t, s, letter(i, 200))
	}
	heads, err := s.Select(deadletter.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, []byte("letter 2 record 0"))
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil || at < 0 {
		t.Fatal(at, err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("L"), int64(at)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(heads[2].Seq); !errors.Is(err, deadletter.ErrNotFound) {
		t.Errorf("got a damaged letter: %v", err)
	}
	if got := answers(t, s.List); len(got) != 3 {
		t.Errorf("got %v", got)
	}
	if st := s.Stats(); st.Lost != 3 {
		t.Errorf("stats are %+v", st)
	}
}

// The bound is kept, the newest are kept, and what made room is counted.
func TestBound(t *testing.T) {
	for _, reopen := range []bool{false, true} {
		dir := t.TempDir()
		o := deadletter.Options{MaxSize: 1 << 20}
		s := open(t, dir, o)
		records, last, dropped := 0, 0, uint64(0)
		for n := range 400 {
			l := letter(n, 3000)
			records += l.Records
			put(t, s, l)
			last = n
			if st := s.Stats(); st.Bytes > o.MaxSize {
				t.Fatalf("after letter %d there are %d bytes", n, st.Bytes)
			}
			if reopen && n%50 == 49 {
				dropped += s.Stats().Dropped
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, dir, o)
			}
		}
		dropped += s.Stats().Dropped
		got := answers(t, s.List)
		if got[len(got)-1] != letter(last, 0).Answer || len(got) < 100 {
			t.Errorf("%d wait, the last is %q", len(got), got[len(got)-1])
		}
		for i, a := range got {
			if a != letter(last-len(got)+1+i, 0).Answer {
				t.Fatalf("letter %d from the end is %q", len(got)-i, a)
			}
		}
		if st := s.Stats(); st.Records+dropped != uint64(records) || dropped == 0 || st.Lost != 0 {
			t.Errorf("of %d records %+v, %d dropped", records, st, dropped)
		}
		size := int64(0)
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			if i, err := f.Info(); err == nil {
				size += i.Size()
			}
		}
		if size > o.MaxSize {
			t.Errorf("%d bytes are on disk", size)
		}
		if err := s.Put(letter(0, 2<<20)); !errors.Is(err, spool.ErrTooLarge) {
			t.Errorf("too large a letter: %v", err)
		}
	}
}

func TestFewLetters(t *testing.T) {
	s := open(t, t.TempDir(), deadletter.Options{MaxLetters: 20})
	for n := range 100 {
		put(t, s, letter(n, 1))
		if heads, err := s.Select(deadletter.Filter{}); err != nil || len(heads) > 20 || len(heads) < min(n+1, 17) {
			t.Fatalf("after %d letters %d wait: %v", n+1, len(heads), err)
		}
	}
	if got := answers(t, s.List); got[len(got)-1] != letter(99, 0).Answer || s.Stats().Dropped == 0 {
		t.Errorf("got %v, %+v", got, s.Stats())
	}
}

// Everybody at once: what was put is there until it is dropped, and nothing is there twice.
func TestConcurrent(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := open(t, t.TempDir(), deadletter.Options{MaxSize: 4 << 20})
	var wg sync.WaitGroup
	var puts, drops, gets atomic.Int64
	var writing atomic.Int32
	for w := range 3 {
		writing.Add(1)
		wg.Go(func() {
			defer writing.Add(-1)
			for n := range 150 {
				l := letter(w*1000+n, 50)
				if err := s.Put(l); err != nil {
					t.Error(err)
					return
				}
				puts.Add(int64(l.Records))
			}
		})
	}
	for w := range 2 {
		r := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			for writing.Load() > 0 {
				heads, err := s.Select(deadletter.Filter{})
				if err != nil {
					t.Error(err)
					return
				}
				for _, h := range heads {
					switch r.IntN(4) {
					case 0:
						if err := s.Drop(h.Seq); err == nil {
							drops.Add(int64(h.Records))
						} else if !errors.Is(err, deadletter.ErrNotFound) {
							t.Error(err)
						}
					default:
						l, err := s.Get(h.Seq)
						if err != nil && !errors.Is(err, deadletter.ErrNotFound) || err == nil && (l.Seq != h.Seq || l.Records != h.Records) {
							t.Errorf("got %+v of %+v, %v", l, h, err)
						}
						gets.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	left, seen := int64(0), map[string]bool{}
	if err := s.List(func(l deadletter.Letter) error {
		if seen[l.Answer] {
			t.Errorf("%s is there twice", l.Answer)
		}
		seen[l.Answer] = true
		left += int64(l.Records)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); left != puts.Load()-drops.Load() || st.Records != uint64(left) || drops.Load() == 0 || gets.Load() == 0 {
		t.Errorf("%d put, %d dropped, %d left; %+v", puts.Load(), drops.Load(), left, st)
	}
}
