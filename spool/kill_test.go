package spool

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const childEnv = "CREEL_SPOOL_TEST_CHILD"

// TestMain lets the test be its own victim.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// child appends for ever, takes and acknowledges, and says on stdout what it was promised.
func child(dir string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	first, _ := strconv.Atoi(os.Getenv(childEnv + "_FIRST"))
	q, err := Open(dir, Options{SegmentSize: 256 << 10, SyncEvery: 5 * time.Millisecond})
	if err != nil {
		fail(err)
	}
	go func() {
		for {
			it, err := q.Next(ctx)
			if err != nil {
				fail(err)
			}
			n := number(failing{}, it.Item)
			if n%3 == 0 {
				fmt.Printf("take %d\n", n)
				q.Ack(it.Seq)
				fmt.Printf("ack %d\n", n)
			}
		}
	}()
	for n := first; ; n++ {
		how := Written
		if n%20 == 0 {
			how = Synced
		}
		if _, err := q.Append(ctx, item(n, 200+n*31%20000), how); err != nil {
			fail(err)
		}
		fmt.Printf("append %d\n", n)
	}
}

type failing struct{}

func (failing) Helper() {}
func (failing) Fatalf(f string, a ...any) {
	fmt.Fprintf(os.Stderr, f, a...)
	os.Exit(1)
}

// TestKill kills a process in the middle of its work, again and again, on the real file system: all that it was promised
// is there, and nothing that it acknowledged.
func TestKill(t *testing.T) {
	rounds := 6
	if *torture {
		rounds = 300
	}
	self, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	dir := filepath.Join(t.TempDir(), "spool")
	there, gone := map[int]bool{}, map[int]bool{}
	w := newOracle(nil, Options{}) // of parts: what was promised is known for ever
	maybe, next, total := map[int]bool{}, 0, 0
	for round := range rounds {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childEnv+"="+dir, fmt.Sprintf("%s_FIRST=%d", childEnv, next))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := 0
		for s := bufio.NewScanner(out); s.Scan(); lines++ {
			if lines == 0 {
				time.AfterFunc(time.Duration(rand.IntN(60))*time.Millisecond, func() { cmd.Process.Kill() })
			}
			var word string
			var n int
			if k, _ := fmt.Sscan(s.Text(), &word, &n); k != 2 {
				continue
			}
			switch word {
			case "append":
				there[n], next = true, n+1
				w.known[n] = true
			case "take":
				maybe[n] = true
			case "ack":
				gone[n] = true
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("the child ended by itself: %v", err)
		}
		total += lines
		next++ // one may be written and not yet told
		q := open(t, dir, Options{SegmentSize: 256 << 10})
		for n := w.n; n < next; n++ {
			w.tried[n] = true
		}
		w.q, w.n = q, next
		w.checkParts(t)
		w.balance(t)
		got := map[int]bool{}
		taken := drain(t, q)
		for _, it := range taken {
			got[number(t, it.Item)] = true
		}
		for n := range there {
			if !got[n] && !maybe[n] {
				t.Fatalf("round %d: item %d of %d is lost: %+v", round, n, next, q.Stats())
			}
		}
		for n := range got {
			if gone[n] {
				t.Fatalf("round %d: item %d was acknowledged, and came again", round, n)
			}
		}
		if s := q.Stats(); s.Lost > 0 {
			t.Fatalf("round %d: %+v", round, s)
		}
		if round%4 == 3 { // or the backlog would grow for ever
			for _, it := range taken {
				n := number(t, it.Item)
				q.Ack(it.Seq)
				gone[n], maybe[n] = true, true
				delete(there, n)
			}
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if total < rounds || len(there)+len(gone) == 0 {
		t.Errorf("only %d promises in %d lives", total, rounds)
	}
	t.Logf("%d promises in %d lives, %d items acknowledged", total, rounds, len(gone))
}
