package groups

import (
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
}

func (r *eventRing) add(now time.Time, kind, reason, message, container string) bool {
	for index := len(r.events) - 1; index >= 0; index-- {
		last := r.events[index]
		if last.GetContainer() != container {
			continue
		}
		if last.GetReason() == reason && last.GetMessage() == message && kind == eventWarning && now.Sub(last.GetTime().AsTime()) < backOffMaximum {
			return false
		}
		break
	}
	r.events = append(r.events, &agentv1.Event{Time: timestamppb.New(now), Type: kind, Reason: reason, Message: message, Container: container})
	if excess := len(r.events) - maximumEvents; excess > 0 {
		r.events = append([]*agentv1.Event(nil), r.events[excess:]...)
	}
	return true
}

func (r *eventRing) snapshot() []*agentv1.Event {
	return append([]*agentv1.Event(nil), r.events...)
}
