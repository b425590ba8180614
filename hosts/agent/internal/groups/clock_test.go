package groups

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

func TestAClockThatJumpsBackDelaysNothing(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	h.pass("web")
	crash := func() {
		h.runtime.Exit("server", 1, "Error")
		h.pass("web")
	}
	crash()
	crash()
	if h.running("server") != "" {
		t.Fatal("no restart waits")
	}
	h.clock.jump(-24 * time.Hour)
	h.clock.advance(10 * time.Second)
	if h.pass("web"); h.running("server") == "" {
		t.Error("a restart is delayed")
	}
	// The same with an agent that starts after the jump.
	crash()
	h.clock.jump(-24 * time.Hour)
	h.manager = h.reload()
	if h.pass("web"); h.running("server") != "" {
		t.Error("a start of the agent ends the back-off")
	}
	h.clock.advance(20 * time.Second)
	if h.pass("web"); h.running("server") == "" {
		t.Error("a restart is delayed after a start of the agent")
	}
	// The back-off is reset by the time that the container has run.
	h.pass("web")
	h.clock.jump(-24 * time.Hour)
	h.clock.advance(backOffReset)
	h.pass("web")
	if crash(); h.running("server") == "" {
		t.Error("the back-off is not reset")
	}
}

func TestAClockThatJumpsForwardShortensNothing(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	h.pass("web")
	for range 2 {
		h.runtime.Exit("server", 1, "Error")
		h.pass("web")
	}
	h.clock.jump(24 * time.Hour)
	if h.pass("web"); h.running("server") != "" {
		t.Error("the back-off ends early")
	}
	h.clock.advance(10 * time.Second)
	h.pass("web")
	h.clock.jump(24 * time.Hour)
	h.runtime.Exit("server", 1, "Error")
	if h.pass("web"); h.running("server") != "" {
		t.Error("the jump counts as run time")
	}
}

func TestAClockThatJumpsBackDelaysNoRetry(t *testing.T) {
	for _, method := range []string{"PullImage", "RunPodSandbox"} {
		t.Run(method, func(t *testing.T) {
			h := newHarness(t)
			h.runtime.Fail(method, status.Error(codes.Unavailable, "not now"))
			h.apply(testSpec("web"))
			h.pass("web")
			h.runtime.Fail(method, nil)
			if h.pass("web"); h.running("server") != "" {
				t.Fatal("no attempt waits")
			}
			h.clock.jump(-24 * time.Hour)
			h.clock.advance(10 * time.Second)
			if h.pass("web"); h.running("server") == "" {
				t.Error("the attempt is delayed")
			}
		})
	}
}

func TestAClockThatJumpsBackProlongsNoSuspensionAndHidesNoWarning(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	g, err := h.manager.find("web")
	if err != nil {
		t.Fatal(err)
	}
	warnings := func() (count int) {
		for _, event := range h.group("web").GetStatus().GetEvents() {
			if event.GetType() == eventWarning {
				count++
			}
		}
		return count
	}
	g.suspend(time.Minute)
	g.event(eventWarning, "Failed", "once more", "")
	h.clock.jump(-24 * time.Hour)
	h.clock.advance(backOffMaximum)
	if g.event(eventWarning, "Failed", "once more", ""); warnings() != 2 {
		t.Errorf("%d warnings", warnings())
	}
	if group := h.pass("web"); group.GetStatus().GetReconcileSuspended() || group.GetStatus().GetPhase() != agentv1.GroupPhase_GROUP_PHASE_RUNNING {
		t.Errorf("%v", group)
	}
}
