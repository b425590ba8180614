package groups

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	support "github.com/palisade-host/palisade/test/support/containerd"
)

// attackContainerd does over the socket what an attacker does who has become this role. Each attack has the plain
// request of the agent as its control, which is accepted.
func (h *containerdHarness) attackContainerd(t *testing.T) {
	g, err := h.manager.find("web")
	if err != nil {
		t.Fatal(err)
	}
	desired := g.desired()
	container := desired.spec.GetContainers()[0]
	logs := filepath.Join(h.options.LogDirectory, "attack")
	if err := os.Mkdir(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(logs)

	// Of no group, and without the ports, which are in use.
	sandboxConfig := g.sandboxConfig(desired)
	sandboxConfig.Metadata.Name, sandboxConfig.Hostname, sandboxConfig.LogDirectory = "attack", "attack", logs
	sandboxConfig.PortMappings, sandboxConfig.Labels = nil, nil
	sandbox := &runtimev1.RunPodSandboxRequest{Config: sandboxConfig}
	for name, change := range map[string]func(*runtimev1.PodSandboxConfig){
		"privileged": func(c *runtimev1.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true },
		"network":    func(c *runtimev1.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Network = nodeNamespace },
		"pid":        func(c *runtimev1.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = nodeNamespace },
		"ipc":        func(c *runtimev1.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Ipc = nodeNamespace },
		"cgroup":     func(c *runtimev1.PodSandboxConfig) { c.Linux.CgroupParent = "/" },
		"log_directory": func(c *runtimev1.PodSandboxConfig) {
			c.LogDirectory = "/etc"
		},
	} {
		attack := proto.CloneOf(sandbox)
		change(attack.Config)
		_, err := h.manager.runtime.RunPodSandbox(h.ctx, attack)
		isRefused(t, err, "config.", name)
	}
	ran, err := h.manager.runtime.RunPodSandbox(h.ctx, sandbox)
	if err != nil {
		t.Fatalf("the plain sandbox: %v", err)
	}
	defer func() {
		if err := removeSandbox(h.ctx, h.manager.runtime, &runtimev1.PodSandbox{Id: ran.PodSandboxId}); err != nil {
			t.Error(err)
		}
	}()

	config := g.containerConfig(desired, container, 1)
	config.Labels, config.Command = nil, []string{"/program", "exit", "0"}
	create := &runtimev1.CreateContainerRequest{PodSandboxId: ran.PodSandboxId, Config: config, SandboxConfig: sandboxConfig}
	for name, change := range map[string]func(*runtimev1.ContainerConfig){
		"privileged": func(c *runtimev1.ContainerConfig) { c.Linux.SecurityContext.Privileged = true },
		"network":    func(c *runtimev1.ContainerConfig) { c.Linux.SecurityContext.NamespaceOptions.Network = nodeNamespace },
		"pid":        func(c *runtimev1.ContainerConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = nodeNamespace },
		"host_path": func(c *runtimev1.ContainerConfig) {
			c.Mounts = []*runtimev1.Mount{{ContainerPath: "/host", HostPath: "/"}}
		},
		"devices": func(c *runtimev1.ContainerConfig) {
			c.Devices = []*runtimev1.Device{{ContainerPath: "/dev/disk", HostPath: "/dev/vda", Permissions: "rwm"}}
		},
		"CDI_devices": func(c *runtimev1.ContainerConfig) { c.CDIDevices = []*runtimev1.CDIDevice{{Name: "vendor.test/x=all"}} },
		"add_capabilities": func(c *runtimev1.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &runtimev1.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
		},
		"masked_paths": func(c *runtimev1.ContainerConfig) { c.Linux.SecurityContext.MaskedPaths = nil },
		"seccomp": func(c *runtimev1.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp.ProfileType = runtimev1.SecurityProfile_Unconfined
		},
		"annotations": func(c *runtimev1.ContainerConfig) {
			c.Annotations = map[string]string{"run.oci.hooks.stdout": "/etc/x"}
		},
		"log_path": func(c *runtimev1.ContainerConfig) { c.LogPath = "../web/server.log" },
	} {
		attack := proto.CloneOf(create)
		change(attack.Config)
		_, err := h.manager.runtime.CreateContainer(h.ctx, attack)
		isRefused(t, err, "config.", name)
	}

	h.attackLogs(t, create, logs)

	_, err = h.manager.runtime.Exec(h.ctx, &runtimev1.ExecRequest{ContainerId: ran.PodSandboxId, Cmd: []string{"/program"}, Stdout: true})
	isRefused(t, err, "/runtime.v1.RuntimeService/Exec", "")
	_, err = h.manager.runtime.PortForward(h.ctx, &runtimev1.PortForwardRequest{PodSandboxId: ran.PodSandboxId})
	isRefused(t, err, "/runtime.v1.RuntimeService/PortForward", "")
	for _, native := range []string{"tasks.v1.Tasks/List", "containers.v1.Containers/List", "content.v1.Content/Info", "images.v1.Images/List"} {
		err := h.conn.Invoke(h.ctx, "/containerd.services."+native, &emptypb.Empty{}, &emptypb.Empty{})
		if grpcstatus.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", native, err)
		}
	}
	files := support.Folder(h.directory)
	for socket, group := range map[string]uint32{files.Socket(): support.ClientGroup, files.Ttrpc(): 0} {
		info, err := os.Stat(socket)
		if err != nil {
			t.Error(err)
			continue
		}
		if status := info.Sys().(*syscall.Stat_t); status.Uid != 0 || status.Gid != group || info.Mode().Perm() != 0o660 {
			t.Errorf("socket %s: %d:%d %s", socket, status.Uid, status.Gid, info.Mode())
		}
	}
}

