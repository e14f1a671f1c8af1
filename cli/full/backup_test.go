package full

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/cli"
)

// archiveOf makes a tar archive that ends as a backup does.
func archiveOf(t *testing.T, size int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, data []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add("backup.json", bytes.Repeat([]byte("x"), size))
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	add("end.sha256", []byte(hex.EncodeToString(sum[:])+"\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestBackup: only what has come whole becomes a file, which nobody else can read.
func TestBackup(t *testing.T) {
	good := archiveOf(t, 100_000)
	var send func(w http.ResponseWriter)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != api.Prefix+"/backup" || r.Header.Get("Authorization") != "Bearer x" {
			t.Errorf("asked for %s", r.URL)
		}
		send(w)
	}))
	defer s.Close()
	sends := func(parts ...[]byte) {
		send = func(w http.ResponseWriter) { _, _ = w.Write(bytes.Join(parts, nil)) } // the client reads it all
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "hub.tar")
	run := func(code int, want string, args ...string) string {
		t.Helper()
		var out, log bytes.Buffer
		got := cli.Main(cli.Program{Name: "creel", More: Commands}, append([]string{"backup", "--hub", s.URL, "--token", "x"}, args...), &out, &log)
		if got != code || !strings.Contains(log.String(), want) {
			t.Errorf("%q: exit code %d, not %d with %q\n%s", args, got, code, want, &log)
		}
		return out.String()
	}
	bad := bytes.Clone(good)
	bad[1000] ^= 1
	for _, parts := range [][][]byte{{}, {good[:len(good)-2048]}, {good[:len(good)-1]}, {good, good[:512]}, {bad}} {
		sends(parts...)
		run(cli.ExitNo, "it is not whole", file)
	}
	send = func(w http.ResponseWriter) {
		_, _ = w.Write(good[:50_000]) // likewise
		panic(http.ErrAbortHandler)
	}
	run(cli.ExitNo, "unexpected EOF", file)
	send = func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"code":"forbidden","message":"that needs an admin"}`)) // likewise
	}
	run(cli.ExitForbidden, "that needs an admin", file)
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("left %v, %v", list, err)
	}
	sends(good)
	run(0, "wrote "+file+": 100.5KiB", file)
	info, err := os.Stat(file)
	if text, readErr := os.ReadFile(file); err != nil || readErr != nil || info.Mode().Perm() != 0o600 || !bytes.Equal(text, good) {
		t.Errorf("%v, %v, %v", info, err, readErr)
	}
	run(cli.ExitUsage, "say --force", file)
	run(0, "wrote", file, "--force")
	if out := run(0, "", "-"); out != string(good) {
		t.Errorf("standard output has %d bytes, not %d", len(out), len(good))
	}
}

// TestRestore: what is no backup changes nothing.
func TestRestore(t *testing.T) {
	data := filepath.Join(t.TempDir(), "hub")
	run := func(code int, want, file string) {
		t.Helper()
		var out bytes.Buffer
		if got := cli.Main(cli.Program{Name: "creel", More: Commands}, []string{"restore", file, "--data", data}, &out, &out); got != code || !strings.Contains(out.String(), want) {
			t.Errorf("exit code %d, not %d with %q\n%s", got, code, want, &out)
		}
	}
	run(cli.ExitUsage, "no such file", filepath.Join(t.TempDir(), "none.tar"))
	run(cli.ExitNo, "no backup of a hub", write(t, "x.tar", "no backup"))
	if _, err := os.Stat(data); err == nil {
		t.Error("there is a state directory now")
	}
}
