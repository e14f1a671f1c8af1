package access

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	generation = 32_768           // proofs in one of the two maps
	cacheAge   = 15 * time.Minute // after which the older one is dropped, full or not
)

// cache remembers proofs by the SHA-256 of what was shown. It has two maps: when the young one is full it becomes the old one,
// and what nobody has asked for since the last time is gone. The zero value is empty.
type cache struct {
	mu         sync.RWMutex
	young, old map[[sha256.Size]byte]*proof
	turned     time.Time
}

func (c *cache) get(sum [sha256.Size]byte) *proof {
	c.mu.RLock()
	p := c.young[sum]
	older := p == nil
	if older {
		p = c.old[sum]
	}
	c.mu.RUnlock()
	if older && p != nil {
		c.put(sum, p)
	}
	return p
}

func (c *cache) put(sum [sha256.Size]byte, p *proof) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil {
		c.young = make(map[[sha256.Size]byte]*proof)
	}
	c.young[sum] = p
	if len(c.young) >= generation {
		c.young, c.old = nil, c.young
	}
}

// age drops what has not been asked for in a while.
func (c *cache) age(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.turned) >= cacheAge {
		c.young, c.old, c.turned = nil, c.young, now
	}
}
