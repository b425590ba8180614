package identity

import (
	"sync"
	"time"
)

// tolerance is the largest difference to the signer's time with which the system's clock is trusted.
const tolerance = time.Minute

// Clock provides the time for checking certificates. It follows the system's clock, until a verified response of a
// signer shows that clock to be wrong. From then on it counts from the signer's time.
type Clock struct {
	mutex  sync.Mutex
	system func() time.Time
	signed time.Time
	at     time.Time
}

// NewClock returns a clock over system, usually time.Now.
func NewClock(system func() time.Time) *Clock {
	return &Clock{system: system}
}

// Now returns the time by this clock.
func (c *Clock) Now() time.Time {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	now := c.system()
	if c.signed.IsZero() {
		return now
	}
	// Differences of time.Now values are monotonic, so a later correction of the system's clock is not counted twice.
	return c.signed.Add(now.Sub(c.at))
}

// System returns the system's own time.
func (c *Clock) System() time.Time {
	return c.system()
}

// Learn adopts the time of a verified signer.
func (c *Clock) Learn(signer time.Time) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	now := c.system()
	if difference := signer.Sub(now); difference < tolerance && difference > -tolerance {
		c.signed, c.at = time.Time{}, time.Time{}
		return
	}
	c.signed, c.at = signer, now
}
