package groups

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/groups/fakecri"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// clock is a clock that tests advance.
type clock struct {
	mutex sync.Mutex
	time  time.Time
	// passed is the monotonic clock.
	passed time.Duration
}

func (c *clock) now() time.Time {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.time
}

func (c *clock) advance(by time.Duration) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.time = c.time.Add(by)
	c.passed += by
}

// jump changes the wall clock only.
func (c *clock) jump(by time.Duration) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.time = c.time.Add(by)
}

func (c *clock) monotonic() time.Duration {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.passed
}

// harness runs a manager on a fake runtime, one pass at a time.
type harness struct {
	t       *testing.T
	clock   *clock
	runtime *fakecri.Runtime
	manager *Manager
	options Options
	logs    *lockedBuffer
	reload  func() *Manager
}

func newHarness(t *testing.T) *harness {
	h := &harness{t: t, clock: &clock{time: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}, logs: &lockedBuffer{}}
	runtime, connection := fakecri.Start(t, h.clock.now)
	h.runtime = runtime
	directory := t.TempDir()
	h.options = Options{
		DataDirectory: filepath.Join(directory, "data"), LogDirectory: filepath.Join(directory, "logs"),
		CertificatesDirectory: filepath.Join(directory, "certs.d"), CgroupParent: "/palisade", CgroupRoot: directory,
		MaximumLogSize: maximumLogSize, PollInterval: 5 * time.Millisecond, Starts: 2, Capacity: Capacity{CPUs: 2, MemoryBytes: 1 << 30},
		ReservedPorts: []uint32{8443}, Now: h.clock.now, Monotonic: h.clock.monotonic, Logger: slog.New(slog.NewTextHandler(h.logs, nil)),
	}
	h.reload = func() *Manager {
		manager, err := NewManager(h.options, runtimev1.NewRuntimeServiceClient(connection), runtimev1.NewImageServiceClient(connection))
		if err != nil {
			t.Fatal(err)
		}
		return manager
	}
	h.manager = h.reload()
	t.Cleanup(func() {
		if strings.Contains(h.logs.String(), "canary") {
			t.Errorf("a secret is in the logs:\n%s", h.logs.String())
		}
	})
	return h
}

// apply declares a group that is always valid.
func (h *harness) apply(spec *agentv1.GroupSpec) *agentv1.Group {
	h.t.Helper()
	group, err := h.manager.Apply(spec, 0, false)
	if err != nil {
		h.t.Fatal(err)
	}
	return group
}

// group returns the group as callers see it, without another pass.
func (h *harness) group(name string) *agentv1.Group {
	h.t.Helper()
	g, err := h.manager.find(name)
	if err != nil {
		h.t.Fatal(err)
	}
	view, _ := g.view()
	return view
}

// pass reconciles a group once and returns it.
func (h *harness) pass(name string) *agentv1.Group {
	h.t.Helper()
	g, err := h.manager.find(name)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := g.reconcile(context.Background()); err != nil {
		h.t.Logf("pass: %v", err)
	}
	view, _ := g.view()
	if strings.Contains(prototext.Format(view), "canary") {
		h.t.Errorf("a secret is in the answer: %v", view)
	}
	return view
}

func (h *harness) running(name string) string {
	_, id := h.runtime.Running(name)
	return id
}

func only(group *agentv1.Group) *agentv1.ContainerStatus {
	return group.GetStatus().GetContainers()[0]
}

