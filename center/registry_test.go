package center

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// list makes instances of "id id".
func list(ids string) []Instance {
	var all []Instance
	for _, id := range strings.Fields(ids) {
		all = append(all, Instance{Service: "web", ID: id, Address: id + ":80"})
	}
	return all
}

// told is a Registry that says what a test tells it.
type told struct {
	Host
	say chan string // ids; away and well are of its health
}

func (r told) Register(context.Context, Instance) {}

func (r told) Watch(ctx context.Context, _ string, f func([]Instance)) {
	for {
		select {
		case <-ctx.Done():
			return
		case ids := <-r.say:
			switch ids {
			case "away":
				r.Health(errors.New("away"))
			case "well":
				r.Health(nil)
			default:
				f(list(ids))
			}
		}
	}
}

// TestDoubt: that a service suddenly has no instance is believed late, and not while the registry is away.
func TestDoubt(t *testing.T) {
	f := func(allow, want string, script ...any) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			say, start := make(chan string), time.Now()
			var got []string
			note := func(format string, args ...any) {
				got = append(got, fmt.Sprintf("%ds:", int(time.Since(start).Seconds()))+fmt.Sprintf(format, args...))
			}
			type none struct {
				Unused string `doc:"Nothing." optional:"true"`
			}
			c := New("test", "A test.", nil, func(_ none, h Host) (Registry, error) { return told{h, say}, nil })
			r, err := OpenRegistry(c, []byte(`{"allow_empty":`+allow+`}`), Host{Health: func(err error) {
				switch {
				case err == nil:
					note("well")
				case strings.Contains(err.Error(), "nobody offers the service any more, and "):
					note("doubt")
				default:
					note("%v", err)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				r.Watch(ctx, "web", func(l []Instance) {
					ids := ""
					for _, i := range l {
						ids += i.ID
					}
					note("[%s]", ids)
				})
			}()
			for _, step := range script {
				switch step := step.(type) {
				case string:
					say <- step
				case time.Duration:
					time.Sleep(step)
				}
				synctest.Wait()
			}
			cancel()
			<-done
			time.Sleep(time.Hour) // nothing comes after
			if g := strings.Join(got, " "); g != want {
				t.Errorf("%v:\n%s, not\n%s", script, g, want)
			}
		})
	}
	const moment = 10 * time.Second
	f("false", "0s:[ab] 0s:[a]", "b a", "a b", "a", "a")
	f("false", "0s:[] 0s:[a]", "", "", "a")
	f("false", "0s:[a] 0s:doubt 90s:well 90s:[]", "a", "", moment, "", 2*time.Minute, "")
	f("false", "0s:[a] 0s:doubt 10s:well", "a", "", moment, "a", 2*time.Minute)
	f("false", "0s:[a] 0s:doubt 10s:well 10s:[b] 20s:doubt 110s:well 110s:[]", "a", "", moment, "b", moment, "", 2*time.Minute)
	f("false", "0s:[a] 0s:doubt 10s:away 110s:doubt 180s:well 180s:[]", "a", "", moment, "away", 10*moment, "well", 2*time.Minute)
	f("false", "0s:[a] 0s:doubt", "a", "", moment)
	f("true", "0s:[a] 0s:[] 0s:[a]", "a", "", "a")
}

// TestLease: it beats, registers again when it is forgotten or a beat fails, and says farewell also where the registry is away.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		start := time.Now()
		note := func(what string) { got = append(got, fmt.Sprintf("%d:%s", int(time.Since(start).Seconds()), what)) }
		ctx, cancel := context.WithCancel(t.Context())
		troubles := 0
		Lease{
			Every:    5 * time.Second,
			Register: func(context.Context) error { note("register"); return nil },
			Beat: func(context.Context) error {
				note("beat")
				switch len(got) {
				case 3:
					return ErrForgotten
				case 5:
					return errors.New("away")
				case 7:
					cancel()
				}
				return nil
			},
			Leave: func(ctx context.Context) error { note("leave"); <-ctx.Done(); return ctx.Err() },
		}.Keep(ctx, Host{Log: slog.New(slog.DiscardHandler), Health: func(err error) {
			if err != nil {
				troubles++
			}
		}})
		if g, want := strings.Join(got, " "), "0:register 5:beat 10:beat 10:register 15:beat 15:register 20:beat 20:leave"; g != want {
			t.Errorf("%s, not %s", g, want)
		}
		if took := time.Since(start); took < 23*time.Second || took > 24*time.Second {
			t.Errorf("it has ended after %v", took)
		}
		if troubles != 1 {
			t.Errorf("Health was told of trouble %d times", troubles)
		}
	})
}

func TestInstance(t *testing.T) {
	f := func(want string, change func(i *Instance)) {
		t.Helper()
		i := Instance{Service: "web", ID: "a", Address: "[::1]:80", Tags: []string{"x"}, Meta: map[string]string{"k": "v"}}
		change(&i)
		if err := i.Check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, not %q", i, err, want)
		}
	}
	f("", func(*Instance) {})
	f("service", func(i *Instance) { i.Service = "a/b" })
	f("id", func(i *Instance) { i.ID = "" })
	f("must be host:port", func(i *Instance) { i.Address = "host" })
	f("must have a port", func(i *Instance) { i.Address = "host:0" })
	f("must have a host", func(i *Instance) { i.Address = ":80" })
	f("must have a host", func(i *Instance) { i.Address = "0.0.0.0:80" })
	f("must have a host", func(i *Instance) { i.Address = "[::]:80" })
	f("tag", func(i *Instance) { i.Tags = []string{"a,b"} })
	f("weight -1", func(i *Instance) { i.Weight = -1 })
	f(`"a.b" cannot be the key`, func(i *Instance) { i.Meta = map[string]string{"a.b": ""} })
	f(`"tags" cannot be the key`, func(i *Instance) { i.Meta = map[string]string{"tags": ""} })
	f("more than 512", func(i *Instance) { i.Meta["k"] = strings.Repeat("a", 513) })

	i := Instance{Service: "web", ID: "a", Address: "a:80", Tags: []string{"x", "y"}, Meta: map[string]string{"k": "v"}, Weight: 3}
	if back := (Instance{Service: "web", ID: "other", Address: "a:80", Meta: i.Flat()}).Unflat(); !back.equal(i) {
		t.Errorf("%+v became %+v", i, back)
	}
}
