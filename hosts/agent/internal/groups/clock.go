package groups

import "time"

// moment is a point in time on two clocks. Waits are computed from the monotonic clock, because the wall clock may jump
// when it is corrected, and a wait would then last as long as the jump. The wall clock is for people, and for what has
// to outlive the agent.
type moment struct {
	wall time.Time
	// monotonic is the time since an arbitrary point.
	monotonic time.Duration
}

func (m *Manager) now() moment {
	return moment{m.options.Now(), m.options.Monotonic()}
}

// monotonicClock returns a clock that starts now and never jumps.
func monotonicClock() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// delayRestart makes the next restart due after the back-off.
func (s *containerState) delayRestart(now moment, backOff time.Duration) {
	s.BackOff = backOff
	s.RestartAt, s.restartDue = now.wall.Add(backOff), now.monotonic+backOff
}

// restartIsDue reports whether the next container may start.
func (s *containerState) restartIsDue(now moment) bool {
	return s.RestartAt.IsZero() || now.monotonic >= s.restartDue
}

// resumeRestarts continues the waits of a record that was read from the disk. A wait lasts at most its back-off, also
// if the wall clock has jumped back since.
func (r *record) resumeRestarts(now moment) {
	for name, state := range r.Containers {
		if !state.RestartAt.IsZero() {
			state.restartDue = now.monotonic + min(max(state.RestartAt.Sub(now.wall), 0), state.BackOff)
			r.Containers[name] = state
		}
	}
}

// runTime returns how long a running or exited container has run, by the monotonic clock since the agent knows it.
func (g *group) runTime(now moment, id string, startedAt, until time.Time) time.Duration {
	if since, known := g.runningSince[id]; known {
		return now.monotonic - since
	}
	if startedAt.IsZero() {
		return 0
	}
	return max(until.Sub(startedAt), 0)
}
