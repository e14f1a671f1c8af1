// Package nacos is the center Nacos: documents are configurations, named by their data IDs, of one group and namespace;
// instances of services are ephemeral ones there.
//
// It listens by the long poll of Nacos' HTTP API v1, which servers of 1.x, 2.x and 3.x have.
package nacos

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
)

// Center is the center nacos.
var Center = center.New("nacos", "Nacos: configurations, of which a change is heard at once, and services, which are asked for every five seconds.", New, NewRegistry)

// Config says where what is to be watched is.
type Config struct {
	Address   string   `doc:"Where the Nacos server is; /nacos is added to it." default:"http://127.0.0.1:8848"`
	Namespace string   `doc:"The ID of the namespace (tenant); left out, the public one." optional:"true"`
	Group     string   `doc:"The group of the configurations and services." default:"DEFAULT_GROUP"`
	DataIDs   []string `name:"data_ids" doc:"The data IDs of the configurations, each of which is a document. Without them there are only services." optional:"true" example:"[creel.yaml, creel-web.yaml]"`
	Username  string   `doc:"Who is to read, if Nacos wants to know." optional:"true"`
	Password  string   `doc:"The user's password." optional:"true" secret:"true" example:"${env:NACOS_PASSWORD}"`
}

// Validate checks what no tag can.
func (c Config) Validate() error {
	if _, err := center.BaseURL(c.Address); err != nil {
		return config.FieldError("address", err)
	}
	if (c.Username == "") != (c.Password == "") {
		return config.FieldError("username", errors.New("username and password go together"))
	}
	if n := len(c.DataIDs); n > center.MaxDocuments {
		return config.FieldError("data_ids", fmt.Errorf("must not name more than %d", center.MaxDocuments))
	}
	for i, id := range c.DataIDs {
		if !legal(id) || id == "" {
			return config.FieldError("data_ids", fmt.Errorf("%q cannot be a data ID: letters, digits and .:_- can be in it", id))
		}
		if slices.Contains(c.DataIDs[:i], id) {
			return config.FieldError("data_ids", fmt.Errorf("%s is there twice", id))
		}
	}
	if !legal(c.Group) || c.Group == "" {
		return config.FieldError("group", errors.New("letters, digits and .:_- can be in it"))
	}
	if !legal(c.Namespace) {
		return config.FieldError("namespace", errors.New("must be the namespace's ID: letters, digits and .:_- can be in it"))
	}
	return nil
}

func legal(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".:_-", r)
	})
}

const (
	patience = 10 * time.Second // with a server that need not wait
	hold     = 30 * time.Second // that it is asked to hold a listen
	word     = "\x02"           // between the words of what is listened to
	line     = "\x01"           // after each
)

// client asks one Nacos. It serves one goroutine.
type client struct {
	Config
	host center.Host
	base *url.URL
	http *center.HTTP

	patience time.Duration // the constant, but for tests

	token string    // from a login
	renew time.Time // when the next login is due
}

func newClient(c Config, h center.Host) (client, error) {
	base, err := center.BaseURL(c.Address)
	if err != nil {
		return client{}, fmt.Errorf("read address: %w", err)
	}
	base.Path += "/nacos"
	return client{Config: c, host: h, base: base, http: center.NewHTTP(), patience: patience}, nil
}

type source struct {
	client
	hold time.Duration // the constant, but for tests
	pace center.Pace
}

// document is a configuration as the server has it.
type document struct {
	text []byte
	md5  string // which the server compares
}

// New returns the Source.
func New(c Config, h center.Host) (center.Source, error) {
	if len(c.DataIDs) == 0 {
		return nil, config.FieldError("data_ids", fmt.Errorf("must name between 1 and %d", center.MaxDocuments))
	}
	asks, err := newClient(c, h)
	return &source{client: asks, hold: hold, pace: center.Pace{Every: time.Second, Burst: 10}}, err
}

// Watch gets everything, then what the server says has changed, and everything again after trouble.
func (s *source) Watch(ctx context.Context, f func(center.Snapshot)) {
	defer s.http.Close()
	f = center.Changes(f) // the server may tell of a change that is none
	center.Keep(ctx, s.host, func(worked func()) error {
		docs := map[string]document{} // by data ID; what is not there is absent
		for changed := s.DataIDs; ; {
			if err := s.fetch(ctx, docs, changed); err != nil {
				return err
			}
			worked()
			f(center.Snapshot{Revision: s.revision(docs), Documents: s.list(docs)})
			if err := s.pace.Wait(ctx); err != nil {
				return err
			}
			var err error
			if changed, err = s.listen(ctx, docs); err != nil {
				return err
			}
		}
	})
}

