package command

import (
	"fmt"
	"strings"
	"testing"

	"github.com/creelhq/creel"
)

func TestFields(t *testing.T) {
	f := func(line, want string) {
		t.Helper()
		if got := creel.Map(fields(line)...).String(); got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
	const none = `{"creel.parse_error":"not a JSON object"}`
	f(`{"b":1,"a":"x","c":[true,null,1.5,{"d":-2}]}`, `{"a":"x","b":1,"c":[true,null,1.5,{"d":-2}]}`)
	f(`{"n":9223372036854775807,"big":9223372036854775808,"huge":1e999}`, `{"big":9.223372036854776e+18,"huge":"1e999","n":9223372036854775807}`)
	f(`{}`, `{}`)
	f(`null`, none)
	f(`[1]`, none)
	f(`{"a":1} {"a":2}`, none)
	f(`{"a":1}}`, none)
	f(`{"a":`, none)
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	got := creel.Map(fields(deep)...).String()
	if n := strings.Count(got, `{"a":`); n != maxDepth+1 || !strings.Contains(got, `{\"a\":1}`) {
		t.Errorf("nested %d deep: %s", n, got)
	}
}

func TestText(t *testing.T) {
	f := func(r result, want string) {
		t.Helper()
		if got := text(&r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(result{output: []byte("a\nb \xff\xfe\n")}, "a\nb \uFFFD\n")
	f(result{output: []byte("a\nb"), cut: true}, "a")
	f(result{output: []byte("one long line \xe2\x82"), cut: true}, "one long line \uFFFD")
}

// nagios returns what becomes of a plugin's output, a line for each record.
func nagios(r result) string {
	c := &collector{Config: Config{Run: "run", Format: "nagios"}, origin: &creel.Origin{}}
	var b strings.Builder
	for m := range c.metrics(&r, 1) {
		if name := m.Desc.Name; !strings.HasPrefix(name, "command.") {
			label, _ := m.Attrs.Get("nagios.label")
			unit, _ := m.Attrs.Get("nagios.unit")
			fmt.Fprintf(&b, "%s %s%s=%v\n", strings.TrimPrefix(name, "nagios."), label.Str(), unit.Str(), m.Value)
		}
	}
	for l := range c.logs(&r, 1) {
		fmt.Fprintf(&b, "%s %s %q\n", l.Event, l.SeverityText, l.Body.Str())
	}
	return b.String()
}

func TestNagios(t *testing.T) {
	f := func(r result, output string, want ...string) {
		t.Helper()
		r.output = []byte(output)
		if got, want := nagios(r), strings.Join(want, "\n")+"\n"; got != want {
			t.Errorf("%q:\ngot\n%s\nwant\n%s", output, got, want)
		}
	}
	f(result{}, "DISK OK - free space: / 3326 MB (56%);\n", "status =0", `nagios.status OK "DISK OK - free space: / 3326 MB (56%);"`)
	f(result{exit: 1}, "DISK WARN | /=2643MB;5948;5958;0;5968 'C:\\ Label''s'=50%;80:;~:90\nlong\ntext | /var=1.5e3c\n/tmp=3ms other=U bad rta=-0.5\n",
		"status =1", "perfdata.size /=2.771386368e+09", `perfdata.percent C:\ Label's=50`, "perfdata.count /var=1500", "perfdata.time /tmp=0.003", "perfdata.value rta=-0.5",
		`nagios.status WARNING "DISK WARN\nlong\ntext"`)
	f(result{exit: 2}, "TEMP|t=40C;50 x=1e", "status =2", "perfdata.value tC=40", "perfdata.value xe=1", `nagios.status CRITICAL "TEMP"`)
	f(result{exit: 3}, "", "status =3", `nagios.status UNKNOWN ""`)
	f(result{exit: 127}, "x|=1 a= 'open=2", "status =3", `nagios.status UNKNOWN "x"`, `command.failed ERROR "command run ended with exit code 127"`)
	f(result{exit: 0, killed: "was ended"}, "x", "status =3", `nagios.status UNKNOWN "x"`, `command.failed ERROR "command run was ended"`)
	f(result{exit: 139}, "", "status =3", `nagios.status UNKNOWN ""`, `command.failed ERROR "command run ended by signal 11"`)
}

// FuzzNagios: whatever a plugin prints, there is one status, and no more values than there are equals signs.
func FuzzNagios(f *testing.F) {
	f.Add("OK | a=1;2;3 'b''c'=4%\nmore | d=5e6KB")
	f.Add("|'")
	f.Fuzz(func(t *testing.T, output string) {
		got := nagios(result{output: []byte(output)})
		if n := strings.Count(got, "\nperfdata."); !strings.HasPrefix(got, "status =0\n") || n > strings.Count(output, "=") {
			t.Errorf("got\n%s", got)
		}
	})
}
