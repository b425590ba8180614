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
	// keptFlows are the latest ones, for those who ask what was.
	keptFlows = 4096
	// queuedFlows is how far a caller may fall behind.
	queuedFlows = 4096
)

// seenFlow is a flow with the time of day.
type seenFlow struct {
	datapath.Flow
	at time.Time
	// Names of the endpoints at the time; addresses are given to others later.
	source, destination string
}

// flowHub hands what is read from the kernel's ring to everyone who asks. Nobody holds up the reader: the ring would fill.
type flowHub struct {
	mutex sync.Mutex
	// kept is a ring of its own; next is the place of the oldest once it is full.
	kept    []seenFlow
	next    int
	callers map[*flowCaller]bool
}

// flowCaller is somebody who follows.
type flowCaller struct {
	flows chan seenFlow
	wants func(seenFlow) bool
	// lost counts what found the queue full; of the hub's mutex.
	lost uint64
}

func newFlowHub() *flowHub {
	return &flowHub{callers: map[*flowCaller]bool{}}
}

func (h *flowHub) add(flow seenFlow) {
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

// follow returns what is kept, oldest first, and a caller that gets everything after it.
func (h *flowHub) follow(wants func(seenFlow) bool) ([]seenFlow, *flowCaller) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	caller := &flowCaller{flows: make(chan seenFlow, queuedFlows), wants: wants}
	h.callers[caller] = true
	var kept []seenFlow
	for i := range h.kept {
		if flow := h.kept[(h.next+i)%len(h.kept)]; wants(flow) {
			kept = append(kept, flow)
		}
	}
	return kept, caller
}

func (h *flowHub) leave(caller *flowCaller) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	delete(h.callers, caller)
}

func (h *flowHub) lostBy(caller *flowCaller) uint64 {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return caller.lost
}

// readFlows hands events on until they are closed.
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
		n.flows.add(seenFlow{
			Flow: flow, at: timeOfDay(flow.Time),
			source: n.store.nameOf(flow.Source.Addr()), destination: n.store.nameOf(flow.Destination.Addr()),
		})
	}
}

// timeOfDay of a time since the machine was started, as of CLOCK_MONOTONIC.
func timeOfDay(sinceBoot time.Duration) time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return time.Now()
	}
	return time.Now().Add(sinceBoot - time.Duration(now.Nano()))
}
