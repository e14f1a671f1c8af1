package documents

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
)

// roleLabel is the label of a hub's own agent. Who does not name it does not mean hubs.
const (
	roleLabel = "creel.role"
	roleHub   = "hub"
)

// placeAll is the place of a document that every agent runs that it selects; others say how many shall.
const placeAll = "all"

// maxPlace is on how many agents a document is placed at most.
const maxPlace = 1000

// maxCost is the highest cost of a place.
const maxCost = 1_000_000

// record is a version of a document as it lies in the control state.
type record struct {
	Version  int64     `json:"version"`
	Text     string    `json:"text"`
	Selector string    `json:"selector,omitempty"`
	Within   string    `json:"within,omitempty"` // what an agent must meet beside Selector: who wrote it sees no others
	Place    string    `json:"place"`
	By       string    `json:"by"`
	Time     time.Time `json:"time"`
	Note     string    `json:"note,omitempty"`
	Hash     string    `json:"hash"`
	Deleted  bool      `json:"deleted,omitempty"` // the document ends with this version, until there is a next one
}

// api returns r as the API has it.
func (r *record) api(name string) api.Document {
	return api.Document{
		Name: name, Version: r.Version, Selector: r.Selector, Within: r.Within, Place: r.Place, Hash: r.Hash, By: r.By, Time: r.Time, Note: r.Note,
		Text: r.Text, Deleted: r.Deleted,
	}
}

// hashOf names a text.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

// A content is what a document's text says, and whom it can reach. It is immutable once others see it.
type content struct {
	name     string
	selector expr.Selector
	within   expr.Selector // an agent must meet it as well: see bind
	root     *config.Node
	count    int                     // how many of those that it selects are to run it; 0: all
	spread   string                  // a label, over whose values these are spread; "": none
	priority int                     // from 0 to 9, when there is not room for all; 5 unless it says so
	never    bool                    // no two agents may ever work on the same place of it
	orphan   time.Duration           // what an agent does without a hub: see control.Tenure
	once     bool                    // each place is done when a round of each of its collectors is
	cost     float64                 // of a place, in the unit of agents' capacity; 0: it says none
	ids      map[string]*config.Node // what it defines, such as exporters.otlp/hub
	labels   []string                // that it gives to agents
}

// selects reports whether a creel agent with these labels is meant.
func (c *content) selects(labels map[string]string) bool {
	if labels[roleLabel] == roleHub && !c.selector.Names(roleLabel) {
		return false
	}
	return c.selector.Match(labels) && c.within.Match(labels)
}

// group returns a text that is the same for documents that select the same agents.
func (c *content) group() string { return c.selector.String() + "\x00" + c.within.String() }

// bind says which agents c can reach at most.
func (c *content) bind(within string) (err error) {
	if c.within, err = expr.ParseSelector(within); err != nil {
		return fmt.Errorf("read the condition %q that it was written within: %w", within, err)
	}
	for _, label := range c.labels {
		if c.within.Names(label) {
			return fmt.Errorf("the document gives agents the label %s, and reaches only agents that meet %s: who gets it could have another, and lose it again", label, within)
		}
	}
	return nil
}

var (
	goodName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)
	sections = []string{"agent", "collectors", "processors", "exporters", "pipelines", "tests"}
	keys     = append(append([]string{"document", "selector"}, placing...), sections...)
	placing  = []string{"place", "spread", "priority", "overlap", "orphan", "once", "cost"}
)

// parse reads a document's text. What is in the sections is not checked.
func parse(text string) (*content, config.Errors) {
	root, err := config.Parse("document", []byte(text), config.Env{Defer: true})
	var errs config.Errors
	if errors.As(err, &errs) {
		return nil, errs
	}
	c := &content{root: root, ids: make(map[string]*config.Node)}
	if !root.IsMap() {
		return nil, config.Errors{root.Errorf("a document is a map, with the keys %s", strings.Join(keys, ", "))}
	}
	for key, v := range root.Entries() {
		if !slices.Contains(keys, key) {
			e := v.KeyErrorf("unknown key %q", key)
			if e.Hint = config.DidYouMean(key, keys); e.Hint == "" {
				e.Hint = "known are " + strings.Join(keys, ", ")
			}
			errs = append(errs, e)
		}
	}
	c.head(&errs)
	for _, section := range sections {
		c.section(section, &errs)
	}
	errs.Sort()
	return c, errs
}

// head reads what is not for the agent.
func (c *content) head(errs *config.Errors) {
	name := c.root.Get("document")
	switch c.name = name.Text(); {
	case name == nil:
		*errs = append(*errs, &config.Error{File: "document", Line: 1, Col: 1, Message: "the key document is missing", Hint: "it names the document, such as document: nginx-logs"})
	case !goodName.MatchString(c.name) || strings.HasSuffix(c.name, ".json"):
		*errs = append(*errs, name.Errorf("a document's name has 1 to 100 letters, digits, '-', '_' and '.', begins with a letter or digit and does not end in .json"))
	}
	if n := c.root.Get("selector"); n != nil {
		switch text := n.Text(); {
		case n.Deferred():
			*errs = append(*errs, n.Errorf("the hub selects, and does not know what %s stands for at an agent", strings.Join(n.References(), " and ")))
		case text == "":
			*errs = append(*errs, n.Errorf("must be a condition on labels, such as site == \"north\"; leave the key out to select all agents"))
		default:
			var err error
			if c.selector, err = expr.ParseSelector(text); err != nil {
				*errs = append(*errs, n.Errorf("%v", err))
			}
		}
	}
	c.placing(errs)
}

