// Package command is a collector that runs a program in each round and makes records of what it prints.
//
// A configuration can come from a hub, so it never says what to run: it names an entry of the host's own allow list, a
// file that only root, or the user that the agent runs as, can write. Without that file no command runs. Where it is, is
// no option: /etc/creel/commands.yaml, or what the variable CREEL_COMMANDS in the environment of the agent's process says.
//
//	commands:
//	  disk-check:
//	    path: /usr/local/bin/disk-check
//	    args: [--all]
//	    user: nobody
//
// There is no shell. A program sees the environment PATH and LANG and what its entry adds, an empty standard input, and
// a session of its own; when its round ends, whatever it started in its process group ends with it.
package command

import (
	"context"
	_ "embed"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/creelhq/creel"
)

//go:embed example.yaml
var example string

// Plugin is the collector command.
var Plugin = creel.NewPolled("command", "Runs a program that this host's allow list names, and collects what it prints.", New).WithExample(example)

// Config is the collector's options.
type Config struct {
	Run    string `doc:"Which entry of the host's allow list to run. The list is /etc/creel/commands.yaml, or the file that CREEL_COMMANDS names in the environment of the agent's process; without it no command runs." example:"disk-check"`
	Format string `doc:"What the program prints: lines, each a log; json, an object in each line, whose fields become the log's attributes; nagios, the text and performance data of a Nagios plugin, whose exit code is a status." default:"lines" enum:"lines|json|nagios"`
}

// killAfter is how long a program has to end by itself after SIGTERM.
const killAfter = 3 * time.Second

// New returns the collector. It fails unless the allow list has the command and nobody else can change either.
func New(c Config, h creel.Host) (creel.Collector, error) {
	list := listPath()
	if _, err := load(list, c.Run); err != nil {
		return nil, err
	}
	return &collector{
		Config: c, list: list, grace: killAfter,
		origin: &creel.Origin{Resource: h.Resource, Scope: creel.Scope{Name: "github.com/creelhq/creel/plugins/command"}},
	}, nil
}

type collector struct {
	Config
	list   string // the allow list's path
	grace  time.Duration
	origin *creel.Origin
}

// result is what has become of a program.
type result struct {
	output []byte        // standard output, or the beginning of it
	stderr string        // the end of it
	exit   int           // as a shell has it: 128 and the number of the signal that ended it
	took   time.Duration // from start to end
	cut    bool          // there was more output
	killed string        // why we ended it; "" if it ended by itself
}

// Collect runs the program once. That it fails is a result like others; Collect fails if it could not be run.
func (c *collector) Collect(ctx context.Context, out creel.Sink) error {
	p, err := load(c.list, c.Run) // again: it may have changed
	if err != nil {
		return err
	}
	var r *result
	err = creel.Blocking(ctx, func() (err error) {
		r, err = p.run(ctx, c.grace)
		return err
	})
	if err != nil {
		return fmt.Errorf("run command %s: %w", c.Run, err)
	}
	now := time.Now().UnixNano()
	if err := send(ctx, out, c.metrics(r, now), creel.NewMetrics); err != nil {
		return err
	}
	return send(ctx, out, c.logs(r, now), creel.NewLogs)
}

// maxBatch is how many records are sent together.
const maxBatch = 512

// send sends records in batches, which are made one at a time: what a program prints can be many records.
func send[T any](ctx context.Context, out creel.Sink, records iter.Seq[T], batch func([]T) *creel.Batch) error {
	var list []T
	flush := func() error {
		if len(list) == 0 {
			return nil
		}
		b := batch(list)
		list = nil
		return out.Send(ctx, b)
	}
	for r := range records {
		if list = append(list, r); len(list) < maxBatch {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		if err := creel.Yield(ctx); err != nil {
			return err
		}
	}
	return flush()
}

var (
	exitCode = &creel.Descriptor{Name: "command.exit_code", Description: "Exit code of the last run; 128 and the signal's number if one ended it.", Unit: "1", Kind: creel.Gauge}
	duration = &creel.Descriptor{Name: "command.duration", Description: "How long the last run took.", Unit: "s", Kind: creel.Gauge}
)

func (c *collector) metrics(r *result, now int64) iter.Seq[creel.Metric] {
	return func(yield func(creel.Metric) bool) {
		gauge := func(d *creel.Descriptor, v creel.Number) bool {
			return yield(creel.Metric{Origin: c.origin, Desc: d, Time: now, Attrs: c.attrs(), Value: v})
		}
		if gauge(exitCode, creel.Int(int64(r.exit))) && gauge(duration, creel.Double(r.took.Seconds())) && c.Format == "nagios" {
			c.nagiosMetrics(r, now, yield)
		}
	}
}

func (c *collector) logs(r *result, now int64) iter.Seq[creel.Log] {
	return func(yield func(creel.Log) bool) {
		if c.Format == "nagios" {
			if !yield(c.nagiosLog(r, now)) {
				return
			}
		} else {
			for line := range strings.Lines(text(r)) {
				if line = strings.TrimRight(line, "\r\n"); line != "" && !yield(c.line(line, now)) {
					return
				}
			}
		}
		if l, ok := c.outcome(r, now); ok {
			yield(l)
		}
	}
}

// text returns what was printed, without a last line that was cut.
func text(r *result) string {
	s := string(r.output)
	if i := strings.LastIndexByte(s, '\n'); r.cut && i >= 0 {
		s = s[:i]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func (c *collector) line(line string, now int64) creel.Log {
	l := creel.Log{Origin: c.origin, Time: now, Observed: now, Body: creel.String(line)}
	if c.Format == "json" {
		l.Attrs = fields(line)
	}
	l.Attrs.Set("command.name", creel.String(c.Run)) // whatever the line says
	return l
}

// outcome returns the log that says what was wrong with a run, if anything was.
func (c *collector) outcome(r *result, now int64) (creel.Log, bool) {
	l := creel.Log{Origin: c.origin, Time: now, Observed: now, Severity: creel.SeverityError, Event: "command.failed"}
	why := r.killed
	switch ok := r.exit == 0 || c.Format == "nagios" && r.exit <= unknown; {
	case why != "":
	case r.exit > 128:
		why = fmt.Sprintf("ended by signal %d", r.exit-128)
	case !ok:
		why = fmt.Sprintf("ended with exit code %d", r.exit)
	case r.cut:
		why = fmt.Sprintf("printed more than max_output; only the first %d bytes were collected", len(r.output))
		l.Severity, l.Event = creel.SeverityWarn, "command.cut"
	default:
		return l, false
	}
	l.SeverityText = l.Severity.String()
	l.Body = creel.String("command " + c.Run + " " + why)
	l.Attrs = c.attrs(
		creel.Attr{Key: "command.exit_code", Value: creel.Int(int64(r.exit))},
		creel.Attr{Key: "command.stderr", Value: creel.String(strings.ToValidUTF8(r.stderr, "\uFFFD"))},
	)
	return l, true
}

// attrs returns the attributes of a record: the command's name, and more.
func (c *collector) attrs(more ...creel.Attr) creel.Attrs {
	return append(creel.Attrs{{Key: "command.name", Value: creel.String(c.Run)}}, more...)
}
