package groups

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// maximumEvents is how many events of a group are kept.
const maximumEvents = 100

const (
	eventNormal  = "Normal"
	eventWarning = "Warning"
)

// eventRing keeps the newest events. A warning that repeats the last event of its container is not added.
type eventRing struct {
	events []*agentv1.Event
	// added is when each event was added, by the monotonic clock.
	added []time.Duration
}

func (r *eventRing) add(now moment, kind, reason, message, container string) bool {
	for index := len(r.events) - 1; index >= 0; index-- {
		last := r.events[index]
		if last.GetContainer() != container {
			continue
		}
		if last.GetReason() == reason && last.GetMessage() == message && kind == eventWarning && now.monotonic-r.added[index] < backOffMaximum {
			return false
		}
		break
	}
	r.events = append(r.events, &agentv1.Event{Time: timestamppb.New(now.wall), Type: kind, Reason: reason, Message: message, Container: container})
	r.added = append(r.added, now.monotonic)
	if excess := len(r.events) - maximumEvents; excess > 0 {
		r.events, r.added = slices.Clone(r.events[excess:]), slices.Clone(r.added[excess:])
	}
	return true
}

func (r *eventRing) snapshot() []*agentv1.Event {
	return append([]*agentv1.Event(nil), r.events...)
}
