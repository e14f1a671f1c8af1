package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/otlp"
)

// fillLetters puts letters 0 to n-1, of two exporters.
func fillLetters(t *testing.T, data string, n int) *deadletter.Store {
	t.Helper()
	s, err := deadletter.Open(filepath.Join(data, "deadletters"), deadletter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for i := range n {
		if err := s.Put(deadletter.Letter{
			Exporter: fmt.Sprintf("otlp/%d", i%2), Pipeline: "web", Signal: creel.Logs, Records: 1, Reason: "refused",
			Answer: fmt.Sprintf("no. %d\x1b[2J\nand so on", i), Payload: logRequest(i),
		}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// desk is an agent's admin endpoint, as far as dead letters go.
func desk(t *testing.T, data string, s *deadletter.Store) {
	t.Helper()
	l, err := net.Listen("unix", agent.AdminSocket(data))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	(&agent.DeadLetters{Store: s, Log: slog.New(slog.DiscardHandler), Resend: func(_ context.Context, exporter string, _ deadletter.Letter) (<-chan error, error) {
		if exporter == "otlp/gone" {
			return nil, fmt.Errorf("there is no exporter %q", exporter)
		}
		safe := make(chan error, 1)
		safe <- nil
		return safe, nil
	}}).Register(mux)
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

func TestDeadletterCommands(t *testing.T) {
	for _, running := range []bool{false, true} {
		data := filepath.Join(shortDir(t), "data")
		s := fillLetters(t, data, 4)
		heads, err := s.Select(deadletter.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		id := func(i int) string { return fmt.Sprint(heads[i].Seq) }
		run := func(code int, line string, texts ...string) string {
			t.Helper()
			return expect(t, code, "deadletter "+line+" --data "+data, texts...)
		}
		if running {
			desk(t, data, s)
		} else {
			run(1, "drop "+id(0), "an agent has it, and does not answer")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		out := run(0, "ls", "ID", "otlp/1", "refused", `no. 3\x1b[2J…`)
		if strings.Contains(out, "\x1b") || strings.Contains(out, "so on") {
			t.Errorf("got %q", out)
		}
		if out := run(0, "ls --exporter otlp/0 -o name --since 1h"); out != id(0)+"\n"+id(2)+"\n" {
			t.Errorf("got %q", out)
		}
		var list agent.LetterList
		err = json.Unmarshal([]byte(run(0, "ls -o json --limit 1")), &list)
		if err != nil || len(list.Letters) != 1 || list.Total != 4 || list.Records != 4 || list.Letters[0].Bytes == 0 {
			t.Errorf("got %+v, %v", list, err)
		}
		run(0, "ls --limit 2", "the newest 2 of 4 letters")
		run(0, "ls -o yaml --since 2999-01-01T00:00:00Z", "letters: []")
		run(0, "show "+id(1)+" "+id(3), "exporter  otlp/1", `answer    no. 1\x1b[2J\nand so on`, "ERROR record 1", "ERROR record 3")
		var l agent.Letter
		if err := json.Unmarshal([]byte(run(0, "show -o json "+id(1))), &l); err != nil || l.ID != heads[1].Seq || l.Payload != nil {
			t.Errorf("got %+v, %v", l, err)
		} else if b, err := otlp.ParseJSON(creel.Logs, l.Request, nil); err != nil || b.Len() != 1 {
			t.Errorf("got %s, %v", l.Request, err)
		}
		run(5, "show "+id(1)+" 99", "record 1", "there is no dead letter 99")

		run(2, "drop", "which letters?")
		run(2, "drop --all 1", "which letters?")
		run(2, "drop 1 --exporter otlp/1", "goes with --all")
		run(2, "drop x", "an ID is a number")
		run(2, "ls --since soon", "read --since")
		run(2, "ls --limit 0", "--limit must be")
		run(2, "ls -o xml", `unknown output "xml"`)
		run(2, "drop --all --exporter otlp/0", "would be dropped for good: 2 letters with 2 records; say --yes")
		run(0, "drop "+id(0), "dropped: 1 letter\n")
		run(5, "drop "+id(0)+" "+id(1), "dropped: 1 letter\n", "there is no dead letter "+id(0))

		if running {
			run(5, "replay 99", "taken: 0 letters", "there is no dead letter 99")
			run(1, "replay --to otlp/gone "+id(2)+" "+id(3), `not taken: 2 letters with 2 records: there is no exporter "otlp/gone"`, "not taken: 2 of 2 letters; they stay")
			run(0, "replay "+id(2), "taken: 1 letter with 1 record\n")
		} else {
			run(3, "replay "+id(2), "only a running agent can send: start it")
			run(0, "drop "+id(2), "dropped: 1 letter\n")
		}
		if out := run(0, "ls -o name"); out != id(3)+"\n" {
			t.Errorf("left are %q", out)
		}
		run(0, "drop --all --yes", "dropped: 1 letter\n")
		if out := run(0, "ls -o name"); out != "" {
			t.Errorf("left are %q", out)
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	for _, line := range []string{"ls", "show 1", "drop 1", "drop --all --yes", "replay 1"} {
		expect(t, 3, "deadletter "+line+" --data "+none, "reach the agent at "+none)
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a directory was made")
	}
	empty := t.TempDir() // an agent that never had a letter
	expect(t, 0, "deadletter ls --data "+empty, "ID")
	expect(t, 5, "deadletter show 1 --data "+empty, "no dead letter 1")
	expect(t, 5, "deadletter drop 1 --data "+empty, "no dead letter 1")
}
