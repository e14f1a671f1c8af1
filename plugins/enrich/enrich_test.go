package enrich

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/plugin/plugintest"
)

var host = creel.Host{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host.name", Value: creel.String("web-7")}, {Key: "creel.agent.id", Value: creel.String("x")}, {Key: "site", Value: creel.String("north")}}}}

func TestConformance(t *testing.T) {
	users := file(t, "id,team\n1,shop\n2,pay\n")
	plugintest.Run(t, Plugin, plugintest.Options{})
	plugintest.Run(t, Plugin, plugintest.Options{Host: host, Config: "{host: true, container: true, overwrite: true, static: {attributes: {text: x, more: y}, resource: {service.name: z}}}"})
	plugintest.Run(t, Plugin, plugintest.Options{Config: fmt.Sprintf("{lookup: [{file: %s, key: 'attributes[\"n\"]', column: id, add: {team: team}}]}", users)})
}

func file(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "table.csv")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func open(yaml string, h creel.Host) (creel.Processor, error) {
	n, err := config.Parse("test.yaml", []byte(yaml), config.Env{})
	if err != nil {
		return nil, err
	}
	canonical, errs := Plugin.Config.Check(n)
	if len(errs) > 0 {
		return nil, errs
	}
	p, err := Plugin.Open(canonical, h)
	if err != nil {
		return nil, err
	}
	return p.(creel.Processor), nil
}

func mustOpen(t testing.TB, yaml string, h creel.Host) creel.Processor {
	t.Helper()
	p, err := open(yaml, h)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run returns what the processor sends on.
func run(t testing.TB, p creel.Processor, b *creel.Batch) (out *creel.Batch) {
	t.Helper()
	if err := p.Process(context.Background(), b, creel.NextFunc(func(b *creel.Batch) { out = b })); err != nil {
		t.Fatal(err)
	}
	return out
}

func attrs(pairs ...any) (as creel.Attrs) {
	for i := 0; i < len(pairs); i += 2 {
		v, ok := pairs[i+1].(string)
		if ok {
			as = append(as, creel.Attr{Key: pairs[i].(string), Value: creel.String(v)})
		} else {
			as = append(as, creel.Attr{Key: pairs[i].(string), Value: creel.Int(int64(pairs[i+1].(int)))})
		}
	}
	return as
}

func text(as creel.Attrs) string { return string(as.Append(nil)) }

func TestAdds(t *testing.T) {
	t.Setenv("ENRICH_NODE", "n1")
	f := func(yaml, resource, record, wantResource, want string) {
		t.Helper()
		as := func(s string) creel.Attrs {
			if s == "" {
				return nil
			}
			return attrs("k", s)
		}
		r := creel.Resource{Attrs: as(resource), SchemaURL: "u"}
		o := &creel.Origin{Resource: r, Scope: creel.Scope{Name: "lib"}}
		p := mustOpen(t, yaml, host)
		for _, b := range []*creel.Batch{
			creel.NewLogs([]creel.Log{{Origin: o, Attrs: as(record)}}),
			creel.NewLogs([]creel.Log{{Origin: &creel.Origin{Resource: r, Scope: o.Scope}, Attrs: as(record)}}), // from the cache
		} {
			l := run(t, p, b).Logs()[0]
			if got := text(l.Origin.Resource.Attrs); got != wantResource {
				t.Errorf("%s: the resource is %s, not %s", yaml, got, wantResource)
			}
			if got := text(l.Attrs); got != want {
				t.Errorf("%s: the attributes are %s, not %s", yaml, got, want)
			}
			if l.Origin.Resource.SchemaURL != "u" || l.Origin.Scope.Name != "lib" {
				t.Errorf("the origin is %+v", l.Origin)
			}
			m := run(t, p, creel.NewMetrics([]creel.Metric{{Origin: o, Desc: &creel.Descriptor{}, Attrs: as(record)}})).Metrics()[0]
			s := run(t, p, creel.NewSpans([]creel.Span{{Origin: o, Attrs: as(record)}})).Spans()[0]
			if text(m.Attrs) != want || text(s.Attrs) != want || m.Origin != s.Origin {
				t.Errorf("%s: a point has %s, a span %s", yaml, text(m.Attrs), text(s.Attrs))
			}
		}
		if got := text(o.Resource.Attrs); got != text(as(resource)) {
			t.Errorf("the origin was changed in place: %s", got)
		}
	}
	f("{}", "", "", "{}", "{}")
	f("{host: true}", "x", "", `{"k":"x","host.name":"web-7","site":"north"}`, "{}")
	f("{env: {node: ENRICH_NODE, none: ENRICH_NOT_SET}}", "", "", `{"node":"n1"}`, "{}")
	f("{static: {resource: {a: b, k: y}, attributes: {c: d, k: z}}}", "", "", `{"a":"b","k":"y"}`, `{"c":"d","k":"z"}`)
	f("{static: {resource: {a: b, k: y}, attributes: {c: d, k: z}}}", "x", "x", `{"k":"x","a":"b"}`, `{"k":"x","c":"d"}`)
	f("{static: {resource: {k: y}, attributes: {k: z}}, overwrite: true}", "x", "x", `{"k":"y"}`, `{"k":"z"}`)
	f("{static: {resource: {k: y}, attributes: {k: z}}, where: 'resource[\"k\"] == \"x\"'}", "x", "x", `{"k":"x"}`, `{"k":"x"}`)
	f("{static: {resource: {a: y}, attributes: {k: z}}, where: 'resource[\"k\"] == \"y\"'}", "x", "", `{"k":"x"}`, `{}`)
}

// TestOrigins: records that shared an origin share the new one, also with those of later batches; values that only look
// alike are not taken for each other.
func TestOrigins(t *testing.T) {
	p := mustOpen(t, "{static: {resource: {a: b}}}", creel.Host{})
	origin := func(v creel.Value) *creel.Origin {
		return &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "n", Value: v}}}}
	}
	one, two := origin(creel.Int(1)), origin(creel.Double(1))
	first := run(t, p, creel.NewLogs([]creel.Log{{Origin: one}, {Origin: one}, {Origin: two}, {Origin: one}})).Logs()
	later := run(t, p, creel.NewLogs([]creel.Log{{Origin: origin(creel.Int(1))}})).Logs()
	if first[0].Origin != first[1].Origin || first[0].Origin != first[3].Origin || first[0].Origin != later[0].Origin {
		t.Error("origins with the same content are not the same")
	}
	if v, _ := first[2].Origin.Resource.Attrs.Get("n"); v.Kind() != creel.ValueDouble {
		t.Errorf("an origin was taken for another: %v is a %v", v, v.Kind())
	}
	entities := []creel.EntityRef{{Type: "host"}}
	l := run(t, p, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{Resource: creel.Resource{Entities: entities}}}})).Logs()[0]
	if len(l.Origin.Resource.Entities) != 1 || text(l.Origin.Resource.Attrs) != `{"a":"b"}` {
		t.Errorf("the resource is %+v", l.Origin.Resource)
	}
	for i := range 3 * maxOrigins {
		run(t, p, creel.NewLogs([]creel.Log{{Origin: origin(creel.Int(int64(i)))}}))
	}
	if n := len(p.(*enricher).origins.known); n > maxOrigins {
		t.Errorf("%d origins are remembered", n)
	}
}

