package groups

import "testing"

// A group that is gone makes no pass, although a wake-up is pending. This one has no manager, so that a pass would
// panic.
func TestGoneGroupMakesNoPass(t *testing.T) {
	for range 100 {
		g := &group{wake: make(chan struct{}, 1), gone: make(chan struct{})}
		g.wake <- struct{}{}
		close(g.gone)
		g.run(t.Context())
	}
}