func TestGroupIsBroughtAbout(t *testing.T) {
	h := newHarness(t)
	spec := testSpec("web")
	spec.Ports = []*agentv1.Port{{Port: 80}}
	spec.Containers[0].Command, spec.Containers[0].WorkingDirectory = []string{"/bin/server"}, "/srv"
	if group := h.apply(spec); group.GetGeneration() != 1 || group.GetStatus().GetPhase() != agentv1.GroupPhase_GROUP_PHASE_PENDING {
		t.Fatalf("%v", group)
	}
	group := h.pass("web")
	if s := group.GetStatus(); s.GetPhase() != agentv1.GroupPhase_GROUP_PHASE_RUNNING || s.GetObservedGeneration() != 1 || s.GetAddress() != "10.88.0.2" {
		t.Fatalf("%v", s)
	}
	if digest := only(group).GetImageDigest(); digest != testImage[strings.Index(testImage, "@")+1:] {
		t.Errorf("digest %s", digest)
	}
	config, _ := h.runtime.Running("server")
	environment := map[string]string{}
	for _, variable := range config.Envs {
		environment[variable.Key] = string(variable.Value)
	}
	if environment["MODE"] != "production" || environment["TOKEN"] != "environment-canary" {
		t.Errorf("environment %v", environment)
	}
	if config.WorkingDir != "/srv" || config.Command[0] != "/bin/server" || config.Linux.Resources.MemoryLimitInBytes != 64<<20 {
		t.Errorf("%v", config)
	}
	if mapping := h.runtime.Sandboxes()[0].PortMappings[0]; mapping.HostPort != 80 || mapping.ContainerPort != 80 {
		t.Errorf("%v", mapping)
	}
	pull := h.runtime.Pulls()[0]
	if pull.Auth.Username != "user" || pull.Auth.Password != "password-canary" || pull.Image.Image != testImage {
		t.Errorf("%v", pull)
	}
	hosts, err := os.ReadFile(filepath.Join(h.options.CertificatesDirectory, "registry.test:5000", "hosts.toml"))
	if err != nil || !strings.Contains(string(hosts), `server = "https://10.0.2.2:5000"`) {
		t.Errorf("%s, %v", hosts, err)
	}
	// Nothing more has to be done.
	created := h.runtime.Calls("CreateContainer")
	h.pass("web")
	if h.runtime.Calls("CreateContainer") != created || len(h.runtime.Sandboxes()) != 1 {
		t.Error("a second pass changed something")
	}
}

func TestApplyIsIdempotent(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	before := h.pass("web")
	if again := h.apply(testSpec("web")); again.GetGeneration() != 1 {
		t.Errorf("generation %d", again.GetGeneration())
	}
	changed := testSpec("web")
	changed.Containers[0].Environment[1].SecureValue = "other-canary"
	preview, err := h.manager.Apply(changed, 0, true)
	if err != nil || preview.GetGeneration() != 2 {
		t.Errorf("%v, %v", preview, err)
	}
	if after := h.pass("web"); after.GetGeneration() != 1 || only(after).GetContainerId() != only(before).GetContainerId() {
		t.Error("a dry run changed something")
	}
}

func TestApplyRefusesAnotherGenerationThanTheExpectedOne(t *testing.T) {
	h := newHarness(t)
	if _, err := h.manager.Apply(testSpec("web"), 1, false); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a group that is not there: %v", err)
	}
	h.apply(testSpec("web"))
	rolled, changed := testSpec("web"), testSpec("web")
	rolled.Containers[0].Image = strings.Replace(testImage, "0123", "3210", 1)
	changed.Containers[0].Environment[0].Value = "test"
	if _, err := h.manager.Apply(rolled, 1, false); err != nil {
		t.Fatal(err)
	}
	// A caller that has seen only generation 1 would restore the previous image.
	if _, err := h.manager.Apply(changed, 1, false); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("an old generation: %v", err)
	}
	if image := h.group("web").GetSpec().GetContainers()[0].GetImage(); image != rolled.Containers[0].Image {
		t.Errorf("declared is %s", image)
	}
	if group, err := h.manager.Apply(changed, 2, false); err != nil || group.GetGeneration() != 3 {
		t.Errorf("%v, %v", group, err)
	}
}

func TestFollowingAChannelRestartsNothing(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	before := only(h.pass("web")).GetContainerId()
	following := testSpec("web")
	following.Containers[0].Channel = "stable"
	h.apply(following)
	group := h.pass("web")
	if only(group).GetContainerId() != before || group.GetSpec().GetContainers()[0].GetChannel() != "stable" {
		t.Errorf("%v", group)
	}
}

