// Package journald is the collector of systemd's journal. It reads what journalctl prints, so that it links no C library
// and follows whatever format the journal has on this machine.
//
// The cursor of the last entry that was acknowledged, with all before it, is kept in the component's state: a restart
// goes on behind it. An entry whose answer was lost comes twice, never not at all.
package journald

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
)

//go:embed example.yaml
var example string

// Plugin is the collector journald.
var Plugin = creel.NewCollector("journald", "Collects the entries of systemd's journal, through journalctl.", New).WithExample(example)

// Config is the collector's options.
type Config struct {
	Units      []string    `doc:"Only entries of these systemd units, as journalctl --unit takes them." optional:"true"`
	Priority   string      `doc:"Only entries of this priority or a more urgent one." default:"debug" enum:"emerg|alert|crit|err|warning|notice|info|debug"`
	StartAt    string      `doc:"Where to begin in a journal that was not read before." default:"end" enum:"beginning|end"`
	Last       int         `doc:"With start_at end: how many of the entries that are already there are sent, the newest." default:"0" min:"0" max:"1000000"`
	Directory  string      `doc:"Read the journal files of this directory instead of this machine's." optional:"true"`
	MaxSize    config.Size `doc:"The largest entry, as journalctl prints it; larger ones are skipped and counted." default:"1MiB" min:"4KiB" max:"64MiB"`
	Journalctl string      `doc:"The program that reads the journal." default:"journalctl"`
}

// How records are put into batches, and how often the cursor is saved.
const (
	maxBatch  = 512       // records
	maxBytes  = 512 << 10 // of journalctl's output, in a batch
	saveEvery = time.Second
)

// New returns the collector.
func New(c Config, h creel.Host) (creel.Collector, error) {
	return &collector{
		cfg: c, host: h,
		skipped: h.Metrics.Counter("creel.journald.skipped", "Entries of the journal that were larger than max_size or could not be read.", "{record}"),
	}, nil
}

type collector struct {
	cfg     Config
	host    creel.Host
	skipped *metric.Counter

	mu      sync.Mutex
	loaded  bool
	version uint64 // of the state
	acked   *progress
	dirty   bool
}

// progress is how far the journal has been acknowledged. After entries were abandoned reading starts again with a new one.
type progress struct {
	cursor  string // of the last entry before which, itself included, everything was acknowledged; "": none
	pending []*sent
	waiting int           // batches without an answer, and the reader while it may send more
	lost    chan struct{} // closed when a batch was abandoned: it must be sent again
	settled chan struct{} // closed when nobody is waited for
}

type sent struct {
	cursor string // of its last entry
	done   bool
}

func newProgress(cursor string) *progress {
	return &progress{cursor: cursor, waiting: 1, lost: make(chan struct{}), settled: make(chan struct{})}
}

// answered is called under the collector's lock, for every batch and once for the reader.
func (p *progress) answered() {
	if p.waiting--; p.waiting == 0 {
		close(p.settled)
	}
}

// saved is the state.
type saved struct {
	Version int    `json:"version"`
	Cursor  string `json:"cursor"`
}

// Collect follows the journal until ctx is done.
func (c *collector) Collect(ctx context.Context, out creel.Sink) error {
	c.load()
	saving, stop := context.WithCancel(ctx)
	var saver sync.WaitGroup
	saver.Go(func() { c.saveWhileDirty(saving) })
	defer saver.Wait()
	defer stop()
	for {
		c.mu.Lock()
		c.acked = newProgress(c.acked.cursor)
		p := c.acked
		c.mu.Unlock()
		err := c.follow(ctx, p, out)
		c.mu.Lock()
		p.answered()
		c.mu.Unlock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		select {
		case <-p.lost:
		default:
			return err
		}
		select {
		case <-p.settled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close saves what has been acknowledged since the last time.
func (c *collector) Close() error { return c.save() }

// command is how the journal is read from a cursor on.
func (c *collector) command(ctx context.Context, cursor string) *exec.Cmd {
	args := []string{"--output=json", "--all", "--follow", "--quiet", "--priority=" + c.cfg.Priority}
	if c.cfg.Directory != "" {
		args = append(args, "--directory="+c.cfg.Directory)
	}
	for _, unit := range c.cfg.Units {
		args = append(args, "--unit="+unit)
	}
	switch {
	case cursor != "":
		args = append(args, "--no-tail", "--after-cursor="+cursor)
	case c.cfg.StartAt == "beginning":
		args = append(args, "--no-tail")
	default:
		args = append(args, "--lines="+strconv.Itoa(c.cfg.Last))
	}
	cmd := exec.CommandContext(ctx, c.cfg.Journalctl, args...)
	cmd.WaitDelay = time.Second
	return cmd
}

// follow sends the entries after p's cursor. It returns when ctx is done, when a batch was abandoned, or with a fault.
func (c *collector) follow(ctx context.Context, p *progress, out creel.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.lost:
			cancel()
		case <-ctx.Done():
		}
	}()
	cmd := c.command(ctx, p.cursor)
	said := &tail{}
	cmd.Stderr = said
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run %s: %w", c.cfg.Journalctl, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w; is this a machine with systemd, and may this user run it?", c.cfg.Journalctl, err)
	}
	sendErr := c.read(ctx, stdout, p, out)
	cancel()
	err = cmd.Wait()
	switch {
	case sendErr != nil:
		return sendErr
	case err != nil && said.String() != "":
		return fmt.Errorf("read the journal: %s ended: %w: %s", c.cfg.Journalctl, err, said)
	}
	return fmt.Errorf("read the journal: %s ended by itself (%v) %s", c.cfg.Journalctl, err, said)
}

