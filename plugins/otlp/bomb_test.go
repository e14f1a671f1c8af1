package otlp_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
)

// TestBombs: what is compressed beyond all measure is refused, however small it is; and zstd that wants a large window. What
// compresses well, as logs do, is taken.
func TestBombs(t *testing.T) {
	out := &sink{settle: takeAll}
	grpcAddress, httpAddress := serve(t, "", out)
	conn, err := grpc.NewClient(grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	var noise, log strings.Builder
	for range 1 << 20 {
		noise.WriteByte(byte('a' + rng.IntN(26)))
	}
	text := noise.String()
	for log.Len() < 2<<20 { // of 80 bytes, 4 are new
		log.WriteString(text[log.Len()/80*4:][:4] + strings.Repeat("GET /cart ", 8)[4:])
	}
	gz := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	zs := func(window int) func(io.Writer) io.WriteCloser {
		return func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			return z
		}
	}
	for _, c := range []struct {
		name, text, encoding string
		zip                  func(io.Writer) io.WriteCloser
		want                 int
		answer               string
	}{
		{"bomb", strings.Repeat("x", 3<<20), "gzip", gz, 413, "more than 100 : 1"},
		{"bomb", strings.Repeat("x", 3<<20), "zstd", zs(1 << 20), 413, "more than 100 : 1"},
		{"small bomb", strings.Repeat("x", 900<<10), "gzip", gz, 200, ""},
		{"small bomb", strings.Repeat("x", 900<<10), "zstd", zs(1 << 20), 200, ""},
		{"log", log.String(), "gzip", gz, 200, ""},
		{"log", log.String(), "zstd", zs(1 << 20), 200, ""},
		{"largest window", noise.String(), "zstd", zs(8 << 20), 200, ""},
		{"larger window", noise.String(), "zstd", zs(16 << 20), 400, "window size exceeded"},
	} {
		body, err := logsRequest(t, c.text).MarshalProto()
		if err != nil {
			t.Fatal(err)
		}
		var zipped bytes.Buffer
		w := c.zip(&zipped)
		for part := range len(body) >> 16 { // a stream: else a small window is enough for it
			if _, err := w.Write(body[part<<16 : min((part+1)<<16, len(body))]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Write(body[len(body)>>16<<16:]); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequest("POST", "http://"+httpAddress+"/v1/logs", &zipped)
		if err != nil {
			t.Fatal(err)
		}
		ratio := len(body) / zipped.Len()
		req.Header.Set("Content-Type", "application/x-protobuf")
		req.Header.Set("Content-Encoding", c.encoding)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.want || !strings.Contains(string(answer), c.answer) {
			t.Errorf("%s, %s, %d : 1: answered %s %q", c.name, c.encoding, ratio, resp.Status, answer)
		}
		if strings.Contains(c.name, "bomb") != (ratio > 100) {
			t.Errorf("%s, %s: compressed %d : 1", c.name, c.encoding, ratio)
		}
		if out.got() == "" != (c.want != 200) {
			t.Errorf("%s, %s: the wrong thing came through", c.name, c.encoding)
		}
		if strings.HasSuffix(c.name, "window") {
			continue // over gRPC it is the exporter's
		}
		_, err = plogotlp.NewGRPCClient(conn).Export(t.Context(), logsRequest(t, c.text), grpc.UseCompressor(c.encoding))
		st := status.Convert(err)
		if (st.Code() == codes.OK) != (c.want == 200) || !strings.Contains(st.Message(), c.answer) || len(st.Details()) > 0 {
			t.Errorf("%s, %s: gRPC answers %v", c.name, c.encoding, err)
		}
		if out.got() == "" != (c.want != 200) {
			t.Errorf("%s, %s over gRPC: the wrong thing came through", c.name, c.encoding)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