func TestChangedSpecRestartsTheGroup(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	before := only(h.pass("web")).GetContainerId()
	changed := testSpec("web")
	changed.Containers[0].Environment[0].Value = "test"
	if group := h.apply(changed); group.GetGeneration() != 2 || group.GetStatus().GetObservedGeneration() != 1 {
		t.Fatalf("%v", group)
	}
	group := h.pass("web")
	if group.GetStatus().GetObservedGeneration() != 2 || only(group).GetContainerId() == before || len(h.runtime.Sandboxes()) != 1 || only(group).GetRestartCount() != 0 {
		t.Errorf("%v", group)
	}
	if h.runtime.Calls("StopContainer") != 1 {
		t.Error("the old container got no time for an orderly end")
	}
}

func TestLabelsAndCredentialsChangeWithoutRestart(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	before := only(h.pass("web")).GetContainerId()
	changed := testSpec("web")
	changed.Labels = map[string]string{"team": "a"}
	changed.SecretDigest = "digest"
	changed.ImageRegistries[0].Password = "rotated-canary"
	h.apply(changed)
	group := h.pass("web")
	if group.GetStatus().GetObservedGeneration() != 2 || only(group).GetContainerId() != before {
		t.Errorf("%v", group)
	}
}

func TestImageIsPulledBeforeTheOldGenerationStops(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	before := only(h.pass("web")).GetContainerId()
	h.runtime.Fail("PullImage", status.Error(codes.NotFound, "manifest unknown, said the registry that knows password-canary"))
	changed := testSpec("web")
	changed.Containers[0].Image = strings.Replace(testImage, "nginx", "other", 1)
	h.apply(changed)
	group := h.pass("web")
	if only(group).GetReason() != reasonPullFailed || !strings.Contains(only(group).GetMessage(), "not found") || group.GetStatus().GetObservedGeneration() != 1 {
		t.Errorf("%v", group)
	}
	if h.running("server") != before {
		t.Error("the old generation does not serve any more")
	}
	// There is no second attempt before it is due.
	pulls := h.runtime.Calls("PullImage")
	h.pass("web")
	if h.runtime.Calls("PullImage") != pulls {
		t.Error("pulled again at once")
	}
	h.runtime.Fail("PullImage", nil)
	h.clock.advance(10 * time.Second)
	if group := h.pass("web"); group.GetStatus().GetObservedGeneration() != 2 || group.GetStatus().GetPhase() != agentv1.GroupPhase_GROUP_PHASE_RUNNING {
		t.Errorf("%v", group)
	}
}

func TestRestartPolicies(t *testing.T) {
	const always, onFailure, never = agentv1.RestartPolicy_RESTART_POLICY_ALWAYS, agentv1.RestartPolicy_RESTART_POLICY_ON_FAILURE, agentv1.RestartPolicy_RESTART_POLICY_NEVER
	tests := map[string]struct {
		policy    agentv1.RestartPolicy
		code      int32
		restarted bool
		phase     agentv1.GroupPhase
	}{
		"always, success":     {always, 0, true, agentv1.GroupPhase_GROUP_PHASE_RUNNING},
		"always, failure":     {always, 1, true, agentv1.GroupPhase_GROUP_PHASE_RUNNING},
		"on failure, success": {onFailure, 0, false, agentv1.GroupPhase_GROUP_PHASE_SUCCEEDED},
		"on failure, failure": {onFailure, 1, true, agentv1.GroupPhase_GROUP_PHASE_RUNNING},
		"never, success":      {never, 0, false, agentv1.GroupPhase_GROUP_PHASE_SUCCEEDED},
		"never, failure":      {never, 1, false, agentv1.GroupPhase_GROUP_PHASE_FAILED},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			spec := testSpec("job")
			spec.RestartPolicy = test.policy
			h.apply(spec)
			h.pass("job")
			h.runtime.Exit("server", test.code, "Reason")
			group := h.pass("job")
			if restarted := h.running("server") != ""; restarted != test.restarted || group.GetStatus().GetPhase() != test.phase {
				t.Errorf("restarted %v, %v", restarted, group.GetStatus())
			}
			if !test.restarted {
				if c := only(group); c.GetPhase() != agentv1.ContainerPhase_CONTAINER_PHASE_TERMINATED || c.GetExitCode() != test.code || c.GetReason() != "Reason" {
					t.Errorf("%v", c)
				}
				// Neither a restart of the agent nor a reboot starts it again.
				h.manager = h.reload()
				h.runtime.Reboot()
				h.clock.advance(time.Hour)
				if group := h.pass("job"); h.running("server") != "" || group.GetStatus().GetPhase() != test.phase {
					t.Errorf("%v", group.GetStatus())
				}
			}
		})
	}
}