// read makes batches of the lines in r. It returns nil at the end of r.
func (c *collector) read(ctx context.Context, r io.Reader, p *progress, out creel.Sink) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	d := newDecoder(c.host)
	var long []byte
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if len(long) <= int(c.cfg.MaxSize) {
				long = append(long, line...)
			}
			continue
		}
		if err != nil {
			return nil // an unfinished line is no entry
		}
		if long != nil {
			line, long = append(long, line...), nil
		}
		if len(line) > int(c.cfg.MaxSize) || !d.add(line) {
			c.skipped.Add(1)
		}
		if d.len() < maxBatch && d.bytes < maxBytes && lines.Buffered() > 0 {
			continue
		}
		b, cursor := d.take()
		if b == nil {
			continue
		}
		if err := c.send(ctx, b, cursor, p, out); err != nil {
			return err
		}
	}
}

func (c *collector) send(ctx context.Context, b *creel.Batch, cursor string, p *progress, out creel.Sink) error {
	s := &sent{cursor: cursor}
	c.mu.Lock()
	p.pending = append(p.pending, s)
	p.waiting++
	c.mu.Unlock()
	b.OnDone(func(err error) { c.settle(p, s, err) })
	if err := out.Send(ctx, b); err != nil {
		creel.Settle(b, creel.ErrAbandoned) // still ours: it is read again
		return err
	}
	return nil
}

// settle takes the answer about a batch. nil and a refusal both decide about its entries; an abandoned batch does not.
func (c *collector) settle(p *progress, s *sent, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer p.answered()
	if errors.Is(err, creel.ErrAbandoned) {
		select {
		case <-p.lost:
		default:
			close(p.lost)
		}
		return
	}
	s.done = true
	for len(p.pending) > 0 && p.pending[0].done {
		p.cursor, p.pending, c.dirty = p.pending[0].cursor, p.pending[1:], true
	}
}

// load takes over where the previous run has come to.
func (c *collector) load() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded {
		return
	}
	c.loaded, c.acked = true, newProgress("")
	data, version, err := c.host.State.Load()
	c.version = version
	var s saved
	if err == nil && len(data) > 0 {
		if err = json.Unmarshal(data, &s); err == nil && s.Version != 1 {
			err = fmt.Errorf("its version is %d", s.Version)
		}
	}
	if err != nil {
		c.host.Log.Warn("the journal's cursor cannot be loaded; reading starts as if for the first time", "error", err)
		return
	}
	c.acked.cursor = s.Cursor
}

func (c *collector) saveWhileDirty(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	complained := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := c.save()
		if err != nil && err.Error() != complained {
			c.host.Log.Warn("the journal's cursor is not saved; a restart would send entries twice", "error", err)
		}
		if complained = ""; err != nil {
			complained = err.Error()
		}
	}
}

// save saves the cursor if it has moved.
func (c *collector) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dirty {
		return nil
	}
	data, err := json.Marshal(saved{1, c.acked.cursor})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	version, err := c.host.State.Save(data, c.version)
	if err != nil {
		return fmt.Errorf("save cursor: %w", err)
	}
	c.version, c.dirty = version, false
	return nil
}

// tail keeps the end of what a program says.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if n := len(t.text) - 2048; n > 0 {
		t.text = t.text[n:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.ToValidUTF8(string(bytes.TrimSpace(t.text)), "�")
}
