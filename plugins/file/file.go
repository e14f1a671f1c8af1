// Package file follows text files and sends each line as a log record.
//
// A file is known by device, inode and a fingerprint of its first bytes, never by its name: so a renamed file is read to
// its end through the handle that is already open, a recycled inode is seen for the new file it is, and a restart finds
// what was rotated while nobody looked. Its position is saved behind the acknowledgement of its lines; what a disk queue
// has taken beyond it is passed over.
//
// The package knows files and lines. It knows neither what lines mean (parsing is a processor's) nor where they go.
package file

import (
	"context"
	_ "embed"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

//go:embed example.yaml
var example string

// Plugin is the file collector.
var Plugin = creel.NewCollector("file", "Follows text files and sends each line as a log record.", New).WithExample(example)

// Config is the options of the collector.
type Config struct {
	Include         []Glob            `doc:"Files to follow. ** stands for any number of directories." example:"/var/log/**/*.log"`
	Exclude         []Glob            `doc:"Files not to follow, among those that include matches." optional:"true" example:"/var/log/**/*.gz"`
	StartAt         string            `doc:"Where to start in a file that is there when nothing is remembered about it. Files that appear later are always read from their beginning." enum:"beginning|end" default:"end"`
	Last            config.Size       `doc:"How much of a file's end to read after all, with start_at: end." default:"0B" max:"1TiB" example:"1MiB"`
	PollInterval    time.Duration     `doc:"How often to look for new lines and new files." default:"200ms" min:"1ms" max:"1m"`
	MaxLineSize     config.Size       `doc:"Longest line. A longer one is split, and its parts carry the attribute creel.line: start, middle or end." default:"1MiB" min:"16" max:"16MiB"`
	ReadSize        config.Size       `doc:"How much to read from one file before it is the next one's turn." default:"256KiB" min:"1KiB" max:"16MiB"`
	MaxOpenFiles    int               `doc:"Most files to hold open. Beyond, those idle the longest are closed, and opened again when they grow." default:"1024" min:"1"`
	FingerprintSize config.Size       `doc:"How many of its first bytes tell a file from another." default:"1KiB" min:"16" max:"64KiB"`
	Watch           string            `doc:"auto lets the kernel tell what has changed, where it can; poll does not. Then, and on network file systems, files and directories are looked at every poll_interval, and those idle for long every few seconds." enum:"auto|poll" default:"auto"`
	Encoding        string            `doc:"How the text is encoded. With utf-16 the byte order mark tells the order; without one it is little-endian." enum:"utf-8|utf-16|utf-16le|utf-16be|gbk|gb18030|iso-8859-1" default:"utf-8"`
	Format          string            `doc:"What a container runtime has put around each line: cri (Kubernetes), docker (json-file), auto for either, text for nothing. It is taken off, parts of lines are joined, and the path tells which container it was." enum:"text|cri|docker|auto" default:"text"`
	Multiline       Multiline         `doc:"Lines that belong together, such as stack traces."`
	Attributes      map[string]string `doc:"Attributes of each record." optional:"true" example:"{log.source: audit}"`
	Resource        map[string]string `doc:"Resource attributes of all files." optional:"true" example:"{service.name: cart}"`
	PathPattern     Pattern           `doc:"A regular expression on the path. Its named groups become resource attributes; in their names __ stands for a dot." optional:"true" example:"/srv/(?P<service__name>[^/]+)/"`
}

const (
	resolveEvery = time.Second            // directories are looked at that often at least, and paths that could not be read
	slowEvery    = 5 * time.Second        // what is idle is looked at
	lazily       = 4                      // likewise, times longer, if it is watched
	hotFor       = 30 * time.Second       // a file is looked at in each round, since its last line
	hotWatched   = time.Second            // the same, of one that is watched
	saveEvery    = 500 * time.Millisecond // while positions change
	saveBytes    = 8 << 20                // likewise, when so much was acknowledged meanwhile
	saveShare    = 10                     // encoding what is saved takes this part of the time at most, and the disk half of it
	rememberFor  = 24 * time.Hour         // the position of a file that cannot be found
	clockGrain   = 50 * time.Millisecond  // files that are changed twice within may have the same time stamp
	lingerFor    = time.Minute            // how long a rotated file stays open after its last line
)

// New opens the collector. It touches no file.
func New(c Config, h creel.Host) (creel.Collector, error) {
	h = h.Ready()
	f, err := newFinder(c.Include, c.Exclude)
	if err != nil {
		return nil, err
	}
	if err := c.Multiline.check(); err != nil {
		return nil, err
	}
	k := &collector{
		cfg: c, memory: h.Memory, resource: h.Resource, log: h.Log, state: h.State, taken: h.Taken, finder: f, linger: lingerFor, settleFor: settleFor, free: freeSize,
		byID: map[fileID]*tail{}, byPath: map[string]*tail{}, suspects: map[string]bool{}, complaints: map[string]complaint{}, head: make([]byte, c.FingerprintSize),
		encoding: newEncoding(c.Encoding), urgent: make(chan struct{}, 1), saved: make(chan struct{}, 1),
		stages: stages{format: c.Format, multi: c.Multiline, max: int(c.MaxLineSize), limit: int(c.MaxLineSize)},
	}
	if c.Format != "text" { // a part of a line, with all that is around it, may be longer than its text
		k.stages.limit = 2*k.stages.limit + 64<<10
	}
	k.stages.plain = c.Format == "text" && !c.Multiline.on() && k.encoding.isUTF8()
	for _, name := range slices.Sorted(maps.Keys(c.Attributes)) {
		k.static = append(k.static, creel.Attr{Key: name, Value: creel.String(c.Attributes[name])})
	}
	return k, nil
}

// collector is one goroutine that reads, in turns, from all files, and another that saves positions.
type collector struct {
	cfg       Config
	memory    *creel.Memory
	resource  creel.Resource
	log       *slog.Logger
	state     creel.State
	taken     func(source uint64) []creel.Range
	linger    time.Duration
	settleFor time.Duration
	free      int64
	static    creel.Attrs // of each record
	encoding  encoding
	stages    stages

	// What follows belongs to the goroutine of Collect.
	finder     *finder
	byID       map[fileID]*tail // those that may still be read
	byPath     map[string]*tail // by their path, and by where that leads to if it is a link
	hot        []*tail          // those that are looked at in each round
	opened     []*tail          // those that are open
	queue      []*tail          // those that wait for others to be closed
	watch      *watcher         // nil: there is none
	suspects   map[string]bool  // paths that may lead elsewhere by now
	complaints map[string]complaint
	head       []byte    // for fingerprints
	now        time.Time // of the last poll
	polled     time.Time // when directories were last looked after
	patrolled  time.Time // when idle files last were
	cursor     int       // of the patrol
	patrols    int       // how often patrol has been around
	began      time.Time // when paths were first looked up
	stats      int       // how often a file was looked at
	linked     bool      // there are files behind links, which only patrol looks at
	pass       int       // how often paths were looked up
	boot       string    // names this run of the machine; "": not known
	before     *past     // what the previous run knew; nil until loaded

	// Collect writes these under mu, and reads them without; the saver and acknowledgements lock it to read.
	mu       sync.Mutex
	tails    []*tail
	known    []content // the oldest first
	resolved time.Time // everything was looked at since; zero before the first time
	dirty    bool      // locked always
	lost     bool      // locked always: some progress is
	unsaved  int64     // locked always: bytes that were acknowledged since the last save
	news     uint64    // counts what must be saved before more is sent of the file that it is about

	told   atomic.Uint64 // of news: saved, or tried in vain
	urgent chan struct{} // asks for a save
	saved  chan struct{} // tells Collect that told has grown

	saving  sync.Mutex    // one save at a time
	version uint64        // of what was saved last
	work    time.Duration // it took to encode that
	closed  bool
}

// Collect reads until ctx is done. What it has sent by then may be acknowledged later: Close saves that.
func (c *collector) Collect(ctx context.Context, out creel.Sink) error {
	if c.before == nil {
		c.load()
	}
	if c.cfg.Watch == "auto" {
		c.watch = newWatcher()
		defer c.watch.close()
	}
	c.finder.watch, c.finder.dirs = c.watch, map[string]*listing{}
	ctx, stop := context.WithCancel(ctx)
	var saver sync.WaitGroup
	saver.Go(func() { c.saveWhileDirty(ctx) })
	defer func() {
		stop()
		saver.Wait()
		c.mu.Lock()
		c.dirty = true // what appears from now on is newer than what is saved
		c.mu.Unlock()
		if err := c.save(); err != nil {
			c.log.Warn("positions are not saved; a restart would send lines twice", "error", err)
		}
	}()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		case <-c.watch.ready():
		case <-c.saved:
		}
		now := time.Now()
		c.poll(now)
		more, err := c.round(ctx, out, now)
		if err != nil {
			return err
		}
		if more {
			pause.Reset(0)
		} else {
			pause.Reset(c.cfg.PollInterval)
		}
	}
}

