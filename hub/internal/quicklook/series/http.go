package series

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

const (
	maxPoints  = 11_000  // per series of an answer
	maxForm    = 1 << 20 // bytes of a posted form
	maxAnswers = 100_000 // names, values or series of an answer
)

// failure is an error with the word that the API has for it.
type failure struct {
	kind string
	err  error
}

func (f *failure) Error() string { return f.err.Error() }

func badData(format string, args ...any) error {
	return &failure{"bad_data", fmt.Errorf(format, args...)}
}

// result is what an endpoint answers.
type result struct {
	data     any
	warnings []string
	infos    []string
}

func (s *Store) routes() http.Handler {
	mux := http.NewServeMux()
	both := func(path string, f func(*http.Request) (result, error)) {
		mux.Handle("GET /api/v1/"+path, endpoint(f))
		mux.Handle("POST /api/v1/"+path, endpoint(f))
	}
	only := func(path string, f func(*http.Request) (result, error)) { mux.Handle("GET /api/v1/"+path, endpoint(f)) }
	fixed := func(v any) func(*http.Request) (result, error) {
		return func(*http.Request) (result, error) { return result{data: v}, nil }
	}
	both("query", s.query)
	both("query_range", s.queryRange)
	both("labels", s.labelNames)
	only("label/{name}/values", s.labelValues)
	both("series", s.series)
	only("metadata", s.allMetadata)
	mux.HandleFunc("GET /api/v1/chunks", s.chunks)
	both("query_exemplars", fixed([]any{}))
	only("rules", fixed(map[string]any{"groups": []any{}}))
	only("alerts", fixed(map[string]any{"alerts": []any{}}))
	// Features must stay empty: by them Grafana tells other products from Prometheus.
	only("status/buildinfo", fixed(map[string]any{"version": "3.0.0", "application": "creel", "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": ""}))
	return mux
}

// endpoint answers with Prometheus' envelope.
func endpoint(f func(*http.Request) (result, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		var res result
		err := r.ParseForm()
		if err != nil {
			err = badData("read form: %w", err)
		} else {
			res, err = f(r)
		}
		envelope := map[string]any{"status": "success", "data": res.data}
		code := http.StatusOK
		if err != nil {
			kind, c := classify(err)
			code = c
			envelope = map[string]any{"status": "error", "errorType": kind, "error": err.Error()}
		}
		if len(res.warnings) > 0 {
			envelope["warnings"] = res.warnings
		}
		if len(res.infos) > 0 {
			envelope["infos"] = res.infos
		}
		text, err := json.Marshal(envelope)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write(text) // the client has gone
	})
}

// classify returns the API's word for an error, and its HTTP status.
func classify(err error) (kind string, code int) {
	var f *failure
	var canceled promql.ErrQueryCanceled
	var timeout promql.ErrQueryTimeout
	var internal promql.ErrStorage
	switch {
	case errors.As(err, &f):
		return f.kind, http.StatusBadRequest
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return "canceled", 499
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		return "timeout", http.StatusServiceUnavailable
	case errors.As(err, &internal):
		return "internal", http.StatusInternalServerError
	}
	return "execution", http.StatusUnprocessableEntity
}

