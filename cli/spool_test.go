package cli_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/cli"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/spool"
)

// creelRun runs the program in this process.
func creelRun(args ...string) (code int, out, err string) {
	var stdout, stderr bytes.Buffer
	code = cli.Main(cli.Program{Name: "creel"}, args, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// expect runs a command line, of words, and checks its exit code and that all texts are in what it prints.
func expect(t *testing.T, code int, line string, texts ...string) string {
	t.Helper()
	got, out, err := creelRun(strings.Fields(line)...)
	if got != code {
		t.Errorf("creel %s: exit code %d, want %d\n%s%s", line, got, code, out, err)
	}
	for _, want := range texts {
		if !strings.Contains(out+err, want) {
			t.Errorf("creel %s: %q is not in\n%s%s", line, want, out, err)
		}
	}
	return out
}

func logRequest(n int) []byte {
	return otlp.Append(nil, creel.NewLogs([]creel.Log{{Body: creel.String(fmt.Sprintf("record %d", n)), Severity: creel.SeverityError}}))
}

// fillSpool makes the spool of exporter id in a state directory: n items of one log, the first settled.
func fillSpool(t *testing.T, data, id string, n int) (dir string, q *spool.Queue) {
	t.Helper()
	dir = filepath.Join(data, "spool", url.PathEscape(id))
	q, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		it := spool.Item{
			ID: spool.ID{15: byte(i + 1)}, Signal: byte(creel.Logs), Codec: 1, Records: 1, Payload: logRequest(i),
			Parts: []spool.Part{{Source: 0xab, From: uint64(i), To: uint64(i + 1)}},
		}
		if _, err := q.Append(context.Background(), it, spool.Synced); err != nil {
			t.Fatal(err)
		}
	}
	first, ok, err := q.TryNext()
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	q.Ack(first.Seq)
	return dir, q
}

func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "creel")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestSpoolCommands(t *testing.T) {
	data := filepath.Join(shortDir(t), "data")
	dir, q := fillSpool(t, data, "otlp/hub", 4)
	letters, err := deadletter.Open(filepath.Join(data, "deadletters"), deadletter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := letters.Put(deadletter.Letter{Exporter: "otlp/hub", Pipeline: "p", Signal: creel.Logs, Records: 1, Reason: "refused", Payload: logRequest(9)}); err != nil {
		t.Fatal(err)
	}

	// While an agent has them all but repair work.
	expect(t, 0, "spool ls "+data, "otlp/hub", "deadletters", "RECORDS")
	var list struct{ Spools []map[string]any }
	if err := json.Unmarshal([]byte(expect(t, 0, "spool ls -o json "+data)), &list); err != nil || len(list.Spools) != 2 {
		t.Errorf("got %+v, %v", list, err)
	} else if s := list.Spools[0]; s["records"] != 3.0 || s["items"] != 3.0 || s["oldest"] == nil {
		t.Errorf("got %+v", s)
	}
	if out := expect(t, 0, "spool ls -o name "+data); out != "otlp/hub\ndeadletters\n" {
		t.Errorf("got %q", out)
	}
	expect(t, 0, "spool ls -o yaml "+dir, "name: otlp/hub")
	expect(t, 0, "spool inspect "+dir, "4 items; records: 3 wait, 1 settled, 0 damaged, 0 lost before", "not closed")
	expect(t, 0, "spool inspect --items "+dir, "settled 00000000000000000000000000000001", "waits   00000000000000000000000000000004")
	lines := expect(t, 0, "spool inspect --items -o json "+data, `"parts":[{"source":"00000000000000ab","from":3,"to":4}]`)
	for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	out := expect(t, 0, "spool export "+data, "written: 4 requests with 4 records")
	for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
		b, err := otlp.ParseJSON(creel.Logs, []byte(line), nil)
		if err != nil || b.Logs()[0].Body.Str() != fmt.Sprintf("record %d", []int{1, 2, 3, 9}[i]) {
			t.Errorf("line %d is %s, %v", i, line, err)
		}
	}
	expect(t, 0, "spool export --all "+dir, "record 0", "written: 4 requests with 4 records")
	expect(t, 0, "spool export --signal traces "+dir, "0 requests with 0 records")
	expect(t, 1, "spool repair "+dir, "spool is in use", "stop the agent that has it")
	if out := expect(t, 0, "spool export --format proto --signal logs "+dir); !protoHolds(t, out, 3) {
		t.Errorf("got %q", out)
	}
	file := filepath.Join(data, "out")
	expect(t, 0, "spool export -O "+file+" "+dir)
	if text, err := os.ReadFile(file); err != nil || bytes.Count(text, []byte("\n")) != 3 {
		t.Errorf("wrote %q, %v", text, err)
	}
	expect(t, 1, "spool export -O "+file+" "+dir, "file exists")

	// What means nothing.
	expect(t, 5, "spool ls "+filepath.Join(data, "nowhere"), "no such file")
	expect(t, 5, "spool repair "+t.TempDir(), "there is no spool in")
	expect(t, 2, "spool ls", "accepts 1 arg")
	expect(t, 2, "spool ls -o xml "+dir, `unknown output "xml"`)
	expect(t, 2, "spool inspect -o xml "+dir, `unknown output "xml"`)
	expect(t, 2, "spool export --format xml "+dir, `unknown format "xml"`)
	expect(t, 2, "spool export --signal smoke "+dir, `unknown signal "smoke"`)
	expect(t, 2, "spool export --format proto "+dir, "needs --signal")

	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if err := letters.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, 0, "spool repair "+data, "otlp/hub: noted as lost: 0 records; cut off: 0 bytes; waiting: 3 records")
}

