package gate

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/creelhq/creel/control"
)

// FuzzServe: whatever is asked, the answer is a refusal that says why, nothing is written, and no token is spent.
func FuzzServe(f *testing.F) {
	w := newWorld(f)
	f.Cleanup(func() { w.gate.Close() })
	h, stranger := newHost().join(w, nil), newHost()
	good := control.EnrolRequest{Token: w.tokens.create(0, nil), Agent: stranger.id, Name: "n", CSR: stranger.csr()}
	f.Add("POST", control.EnrolPath, "application/json", []byte(toJSON(good)), false)
	f.Add("POST", control.EnrolPath, "application/json", []byte(`{"token":"creel_x","agent":"`+h.id+`","csr":"AAAA"}`), true)
	f.Add("POST", control.RenewPath, "application/json; charset=utf-8", []byte(`{"csr":"MIIB"}`), true)
	f.Add("POST", control.TokenPath, "application/json", []byte(`{"x":1}`), true)
	f.Add("PUT", "/v1/identity/../identity/token", "text/plain", []byte("\xff"), false)
	list, _, err := w.store.List(f.Context(), "")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, path, kind string, body []byte, known bool) {
		w.clock.pass(time.Minute) // no limit applies
		from := stranger
		if known {
			from = h
		}
		r := from.request(control.EnrolPath, string(body))
		r.Method, r.URL.Path = method, path
		r.Header.Set("Content-Type", kind)
		rec := httptest.NewRecorder()
		w.gate.ServeHTTP(rec, r)
		var refused control.Refusal
		if err := json.Unmarshal(rec.Body.Bytes(), &refused); err != nil {
			t.Fatalf("answered %q", rec.Body)
		}
		if rec.Code == http.StatusOK && known { // it may have renewed, or have a token
			return
		}
		if rec.Code < 400 || rec.Code >= 500 || refused.Code == "" || refused.Text == "" || refused.Code == control.Busy {
			t.Fatalf("answered %d %q", rec.Code, rec.Body)
		}
		if now, _, err := w.store.List(t.Context(), ""); err != nil || len(now) != len(list) || w.tokens.spent != 1 {
			t.Fatalf("there are %d entries, %d uses are spent, %v", len(now), w.tokens.spent, err)
		}
	})
}
