package groups

import "time"

const (
	backOffFirst   = 10 * time.Second
	backOffMaximum = 5 * time.Minute
	// backOffReset is how long a container has to run until its next end counts as the first again.
	backOffReset = 10 * time.Minute
)

// nextBackOff returns the wait after previous: the first restart comes at once, then 10 s doubling to 5 minutes, as Kubernetes
// does. restarts counts those since the last reset.
func nextBackOff(restarts uint32) time.Duration {
	if restarts == 0 {
		return 0
	}
	wait := backOffFirst
	for range restarts - 1 {
		wait *= 2
		if wait >= backOffMaximum {
			return backOffMaximum
		}
	}
	return wait
}