func protoHolds(t *testing.T, text string, n int) bool {
	t.Helper()
	for b := []byte(text); len(b) > 0; n-- {
		size, width := binary.Uvarint(b)
		if width <= 0 || size > uint64(len(b)-width) {
			return false
		}
		if _, err := otlp.Parse(creel.Logs, b[width:width+int(size)], nil); err != nil {
			return false
		}
		b = b[width+int(size):]
	}
	return n == 0
}

// Damage is told, repaired and then counted once; what a newer version has written is left as it is.
func TestSpoolDamage(t *testing.T) {
	dir, q := fillSpool(t, t.TempDir(), "otlp/hub", 4)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	if len(files) != 1 {
		t.Fatalf("there are %v", files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	sound := bytes.Clone(text)
	text[bytes.Index(text, []byte("record 2"))] = 'R'
	if err := os.WriteFile(files[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, 1, "spool ls "+dir, "there is damage; creel spool inspect tells where")
	expect(t, 1, "spool inspect "+dir, "damaged: 1 record", "damage: "+filepath.Base(files[0]))
	expect(t, 1, "spool export "+dir, "record 1", "record 3", "2 requests with 2 records", "not written: 1 record, which the disk has damaged, and 0 records")
	expect(t, 0, "spool repair --dry-run "+dir, "would note as lost: 1 record;", "waiting: 2 records")
	expect(t, 1, "spool inspect "+dir)
	expect(t, 0, "spool repair "+dir, "noted as lost: 1 record;", "waiting: 2 records")
	expect(t, 0, "spool inspect "+dir, "2 wait, 1 settled, 0 damaged, 1 lost before")
	expect(t, 0, "spool ls "+dir)

	binary.LittleEndian.PutUint32(sound[8:], 99) // the version; the checksum of the header follows
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(sound[12:], crc32.Update(crc32.Checksum(sound[:12], table), table, sound[16:64]))
	if err := os.WriteFile(files[0], sound, 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	for _, line := range []string{"spool inspect ", "spool ls ", "spool export ", "spool repair ", "spool repair --dry-run "} {
		expect(t, 1, line+dir, "newer version of creel")
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("a newer version's spool was touched: %s, %s", before, after)
	}
}

// snapshot is all files of a directory, and what is in them.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %x\n", e.Name(), text)
	}
	return all.String()
}
