package center

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel/config"
)

// An Instance is one that offers a service. It is not changed once it was handed over.
type Instance struct {
	Service string            // what it offers: letters, digits and ._-
	ID      string            // unique in its service; likewise
	Address string            // host:port
	Tags    []string          // words to choose by, without commas
	Meta    map[string]string // what else is to be known; keys of letters, digits and _-
	Weight  int               // its share of what there is to do, against the others'; 0 counts as 1
}

// A Registry knows who offers which services. Its methods may be called concurrently; Host.Health hears of all of them.
type Registry interface {
	// Register keeps an instance registered until ctx is done: also when the registry was away or has forgotten it. Then it
	// takes the instance away, tries so for a few seconds at most, and returns. Who registers an ID that is there already
	// takes its place. The Instance has passed Check.
	Register(ctx context.Context, i Instance)

	// Watch calls f with all instances of a service that are alive, by ID, and again whenever they are others, until ctx is
	// done; it returns then. Otherwise it is as Source.Watch.
	Watch(ctx context.Context, service string, f func([]Instance))
}

// Check says what keeps an instance from being registered, wherever that is to be: what one registry takes, another may not.
func (i Instance) Check() error {
	if err := CheckService(i.Service); err != nil {
		return err
	}
	if !plain(i.ID, "._-") {
		return fmt.Errorf("id %q must consist of letters, digits and ._-", i.ID)
	}
	if err := checkAddress(i.Address); err != nil {
		return fmt.Errorf("address %q %w", i.Address, err)
	}
	if i.Weight < 0 || i.Weight > 1000 {
		return fmt.Errorf("weight %d must be between 0 and 1000", i.Weight)
	}
	for _, tag := range i.Tags {
		if tag == "" || strings.ContainsFunc(tag, func(r rune) bool { return r <= ' ' || r == ',' }) {
			return fmt.Errorf("tag %q must be a word without spaces and commas", tag)
		}
	}
	for key, value := range i.Meta {
		if !plain(key, "_-") || key == tagsKey || key == idKey || key == weightKey {
			return fmt.Errorf("%q cannot be the key of an entry of meta: letters, digits and _- can be in it, and it must not be tags, id or weight", key)
		}
		if len(value) > 512 {
			return fmt.Errorf("the entry %s of meta has more than 512 bytes", key)
		}
	}
	return nil
}

// CheckService says what keeps a word from being the name of a service.
func CheckService(name string) error {
	if !plain(name, "._-") {
		return fmt.Errorf("service %q must consist of letters, digits and ._-", name)
	}
	return nil
}

func plain(word, more string) bool {
	return word != "" && len(word) <= 128 && !strings.ContainsFunc(word, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(more, r)
	})
}

// checkAddress wants an address that others can use.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("must be host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("must have a port from 1 to 65535")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return errors.New("must have a host that others reach this one by, and not stand for all of them")
	}
	return nil
}

// Split returns host and port of the address of an Instance that has passed Check.
func (i Instance) Split() (host string, port int) {
	host, p, _ := net.SplitHostPort(i.Address) // see Check
	port, _ = strconv.Atoi(p)
	return host, port
}

// Where a registry has nothing but entries of metadata, these hold the rest.
const (
	tagsKey   = "tags"
	idKey     = "id"
	weightKey = "weight"
)

// Flat returns the metadata of an instance with what else is to be known of it: for registries that have only that.
func (i Instance) Flat() map[string]string {
	flat := map[string]string{idKey: i.ID, weightKey: strconv.Itoa(max(i.Weight, 1))}
	maps.Copy(flat, i.Meta)
	if len(i.Tags) > 0 {
		flat[tagsKey] = strings.Join(i.Tags, ",")
	}
	return flat
}

// Unflat takes back what Flat has put into Meta. ID and Weight that are not there, because somebody else has registered the
// instance, stay as they are.
func (i Instance) Unflat() Instance {
	i.Meta = maps.Clone(i.Meta)
	i.ID = cmp.Or(i.Meta[idKey], i.ID)
	if tags := i.Meta[tagsKey]; tags != "" {
		i.Tags = strings.Split(tags, ",")
	}
	if n, err := strconv.Atoi(i.Meta[weightKey]); err == nil && n > 0 {
		i.Weight = n
	}
	for _, key := range []string{idKey, tagsKey, weightKey} {
		delete(i.Meta, key)
	}
	return i
}

func (i Instance) equal(o Instance) bool {
	return i.Service == o.Service && i.ID == o.ID && i.Address == o.Address && i.Weight == o.Weight && slices.Equal(i.Tags, o.Tags) && maps.Equal(i.Meta, o.Meta)
}

// Doubt is how long a service must have no instance at all until that is believed. A registry that has lost its memory is
// empty as well, and by then whoever is alive has registered again with any of them.
const Doubt = 90 * time.Second