// placing reads on how many agents the document is to be, and which of them are better than others.
func (c *content) placing(errs *config.Errors) {
	c.priority = 5
	if n := c.root.Get("place"); n != nil && n.Text() != placeAll {
		count, err := strconv.Atoi(n.Text())
		if err != nil || count < 1 || count > maxPlace {
			*errs = append(*errs, n.Errorf("must be %s, for every agent that is selected, or on how many of them it shall be, from 1 to %d", placeAll, maxPlace))
		}
		c.count = count
	}
	if n := c.root.Get("spread"); n != nil {
		if c.spread = n.Text(); c.spread == "" || n.Deferred() {
			*errs = append(*errs, n.Errorf("must be a label, such as site: its values get as many each as is possible"))
		}
	}
	if n := c.root.Get("priority"); n != nil {
		priority, err := strconv.Atoi(n.Text())
		if err != nil || priority < 0 || priority > 9 {
			*errs = append(*errs, n.Errorf("must be from 0 to 9"))
		}
		c.priority = priority
	}
	if n := c.root.Get("once"); n != nil {
		once, err := strconv.ParseBool(n.Text())
		if err != nil {
			*errs = append(*errs, n.Errorf("must be true, so that it is over when a round of each of its collectors is done, or false"))
		}
		c.once = once
	}
	if n := c.root.Get("cost"); n != nil {
		cost, err := strconv.ParseFloat(n.Text(), 64)
		if err != nil || !(cost >= 0.001 && cost <= maxCost) {
			*errs = append(*errs, n.Errorf("must be what it takes of an agent's agent.tasks.capacity, from 0.001 to %d", maxCost))
		}
		c.cost = cost
	}
	c.alone(errs)
	for _, key := range placing[1:] {
		if n := c.root.Get(key); n != nil && c.count == 0 {
			*errs = append(*errs, n.KeyErrorf("means nothing where every agent that is selected runs the document: say place: 2, for example"))
		}
	}
}

// alone reads what is when an agent and its hubs do not hear each other: whether another may do the same meanwhile, and for how
// long the agent goes on.
func (c *content) alone(errs *config.Errors) {
	c.orphan = control.Forever
	if n := c.root.Get("overlap"); n != nil {
		if c.never = n.Text() == "never"; !c.never && n.Text() != "allow" {
			*errs = append(*errs, n.Errorf("must be allow, so that a place has a new owner at once when its agent is lost, or never, so that it has none before the old one has surely stopped"))
		}
	}
	if c.never {
		c.orphan = 0
	}
	n := c.root.Get("orphan")
	if n == nil {
		return
	}
	switch text := n.Text(); {
	case text == "keep":
		c.orphan = control.Forever
	case text == "stop":
		c.orphan = 0
	default:
		var err error
		if c.orphan, err = config.ParseDuration(text); err != nil || c.orphan <= 0 {
			*errs = append(*errs, n.Errorf("must be keep, so that an agent goes on while no hub confirms that it has the document, stop, so that it stops then, or for how long it goes on, such as 10m"))
		}
	}
	if c.never && n.Text() != "stop" {
		*errs = append(*errs, n.Errorf("must be stop where overlap is never, or be left out: who goes on without a hub may not be the only one"))
	}
}

// place returns the place as the API has it.
func (c *content) place() string {
	if c.count == 0 {
		return placeAll
	}
	return strconv.Itoa(c.count)
}

// section notes what a section defines.
func (c *content) section(section string, errs *config.Errors) {
	n := c.root.Get(section)
	if !n.IsMap() {
		*errs = append(*errs, n.Errorf("must be a map"))
		return
	}
	for id, v := range n.Entries() {
		switch {
		case section != "agent":
			c.ids[section+"."+id] = v
		case slices.Contains(agent.OwnSettings(), id):
			*errs = append(*errs, v.KeyErrorf("agent.%s may only stand in the agent's own file", id))
		default:
			c.settings(v)
		}
	}
	for label, v := range c.root.Get("agent").Get("labels").Entries() {
		if section == "agent" {
			c.label(label, v, errs)
		}
	}
}

// settings notes options of the section agent one by one: several documents may add to their maps.
func (c *content) settings(n *config.Node) {
	if !n.IsMap() {
		c.ids[n.Path()] = n
	}
	for _, v := range n.Entries() {
		c.settings(v)
	}
}

// label notes a label that agents get, which must not decide whether they get it: they would have it and lose it for ever.
func (c *content) label(label string, n *config.Node, errs *config.Errors) {
	c.labels = append(c.labels, label)
	switch {
	case strings.HasPrefix(label, "creel."):
		*errs = append(*errs, n.KeyErrorf("labels that begin with creel. cannot be given"))
	case c.selector.Names(label):
		*errs = append(*errs, n.KeyErrorf("the document's own selector asks for the label %s: who gets the document would have another, and lose the document again", label))
	}
}

// turns returns a label that c gives and by which other is selected, if other gives labels as well: then what is given could
// decide who gives, and never come to rest.
func (c *content) turns(other *content) string {
	for _, label := range c.labels {
		if len(other.labels) > 0 && (other.selector.Names(label) || other.within.Names(label)) {
			return label
		}
	}
	return ""
}

// problems is errs as the API has them.
func problems(errs config.Errors) []api.Problem {
	list := make([]api.Problem, len(errs))
	for i, e := range errs {
		list[i] = api.Problem{Line: e.Line, Column: e.Col, Path: e.Path, Message: e.Message, Hint: e.Hint}
	}
	return list
}
