package series

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// This file answers together with other stores: queries see the series of all, and a store that does not answer becomes a
// warning. What stores tell each other at the path chunks is, for each series: a 1; how many labels, and for each the name and
// the value; how many chunks, and for each its encoding and its bytes. A 0 ends it. Numbers are uvarints, texts and bytes have
// their length before them.

// maxChunks is the bytes that a store tells another at most: what is not whole would make wrong sums.
const maxChunks = 48 << 20

// A Peer is another store, at another hub.
type Peer struct {
	Hub string // its id
	// Get asks it for a path below /api/v1, and returns the body of its answer.
	Get func(ctx context.Context, path string, q url.Values) ([]byte, error)
}

type peersKey struct{}

// With returns a context for requests to Handler that are answered together with peers.
func With(ctx context.Context, peers []Peer) context.Context {
	return context.WithValue(ctx, peersKey{}, peers)
}

func peersIn(ctx context.Context) []Peer {
	peers, _ := ctx.Value(peersKey{}).([]Peer)
	return peers
}

// joint is what queries ask: this store, and those in ctx.
func (s *Store) joint(ctx context.Context) storage.Queryable {
	peers := peersIn(ctx)
	if len(peers) == 0 {
		return s.db
	}
	return storage.QueryableFunc(func(from, to int64) (storage.Querier, error) {
		own, err := s.db.Querier(from, to)
		if err != nil {
			return nil, err
		}
		var others []storage.Querier
		for _, p := range peers {
			others = append(others, &remote{p, from, to})
		}
		return storage.NewMergeQuerier([]storage.Querier{own}, others, storage.ChainedSeriesMerge), nil
	})
}

// remote asks another store.
type remote struct {
	peer     Peer
	from, to int64
}

func (q *remote) Close() error { return nil }

func (q *remote) get(ctx context.Context, path string, form url.Values) ([]byte, error) {
	body, err := q.peer.Get(ctx, path, form)
	if err != nil {
		return nil, fmt.Errorf("hub %s did not answer: %w", q.peer.Hub, err)
	}
	return body, nil
}

// form says which series are meant, and of what time.
func (q *remote) form(from, to int64, matchers []*labels.Matcher) url.Values {
	form := url.Values{"start": {seconds(from)}, "end": {seconds(to)}}
	if len(matchers) > 0 {
		texts := make([]string, len(matchers))
		for i, m := range matchers {
			texts[i] = m.String()
		}
		form.Set("match[]", "{"+strings.Join(texts, ",")+"}")
	}
	return form
}

func seconds(ms int64) string { return string(appendSeconds(nil, ms)) }

// Select begins to ask at once; who looks at the first series waits for the answer.
func (q *remote) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	from, to, bare := q.from, q.to, false
	if hints != nil {
		from, to, bare = hints.Start, hints.End, hints.Func == "series"
	}
	form := q.form(from, to, matchers)
	if bare {
		form.Set("bare", "true")
	}
	s := &remoteSet{over: make(chan struct{}), at: -1}
	go func() {
		defer close(s.over)
		body, err := q.get(ctx, "chunks", form)
		if err == nil {
			s.list, err = decode(body)
		}
		s.err = err
	}()
	return s
}

func (q *remote) LabelNames(ctx context.Context, _ *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.names(ctx, "labels", matchers)
}

func (q *remote) LabelValues(ctx context.Context, name string, _ *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.names(ctx, "label/"+url.PathEscape(name)+"/values", matchers)
}

func (q *remote) names(ctx context.Context, path string, matchers []*labels.Matcher) ([]string, annotations.Annotations, error) {
	body, err := q.get(ctx, path, q.form(q.from, q.to, matchers))
	if err != nil {
		return nil, nil, err
	}
	var answer struct{ Data []string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, nil, fmt.Errorf("read the answer of hub %s: %w", q.peer.Hub, err)
	}
	slices.Sort(answer.Data)
	return answer.Data, nil, nil
}

// metadata returns what another store knows of metrics.
func (q *remote) metadata(ctx context.Context, form url.Values) (map[string][]metadata, error) {
	body, err := q.get(ctx, "metadata", form)
	if err != nil {
		return nil, err
	}
	var answer struct{ Data map[string][]metadata }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("read the answer of hub %s: %w", q.peer.Hub, err)
	}
	return answer.Data, nil
}