func TestCrashLoopBacksOff(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	h.pass("web")
	h.runtime.Exit("server", 1, "Error")
	if group := h.pass("web"); h.running("server") == "" || only(group).GetRestartCount() != 1 {
		t.Fatalf("the first restart comes at once: %v", group.GetStatus())
	}
	for index, wait := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
		h.runtime.Exit("server", 1, "Error")
		group := h.pass("web")
		if c := only(group); c.GetReason() != reasonCrashLoop || c.GetBackOff().AsDuration() != wait || c.GetExitCode() != 1 {
			t.Fatalf("%v", c)
		}
		h.clock.advance(wait - time.Second)
		if h.pass("web"); h.running("server") != "" {
			t.Fatalf("restarted before %s", wait)
		}
		// After its restart the agent continues to wait, but not longer.
		h.manager = h.reload()
		h.clock.advance(time.Second)
		if group := h.pass("web"); h.running("server") == "" || only(group).GetRestartCount() != uint32(index+2) {
			t.Fatalf("not restarted after %s: %v", wait, group.GetStatus())
		}
	}
	h.clock.advance(backOffReset)
	h.pass("web")
	h.runtime.Exit("server", 1, "OOMKilled")
	if h.pass("web"); h.running("server") == "" {
		t.Error("the back-off was not reset after ten minutes")
	}
}

func TestDeclaredAgainDuringBackOff(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	for range 2 {
		h.pass("web")
		h.runtime.Exit("server", 1, "Error")
	}
	if group := h.pass("web"); only(group).GetReason() != reasonCrashLoop {
		t.Fatalf("%v", group.GetStatus())
	}
	if _, err := h.manager.Apply(testSpec("web"), 0, true); err != nil {
		t.Fatal(err)
	}
	if h.pass("web"); h.running("server") != "" {
		t.Fatal("a dry run ended the wait")
	}
	generation := h.apply(testSpec("web")).GetGeneration()
	group := h.pass("web")
	if h.running("server") == "" || only(group).GetRestartCount() != 2 || group.GetGeneration() != generation {
		t.Errorf("not tried at once: %v", group)
	}
	h.runtime.Exit("server", 1, "Error")
	if wait := only(h.pass("web")).GetBackOff().AsDuration(); wait != backOffFirst {
		t.Errorf("the back-off continues at %s instead of starting again", wait)
	}
}

func TestRemovedBehindItsBack(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	before := only(h.pass("web")).GetContainerId()
	h.runtime.Remove("server")
	group := h.pass("web")
	if id := h.running("server"); id == "" || id == before || only(group).GetRestartCount() != 1 {
		t.Errorf("%v", group.GetStatus())
	}
	h.runtime.Reboot()
	group = h.pass("web")
	if h.running("server") == "" || len(h.runtime.Sandboxes()) != 1 || group.GetStatus().GetPhase() != agentv1.GroupPhase_GROUP_PHASE_RUNNING {
		t.Errorf("after a reboot: %v", group.GetStatus())
	}
}

func TestAgentRestartLeavesContainersAlone(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	before := h.pass("web")
	h.manager = h.reload()
	after := h.pass("web")
	if only(after).GetContainerId() != only(before).GetContainerId() || after.GetGeneration() != 1 || after.GetStatus().GetObservedGeneration() != 1 || only(after).GetRestartCount() != 0 {
		t.Errorf("%v", after)
	}
	if group := h.apply(testSpec("web")); group.GetGeneration() != 1 {
		t.Error("secrets were lost: an equal spec is a new generation")
	}
}