// TestWirePassesOn: a batch to which nothing is added keeps its bytes.
func TestWirePassesOn(t *testing.T) {
	p := mustOpen(t, "{static: {resource: {a: b}, attributes: {c: d}}}", creel.Host{})
	f := func(resource, record creel.Attrs, want bool) {
		t.Helper()
		wire := otlp.Append(nil, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{Resource: creel.Resource{Attrs: resource}}, Attrs: record}}))
		b, err := otlp.Parse(creel.Logs, wire, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := run(t, p, b).Wire() != nil; got != want {
			t.Errorf("%v, %v: the bytes passed on is %v", text(resource), text(record), got)
		}
	}
	f(attrs("a", "x"), attrs("c", "y"), true)
	f(attrs("a", "x"), nil, false)
	f(nil, attrs("c", "y"), false)
}

const lookupOptions = "{file: %s, key: 'attributes[\"user\"]', column: id, add: {team: team, place: place}}"

func TestLookup(t *testing.T) {
	name := file(t, "\ufeffid,team,unused,place\nann,shop,x,\"a, b\"\nBob,pay,y,\nann,twice,z,\n7,int,,\nÄnn,umlaut,,\n1.5,double,,\ntrue,bool,,\n")
	set := metric.NewSet()
	f := func(more string, user creel.Value, want string) {
		t.Helper()
		p := mustOpen(t, fmt.Sprintf("{lookup: ["+strings.TrimSuffix(lookupOptions, "}")+more+"}]}", name), creel.Host{Metrics: set})
		as := creel.Attrs{{Key: "user", Value: user}}
		got := run(t, p, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{}, Attrs: as}})).Logs()[0].Attrs
		if got := text(got[1:]); got != want {
			t.Errorf("%v gives %s, not %s", user, got, want)
		}
	}
	f("", creel.String("ann"), `{"place":"a, b","team":"shop"}`)
	f("", creel.String("Bob"), `{"team":"pay"}`)
	f("", creel.String("bob"), `{}`)
	f(", case_insensitive: true", creel.String("BOB"), `{"team":"pay"}`)
	f(", case_insensitive: true", creel.String("äNN"), `{"team":"umlaut"}`)
	f("", creel.Int(7), `{"team":"int"}`)
	f("", creel.Double(1.5), `{"team":"double"}`)
	f("", creel.Bool(true), `{"team":"bool"}`)
	f("", creel.List(), `{}`)
	f("", creel.Value{}, `{}`)
	missed := 0.0
	set.Gather(func(p metric.Point) {
		if p.Name == "creel.enrich.missed" {
			missed += p.Value
		}
	})
	if missed != 1 {
		t.Errorf("%v keys were missed", missed)
	}
}