// jointMetadata adds what other stores know, all asked at the same time.
func (s *Store) jointMetadata(r *http.Request, data map[string][]metadata, most int) (warnings []string) {
	peers := peersIn(r.Context())
	found, errs := make([]map[string][]metadata, len(peers)), make([]error, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() { found[i], errs[i] = (&remote{peer: p}).metadata(r.Context(), r.Form) })
	}
	wg.Wait()
	for i := range peers {
		if errs[i] != nil {
			warnings = append(warnings, errs[i].Error())
		}
		for name, m := range found[i] {
			if data[name] == nil && (most == 0 || len(data) < most) {
				data[name] = m
			}
		}
	}
	return warnings
}

// remoteSet is the series of another store, sorted.
type remoteSet struct {
	over chan struct{} // closed when the answer is there
	list []remoteSeries
	err  error
	at   int
}

func (s *remoteSet) Next() bool {
	<-s.over
	s.at++
	return s.err == nil && s.at < len(s.list)
}

func (s *remoteSet) At() storage.Series { return &s.list[s.at] }

func (s *remoteSet) Err() error {
	<-s.over
	return s.err
}

func (s *remoteSet) Warnings() annotations.Annotations { return nil }

// remoteSeries is one of them. Its chunks do not overlap.
type remoteSeries struct {
	labels labels.Labels
	chunks []chunkenc.Chunk
}

func (s *remoteSeries) Labels() labels.Labels { return s.labels }

func (s *remoteSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	list := make([]chunkenc.Iterator, len(s.chunks))
	for i, c := range s.chunks {
		list[i] = c.Iterator(nil)
	}
	if len(list) == 0 {
		return chunkenc.NewNopIterator()
	}
	return storage.ChainSampleIteratorFromIterators(it, list)
}

// chunks tells another store which series this one has.
func (s *Store) chunks(w http.ResponseWriter, r *http.Request) {
	body, err := s.encode(r)
	if err != nil {
		kind, code := classify(err)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write(mustJSON(map[string]string{"code": kind, "message": err.Error()})) // the other hub has gone
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(body) // likewise
}

func (s *Store) encode(r *http.Request) ([]byte, error) {
	if err := r.ParseForm(); err != nil {
		return nil, badData("read form: %w", err)
	}
	bare, _ := strconv.ParseBool(r.Form.Get("bare"))
	q, hints, sets, err := s.selection(r, true)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	if hints.Func = ""; bare {
		hints.Func = "series"
	}
	var b []byte
	found := q.Select(r.Context(), true, &hints, sets[0]...)
	for found.Next() {
		if b, err = appendSeries(b, found.At(), bare); err != nil {
			return nil, promql.ErrStorage{Err: err}
		}
		if len(b) > maxChunks {
			return nil, badData("it has more than %d MiB of series for this query: ask for less time or for fewer series", maxChunks>>20)
		}
	}
	if err := found.Err(); err != nil {
		return nil, promql.ErrStorage{Err: err}
	}
	return append(b, 0), nil
}

func appendText[T string | []byte](b []byte, text T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func appendSeries(b []byte, s storage.Series, bare bool) ([]byte, error) {
	ls := s.Labels()
	b = binary.AppendUvarint(append(b, 1), uint64(ls.Len()))
	ls.Range(func(l labels.Label) { b = appendText(appendText(b, l.Name), l.Value) })
	if bare {
		return append(b, 0), nil
	}
	var list []chunkenc.Chunk
	it := storage.NewSeriesToChunkEncoder(s).Iterator(nil)
	for it.Next() {
		list = append(list, it.At().Chunk)
	}
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, c := range list {
		b = appendText(append(b, byte(c.Encoding())), c.Bytes())
	}
	return b, it.Err()
}

// decode reads what chunks has told. What it returns aliases b.
func decode(b []byte) (list []remoteSeries, err error) {
	d := decoder{b: b}
	for d.number() == 1 && !d.bad {
		var s remoteSeries
		builder := labels.NewScratchBuilder(8)
		for range d.number() {
			if d.bad {
				break
			}
			builder.Add(string(d.text()), string(d.text()))
		}
		s.labels = builder.Labels()
		for range d.number() {
			if d.bad {
				break
			}
			kind := chunkenc.Encoding(d.number())
			c, err := chunkenc.FromData(kind, d.text())
			if err != nil {
				return nil, fmt.Errorf("read series: %w", err)
			}
			s.chunks = append(s.chunks, c)
		}
		list = append(list, s)
	}
	if d.bad || len(d.b) > 0 {
		return nil, errors.New("read series: the answer is not whole")
	}
	return list, nil
}

// decoder reads numbers and texts. Once it is bad it returns nothing.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 || d.bad {
		d.bad = true
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) text() []byte {
	n := d.number()
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	text := d.b[:n:n]
	d.b = d.b[n:]
	return text
}
