package cli

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/spool"
)

func (c *Commands) spool() *cobra.Command {
	cmd := &cobra.Command{
		Use: "spool", Short: "Look into disk queues, take out what is in them, repair them; no agent is needed.", Args: cobra.NoArgs,
		Long: "DIR is a disk queue, or the state directory of an agent, which has one for each exporter with delivery.spool, and one of\n" +
			"dead letters. All but repair only read, and may be used while an agent runs; what they see is a moment's then.",
		Example: fmt.Sprintf("  %[1]s spool ls /var/lib/creel\n  %[1]s spool inspect /var/lib/creel/spool/otlp%%2Fhub\n"+
			"  %[1]s spool export /var/lib/creel -O records.jsonl\n  %[1]s spool repair /var/lib/creel --dry-run", c.Name),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.spoolList(), c.spoolInspect(), c.spoolExport(), c.spoolRepair())
	return cmd
}

// A place is a spool that was found.
type place struct{ name, dir string }

// places returns the spools that dir means: itself, or those in an agent's, or a hub's, state directory.
func places(dir string) ([]place, error) {
	if isSpool(dir) {
		return []place{{spoolName(dir), dir}}, nil
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, Exit(ExitNotFound, fmt.Errorf("find spools: %w", err))
	}
	var list []place
	for _, state := range []string{dir, filepath.Join(dir, "agent")} {
		dirs, err := filepath.Glob(filepath.Join(globEscape(state), "spool", "*"))
		if err != nil {
			return nil, err
		}
		for _, d := range append(dirs, filepath.Join(state, "deadletters")) {
			if isSpool(d) {
				list = append(list, place{spoolName(d), d})
			}
		}
	}
	if len(list) == 0 {
		return nil, Exit(ExitNotFound, fmt.Errorf("there is no spool in %s: it has neither segments (*.seg), nor spool/*; name a spool, or an agent's state directory", dir))
	}
	return list, nil
}

// spoolName is what a spool is called: the exporter's id.
func spoolName(dir string) string {
	base := filepath.Base(dir)
	if id, err := url.PathUnescape(base); err == nil {
		return id
	}
	return base
}

// globEscape makes a path that Glob takes as it is.
func globEscape(path string) string {
	return strings.NewReplacer(`*`, `[*]`, `?`, `[?]`, `[`, `[[]`).Replace(path)
}

func isSpool(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return e.Type().IsRegular() && (e.Name() == "acks" || strings.HasSuffix(e.Name(), ".seg"))
	})
}

// requestIn returns the OTLP export request in an item.
func requestIn(t *spool.Taken) ([]byte, error) {
	switch t.Codec {
	case deadletter.Codec:
		l := deadletter.Read(*t)
		if l.Reason == deadletter.Unreadable {
			return nil, errors.New(l.Answer)
		}
		return l.Payload, nil
	case 1: // what pipelines write
		return t.Payload, nil
	}
	return nil, fmt.Errorf("it has the format %#x, which this version does not know", t.Codec)
}