// TestMissed: each record counts once, those before and after the first that is changed.
func TestMissed(t *testing.T) {
	set := metric.NewSet()
	p := mustOpen(t, fmt.Sprintf("{lookup: ["+lookupOptions+"]}", file(t, "id,team,place\nann,a,b\n")), creel.Host{Metrics: set})
	var logs []creel.Log
	for _, user := range []string{"x", "x", "ann", "x", "ann", "x"} {
		logs = append(logs, creel.Log{Origin: &creel.Origin{}, Attrs: attrs("user", user)})
	}
	run(t, p, creel.NewLogs(logs))
	set.Gather(func(p metric.Point) {
		if p.Name == "creel.enrich.missed" && p.Value != 4 {
			t.Errorf("%v keys were missed", p.Value)
		}
	})
}

func TestWrongTables(t *testing.T) {
	f := func(text, more, want string) {
		t.Helper()
		name := file(t, text)
		_, err := open(fmt.Sprintf("{lookup: ["+strings.TrimSuffix(lookupOptions, "}")+more+"}]}", name), creel.Host{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%q gives %v, not %q", text, err, want)
		}
	}
	f("", "", "line 1: there is no row")
	f("id,team\n", "", `line 1: there is no column "place"; there are id, team`)
	f("ID,team,place\n", "", `line 1: there is no column "id"`)
	f("id,team,place\na,b,c\nd,e\n", "", "line 3: wrong number of fields")
	f("id,team,place\na,b,c\n\"d,e,f\n", "", "line 3:")
	f("id,team,place\n"+strings.Repeat("a,b,c\n", 1000), ", max_size: 1KiB", "more than max_size")
	if _, err := open(fmt.Sprintf("{lookup: ["+lookupOptions+"]}", "/does/not/exist.csv"), creel.Host{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/does/not/exist.csv") {
		t.Errorf("a file that is not there gives %v", err)
	}
	if _, err := open(fmt.Sprintf("{lookup: ["+lookupOptions+"]}", t.TempDir()), creel.Host{}); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("a directory gives %v", err)
	}
}

func FuzzTable(f *testing.F) {
	f.Add("a,b\n")
	f.Add("\"a\nb\",\"\"\"\"\r\n\n,\n")
	f.Add("a,b,c\n\"")
	f.Fuzz(func(t *testing.T, s string) {
		for _, fold := range []bool{false, true} {
			l := &lookup{Lookup: Lookup{Column: "id", CaseInsensitive: fold}, columns: []string{"v", "id"}}
			table, err := l.parse(strings.NewReader("id,v\n" + s))
			if err != nil {
				continue
			}
			if len(table.cells) != 2*len(table.rows) {
				t.Fatalf("%d rows have %d cells", len(table.rows), len(table.cells))
			}
			for key, row := range table.rows {
				if id := table.cells[2*row+1]; id != key && !fold || string(appendLower(nil, id)) != key && fold {
					t.Fatalf("the row of %q is that of %q", key, id)
				}
			}
		}
	})
}

// TestReload: a table that has changed is taken over; one that is wrong, or gone, is not, and is counted once.
func TestReload(t *testing.T) {
	name := file(t, "id,team,place\nann,one,\n")
	synctest.Test(t, func(t *testing.T) {
		set := metric.NewSet()
		p := mustOpen(t, fmt.Sprintf("{reload: 5s, lookup: ["+lookupOptions+"]}", name), creel.Host{Metrics: set})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- p.(creel.Runner).Run(ctx, nil) }()
		at := time.Now()
		expect := func(team string, failures float64) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			l := run(t, p, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{}, Attrs: attrs("user", "ann")}})).Logs()[0]
			if v, _ := l.Attrs.Get("team"); v.Str() != team {
				t.Errorf("the team is %v, not %v", v, team)
			}
			set.Gather(func(p metric.Point) {
				if p.Name == "creel.enrich.reload_failures" && p.Value != failures {
					t.Errorf("%v failures were counted, not %v", p.Value, failures)
				}
			})
		}
		write := func(text string) {
			t.Helper()
			at = at.Add(time.Second) // the file system's clock is too coarse to be relied on
			if err := errors.Join(os.WriteFile(name, []byte(text), 0o600), os.Chtimes(name, at, at)); err != nil {
				t.Fatal(err)
			}
		}
		expect("one", 0)
		write("id,team,place\nann,two,\n")
		expect("two", 0)
		write("id,team\n")
		expect("two", 1)
		write("id,team,place\nann,three,\n")
		expect("three", 1)
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		expect("three", 2)
		write("id,team,place\nann,four,\n")
		expect("four", 2)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func TestContainer(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	f := func(cgroup, mountinfo, want string) {
		t.Helper()
		proc := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(proc, "17"), 0o700), os.WriteFile(filepath.Join(proc, "17", "cgroup"), []byte(cgroup), 0o600),
			os.WriteFile(filepath.Join(proc, "17", "mountinfo"), []byte(mountinfo), 0o600)); err != nil {
			t.Fatal(err)
		}
		if got := containerOf(proc, "17"); got != want {
			t.Errorf("%q, %q give %q, not %q", cgroup, mountinfo, got, want)
		}
		e := mustOpen(t, "{container: true}", creel.Host{}).(*enricher)
		e.proc, e.own = proc, "own"
		for pid, want := range map[any]string{17: want, "17": want, 18: "", 0: "", "../17": ""} {
			l := run(t, e, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{Resource: creel.Resource{Attrs: attrs("process.pid", pid)}}}})).Logs()[0]
			if v, _ := l.Origin.Resource.Attrs.Get("container.id"); v.Str() != want {
				t.Errorf("of %v, it is %v, not %q", pid, v, want)
			}
		}
		l := run(t, e, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{}}})).Logs()[0]
		if v, _ := l.Origin.Resource.Attrs.Get("container.id"); v.Str() != "own" {
			t.Errorf("without a process, it is %v", v)
		}
	}
	f("12:pids:/docker/"+id+"\n", "", id)
	f("0::/system.slice/docker-"+id+".scope\n", "", id)
	f("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-"+id+".scope\n", "", id)
	f("0::/machine.slice/libpod-"+id+".scope/container\n", "", id)
	f("0::/\n", "1 2 0:3 / / rw - overlay overlay rw\n4 5 0:6 /var/lib/docker/containers/"+id+"/hostname /etc/hostname rw - ext4 /dev/sda rw\n", id)
	f("0::/user.slice\n", "4 5 0:6 /etc/hostname /etc/hostname rw - ext4 /dev/sda rw\n", "")
	f("0::/x/"+id+"0\n", "4 5 0:6 /x/containers/"+id+"/y /mnt rw\n", "") // 65 digits; something else that is mounted
	f("", "", "")
}