func TestSuspension(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	h.pass("web")
	g, _ := h.manager.find("web")
	g.suspend(time.Minute)
	h.runtime.Exit("server", 137, "Error")
	group := h.pass("web")
	if !group.GetStatus().GetReconcileSuspended() || group.GetStatus().GetPhase() != agentv1.GroupPhase_GROUP_PHASE_STOPPED || only(group).GetPhase() != agentv1.ContainerPhase_CONTAINER_PHASE_TERMINATED {
		t.Errorf("%v", group.GetStatus())
	}
	h.clock.advance(time.Minute)
	if group := h.pass("web"); h.running("server") == "" || group.GetStatus().GetReconcileSuspended() {
		t.Errorf("%v", group.GetStatus())
	}
}

func TestDeleteLeavesNothing(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	h.pass("web")
	logs := filepath.Join(h.options.LogDirectory, "web")
	if _, err := os.Stat(logs); err != nil {
		t.Fatal(err)
	}
	// A failure meanwhile must not make the agent forget anything.
	h.runtime.Fail("RemovePodSandbox", status.Error(codes.Unknown, "busy"))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := h.manager.Delete(ctx, "web"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if group := h.pass("web"); group.GetStatus().GetPhase() != agentv1.GroupPhase_GROUP_PHASE_DELETING {
		t.Errorf("%v", group.GetStatus())
	}
	if _, err := h.manager.Apply(testSpec("web"), 0, false); connect.CodeOf(err) != connect.CodeAborted {
		t.Errorf("apply while deleting: %v", err)
	}
	h.runtime.Fail("RemovePodSandbox", nil)
	// After its restart the agent continues the deletion.
	h.manager = h.reload()
	g, _ := h.manager.find("web")
	if err := g.reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(h.runtime.Sandboxes()) != 0 || h.runtime.Containers() != 0 {
		t.Error("something is left in the runtime")
	}
	if _, err := os.Stat(logs); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("logs: %v", err)
	}
	entries, _ := os.ReadDir(h.options.DataDirectory)
	if len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
	if err := h.manager.Delete(context.Background(), "web"); err != nil {
		t.Errorf("deleting an absent group: %v", err)
	}
	if _, err := h.manager.find("web"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("%v", err)
	}
}

func TestConflictsChangeNothing(t *testing.T) {
	h := newHarness(t)
	first := testSpec("web")
	first.Ports = []*agentv1.Port{{Port: 80}}
	h.apply(first)
	for name, test := range map[string]struct {
		change  func(*agentv1.GroupSpec)
		message string
	}{
		"port of another group": {func(s *agentv1.GroupSpec) { s.Ports = []*agentv1.Port{{Port: 81}, {Port: 80}} }, `ports[1].port: TCP port 80 is published by group "web"`},
		"the host's own port":   {func(s *agentv1.GroupSpec) { s.Ports = []*agentv1.Port{{Port: 8443}} }, "ports[0].port: TCP port 8443 is the host's own"},
		"memory":                {func(s *agentv1.GroupSpec) { s.Containers[0].Resources.MemoryRequestBytes = 1 << 30 }, "memory requests"},
	} {
		t.Run(name, func(t *testing.T) {
			second := testSpec("other")
			test.change(second)
			_, err := h.manager.Apply(second, 0, false)
			if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), test.message) {
				t.Errorf("%v", err)
			}
			if _, err := h.manager.find("other"); connect.CodeOf(err) != connect.CodeNotFound {
				t.Error("the group was stored")
			}
		})
	}
	if _, err := h.manager.Apply(first, 0, true); err != nil {
		t.Errorf("a group conflicts with itself: %v", err)
	}
}