// parseTime reads a time as Prometheus' API takes it.
func parseTime(text string, otherwise time.Time) (time.Time, error) {
	if text == "" {
		return otherwise, nil
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(f) < 1e14 {
		whole, part := math.Modf(f)
		return time.Unix(int64(whole), int64(math.Round(part*1000))*1e6).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", text)
}

func parseDuration(text string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(f) < 1e9 {
		return time.Duration(f * float64(time.Second)), nil
	}
	if d, err := model.ParseDuration(text); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", text)
}

// limited returns r's context with the timeout that it asks for.
func limited(r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.Form.Get("timeout")
	if text == "" {
		ctx, cancel := context.WithCancel(r.Context())
		return ctx, cancel, nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return nil, nil, badData("invalid parameter \"timeout\": %w", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), d)
	return ctx, cancel, nil
}

// limit returns the parameter limit, 0 for none.
func limit(r *http.Request) (int, error) {
	text := r.Form.Get("limit")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, badData("invalid parameter \"limit\": must be a number that is not negative, got %q", text)
	}
	return n, nil
}

func (s *Store) query(r *http.Request) (result, error) {
	at, err := parseTime(r.Form.Get("time"), time.Now())
	if err != nil {
		return result{}, badData("invalid parameter \"time\": %w", err)
	}
	ctx, cancel, err := limited(r)
	if err != nil {
		return result{}, err
	}
	defer cancel()
	q, err := s.engine.NewInstantQuery(ctx, s.joint(ctx), nil, r.Form.Get("query"), at)
	if err != nil {
		return result{}, badData("invalid parameter \"query\": %w", err)
	}
	return s.exec(ctx, q, r)
}

func (s *Store) queryRange(r *http.Request) (result, error) {
	start, err := parseTime(r.Form.Get("start"), time.Time{})
	if err != nil || start.IsZero() {
		return result{}, badData("invalid parameter \"start\": %w", cmp.Or(err, errors.New("it is missing")))
	}
	end, err := parseTime(r.Form.Get("end"), time.Time{})
	if err != nil || end.IsZero() {
		return result{}, badData("invalid parameter \"end\": %w", cmp.Or(err, errors.New("it is missing")))
	}
	if end.Before(start) {
		return result{}, badData("invalid parameter \"end\": end timestamp must not be before start time")
	}
	step, err := parseDuration(r.Form.Get("step"))
	if err != nil {
		return result{}, badData("invalid parameter \"step\": %w", err)
	}
	if step <= 0 {
		return result{}, badData("invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer")
	}
	if end.Sub(start)/step > maxPoints {
		return result{}, badData("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	}
	ctx, cancel, err := limited(r)
	if err != nil {
		return result{}, err
	}
	defer cancel()
	q, err := s.engine.NewRangeQuery(ctx, s.joint(ctx), nil, r.Form.Get("query"), start, end, step)
	if err != nil {
		return result{}, badData("invalid parameter \"query\": %w", err)
	}
	return s.exec(ctx, q, r)
}

// exec runs a query and encodes what it finds.
func (s *Store) exec(ctx context.Context, q promql.Query, r *http.Request) (result, error) {
	defer q.Close()
	most, err := limit(r)
	if err != nil {
		return result{}, err
	}
	found := q.Exec(ctx)
	if found.Err != nil {
		return result{}, found.Err
	}
	res := result{}
	res.warnings, res.infos = found.Warnings.AsStrings(r.Form.Get("query"), 10, 10)
	var b []byte
	b = append(b, `{"resultType":"`...)
	b = append(b, found.Value.Type()...)
	b = append(b, `","result":`...)
	switch v := found.Value.(type) {
	case promql.Vector:
		if most > 0 && len(v) > most {
			v = v[:most]
			res.warnings = append(res.warnings, "results truncated due to limit")
		}
		b = appendVector(b, v)
	case promql.Matrix:
		if most > 0 && len(v) > most {
			v = v[:most]
			res.warnings = append(res.warnings, "results truncated due to limit")
		}
		b = appendMatrix(b, v)
	case promql.Scalar:
		b = appendPoint(b, v.T, v.V)
	case promql.String:
		b = append(append(appendSeconds(append(b, '['), v.T), ','), mustJSON(v.V)...)
		b = append(b, ']')
	}
	res.data = json.RawMessage(append(b, '}'))
	return res, nil
}

func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return text
}

func appendVector(b []byte, v promql.Vector) []byte {
	b = append(b, '[')
	for i, x := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendLabels(append(b, `{"metric":`...), x.Metric)
		if x.H != nil {
			b = appendHistogramPoint(append(b, `,"histogram":`...), x.T, x.H)
		} else {
			b = appendPoint(append(b, `,"value":`...), x.T, x.F)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendMatrix(b []byte, m promql.Matrix) []byte {
	b = append(b, '[')
	for i, x := range m {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendLabels(append(b, `{"metric":`...), x.Metric)
		for j, p := range x.Floats {
			b = append(b, separator(j, `,"values":[`)...)
			b = appendPoint(b, p.T, p.F)
		}
		if len(x.Floats) > 0 {
			b = append(b, ']')
		}
		for j, p := range x.Histograms {
			b = append(b, separator(j, `,"histograms":[`)...)
			b = appendHistogramPoint(b, p.T, p.H)
		}
		if len(x.Histograms) > 0 {
			b = append(b, ']')
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

func separator(i int, first string) string {
	if i == 0 {
		return first
	}
	return ","
}

func appendLabels(b []byte, ls labels.Labels) []byte {
	b = append(b, '{')
	i := 0
	ls.Range(func(l labels.Label) {
		b = append(b, separator(i, "")...)
		b = append(append(append(b, mustJSON(l.Name)...), ':'), mustJSON(l.Value)...)
		i++
	})
	return append(b, '}')
}

func appendSeconds(b []byte, ms int64) []byte {
	return strconv.AppendFloat(b, float64(ms)/1000, 'f', -1, 64)
}

func appendPoint(b []byte, ms int64, v float64) []byte {
	b = append(appendSeconds(append(b, '['), ms), ',', '"')
	return append(strconv.AppendFloat(b, v, 'f', -1, 64), '"', ']')
}

func appendHistogramPoint(b []byte, ms int64, h *histogram.FloatHistogram) []byte {
	b = append(appendSeconds(append(b, '['), ms), ',')
	b = strconv.AppendFloat(append(b, `{"count":"`...), h.Count, 'f', -1, 64)
	b = strconv.AppendFloat(append(b, `","sum":"`...), h.Sum, 'f', -1, 64)
	b = append(b, `","buckets":[`...)
	n := 0
	for it := h.AllBucketIterator(); it.Next(); {
		x := it.At()
		if x.Count == 0 {
			continue
		}
		b = append(b, separator(n, "")...)
		b = append(b, fmt.Sprintf(`[%d,"%s","%s","%s"]`, boundaries(x.LowerInclusive, x.UpperInclusive), formatFloat(x.Lower), formatFloat(x.Upper), formatFloat(x.Count))...)
		n++
	}
	return append(b, `]}]`...)
}

// boundaries says which ends belong to a bucket, as the API numbers it.
func boundaries(lower, upper bool) int {
	switch {
	case lower && upper:
		return 3
	case lower:
		return 1
	case upper:
		return 0
	}
	return 2
}

// selection reads start, end and match[].
func (s *Store) selection(r *http.Request, needed bool) (q storage.Querier, hints storage.SelectHints, sets [][]*labels.Matcher, err error) {
	start, err := parseTime(r.Form.Get("start"), time.UnixMilli(math.MinInt64/1000))
	if err != nil {
		return nil, hints, nil, badData("invalid parameter \"start\": %w", err)
	}
	end, err := parseTime(r.Form.Get("end"), time.UnixMilli(math.MaxInt64/1000))
	if err != nil {
		return nil, hints, nil, badData("invalid parameter \"end\": %w", err)
	}
	texts := r.Form["match[]"]
	if len(texts) == 0 && needed {
		return nil, hints, nil, badData("no match[] parameter provided")
	}
	for _, text := range texts {
		m, err := s.parser.ParseMetricSelector(text)
		if err != nil {
			return nil, hints, nil, badData("invalid parameter \"match[]\": %w", err)
		}
		sets = append(sets, m)
	}
	if q, err = s.joint(r.Context()).Querier(start.UnixMilli(), end.UnixMilli()); err != nil {
		return nil, hints, nil, promql.ErrStorage{Err: err}
	}
	hints = storage.SelectHints{Start: start.UnixMilli(), End: end.UnixMilli(), Func: "series"}
	return q, hints, sets, nil
}

// union asks for each set of matchers, all when there is none, and returns the sorted union.
func union(r *http.Request, q storage.Querier, sets [][]*labels.Matcher, ask func(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error)) (result, error) {
	defer q.Close()
	most, err := limit(r)
	if err != nil {
		return result{}, err
	}
	if most == 0 || most > maxAnswers {
		most = maxAnswers
	}
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	all := []string{}
	res := result{}
	for _, set := range sets {
		names, warnings, err := ask(r.Context(), &storage.LabelHints{}, set...)
		if err != nil {
			return result{}, promql.ErrStorage{Err: err}
		}
		for _, w := range warnings.AsErrors() {
			res.warnings = append(res.warnings, w.Error())
		}
		for _, n := range names {
			all = append(all, strings.Clone(n)) // it belongs to the database
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > most {
		all = all[:most]
		res.warnings = append(res.warnings, "results truncated due to limit")
	}
	res.data = all
	return res, nil
}

func (s *Store) labelNames(r *http.Request) (result, error) {
	q, _, sets, err := s.selection(r, false)
	if err != nil {
		return result{}, err
	}
	return union(r, q, sets, q.LabelNames)
}

func (s *Store) labelValues(r *http.Request) (result, error) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if name == "" {
		return result{}, badData("invalid label name: %q", r.PathValue("name"))
	}
	q, _, sets, err := s.selection(r, false)
	if err != nil {
		return result{}, err
	}
	return union(r, q, sets, func(ctx context.Context, h *storage.LabelHints, m ...*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelValues(ctx, name, h, m...)
	})
}

func (s *Store) series(r *http.Request) (result, error) {
	most, err := limit(r)
	if err != nil {
		return result{}, err
	}
	if most == 0 || most > maxAnswers {
		most = maxAnswers
	}
	q, hints, sets, err := s.selection(r, true)
	if err != nil {
		return result{}, err
	}
	defer q.Close()
	var found []storage.SeriesSet
	for _, set := range sets {
		found = append(found, q.Select(r.Context(), true, &hints, set...))
	}
	merged := storage.NewMergeSeriesSet(found, 0, storage.ChainedSeriesMerge)
	res := result{}
	list := []json.RawMessage{}
	for merged.Next() {
		if len(list) == most {
			res.warnings = append(res.warnings, "results truncated due to limit")
			break
		}
		list = append(list, appendLabels(nil, merged.At().Labels()))
	}
	if err := merged.Err(); err != nil {
		return result{}, promql.ErrStorage{Err: err}
	}
	for _, w := range merged.Warnings().AsErrors() {
		res.warnings = append(res.warnings, w.Error())
	}
	res.data = list
	return res, nil
}

func (s *Store) allMetadata(r *http.Request) (result, error) {
	most, err := limit(r)
	if err != nil {
		return result{}, err
	}
	only := r.Form.Get("metric")
	data := s.ownMetadata(only, most)
	return result{data: data, warnings: s.jointMetadata(r, data, most)}, nil
}

func (s *Store) ownMetadata(only string, most int) map[string][]metadata {
	data := make(map[string][]metadata)
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, m := range s.metadata {
		if only != "" && name != only {
			continue
		}
		if most > 0 && len(data) == most {
			break
		}
		data[name] = []metadata{m}
	}
	return data
}
