package groups

import "time"

const (
	backOffFirst   = 10 * time.Second
	backOffMaximum = 5 * time.Minute
	// backOffReset is how long a container has to run until its back-off starts again from the beginning.
	backOffReset = 10 * time.Minute
)

// nextBackOff returns the wait before the next restart. As in Kubernetes, the first restart is immediate, and the
// following waits double from 10 s to 5 minutes. restarts counts the restarts since the last reset.
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
