package api

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parameter is a field of a request that stands in the query string.
type parameter struct {
	name, doc string
	index     []int
	kind      reflect.Type
}

// parameters returns the fields of a request's type that are tagged query, those of embedded structs included.
func parameters(t reflect.Type) []parameter {
	var list []parameter
	for _, f := range reflect.VisibleFields(t) {
		if name := f.Tag.Get("query"); name != "" {
			list = append(list, parameter{name, f.Tag.Get("doc"), f.Index, f.Type})
		}
	}
	return list
}

// EncodeQuery returns the query string's values for a request, which may be nil. Zero fields are left out.
func EncodeQuery(request any) url.Values {
	values := url.Values{}
	if request == nil {
		return values
	}
	v := reflect.ValueOf(request)
	for _, p := range parameters(v.Type()) {
		switch f := v.FieldByIndex(p.index); x := f.Interface().(type) {
		case time.Time:
			if !x.IsZero() {
				values.Set(p.name, x.UTC().Format(time.RFC3339Nano))
			}
		case []string:
			values[p.name] = slices.Clone(x)
		default:
			if !f.IsZero() {
				values.Set(p.name, fmt.Sprint(x))
			}
		}
	}
	return values
}

// DecodeQuery fills *request, a pointer to a request, from the query string. now is what relative times count from. The
// error is an *Error that says which parameter is wrong.
func DecodeQuery(values url.Values, request any, now time.Time) error {
	v := reflect.ValueOf(request).Elem()
	list := parameters(v.Type())
	for name := range values {
		if !slices.ContainsFunc(list, func(p parameter) bool { return p.name == name }) {
			known := make([]string, len(list))
			for i, p := range list {
				known[i] = p.name
			}
			return badParameter(name, "is unknown; there are "+strings.Join(known, ", "))
		}
	}
	for _, p := range list {
		if texts := values[p.name]; len(texts) > 0 {
			if err := set(v.FieldByIndex(p.index), texts, now); err != nil {
				return badParameter(p.name, err.Error())
			}
		}
	}
	return nil
}

func badParameter(name, what string) error {
	return &Error{Code: "bad_request", Message: fmt.Sprintf("parameter %s %s", name, what)}
}

// set gives a field the value that the texts say.
func set(f reflect.Value, texts []string, now time.Time) error {
	text := texts[len(texts)-1]
	switch f.Interface().(type) {
	case []string:
		f.Set(reflect.ValueOf(slices.Clone(texts)))
	case string:
		f.SetString(text)
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("must be an integer, got %q", text)
		}
		f.SetInt(int64(n))
	case int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("must be an integer, got %q", text)
		}
		f.SetInt(n)
	case float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || n != n {
			return fmt.Errorf("must be a number, got %q", text)
		}
		f.SetFloat(n)
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("must be true or false, got %q", text)
		}
		f.SetBool(b)
	case time.Time:
		t, err := ParseTime(text, now)
		if err != nil {
			return err
		}
		f.Set(reflect.ValueOf(t))
	default:
		panic("BUG: a parameter cannot be a " + f.Type().String())
	}
	return nil
}

// ParseTime reads a time as the API takes it: RFC 3339, seconds since the Unix epoch, a duration before now such as 15m
// or 2h30m, or now.
func ParseTime(text string, now time.Time) (time.Time, error) {
	if text == "now" {
		return now, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && s > -1e11 && s < 1e11 {
		whole := int64(s)
		return time.Unix(whole, int64((s-float64(whole))*1e9)).UTC(), nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 && n < 1e5 {
			return now.Add(-time.Duration(n * 24 * float64(time.Hour))), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("must be a time such as 2026-11-24T08:00:00Z, seconds since 1970, or a duration before now such as 15m, got %q", text)
}