// round gives every file its turn, again and again while there is something to read and it is not yet time to poll.
func (c *collector) round(ctx context.Context, out creel.Sink, now time.Time) (more bool, err error) {
	for {
		more = false
		for i := 0; i < len(c.hot); i++ {
			c.stats++
			m, err := c.turn(ctx, c.hot[i], out, now)
			if err != nil {
				return false, err
			}
			more = more || m
		}
		more = c.cool(now) || more
		if !more || time.Since(now) > c.cfg.PollInterval {
			return more, ctx.Err()
		}
	}
}

// send gives b to out. While out has no room, the files are still looked after: a rotated one must be opened before it
// is gone.
func (c *collector) send(ctx context.Context, b *creel.Batch, out creel.Sink) error {
	if out.TrySend(b) {
		return nil
	}
	sent := make(chan error, 1)
	go func() { sent <- out.Send(ctx, b) }()
	tick := time.NewTicker(c.cfg.PollInterval)
	defer tick.Stop()
	for {
		select {
		case err := <-sent:
			return err
		case now := <-tick.C:
			c.poll(now)
		}
	}
}

// Close saves the positions for the last time and gives the files back.
func (c *collector) Close() error {
	err := c.save()
	c.saving.Lock()
	c.closed = true
	c.saving.Unlock()
	for _, t := range c.tails {
		c.shut(t)
	}
	return err
}

type complaint struct {
	text  string
	early bool // made at the first look: start_at still holds for the file
}

// complain names what is wrong with a path, once until it changes.
func (c *collector) complain(path string, level slog.Level, text string) {
	old, ok := c.complaints[path]
	if ok && old.text == text {
		return
	}
	c.complaints[path] = complaint{text, c.resolved.IsZero() || old.early}
	c.log.Log(context.Background(), level, text, "path", path)
}
