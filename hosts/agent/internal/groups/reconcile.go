package groups

import "context"

// reconcile makes one pass over the group: it observes what containerd has, records exits, publishes the status, and
// converges the observed state on the desired one. An error ends the pass; the next pass observes again and needs
// nothing from this one.
func (g *group) reconcile(ctx context.Context) error {
	desired := g.desired()
	observed, err := g.observe(ctx, desired)
	if err != nil {
		g.observationFailed(err)
		return err
	}
	defer g.markObserved()
	if desired.Deleting {
		return g.delete(ctx, desired, observed)
	}
	if desired, err = g.recordExits(desired, observed); err != nil {
		return err
	}
	g.publishObserved(desired, observed)
	g.markObserved()
	if g.suspended() {
		return nil
	}
	failure := g.converge(ctx, desired, observed)
	if ctx.Err() != nil {
		return failure
	}
	// The status shows the result of this pass, also of one that failed.
	desired = g.desired()
	if observed, err = g.observe(ctx, desired); err != nil {
		g.observationFailed(err)
		return err
	}
	g.publishObserved(desired, observed)
	return failure
}

// publishObserved publishes the status of an observation and the generation that it has reached.
func (g *group) publishObserved(desired *record, observed *observation) {
	g.updateObservedGeneration(desired, observed)
	g.publish(g.statusOf(desired, observed))
}

// updateObservedGeneration publishes the desired generation as observed once each of its containers was started or
// waits for its next start, and no outdated sandbox remains.
func (g *group) updateObservedGeneration(desired *record, observed *observation) {
	for _, container := range desired.spec.GetContainers() {
		state := desired.Containers[container.GetName()]
		if !state.Done && (state.ContainerID == "" || observed.sandbox == nil) {
			return
		}
	}
	if len(observed.outdated) > 0 {
		return
	}
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.observedGeneration != desired.Generation && g.record.Generation == desired.Generation {
		g.observedGeneration = desired.Generation
		g.notify()
	}
}
