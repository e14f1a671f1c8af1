package gate

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel/control"
)

const (
	maxNetworks = 10_000          // that are limited each for itself
	patience    = 5 * time.Second // how long a request waits until others are done
)

// limits keep requests from costing more than a hub can spare. All agents of a site may come from one address, and all at
// once: who shows a certificate of the authority is not held to what strangers are.
type limits struct {
	network *limiter // requests from one network
	all     *limiter // requests in all
	failed  *limiter // refused enrolments from one network

	agents, strangers *pool // renewals and tokens; enrolments
}

func newLimits() limits {
	return limits{
		network: newLimiter(300, 1000), all: newLimiter(2000, 4000), failed: newLimiter(2, 60),
		agents: newPool(4*runtime.GOMAXPROCS(0), 1000), strangers: newPool(2*runtime.GOMAXPROCS(0), 200),
	}
}

// A limiter lets so many come a second, and so many at once, of each network: the generic cell rate algorithm (ITU-T I.371).
// Networks that are too many to be known apart are one.
type limiter struct {
	cost, burst int64 // nanoseconds

	mu    sync.Mutex
	until map[netip.Prefix]int64 // when everything that has come would have come, at the limit's rate
	swept int64
}

func newLimiter(rate, burst int64) *limiter {
	cost := int64(time.Second) / rate
	return &limiter{cost: cost, burst: burst * cost, until: make(map[netip.Prefix]int64)}
}

// wait returns how long one more must wait; 0 is not at all. If take is true, that one comes.
func (l *limiter) wait(network netip.Prefix, now time.Time, take bool) time.Duration {
	t := now.UnixNano()
	l.mu.Lock()
	defer l.mu.Unlock()
	until, known := l.until[network]
	if !known && len(l.until) >= maxNetworks {
		if t-l.swept >= int64(time.Second) || t < l.swept {
			l.swept = t
			for n, u := range l.until {
				if u <= t || u > t+2*l.burst { // the clock was set back
					delete(l.until, n)
				}
			}
		}
		if len(l.until) >= maxNetworks {
			network = netip.Prefix{}
			until = l.until[network]
		}
	}
	if until > t+2*l.burst {
		until = t
	}
	until = max(until, t) + l.cost
	if over := until - t - l.burst; over > 0 {
		return time.Duration(over)
	}
	if take {
		l.until[network] = until
	}
	return 0
}

// A pool bounds how many requests are worked on, and how many wait for that.
type pool struct {
	slots   chan struct{}
	waiting atomic.Int64
	most    int64
}

func newPool(slots int, most int64) *pool {
	return &pool{slots: make(chan struct{}, slots), most: most}
}

// enter waits for a slot, and reports whether it has one: leave gives it back.
func (p *pool) enter(ctx context.Context) bool {
	select {
	case p.slots <- struct{}{}:
		return true
	default:
	}
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > p.most {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *pool) leave() { <-p.slots }

// busy is the answer to what comes too often: in a while, and not all at the same moment.
func busy(after time.Duration, text string) *control.Refusal {
	after = max(after, time.Second)
	return &control.Refusal{Code: control.Busy, Text: text, Remedy: "it tries again by itself", After: after + rand.N(after+2*time.Second)}
}

// local is where who comes through a Unix socket comes from.
const local = "local"

// placeOf returns where somebody comes from, without the port, and the network that limits are for: an address of IPv4, 64
// bits of IPv6, which one host may have.
func placeOf(address string) (string, netip.Prefix) {
	ip, err := netip.ParseAddr(hostOf(address))
	if err != nil {
		return local, netip.PrefixFrom(netip.IPv4Unspecified(), 32)
	}
	ip = ip.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	network, err := ip.Prefix(bits)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return ip.String(), network
}