func (s *source) list(docs map[string]document) []center.Document {
	list := make([]center.Document, 0, len(docs))
	for id, d := range docs {
		list = append(list, center.Document{Name: id, Text: d.text})
	}
	slices.SortFunc(list, func(a, b center.Document) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// revision returns the MD5 of the only document, or one of all of them.
func (s *source) revision(docs map[string]document) string {
	if len(s.DataIDs) == 1 {
		return docs[s.DataIDs[0]].md5
	}
	all := md5.New()
	for _, id := range s.DataIDs {
		all.Write([]byte(docs[id].md5 + line))
	}
	return hex.EncodeToString(all.Sum(nil))
}

// where are the parameters that name a configuration.
func (s *source) where(id string) url.Values {
	q := url.Values{"dataId": {id}, "group": {s.Group}}
	if s.Namespace != "" {
		q.Set("tenant", s.Namespace)
	}
	return q
}

// fetch gets configurations by their data IDs.
func (s *source) fetch(ctx context.Context, docs map[string]document, ids []string) error {
	for _, id := range ids {
		a, err := s.call(ctx, request{method: http.MethodGet, path: "/v1/cs/configs", query: s.where(id), timeout: s.patience})
		if err != nil {
			return fmt.Errorf("get %s from Nacos: %w", id, err)
		}
		switch {
		case a.Status == http.StatusOK:
			d := document{a.Body, strings.ToLower(a.Header.Get("Content-MD5"))}
			if raw, err := hex.DecodeString(d.md5); err != nil || len(raw) != md5.Size {
				sum := md5.Sum(a.Body)
				d.md5 = hex.EncodeToString(sum[:])
			}
			docs[id] = d
			if err := center.Bound(s.list(docs)); err != nil {
				return fmt.Errorf("get %s from Nacos: %w", id, err)
			}
		case a.Status == http.StatusNotFound && strings.Contains(string(a.Body), "not exist"): // config data not exist: else it is no Nacos
			delete(docs, id)
		default:
			return fmt.Errorf("get %s from Nacos: %w", id, a.Refused(s.hint(a.Status)))
		}
	}
	return nil
}

func (c *client) hint(status int) string {
	switch {
	case status == http.StatusNotFound:
		return "is address right, with what stands before /nacos in it?"
	case status != http.StatusForbidden && status != http.StatusUnauthorized:
		return ""
	case c.Username == "":
		return "set username and password"
	}
	return "check username, password and what the user may do"
}

// listen returns the data IDs of configurations that are not as in docs. It waits for some, and returns none if there are
// none for long.
func (s *source) listen(ctx context.Context, docs map[string]document) ([]string, error) {
	var probe strings.Builder
	for _, id := range s.DataIDs {
		probe.WriteString(id + word + s.Group + word + docs[id].md5)
		if s.Namespace != "" {
			probe.WriteString(word + s.Namespace)
		}
		probe.WriteString(line)
	}
	a, err := s.call(ctx, request{
		method: http.MethodPost, path: "/v1/cs/configs/listener", form: url.Values{"Listening-Configs": {probe.String()}},
		header: http.Header{"Long-Pulling-Timeout": {strconv.FormatInt(s.hold.Milliseconds(), 10)}}, timeout: s.hold + s.patience,
	})
	if err != nil {
		return nil, fmt.Errorf("listen to Nacos: %w", err)
	}
	if a.Status != http.StatusOK {
		return nil, fmt.Errorf("listen to Nacos: %w", a.Refused(s.hint(a.Status)))
	}
	changed, err := s.changed(string(a.Body))
	if err != nil {
		return nil, fmt.Errorf("listen to Nacos: %w", err)
	}
	return changed, nil
}

// changed reads the answer to a listen.
func (s *source) changed(answer string) ([]string, error) {
	text, err := url.QueryUnescape(strings.TrimSpace(answer))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	var ids []string
	for entry := range strings.SplitSeq(text, line) {
		if entry == "" {
			continue
		}
		words := append(strings.Split(entry, word), "")
		if len(words) < 3 || words[1] != s.Group || words[2] != s.Namespace || !slices.Contains(s.DataIDs, words[0]) {
			return nil, fmt.Errorf("read the answer: %.100q was not asked for; is that Nacos?", entry)
		}
		ids = append(ids, words[0])
	}
	return ids, nil
}
