package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// become gives up root for good, with its capabilities: the uid of a role, whose group has the same number.
func become(id string) error {
	number, err := strconv.Atoi(id)
	if err != nil {
		return err
	}
	if os.Getuid() == number {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(number), syscall.Setuid(number))
}

// attackAs runs an attack with the uid of a role.
func attackAs(id string, arguments []string) error {
	found, known := attacks[arguments[0]]
	if !known || len(arguments)-1 < found.arguments {
		return fmt.Errorf("%q is no attack of that many arguments", arguments)
	}
	if err := become(id); err != nil {
		return err
	}
	return found.run(arguments[1:])
}

// Where the client of containerd is on a host.
const (
	containerdSocket = "/run/containerd/containerd.sock"
	logFolder        = "/var/lib/palisade/logs/as-role"
)

// sandboxAttacks and containerAttacks change one thing of what the agent asks for; "plain" changes nothing.
var (
	sandboxAttacks = map[string]func(*runtimev1.PodSandboxConfig){
		"sandbox-plain":      func(*runtimev1.PodSandboxConfig) {},
		"sandbox-privileged": func(c *runtimev1.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true },
		"sandbox-network": func(c *runtimev1.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = runtimev1.NamespaceMode_NODE
		},
		"sandbox-pid": func(c *runtimev1.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = runtimev1.NamespaceMode_NODE
		},
		"sandbox-ipc": func(c *runtimev1.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Ipc = runtimev1.NamespaceMode_NODE
		},
	}
	containerAttacks = map[string]func(*runtimev1.ContainerConfig){
		"container-plain":      func(*runtimev1.ContainerConfig) {},
		"container-privileged": func(c *runtimev1.ContainerConfig) { c.Linux.SecurityContext.Privileged = true },
		"container-host-path": func(c *runtimev1.ContainerConfig) {
			c.Mounts = []*runtimev1.Mount{{ContainerPath: "/host", HostPath: "/"}}
		},
		"container-device": func(c *runtimev1.ContainerConfig) {
			c.Devices = []*runtimev1.Device{{ContainerPath: "/dev/disk", HostPath: "/dev/vda", Permissions: "rwm"}}
		},
		"container-capability": func(c *runtimev1.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &runtimev1.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
		},
	}
)

// attackContainerd asks containerd over the socket of the role groups. It runs what is not refused, and takes it away
// again.
func attackContainerd(name, image string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout-cleanupTimeout)
	defer cancel()
	credentials := grpc.WithTransportCredentials(insecure.NewCredentials())
	connection, err := grpc.NewClient("unix://"+containerdSocket, credentials)
	if err != nil {
		return err
	}
	defer connection.Close()
	if name == "native" {
		// The request of a list without filters is empty.
		return connection.Invoke(ctx, "/containerd.services.containers.v1.Containers/List", &emptypb.Empty{}, &emptypb.Empty{})
	}
	changeSandbox, ofSandbox := sandboxAttacks[name]
	changeContainer, ofContainer := containerAttacks[name]
	if !ofSandbox && !ofContainer {
		return fmt.Errorf("%q is no attack on containerd", name)
	}
	if err := os.MkdirAll(logFolder, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(logFolder)
	runtime := runtimev1.NewRuntimeServiceClient(connection)
	sandbox := plainSandbox()
	if ofSandbox {
		changeSandbox(sandbox)
	}
	ran, err := runtime.RunPodSandbox(ctx, &runtimev1.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		return err
	}
	if ofSandbox {
		return removeSandbox(runtime, ran.PodSandboxId)
	}
	defer func() { err = errors.Join(err, removeSandbox(runtime, ran.PodSandboxId)) }()
	container := plainContainer(image)
	changeContainer(container)
	created, err := runtime.CreateContainer(ctx, &runtimev1.CreateContainerRequest{
		PodSandboxId: ran.PodSandboxId, Config: container, SandboxConfig: sandbox,
	})
	if err != nil {
		return err
	}
	_, err = runtime.StartContainer(ctx, &runtimev1.StartContainerRequest{ContainerId: created.ContainerId})
	return err
}

// removeSandbox has time of its own: a sandbox that stays keeps its name, and the next one is refused.
func removeSandbox(runtime runtimev1.RuntimeServiceClient, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	_, err := runtime.StopPodSandbox(ctx, &runtimev1.StopPodSandboxRequest{PodSandboxId: id})
	if err != nil {
		return err
	}
	_, err = runtime.RemovePodSandbox(ctx, &runtimev1.RemovePodSandboxRequest{PodSandboxId: id})
	return err
}

// plainSandbox and plainContainer are what the agent asks for (hosts/agent/internal/groups/sandbox.go).
func plainSandbox() *runtimev1.PodSandboxConfig {
	return &runtimev1.PodSandboxConfig{
		// A name is used once.
		Metadata: &runtimev1.PodSandboxMetadata{
			Name: "attack", Uid: strconv.FormatInt(time.Now().UnixNano(), 16), Namespace: "default", Attempt: 1,
		},
		Hostname: "attack", LogDirectory: logFolder, DnsConfig: &runtimev1.DNSConfig{Options: []string{"edns0"}},
		Linux: &runtimev1.LinuxPodSandboxConfig{
			CgroupParent: "/palisade",
			SecurityContext: &runtimev1.LinuxSandboxSecurityContext{
				NamespaceOptions: plainNamespaces(), Seccomp: &runtimev1.SecurityProfile{},
			},
		},
	}
}

func plainContainer(image string) *runtimev1.ContainerConfig {
	return &runtimev1.ContainerConfig{
		Metadata: &runtimev1.ContainerMetadata{Name: "attack", Attempt: 1},
		Image:    &runtimev1.ImageSpec{Image: image}, Command: []string{"/probe", "do", "sleep", "0"},
		LogPath: "attack.log",
		Linux: &runtimev1.LinuxContainerConfig{
			Resources: &runtimev1.LinuxContainerResources{},
			SecurityContext: &runtimev1.LinuxContainerSecurityContext{
				NamespaceOptions: plainNamespaces(), Seccomp: &runtimev1.SecurityProfile{},
				MaskedPaths: []string{
					"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
					"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
					"/sys/devices/virtual/powercap", "/sys/firmware",
				},
				ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			},
		},
	}
}

func plainNamespaces() *runtimev1.NamespaceOption {
	return &runtimev1.NamespaceOption{Pid: runtimev1.NamespaceMode_CONTAINER}
}