func TestGroupsTakeTurnsToStart(t *testing.T) {
	const many = 8
	for starts, test := range map[int]func(atOnce int) bool{
		2:    func(atOnce int) bool { return atOnce == 2 },
		many: func(atOnce int) bool { return atOnce > 2 },
	} {
		t.Run(strconv.Itoa(starts), func(t *testing.T) {
			h := newHarness(t)
			h.options.Starts = starts
			h.manager = h.reload()
			h.runtime.Delay("RunPodSandbox", 100*time.Millisecond)
			names := make([]string, many)
			for index := range names {
				names[index] = "group-" + strconv.Itoa(index)
				spec := testSpec(names[index])
				spec.Ports, spec.Containers[0].Resources = nil, nil
				h.apply(spec)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- h.manager.Run(ctx) }()
			for _, name := range names {
				for deadline := time.Now().Add(20 * time.Second); h.group(name).GetStatus().GetPhase() != agentv1.GroupPhase_GROUP_PHASE_RUNNING; {
					if time.Now().After(deadline) {
						t.Fatal(h.group(name).GetStatus())
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if atOnce := h.runtime.AtOnce("RunPodSandbox"); !test(atOnce) {
				t.Errorf("%d started at once", atOnce)
			}
		})
	}
}

func TestRuntimeFaults(t *testing.T) {
	failure := status.Error(codes.Unknown, "fault near environment-canary")
	for method, reason := range map[string]string{
		"RunPodSandbox": reasonSandboxFailed, "CreateContainer": reasonCreateFailed, "StartContainer": reasonCrashLoop,
	} {
		t.Run(method, func(t *testing.T) {
			h := newHarness(t)
			h.runtime.Fail(method, failure)
			h.apply(testSpec("web"))
			group := h.pass("web")
			if c := only(group); c.GetReason() != reason || !strings.Contains(c.GetMessage(), "fault near [secret]") {
				t.Errorf("%v", c)
			}
			calls := h.runtime.Calls(method)
			if h.pass("web"); h.runtime.Calls(method) != calls {
				t.Error("tried again at once")
			}
			h.runtime.Fail(method, nil)
			h.clock.advance(time.Minute)
			if group := h.pass("web"); group.GetStatus().GetPhase() != agentv1.GroupPhase_GROUP_PHASE_RUNNING {
				t.Errorf("%v", group.GetStatus())
			}
		})
	}
	t.Run("no observation is no status", func(t *testing.T) {
		h := newHarness(t)
		h.apply(testSpec("web"))
		h.pass("web")
		g, _ := h.manager.find("web")
		h.runtime.Fail("ListPodSandbox", status.Error(codes.Unavailable, "gone"))
		h.pass("web")
		h.clock.advance(time.Minute)
		if g.observationError() == nil {
			t.Error("an old status is given out as observed")
		}
		h.runtime.Fail("ListPodSandbox", nil)
		h.pass("web")
		if err := g.observationError(); err != nil {
			t.Error(err)
		}
	})
}

func TestRunLoops(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	h.runtime.Fail("Version", status.Error(codes.Unavailable, "starts"))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.manager.Run(ctx) }()
	eventually(t, func() bool { _, message, _ := h.manager.Ready(); return strings.Contains(message, "starts") })
	h.runtime.Fail("Version", nil)
	eventually(t, func() bool { ready, _, _ := h.manager.Ready(); return ready })
	eventually(t, func() bool { return h.running("server") != "" })
	h.runtime.Remove("server")
	eventually(t, func() bool { return h.running("server") != "" })

	// A new desired state cancels a pull for the old one.
	pulling := make(chan struct{})
	h.runtime.OnPull(func(ctx context.Context) {
		h.runtime.OnPull(nil)
		close(pulling)
		<-ctx.Done()
	})
	slow := testSpec("web")
	slow.Containers[0].Image = strings.Replace(testImage, "nginx", "slow", 1)
	h.apply(slow)
	<-pulling
	h.apply(testSpec("web"))
	eventually(t, func() bool {
		g, _ := h.manager.find("web")
		view, _ := g.view()
		return view.GetStatus().GetObservedGeneration() == 3
	})
	if err := h.manager.Delete(context.Background(), "web"); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOrphansAreRemoved(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	h.pass("web")
	if err := h.manager.store.remove("web"); err != nil {
		t.Fatal(err)
	}
	h.manager = h.reload()
	if err := h.manager.prepare(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(h.runtime.Sandboxes()) != 0 {
		t.Error("left")
	}
}

func TestRecordIsPrivate(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	info, err := os.Stat(filepath.Join(h.options.DataDirectory, "web.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatal("not within 10 s")
		}
		time.Sleep(2 * time.Millisecond)
	}
}
