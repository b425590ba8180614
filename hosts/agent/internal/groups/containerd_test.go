package groups

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/hosts/agent/internal/containerd"
	"github.com/palisade-host/palisade/hosts/agent/internal/containerd/testimage"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/test/support/acceptance/row"
	support "github.com/palisade-host/palisade/test/support/containerd"
)

// binariesVariable names the folder of containerd, its shim and the agent. `make host-binaries` writes them to
// build/host.
const binariesVariable = "PALISADE_HOST_BINARIES"

// runtimeVariable names the OCI runtime to use, by default crun on PATH.
const runtimeVariable = "PALISADE_OCI_RUNTIME"

// findRuntime skips the test without a runtime that supports the present OCI specification (crun does from 1.14.3).
func findRuntime(t *testing.T) string {
	t.Helper()
	name := os.Getenv(runtimeVariable)
	if name == "" {
		name = "crun"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no OCI runtime: %v", err)
	}
	output, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Skipf("%s: %v", path, err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(output), "crun version %d.%d", &major, &minor); err == nil && major == 1 && minor < 15 {
		t.Skipf("crun %d.%d is too old for this containerd; %s may name a newer one", major, minor, runtimeVariable)
	}
	return path
}

// networkNamespaces lists those of sandboxes. A run that was killed leaves some on the machine.
func networkNamespaces(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("/run/netns/cni-*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestContainerd runs groups on a real containerd with crun, the role netd and its CNI plugin, as a host does, in a
// network of its own. It needs root.
func TestContainerd(t *testing.T) {
	binaries := os.Getenv(binariesVariable)
	if binaries == "" {
		t.Skipf("%s is not set: it names the folder of containerd and the agent", binariesVariable)
	}
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	before := networkNamespaces(t)
	h := startContainerd(t, binaries, findRuntime(t))

	served := t.Run("serves a published port, by a digest from a registry with a CA and credentials", func(t *testing.T) {
		group := h.apply(t, h.web("tester"))
		if group.GetGeneration() != 1 {
			t.Fatalf("generation %d", group.GetGeneration())
		}
		h.waitFor(t, "web", func(g *agentv1.Group) bool {
			return g.GetStatus().GetPhase() == agentv1.GroupPhase_GROUP_PHASE_RUNNING && g.GetStatus().GetObservedGeneration() == 1
		})
		if body := h.get(t, 18080); body != "hello tester from /work" {
			t.Fatalf("body %q", body)
		}
		status := h.group(t, "web").GetStatus()
		if digest := status.GetContainers()[0].GetImageDigest(); digest != h.image.Manifest.Digest.String() {
			t.Errorf("digest %s, expected %s", digest, h.image.Manifest.Digest)
		}
		t.Logf("status: %v", status)
	})
	if !served {
		return
	}
	t.Run("containerd refuses whoever has the socket", func(t *testing.T) { h.attackContainerd(t) })
	t.Run("restores a container that was stopped behind its back", func(t *testing.T) {
		before := h.group(t, "web").GetStatus().GetContainers()[0].GetContainerId()
		started := time.Now()
		if _, err := h.manager.runtime.StopContainer(h.ctx, &runtimev1.StopContainerRequest{ContainerId: before, Timeout: 1}); err != nil {
			t.Fatal(err)
		}
		h.waitFor(t, "web", func(g *agentv1.Group) bool {
			c := g.GetStatus().GetContainers()[0]
			return c.GetPhase() == agentv1.ContainerPhase_CONTAINER_PHASE_RUNNING && c.GetContainerId() != before
		})
		h.get(t, 18080)
		t.Logf("restored after %s", time.Since(started))
	})
	t.Run("restores a sandbox that was removed behind its back", func(t *testing.T) {
		sandboxes, err := h.manager.runtime.ListPodSandbox(h.ctx, &runtimev1.ListPodSandboxRequest{})
		if err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		for _, sandbox := range sandboxes.Items {
			// The agent removes a stopped sandbox as well. When it is faster, nothing remains to stop or remove.
			if _, err := h.manager.runtime.StopPodSandbox(h.ctx, &runtimev1.StopPodSandboxRequest{PodSandboxId: sandbox.Id}); err != nil {
				t.Logf("the agent was faster: %v", err)
			}
			if _, err := h.manager.runtime.RemovePodSandbox(h.ctx, &runtimev1.RemovePodSandboxRequest{PodSandboxId: sandbox.Id}); err != nil {
				t.Logf("the agent was faster: %v", err)
			}
		}
		h.waitFor(t, "web", func(g *agentv1.Group) bool {
			return g.GetStatus().GetContainers()[0].GetPhase() == agentv1.ContainerPhase_CONTAINER_PHASE_RUNNING && g.GetStatus().GetContainers()[0].GetRestartCount() >= 2
		})
		h.get(t, 18080)
		t.Logf("restored after %s", time.Since(started))
	})
	t.Run("an agent that starts anew leaves containers alone", func(t *testing.T) {
		before := h.group(t, "web").GetStatus().GetContainers()[0]
		h.restartManager(t)
		h.waitFor(t, "web", func(g *agentv1.Group) bool { return g.GetStatus().GetObservedGeneration() == 1 })
		after := h.group(t, "web").GetStatus().GetContainers()[0]
		if before.GetContainerId() != after.GetContainerId() || before.GetRestartCount() != after.GetRestartCount() {
			t.Errorf("before %v, after %v", before, after)
		}
	})
	t.Run("a changed spec restarts the group", func(t *testing.T) {
		h.apply(t, h.web("other"))
		h.waitFor(t, "web", func(g *agentv1.Group) bool {
			return g.GetStatus().GetObservedGeneration() == 2 && g.GetStatus().GetContainers()[0].GetPhase() == agentv1.ContainerPhase_CONTAINER_PHASE_RUNNING
		})
		if body := h.get(t, 18080); body != "hello other from /work" {
			t.Fatalf("body %q", body)
		}
	})
	t.Run("logs", func(t *testing.T) {
		g, err := h.manager.find("web")
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		err = streamLog(h.ctx, filepath.Join(g.logDirectory(), "server.log"), logOptions{tail: 1}, func(line logLine) error {
			lines = append(lines, line.stream+": "+string(line.content))
			return nil
		})
		if err != nil || len(lines) != 1 || lines[0] != "stdout: serving /work" {
			t.Errorf("lines %q, error %v", lines, err)
		}
	})
	t.Run("explains why an image cannot be pulled", func(t *testing.T) {
		for name, test := range map[string]struct {
			change func(*agentv1.GroupSpec)
			reason string
		}{
			"unauthorized":   {func(s *agentv1.GroupSpec) { s.ImageRegistries[0].Password = "wrong-canary" }, "unauthorized"},
			"no-credentials": {func(s *agentv1.GroupSpec) { s.ImageRegistries[0].Username, s.ImageRegistries[0].Password = "", "" }, "unauthorized"},
			"not-found": {func(s *agentv1.GroupSpec) {
				s.Containers[0].Image = "registry.test:5000/test/missing@sha256:" + strings.Repeat("0", 64)
			}, "not found"},
			"unreachable":    {func(s *agentv1.GroupSpec) { s.ImageRegistries[0].Endpoint = "https://127.0.0.1:1" }, "unreachable"},
			"untrusted":      {func(s *agentv1.GroupSpec) { s.ImageRegistries[0].Ca = "" }, "untrusted certificate"},
			"wrong-platform": {func(s *agentv1.GroupSpec) { s.Containers[0].Image = h.reference(h.foreign) }, "wrong platform"},
		} {
			t.Run(name, func(t *testing.T) {
				spec := h.web("x")
				spec.Name, spec.Ports = name, nil
				if name != "wrong-platform" && name != "not-found" {
					spec.Containers[0].Image = h.reference(h.other)
				}
				test.change(spec)
				h.apply(t, spec)
				h.waitFor(t, name, func(g *agentv1.Group) bool {
					c := g.GetStatus().GetContainers()[0]
					return c.GetReason() == reasonPullFailed && strings.Contains(c.GetMessage(), ": "+test.reason+": ")
				})
				t.Log(h.group(t, name).GetStatus().GetContainers()[0].GetMessage())
				h.delete(t, name)
			})
		}
	})
	t.Run("a crash loop waits, a missing command is explained", func(t *testing.T) {
		spec := h.web("x")
		spec.Name, spec.Ports, spec.Containers[0].Command = "crash", nil, []string{"/program", "exit", "7"}
		h.apply(t, spec)
		h.waitFor(t, "crash", func(g *agentv1.Group) bool {
			c := g.GetStatus().GetContainers()[0]
			return c.GetReason() == reasonCrashLoop && c.GetExitCode() == 7 && c.GetRestartCount() == 1 && c.GetBackOff().AsDuration() == 10*time.Second
		})
		h.delete(t, "crash")
		spec.Name, spec.Containers[0].Command = "missing", []string{"/missing"}
		h.apply(t, spec)
		h.waitFor(t, "missing", func(g *agentv1.Group) bool {
			return strings.Contains(g.GetStatus().GetContainers()[0].GetMessage(), "/missing")
		})
		t.Log(h.group(t, "missing").GetStatus().GetContainers()[0])
		h.delete(t, "missing")
	})
	t.Run("a job ends", func(t *testing.T) {
		spec := h.web("x")
		spec.Name, spec.Ports, spec.Containers[0].Command = "job", nil, []string{"/program", "exit", "0"}
		spec.RestartPolicy = agentv1.RestartPolicy_RESTART_POLICY_NEVER
		h.apply(t, spec)
		h.waitFor(t, "job", func(g *agentv1.Group) bool {
			return g.GetStatus().GetPhase() == agentv1.GroupPhase_GROUP_PHASE_SUCCEEDED
		})
		h.delete(t, "job")
	})
	t.Run("delete leaves nothing", func(t *testing.T) {
		h.delete(t, "web")
		sandboxes, err := h.manager.runtime.ListPodSandbox(h.ctx, &runtimev1.ListPodSandboxRequest{})
		if err != nil || len(sandboxes.Items) != 0 {
			t.Errorf("sandboxes %v, error %v", sandboxes.GetItems(), err)
		}
		logs, err := os.ReadDir(h.manager.options.LogDirectory)
		if err != nil || len(logs) != 0 {
			t.Errorf("logs: left: %v, error %v", logs, err)
		}
		for _, namespace := range networkNamespaces(t) {
			if !slices.Contains(before, namespace) {
				t.Errorf("left: %s", namespace)
			}
		}
		if connection, err := h.dial(h.ctx, "tcp", fmt.Sprintf("%s:18080", lab.HostIPv4)); err == nil {
			connection.Close()
			t.Error("the port still answers")
		}
	})
	t.Run("refuses an image whose configuration was changed on the disk, and restarts the other", func(t *testing.T) {
		observation := row.ObserveIn(t, "attack", "X2")
		observation.Observed = "a byte of the entry point changed in containerd's store: the container is not made again, ImageRefused"
		observation.Control = "the container of another image, stopped in the same way, runs again"
		changed := h.web("changed")
		changed.Name, changed.Ports = "changed", nil
		changed.Containers[0].Ports, changed.Containers[0].Image = nil, h.reference(h.other)
		h.apply(t, h.web("control"))
		h.apply(t, changed)
		containers := map[string]string{}
		for _, name := range []string{"web", "changed"} {
			h.waitFor(t, name, func(g *agentv1.Group) bool {
				return g.GetStatus().GetPhase() == agentv1.GroupPhase_GROUP_PHASE_RUNNING && g.GetStatus().GetObservedGeneration() == 1
			})
			containers[name] = h.group(t, name).GetStatus().GetContainers()[0].GetContainerId()
		}
		h.editConfiguration(t, h.other, "/program", "/progrbm")
		for name, id := range containers {
			h.waitFor(t, name, func(g *agentv1.Group) bool { return g.GetStatus().GetContainers()[0].GetContainerId() == id })
			if _, err := h.manager.runtime.StopContainer(h.ctx, &runtimev1.StopContainerRequest{ContainerId: id, Timeout: 1}); err != nil {
				t.Fatal(err)
			}
		}
		h.waitFor(t, "web", func(g *agentv1.Group) bool {
			c := g.GetStatus().GetContainers()[0]
			return c.GetPhase() == agentv1.ContainerPhase_CONTAINER_PHASE_RUNNING && c.GetContainerId() != containers["web"]
		})
		h.waitFor(t, "changed", func(g *agentv1.Group) bool { return g.GetStatus().GetContainers()[0].GetReason() == reasonRefused })
		refused := h.group(t, "changed").GetStatus().GetContainers()[0]
		if !strings.Contains(refused.GetMessage(), changedContent) {
			t.Errorf("%v", refused)
		}
		observation.Evidence = refused.GetReason() + ": " + refused.GetMessage()
		h.delete(t, "web")
		h.delete(t, "changed")
	})
	if strings.Contains(h.logs.String(), "canary") {
		t.Error("a secret is in the logs")
	}
}

type containerdHarness struct {
	ctx      context.Context
	manager  *Manager
	options  Options
	conn     *grpc.ClientConn
	stop     func()
	image    *testimage.Image
	other    *testimage.Image
	foreign  *testimage.Image
	endpoint string
	ca       string
	logs     *lockedBuffer
	lab      *lab.Lab

	directory, binaries string
	stopDaemon          func()
}

func startContainerd(t *testing.T, binaries, runtime string) *containerdHarness {
	t.Helper()
	binaries, err := filepath.Abs(binaries)
	if err != nil {
		t.Fatal(err)
	}
	directory, err := os.MkdirTemp("", "palisade-groups-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	program := filepath.Join(directory, "workload")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./testdata/workload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	newImage := func(content []byte, architecture string) *testimage.Image {
		image, err := testimage.New(content, architecture)
		if err != nil {
			t.Fatal(err)
		}
		return image
	}
	h := &containerdHarness{logs: &lockedBuffer{}}
	if h.lab, err = lab.New(lab.Description{Unwatched: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.lab.Close)
	h.image = newImage(binary, "")
	h.other = newImage(append(bytes.Clone(binary), 0), "")
	h.foreign = newImage(binary, "s390x")
	registry := httptest.NewUnstartedServer(testimage.Registry("user", "password-canary", h.image, h.other, h.foreign))
	registry.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	// containerd looks for it there.
	_ = registry.Listener.Close()
	if err := h.lab.InHost(func() (err error) {
		registry.Listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	registry.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	registry.StartTLS()
	t.Cleanup(registry.Close)
	h.endpoint = registry.URL
	h.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: registry.Certificate().Raw}))

	archive, err := h.image.Archive()
	if err != nil {
		t.Fatal(err)
	}
	files := support.Folder(directory)
	if err := os.WriteFile(files.Pause(), archive, 0o600); err != nil {
		t.Fatal(err)
	}

	network := filepath.Join(directory, "net.d")
	if err := os.Mkdir(network, 0o755); err != nil {
		t.Fatal(err)
	}
	plugins := filepath.Join(directory, "cni")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(binaries, "palisade-agent"), filepath.Join(plugins, "palisade-cni")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(network, "10-test.conflist"), fmt.Sprintf(`{"cniVersion":"1.0.0","name":"palisade-test","plugins":[
		{"type":"palisade-cni","socket":%q,"capabilities":{"portMappings":true}}]}`, h.startNetd(t, binaries, directory)))
	files.Configure(t, support.Options{RuntimeBinary: runtime, More: fmt.Sprintf(`[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = %q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [%q]
    use_internal_loopback = true
    conf_dir = %q
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "crun"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.crun]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.crun.options]
        BinaryName = %q
        SystemdCgroup = false
`, files.At("certs.d"), plugins, network, runtime)})

	h.directory, h.binaries = directory, binaries
	h.startDaemon(t)
	t.Cleanup(func() {
		h.stopDaemon()
		if err := unix.Unmount(files.Logs(), unix.MNT_DETACH); err != nil {
			t.Errorf("the folder of logs was not mounted: %v", err)
		}
		if content, err := os.ReadFile(filepath.Join(directory, "containerd.log")); err == nil && t.Failed() {
			lines := strings.Split(string(content), "\n")
			t.Logf("containerd:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
	h.conn, err = grpc.NewClient("unix://"+files.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h.options = Options{
		DataDirectory: filepath.Join(directory, "data"), LogDirectory: files.Logs(),
		CertificatesDirectory: filepath.Join(directory, "certs.d"), CgroupParent: "/palisade-test", CgroupRoot: "/sys/fs/cgroup",
		MaximumLogSize: maximumLogSize, PollInterval: 200 * time.Millisecond, Starts: 2, Capacity: Capacity{CPUs: 2, MemoryBytes: 1 << 30},
		Now: time.Now, Logger: logger,
		Prepare: func(ctx context.Context) error {
			if version := containerd.RuntimeVersion(ctx, runtimev1.NewRuntimeServiceClient(h.conn)); version == "" {
				t.Error("containerd does not tell the runtime's version")
			} else {
				t.Logf("runtime: %q", version)
			}
			return nil
		},
	}
	h.startManager(t)
	t.Cleanup(func() {
		h.deleteAll(t)
		h.stop()
		if t.Failed() {
			t.Logf("agent:\n%s", h.logs.String())
		}
	})
	return h
}

func (h *containerdHarness) startDaemon(t *testing.T) {
	t.Helper()
	logFile, err := os.OpenFile(filepath.Join(h.directory, "containerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	daemon := exec.Command(filepath.Join(h.binaries, "containerd"), "--config", support.Folder(h.directory).Configuration())
	daemon.Env = append(os.Environ(), "PATH="+h.binaries+":"+os.Getenv("PATH"))
	daemon.Stdout, daemon.Stderr = logFile, logFile
	daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := h.lab.InHost(daemon.Start); err != nil {
		t.Fatal(err)
	}
	h.stopDaemon = func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
	}
}

// editConfiguration changes the configuration of an image in containerd's content store, at the same length, while
// containerd and the agent are stopped.
func (h *containerdHarness) editConfiguration(t *testing.T, image *testimage.Image, before, after string) {
	t.Helper()
	var manifest ocispec.Manifest
	if err := json.Unmarshal(image.Blobs[image.Manifest.Digest.String()], &manifest); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(h.directory, "root", "io.containerd.content.v1.content", "blobs", "sha256", manifest.Config.Digest.Encoded())
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(content, []byte(before), []byte(after), 1)
	if bytes.Equal(changed, content) || len(changed) != len(content) {
		t.Fatalf("%s is not changed at the same length", before)
	}
	h.stop()
	h.stopDaemon()
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, changed, 0o600)); err != nil {
		t.Fatal(err)
	}
	h.startDaemon(t)
	h.startManager(t)
}

func (h *containerdHarness) startManager(t *testing.T) {
	t.Helper()
	manager, err := NewManager(h.options, runtimev1.NewRuntimeServiceClient(h.conn), runtimev1.NewImageServiceClient(h.conn))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = manager.Run(ctx)
	}()
	h.manager, h.ctx = manager, ctx
	h.stop = func() {
		cancel()
		<-ended
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		ready, message, _ := manager.Ready()
		if ready {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %s", message)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (h *containerdHarness) restartManager(t *testing.T) {
	t.Helper()
	h.stop()
	h.startManager(t)
}

func (h *containerdHarness) reference(image *testimage.Image) string {
	return "registry.test:5000/test/workload@" + image.Manifest.Digest.String()
}

func (h *containerdHarness) web(name string) *agentv1.GroupSpec {
	return &agentv1.GroupSpec{
		Name: "web",
		Containers: []*agentv1.Container{{
			Name: "server", Image: h.reference(h.image), Command: []string{"/program", "serve", "18080"}, WorkingDirectory: "/work",
			Environment: []*agentv1.EnvironmentVariable{{Name: "NAME", Value: name}, {Name: "TOKEN", Secure: true, SecureValue: "environment-canary"}},
			Ports:       []*agentv1.Port{{Port: 18080}},
			Resources:   &agentv1.Resources{CpuRequest: 0.25, MemoryRequestBytes: 64 << 20},
		}},
		Ports:           []*agentv1.Port{{Port: 18080}},
		ImageRegistries: []*agentv1.ImageRegistry{{Server: "registry.test:5000", Endpoint: h.endpoint, Username: "user", Password: "password-canary", Ca: h.ca}},
	}
}

func (h *containerdHarness) apply(t *testing.T, spec *agentv1.GroupSpec) *agentv1.Group {
	t.Helper()
	group, err := h.manager.Apply(spec, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	return group
}

func (h *containerdHarness) group(t *testing.T, name string) *agentv1.Group {
	t.Helper()
	g, err := h.manager.find(name)
	if err != nil {
		t.Fatal(err)
	}
	view, _ := g.view()
	return view
}

func (h *containerdHarness) waitFor(t *testing.T, name string, condition func(*agentv1.Group) bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition(h.group(t, name)) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %v", h.group(t, name).GetStatus())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (h *containerdHarness) delete(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := h.manager.Delete(ctx, name); err != nil {
		t.Error(err)
	}
}

func (h *containerdHarness) deleteAll(t *testing.T) {
	for _, g := range h.manager.all() {
		h.delete(t, g.name)
	}
}

// startNetd starts the role netd with the device to the lab's other machine, and returns its socket.
func (h *containerdHarness) startNetd(t *testing.T, binaries, directory string) string {
	t.Helper()
	// The lab's own datapath gives up the interface first.
	if err := h.lab.InHost(func() error { return h.lab.Datapath.RemoveDevice(h.lab.Uplink) }); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(directory, "netd.sock")
	daemon := exec.Command(filepath.Join(binaries, "palisade-agent"), "netd", "-socket", socket, "-socket-group", "", "-device", "uplink",
		"-state", filepath.Join(directory, "netd"), "-pins", h.lab.Pins+"/netd")
	daemon.Stdout, daemon.Stderr = h.logs, h.logs
	// Pdeathsig is not set, because it would be sent when the thread of the lab's host ends.
	if err := h.lab.InHost(daemon.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if connection, err := net.Dial("unix", socket); err == nil {
			connection.Close()
			return socket
		}
		if time.Now().After(deadline) {
			t.Fatalf("netd does not serve: %s", h.logs.String())
		}
	}
}

// dial connects as the lab's other machine, because a host does not reach its own published ports by its addresses.
func (h *containerdHarness) dial(ctx context.Context, network, address string) (connection net.Conn, err error) {
	err = h.lab.Nodes[lab.World].Do(func() (err error) {
		connection, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
		return err
	})
	return connection, err
}

func (h *containerdHarness) get(t *testing.T, port int) string {
	t.Helper()
	var failure error
	for range 40 {
		client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: h.dial}}
		response, err := client.Get(fmt.Sprintf("http://%s:%d", lab.HostIPv4, port))
		if err == nil {
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			client.CloseIdleConnections()
			if err == nil {
				return string(body)
			}
		}
		failure = err
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal(failure)
	return ""
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