const nodeNamespace = runtimev1.NamespaceMode_NODE

// attackLogs puts a link where containerd, as root, opens the log of a container. The control is a file.
func (h *containerdHarness) attackLogs(t *testing.T, create *runtimev1.CreateContainerRequest, logs string) {
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(logs, create.GetConfig().GetLogPath())
	start := func() error {
		created, err := h.manager.runtime.CreateContainer(h.ctx, create)
		if err != nil {
			t.Fatalf("the plain container: %v", err)
		}
		defer func() {
			// One that runs is not removed.
			if _, err := h.manager.runtime.StopContainer(h.ctx, &runtimev1.StopContainerRequest{ContainerId: created.ContainerId}); err != nil {
				t.Error(err)
			}
			if _, err := h.manager.runtime.RemoveContainer(h.ctx, &runtimev1.RemoveContainerRequest{ContainerId: created.ContainerId}); err != nil {
				t.Error(err)
			}
		}()
		_, err = h.manager.runtime.StartContainer(h.ctx, &runtimev1.StartContainerRequest{ContainerId: created.ContainerId})
		return err
	}
	if err := os.Symlink(victim, log); err != nil {
		t.Fatal(err)
	}
	if err := start(); err == nil || !strings.Contains(err.Error(), "too many levels of symbolic links") {
		t.Errorf("a log behind a link: %v", err)
	}
	if content, err := os.ReadFile(victim); err != nil || string(content) != "kept" {
		t.Errorf("the victim: %q, %v", content, err)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	create.Config.Metadata.Attempt++
	if err := start(); err != nil {
		t.Errorf("a log in a file: %v", err)
	}
}

// isRefused fails the test unless the error is containerd's refusal of the field, whose path begins and ends as given.
func isRefused(t *testing.T, err error, prefix, field string) {
	t.Helper()
	path, _, _ := strings.Cut(grpcstatus.Convert(err).Message(), ": ")
	if grpcstatus.Code(err) != codes.PermissionDenied || !strings.HasPrefix(path, prefix) || !strings.Contains(path, field) {
		t.Errorf("%s: %v", field, err)
	}
}