// SpoolRow is a disk queue as it stands on disk.
type SpoolRow struct {
	Name     string    `json:"name"`
	Dir      string    `json:"dir"`
	Segments int       `json:"segments"`
	Items    int       `json:"items"`   // that wait
	Records  uint64    `json:"records"` // that wait
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"oldest,omitzero"` // no item is older
	Lost     uint64    `json:"lost"`            // records that are damaged
	Noted    uint64    `json:"noted"`           // records that were lost, and counted, before
	Error    string    `json:"error,omitempty"` // why it cannot be read
}

func (c *Commands) spoolList() *cobra.Command {
	format := "table"
	cmd := &cobra.Command{
		Use: "ls DIR", Short: "List the disk queues in a directory, and what waits in them.", Args: cobra.ExactArgs(1),
		Long:    "List the disk queues in DIR. They are read from end to end.\nExit code 1: one of them is damaged, or cannot be read; 5: there is none.",
		Example: fmt.Sprintf("  %[1]s spool ls /var/lib/creel\n  %[1]s spool ls /var/lib/creel -o json", c.Name),
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := places(args[0])
			if err != nil {
				return err
			}
			rows, names := make([]SpoolRow, len(list)), make([]string, len(list))
			bad := false
			for i, p := range list {
				rows[i], names[i] = c.lookAt(p), p.name
				bad = bad || rows[i].Lost > 0 || rows[i].Error != ""
			}
			if err := c.Print(format, map[string]any{"spools": rows}, names, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "NAME\tSEGMENTS\tITEMS\tRECORDS\tSIZE\tOLDEST\tLOST\tERROR")
				for _, r := range rows {
					fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\t%d\t%s\n", printable(r.Name), r.Segments, r.Items, r.Records, config.Size(r.Bytes), stamp(r.Oldest), r.Lost, r.Error)
				}
			}); err != nil {
				return err
			}
			if bad {
				return Exit(ExitNo, fmt.Errorf("there is damage; %s spool inspect tells where, %[1]s spool repair notes it, so that it is counted once", c.Name))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", format, "table, json, yaml or name")
	return cmd
}

// A ticker tells of long work every two seconds.
type ticker struct {
	out  io.Writer
	told time.Time
}

func (c *Commands) ticker() *ticker { return &ticker{c.Err, time.Now()} }

func (t *ticker) tell(format string, args ...any) {
	if time.Since(t.told) > 2*time.Second {
		t.told = time.Now()
		fmt.Fprintf(t.out, format+"\n", args...)
	}
}

// count is n of something, as one says it.
func count[N int | int64 | uint64](n N, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprint(n, " ", noun)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func (c *Commands) lookAt(p place) SpoolRow {
	row, progress := SpoolRow{Name: p.name, Dir: p.dir}, c.ticker()
	first := "" // the segment of the oldest item
	r, err := spool.Inspect(p.dir, nil, func(e spool.Entry) error {
		progress.tell("%s: read up to %s", printable(p.name), e.Segment)
		if e.Settled {
			return nil
		}
		if row.Items++; first == "" {
			first = e.Segment
		}
		return nil
	})
	if err != nil {
		row.Error = err.Error()
	}
	row.Segments, row.Records, row.Bytes, row.Lost, row.Noted = len(r.Segments), r.Waiting, r.Bytes, r.Lost, r.Noted
	for _, s := range r.Segments {
		if s.Name == first {
			row.Oldest = s.Created
		}
	}
	return row
}

// Orphans returns the disk queues in the agent's state directory that belong to none of the exporters named. They are read
// from end to end.
func (c *Commands) Orphans(exporters map[string]bool) (rows []SpoolRow) {
	list, err := places(c.AgentData())
	if err != nil {
		return nil // there are none
	}
	for _, p := range list {
		if filepath.Dir(p.dir) == filepath.Join(c.AgentData(), "spool") && !exporters[p.name] {
			rows = append(rows, c.lookAt(p))
		}
	}
	return rows
}

func (c *Commands) spoolInspect() *cobra.Command {
	format, items := "text", false
	cmd := &cobra.Command{
		Use: "inspect DIR", Short: "Verify disk queues, and show their segments and items.", Args: cobra.ExactArgs(1),
		Long: "Verify every byte of the disk queues in DIR, and show their segments, with what is damaged. With --items each item as well:\n" +
			"its sequence, segment and offset, signal, records, bytes, the batch's id, and whether it is settled or waits.\n" +
			"-o json prints one object a line.\nExit code 1: there is damage; 5: there is no spool.",
		Example: fmt.Sprintf("  %[1]s spool inspect /var/lib/creel/spool/otlp%%2Fhub\n  %[1]s spool inspect /var/lib/creel --items -o json", c.Name),
		RunE: func(_ *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("unknown output %q; say -o text or -o json", format)
			}
			list, err := places(args[0])
			if err != nil {
				return err
			}
			lost := uint64(0)
			for _, p := range list {
				n, err := c.inspect(p, items, format == "json")
				if err != nil {
					return Exit(ExitNo, err)
				}
				lost += n
			}
			if lost > 0 {
				return Exit(ExitNo, fmt.Errorf("damaged: %s", count(lost, "record")))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&items, "items", false, "show each item")
	cmd.Flags().StringVarP(&format, "output", "o", format, "text or json")
	return cmd
}

// spoolItem is an item as inspect shows it.
type spoolItem struct {
	Seq     uint64 `json:"seq"`
	Segment string `json:"segment"`
	Offset  int64  `json:"offset"`
	Signal  string `json:"signal"`
	Codec   byte   `json:"codec"`
	Records int    `json:"records"`
	Bytes   int    `json:"bytes"`
	ID      string `json:"id,omitempty"`
	Settled bool   `json:"settled"`

	Parts []spoolPart `json:"parts,omitempty"`
}

// spoolPart is what an item was read from: the bytes From up to, not including, To, of the file that Source names.
type spoolPart struct {
	Source string `json:"source"`
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
}

// spoolSegment is a segment as inspect shows it.
type spoolSegment struct {
	Name    string    `json:"name"`
	Bytes   int64     `json:"bytes"`
	Created time.Time `json:"created,omitzero"`
	Base    uint64    `json:"base"`
	Next    uint64    `json:"next"`
	Items   int       `json:"items"`
	Waiting uint64    `json:"waiting"` // records
	Lost    uint64    `json:"lost"`    // records
	Tail    int64     `json:"tail"`    // bytes at its end that are no record
	Damage  []string  `json:"damage,omitempty"`
}

// spoolLine is a line of inspect's JSON: one of these, in this order.
type spoolLine struct {
	Spool   string        `json:"spool"`
	Item    *spoolItem    `json:"item,omitempty"`
	Segment *spoolSegment `json:"segment,omitempty"`
	Total   *spoolTotal   `json:"total,omitempty"`
}

type spoolTotal struct {
	Items   int    `json:"items"`
	Waiting uint64 `json:"waiting"` // records, as all that follow
	Settled uint64 `json:"settled"`
	Lost    uint64 `json:"lost"`
	Noted   uint64 `json:"noted"` // lost before, and counted
	Bytes   int64  `json:"bytes"`
	Closed  bool   `json:"closed"` // nothing can be missing at the end
}

func (c *Commands) inspect(p place, items, asJSON bool) (lost uint64, err error) {
	out := bufio.NewWriterSize(c.Out, 64<<10)
	defer out.Flush()
	enc := json.NewEncoder(out)
	if !asJSON {
		fmt.Fprintf(out, "%s in %s\n", printable(p.name), p.dir)
	}
	progress := c.ticker()
	r, err := spool.Inspect(p.dir, nil, func(e spool.Entry) error {
		progress.tell("%s: verified up to %s", printable(p.name), e.Segment)
		if !items {
			return nil
		}
		it := spoolItem{
			Seq: e.Seq, Segment: e.Segment, Offset: e.Offset, Signal: creel.Signal(e.Signal).String(), Codec: e.Codec, Records: e.Records,
			Bytes: len(e.Payload), Settled: e.Settled,
		}
		if e.ID != (spool.ID{}) {
			it.ID = fmt.Sprintf("%x", e.ID)
		}
		for _, p := range e.Parts {
			it.Parts = append(it.Parts, spoolPart{fmt.Sprintf("%016x", p.Source), p.From, p.To})
		}
		if asJSON {
			return enc.Encode(spoolLine{Spool: p.name, Item: &it})
		}
		state := "waits"
		if it.Settled {
			state = "settled"
		}
		_, err := fmt.Fprintf(out, "  %-12d %s:%-9d %-8s %6d records %9d bytes  %-7s %s\n", it.Seq, it.Segment, it.Offset, it.Signal, it.Records, it.Bytes, state, it.ID)
		return err
	})
	if err != nil {
		return 0, err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !asJSON {
		fmt.Fprintln(w, "  SEGMENT\tSIZE\tCREATED\tFIRST\tNEXT\tITEMS\tWAITING\tLOST\tTAIL")
	}
	for _, s := range r.Segments {
		g := spoolSegment{s.Name, s.Size, s.Created, s.Base, s.Next, s.Items, s.Waiting, s.Lost, s.Tail, s.Damage}
		if asJSON {
			if err := enc.Encode(spoolLine{Spool: p.name, Segment: &g}); err != nil {
				return 0, err
			}
			continue
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", s.Name, config.Size(s.Size), stamp(s.Created), s.Base, s.Next, s.Items, s.Waiting, s.Lost, s.Tail)
	}
	if asJSON {
		return r.Lost, enc.Encode(spoolLine{Spool: p.name, Total: &spoolTotal{r.Items, r.Waiting, r.Settled, r.Lost, r.Noted, r.Bytes, r.Closed}})
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	for _, s := range r.Segments {
		for _, d := range s.Damage {
			fmt.Fprintf(out, "  damage: %s: %s\n", s.Name, d)
		}
	}
	fmt.Fprintf(out, "  %s; records: %d wait, %d settled, %d damaged, %d lost before; %d bytes", count(r.Items, "item"), r.Waiting, r.Settled, r.Lost, r.Noted, r.Bytes)
	if !r.Closed {
		fmt.Fprint(out, "; not closed: an agent has it, or was killed")
	}
	fmt.Fprint(out, "\n\n")
	return r.Lost, nil
}

// exportFlags are what one asks of export.
type exportFlags struct {
	all                  bool
	format, signal, file string
}

func (c *Commands) spoolExport() *cobra.Command {
	f := exportFlags{format: "json"}
	cmd := &cobra.Command{
		Use: "export DIR", Short: "Take out the records that wait, as OTLP.", Args: cobra.ExactArgs(1),
		Long: "Write what waits in the disk queues in DIR to standard output or FILE, oldest first: one OTLP export request a line, in\n" +
			"OTLP's JSON; or, with --format proto, each request in protobuf after its length as an uvarint, which does not tell of\n" +
			"which signal it is: so --signal must. Nothing is taken away: to send the records twice, let the agent do its part as well.\n" +
			"Exit code 1: some of it cannot be read, all other is written; 5: there is no spool.",
		Example: fmt.Sprintf("  %[1]s spool export /var/lib/creel -O records.jsonl\n"+
			"  %[1]s spool export /var/lib/creel/spool/otlp%%2Fhub --signal logs | while read -r r; do\n"+
			"    curl -sf -H 'Content-Type: application/json' -d \"$r\" http://127.0.0.1:4318/v1/logs; done", c.Name),
		RunE: func(_ *cobra.Command, args []string) error { return c.runExport(args[0], f) },
	}
	cmd.Flags().BoolVar(&f.all, "all", false, "also what is settled and still there")
	cmd.Flags().StringVar(&f.format, "format", f.format, "json or proto")
	cmd.Flags().StringVar(&f.signal, "signal", "", "only logs, metrics or traces")
	cmd.Flags().StringVarP(&f.file, "output-file", "O", "", "write to `FILE`, which must not exist")
	return cmd
}

func (c *Commands) runExport(dir string, f exportFlags) (err error) {
	if f.format != "json" && f.format != "proto" {
		return fmt.Errorf("unknown format %q; say --format json or --format proto", f.format)
	}
	if known := slices.ContainsFunc(creel.Signals(), func(s creel.Signal) bool { return s.String() == f.signal }); !known && f.signal != "" {
		return fmt.Errorf("unknown signal %q; say --signal logs, metrics or traces", f.signal)
	}
	if f.format == "proto" && f.signal == "" {
		return errors.New("of which signal? --format proto needs --signal logs, metrics or traces")
	}
	list, err := places(dir)
	if err != nil {
		return err
	}
	out := c.Out
	if f.file != "" {
		file, err := os.OpenFile(f.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return Exit(ExitNo, fmt.Errorf("write records: %w", err))
		}
		defer func() {
			if e := errors.Join(file.Sync(), file.Close()); err == nil && e != nil {
				err = Exit(ExitNo, fmt.Errorf("write records: %w", e))
			}
		}()
		out = file
	}
	x := spoolExport{exportFlags: f, out: bufio.NewWriterSize(out, 256<<10), progress: c.ticker()}
	for _, p := range list {
		r, err := spool.Inspect(p.dir, nil, func(e spool.Entry) error { return x.item(p, e) })
		if err != nil {
			return Exit(ExitNo, fmt.Errorf("export %s: %w", p.name, err))
		}
		x.lost += r.Lost
	}
	if err := x.out.Flush(); err != nil {
		return Exit(ExitNo, fmt.Errorf("write records: %w", err))
	}
	fmt.Fprintf(c.Err, "written: %s with %s\n", count(x.requests, "request"), count(x.records, "record"))
	if x.lost+x.unread > 0 {
		return Exit(ExitNo, fmt.Errorf("not written: %s, which the disk has damaged, and %s, which could not be read", count(x.lost, "record"), count(x.unread, "record")))
	}
	return nil
}

// spoolExport writes requests.
type spoolExport struct {
	exportFlags
	out      *bufio.Writer
	progress *ticker
	buf      []byte

	requests              int
	records, lost, unread uint64
}

func (x *spoolExport) item(p place, e spool.Entry) error {
	if e.Settled && !x.all || x.signal != "" && x.signal != creel.Signal(e.Signal).String() {
		return nil
	}
	payload, err := requestIn(&e.Taken)
	var b *creel.Batch
	if err == nil {
		b, err = otlp.Parse(creel.Signal(e.Signal), payload, nil)
	}
	if err != nil {
		x.unread += uint64(e.Records)
		fmt.Fprintf(x.progress.out, "%s: item %d in %s: %v\n", printable(p.name), e.Seq, e.Segment, err)
		return nil
	}
	if x.format == "json" {
		x.buf = append(otlp.AppendJSON(x.buf[:0], b), '\n')
	} else {
		x.buf = append(binary.AppendUvarint(x.buf[:0], uint64(len(payload))), payload...)
	}
	if _, err := x.out.Write(x.buf); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	x.requests++
	x.records += uint64(b.Len())
	x.progress.tell("%s: written so far: %s with %s", printable(p.name), count(x.requests, "request"), count(x.records, "record"))
	return nil
}

func (c *Commands) spoolRepair() *cobra.Command {
	dry := false
	cmd := &cobra.Command{
		Use: "repair DIR", Short: "Repair disk queues that no agent uses.", Args: cobra.ExactArgs(1),
		Long: "Verify every record of the disk queues in DIR, cut off what was not written to its end, note what is lost, and remove what\n" +
			"is not needed any more. An agent does all of this by itself, where it reads; afterwards there is nothing left to find.\n" +
			"With --dry-run it only says what it would do.\n" +
			"Exit code 1: an agent uses one of them, or a newer version has written it: it is untouched then; 5: there is no spool.",
		Example: fmt.Sprintf("  %[1]s spool repair /var/lib/creel --dry-run\n  %[1]s spool repair /var/lib/creel", c.Name),
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := places(args[0])
			if err != nil {
				return err
			}
			var failed error
			for _, p := range list {
				failed = errors.Join(failed, c.repair(p, dry))
			}
			if failed != nil {
				return Exit(ExitNo, failed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be done")
	return cmd
}

func (c *Commands) repair(p place, dry bool) error {
	fmt.Fprintf(c.Err, "%s: verifying %s\n", printable(p.name), p.dir)
	if dry {
		r, err := spool.Inspect(p.dir, nil, nil)
		if err != nil {
			return err
		}
		tail := int64(0)
		for _, s := range r.Segments {
			tail += s.Tail
		}
		fmt.Fprintf(c.Out, "%s: would note as lost: %s; would cut off, at most: %s; waiting: %s\n",
			printable(p.name), count(r.Lost, "record"), count(tail, "byte"), count(r.Waiting, "record"))
		return nil
	}
	s, err := spool.Repair(p.dir, spool.Options{Log: func(s string) { fmt.Fprintln(c.Err, s) }})
	if errors.Is(err, spool.ErrInUse) {
		return fmt.Errorf("%w: stop the agent that has it, or leave it to the agent: it repairs what it reads", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "%s: noted as lost: %s; cut off: %s; waiting: %s\n", printable(p.name), count(s.Lost, "record"), count(s.Torn, "byte"), count(s.Records, "record"))
	return nil
}