// OpenRegistry makes the Registry of a center, with options that Schema(c).Check returned. Its Watch does not believe at once
// that nobody offers a service any more, and h.Health is told so. It fails if the center is none.
func OpenRegistry(c Center, cfg []byte, h Host) (Registry, error) {
	if c.Registry == nil {
		return nil, fmt.Errorf("a center %s does not know who offers a service: it only holds configuration", c.Name)
	}
	common, err := config.Decode[Common](config.Of[Common]().Pick(cfg))
	if err != nil {
		return nil, fmt.Errorf("decode options: %w", err)
	}
	g := &doubting{common: common, health: newHealth(h)}
	h.Health = g.health.isAway
	if g.Registry, err = c.Registry(c.Config.Pick(cfg), h); err != nil {
		return nil, err
	}
	return g, nil
}

// doubting is a Registry that is not believed in everything.
type doubting struct {
	Registry
	common Common
	health *health
}

// Watch calls f only if there is news, and keeps the last instances of a service that suddenly has none for a while. While
// the registry is away the while goes on.
func (g *doubting) Watch(ctx context.Context, service string, f func([]Instance)) {
	d := doubt{f: f, health: g.health, most: Doubt}
	if g.common.AllowEmpty {
		d.most = 0
	}
	g.Registry.Watch(ctx, service, d.hear)
	d.end()
}

// doubt stands between a Registry and f.
type doubt struct {
	f      func([]Instance)
	health *health
	most   time.Duration // 0: everything is believed

	mu    sync.Mutex
	said  bool // f was called
	last  []Instance
	timer *time.Timer // runs while there is doubt
}

func (d *doubt) hear(list []Instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
	for i := range list {
		list[i].Weight = max(list[i].Weight, 1)
	}
	if len(list) == 0 && len(d.last) > 0 && d.most > 0 {
		if d.timer == nil {
			d.health.isRefused(fmt.Errorf("nobody offers the service any more, and %d did; they count for %v more, unless allow_empty: true is set for this center", len(d.last), d.most))
			d.timer = time.AfterFunc(d.most, d.believe)
		}
		return
	}
	d.settle()
	if !d.said || !slices.EqualFunc(list, d.last, Instance.equal) {
		d.said, d.last = true, list
		d.f(list)
	}
}

// believe is called when there was doubt for long enough.
func (d *doubt) believe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.timer == nil: // it was over at this moment
	case !d.health.works():
		d.timer.Reset(d.most)
	default:
		d.settle()
		d.last = nil
		d.f(nil)
	}
}

// settle ends the doubt, if there is some.
func (d *doubt) settle() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
		d.health.isRefused(nil)
	}
}

func (d *doubt) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// ErrForgotten is what Lease.Beat returns when the registry does not know the instance.
var ErrForgotten = errors.New("the registry does not know the instance any more")

// farewell is how long it is tried to take an instance away.
const farewell = 3 * time.Second

// A Lease is how an instance stays registered where it has to be said again and again that it is alive.
type Lease struct {
	Every    time.Duration                   // between two beats
	Register func(ctx context.Context) error // may be called again
	Beat     func(ctx context.Context) error // ErrForgotten asks for Register
	Leave    func(ctx context.Context) error // takes the instance away; it need not be there
}

// Keep keeps an instance registered until ctx is done, and takes it away.
func (l Lease) Keep(ctx context.Context, h Host) {
	pace := Pace{Every: l.Every, Burst: 3} // of registering anew: a registry may forget at once. What fails is paced by Keep
	Keep(ctx, h, func(worked func()) error {
		for {
			if err := l.Register(ctx); err != nil {
				return err
			}
			worked()
			if err := l.beat(ctx, worked); !errors.Is(err, ErrForgotten) {
				return err
			}
			h.Log.Info("the registry has forgotten this instance, which registers again")
			if err := pace.Wait(ctx); err != nil {
				return err
			}
		}
	})
	Farewell(ctx, h, l.Leave)
}

func (l Lease) beat(ctx context.Context, worked func()) error {
	for {
		if err := Sleep(ctx, l.Every); err != nil {
			return err
		}
		if err := l.Beat(ctx); err != nil {
			return err
		}
		worked()
	}
}

// Farewell calls leave, which has three seconds, when ctx is done already. That it fails is logged: then the registry has to
// notice by itself that an instance is gone.
func Farewell(ctx context.Context, h Host, leave func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if err := leave(ctx); err != nil {
		h.Log.Warn("this instance is not taken away, and counts as one that is alive for a while", "error", err)
	}
}

// Refuse is Register for a registry that is ReadOnly: it says so until ctx is done.
func Refuse(ctx context.Context, h Host, center string) {
	t := Trouble{Host: h}
	t.Tell(fmt.Errorf("nobody can register with a center %s: what it lists comes about in other ways", center))
	<-ctx.Done()
}
