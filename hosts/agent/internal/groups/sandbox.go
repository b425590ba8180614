package groups

import (
	"math"
	"path/filepath"
	"strconv"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// Labels of sandboxes and containers. By them an agent recognizes its own after a restart.
const (
	labelGroup      = "palisade.host/group"
	labelUID        = "palisade.host/uid"
	labelGeneration = "palisade.host/generation"
	labelSpecHash   = "palisade.host/spec-hash"
	labelContainer  = "palisade.host/container"
)

// namespace is the CRI namespace of all sandboxes. Network policies mean the same one when they name none.
const namespace = "default"

const cpuPeriod = 100_000

// Paths that containers cannot read or cannot write. They are the defaults of the OCI engines.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func (g *group) labels(r *record) map[string]string {
	return map[string]string{
		labelGroup:      g.name,
		labelUID:        r.UID,
		labelGeneration: strconv.FormatUint(r.Generation, 10),
		labelSpecHash:   r.specHash(),
	}
}

// sandboxConfig describes the sandbox of the group: one network namespace, the published ports, and the folder of its
// logs.
func (g *group) sandboxConfig(r *record) *runtimev1.PodSandboxConfig {
	config := &runtimev1.PodSandboxConfig{
		Metadata:     &runtimev1.PodSandboxMetadata{Name: g.name, Uid: r.UID, Namespace: namespace, Attempt: r.SandboxAttempt},
		Hostname:     g.name,
		LogDirectory: g.logDirectory(),
		Labels:       g.labels(r),
		DnsConfig:    resolver(resolverFiles),
		Linux: &runtimev1.LinuxPodSandboxConfig{
			CgroupParent: g.manager.options.CgroupParent,
			SecurityContext: &runtimev1.LinuxSandboxSecurityContext{
				NamespaceOptions: namespaces(),
				Seccomp:          defaultSeccomp(),
			},
		},
	}
	for _, port := range r.spec.GetPorts() {
		config.PortMappings = append(config.PortMappings, &runtimev1.PortMapping{
			Protocol:      criProtocol(port.GetProtocol()),
			ContainerPort: int32(port.GetPort()),
			HostPort:      int32(port.GetPort()),
		})
	}
	return config
}

func namespaces() *runtimev1.NamespaceOption {
	return &runtimev1.NamespaceOption{
		Network: runtimev1.NamespaceMode_POD,
		Pid:     runtimev1.NamespaceMode_CONTAINER,
		Ipc:     runtimev1.NamespaceMode_POD,
	}
}

func defaultSeccomp() *runtimev1.SecurityProfile {
	return &runtimev1.SecurityProfile{ProfileType: runtimev1.SecurityProfile_RuntimeDefault}
}

func criProtocol(protocol agentv1.Protocol) runtimev1.Protocol {
	if protocol == agentv1.Protocol_PROTOCOL_UDP {
		return runtimev1.Protocol_UDP
	}
	return runtimev1.Protocol_TCP
}

func (g *group) containerConfig(r *record, container *agentv1.Container, attempt uint32) *runtimev1.ContainerConfig {
	labels := g.labels(r)
	labels[labelContainer] = container.GetName()
	config := &runtimev1.ContainerConfig{
		Metadata: &runtimev1.ContainerMetadata{Name: container.GetName(), Attempt: attempt},
		Image:    &runtimev1.ImageSpec{Image: r.localReference(container.GetImage())},
		Command:  container.GetCommand(),
		// An empty value means the image's own directory.
		WorkingDir: container.GetWorkingDirectory(),
		Labels:     labels,
		LogPath:    logFile(container.GetName()),
		Linux: &runtimev1.LinuxContainerConfig{
			Resources: linuxResources(container.GetResources()),
			SecurityContext: &runtimev1.LinuxContainerSecurityContext{
				NamespaceOptions: namespaces(),
				Seccomp:          defaultSeccomp(),
				MaskedPaths:      maskedPaths,
				ReadonlyPaths:    readonlyPaths,
			},
		},
	}
	for _, variable := range container.GetEnvironment() {
		value := variable.GetValue()
		if variable.GetSecure() {
			value = variable.GetSecureValue()
		}
		config.Envs = append(config.Envs, &runtimev1.KeyValue{Key: variable.GetName(), Value: []byte(value)})
	}
	return config
}

// linuxResources converts requests to cpu.weight, and limits to cpu.max and memory.max. Without a
// request the weight stays the default.
func linuxResources(resources *agentv1.Resources) *runtimev1.LinuxContainerResources {
	linux := &runtimev1.LinuxContainerResources{}
	if request := resources.GetCpuRequest(); request > 0 {
		linux.CpuShares = max(2, int64(math.Round(request*1024)))
	}
	if limit := resources.GetCpuLimit(); limit > 0 {
		linux.CpuPeriod = cpuPeriod
		linux.CpuQuota = max(1000, int64(math.Round(limit*cpuPeriod)))
	}
	if limit := resources.GetMemoryLimitBytes(); limit > 0 {
		linux.MemoryLimitInBytes = int64(min(limit, math.MaxInt64))
		// This limit covers memory and swap together, so there is no swap.
		linux.MemorySwapLimitInBytes = linux.MemoryLimitInBytes
	}
	return linux
}

func (g *group) logDirectory() string {
	return filepath.Join(g.manager.options.LogDirectory, g.name)
}

func logFile(container string) string {
	return container + ".log"
}
