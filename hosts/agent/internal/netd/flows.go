package netd

import (
	"errors"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
)

const (
	// keptFlows is how many of the latest flows are kept for later callers.
	keptFlows = 4096
	// queuedFlows is how many flows a caller may fall behind.
	queuedFlows = 4096
)

// observedFlow is an observed flow with its wall-clock time.
type observedFlow struct {
	datapath.Flow
	at time.Time
	// These are the endpoints' names at that time. Their addresses may belong to others later.
	source, destination string
}

// flowHub distributes the flows of the kernel's ring buffer to callers. A slow caller loses flows, because waiting for
// it would let the ring buffer fill.
type flowHub struct {
	mutex sync.Mutex
	// kept is a ring; next is the index of the oldest flow once the ring is full.
	kept    []observedFlow
	next    int
	callers map[*flowCaller]bool
}

// flowCaller is a caller that follows the flows.
type flowCaller struct {
	flows chan observedFlow
	wants func(observedFlow) bool
	// lost counts the flows that found the queue full. The hub's mutex guards it.
	lost uint64
}

func newFlowHub() *flowHub {
	return &flowHub{callers: map[*flowCaller]bool{}}
}

func (h *flowHub) add(flow observedFlow) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if len(h.kept) < keptFlows {
		h.kept = append(h.kept, flow)
	} else {
		h.kept[h.next] = flow
		h.next = (h.next + 1) % keptFlows
	}
	for caller := range h.callers {
		if !caller.wants(flow) {
			continue
		}
		select {
		case caller.flows <- flow:
		default:
			caller.lost++
		}
	}
}

// follow returns the kept flows, oldest first, and a caller that receives all later ones.
func (h *flowHub) follow(wants func(observedFlow) bool) ([]observedFlow, *flowCaller) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	caller := &flowCaller{flows: make(chan observedFlow, queuedFlows), wants: wants}
	h.callers[caller] = true
	var kept []observedFlow
	for i := range h.kept {
		if flow := h.kept[(h.next+i)%len(h.kept)]; wants(flow) {
			kept = append(kept, flow)
		}
	}
	return kept, caller
}

func (h *flowHub) unfollow(caller *flowCaller) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	delete(h.callers, caller)
}

func (h *flowHub) lostBy(caller *flowCaller) uint64 {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return caller.lost
}

// readFlows distributes the events until they are closed.
func (n *network) readFlows(events *datapath.Events) {
	for {
		flow, err := events.Next()
		if errors.Is(err, ringbuf.ErrClosed) {
			return
		}
		if err != nil {
			n.logger.Error("read flows", "error", err)
			return
		}
		n.flows.add(observedFlow{
			Flow: flow, at: timeOfDay(flow.Time),
			source: n.store.nameOf(flow.Source.Addr()), destination: n.store.nameOf(flow.Destination.Addr()),
		})
	}
}

// timeOfDay converts a time since boot, as of CLOCK_MONOTONIC, to wall-clock time.
func timeOfDay(sinceBoot time.Duration) time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return time.Now()
	}
	return time.Now().Add(sinceBoot - time.Duration(now.Nano()))
}
