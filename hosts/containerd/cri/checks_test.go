package cri

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestRefusedValues changes one value of a plain request of the agent, which passes without the change.
func TestRefusedValues(t *testing.T) {
	policy := newPolicy(t)
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(policy.LogRoot, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(policy.LogRoot, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const denied = codes.PermissionDenied
	sandboxes := []struct {
		name         string
		change       func(*runtimev1.PodSandboxConfig)
		path, reason string
	}{
		{"network of the host", func(c *runtimev1.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = runtimev1.NamespaceMode_NODE
		}, "linux.security_context.namespace_options.network", "NODE is refused"},
		{"processes of the host", func(c *runtimev1.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = runtimev1.NamespaceMode_NODE
		}, "linux.security_context.namespace_options.pid", "NODE is refused"},
		{"processes of the pod, which is what no value means", func(c *runtimev1.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = runtimev1.NamespaceMode_POD
		}, "linux.security_context.namespace_options.pid", "POD is refused"},
		{"IPC of the host", func(c *runtimev1.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Ipc = runtimev1.NamespaceMode_NODE
		}, "linux.security_context.namespace_options.ipc", "NODE is refused"},
		{"a mode that CRI does not have", func(c *runtimev1.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Ipc = 99
		}, "linux.security_context.namespace_options.ipc", "99 is refused"},
		{"no seccomp", func(c *runtimev1.PodSandboxConfig) {
			c.Linux.SecurityContext.Seccomp.ProfileType = runtimev1.SecurityProfile_Unconfined
		}, "linux.security_context.seccomp.profile_type", "Unconfined is refused"},
		{"a seccomp profile of a file", func(c *runtimev1.PodSandboxConfig) {
			c.Linux.SecurityContext.Seccomp.ProfileType = runtimev1.SecurityProfile_Localhost
		}, "linux.security_context.seccomp.profile_type", "Localhost is refused"},
		{"another cgroup", func(c *runtimev1.PodSandboxConfig) { c.Linux.CgroupParent = "/system.slice" },
			"linux.cgroup_parent", `is not "/palisade"`},
		{"a cgroup below the right one", func(c *runtimev1.PodSandboxConfig) { c.Linux.CgroupParent = "/palisade/../system.slice" },
			"linux.cgroup_parent", `is not "/palisade"`},
		{"no cgroup", func(c *runtimev1.PodSandboxConfig) { c.Linux.CgroupParent = "" }, "linux.cgroup_parent", `is not "/palisade"`},
		{"a kernel parameter", func(c *runtimev1.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "0"}
		}, "linux.sysctls", "kernel.shm_rmid_forced"},
		{"a label that containerd acts upon", func(c *runtimev1.PodSandboxConfig) {
			c.Labels["containerd.io/gc.ref.content"] = "sha256:0"
		}, "labels", "none of the agent's labels"},
		{"a label like the agent's", func(c *runtimev1.PodSandboxConfig) { c.Labels["palisade.host/other"] = "x" },
			"labels", "none of the agent's labels"},
		{"logs elsewhere", func(c *runtimev1.PodSandboxConfig) { c.LogDirectory = "/etc" }, "log_directory", "is not below"},
		{"logs in a folder whose name begins alike", func(c *runtimev1.PodSandboxConfig) { c.LogDirectory = policy.LogRoot + "x/web" },
			"log_directory", "is not below"},
		{"logs in the folder of all logs", func(c *runtimev1.PodSandboxConfig) { c.LogDirectory = policy.LogRoot },
			"log_directory", "is not below"},
		{"logs above", func(c *runtimev1.PodSandboxConfig) { c.LogDirectory = policy.LogRoot + "/../../etc" },
			"log_directory", "is not below"},
		{"logs behind a link", func(c *runtimev1.PodSandboxConfig) { c.LogDirectory = policy.LogRoot + "/link" },
			"log_directory", "symbolic link"},
		{"logs in a file", func(c *runtimev1.PodSandboxConfig) { c.LogDirectory = policy.LogRoot + "/file" },
			"log_directory", "not a directory"},
		{"logs in a folder that is not there", func(c *runtimev1.PodSandboxConfig) { c.LogDirectory = policy.LogRoot + "/none" },
			"log_directory", "no such file"},
		{"no logs", func(c *runtimev1.PodSandboxConfig) { c.LogDirectory = "" }, "log_directory", "is not below"},
		{"a name with a path", func(c *runtimev1.PodSandboxConfig) { c.Metadata.Name = "../web" }, "metadata.name", "is not of the form"},
		{"a namespace with a path", func(c *runtimev1.PodSandboxConfig) { c.Metadata.Namespace = "a/b" },
			"metadata.namespace", "is not of the form"},
		{"an identity with a path", func(c *runtimev1.PodSandboxConfig) { c.Metadata.Uid = "a/b" }, "metadata.uid", "is not of the form"},
		{"a host name of two lines", func(c *runtimev1.PodSandboxConfig) { c.Hostname = "a\nb" }, "hostname", "is not of the form"},
		{"a resolver of two lines", func(c *runtimev1.PodSandboxConfig) { c.DnsConfig.Searches = []string{"a\nnameserver 1"} },
			"dns_config.searches", "not one word"},
		{"a resolver without an address", func(c *runtimev1.PodSandboxConfig) { c.DnsConfig.Servers = []string{"ns.test"} },
			"dns_config.servers", "no address"},
		{"a protocol without a datapath", func(c *runtimev1.PodSandboxConfig) {
			c.PortMappings[1].Protocol = runtimev1.Protocol_SCTP
		}, "port_mappings[1].protocol", "SCTP is refused"},
		{"a port that is none", func(c *runtimev1.PodSandboxConfig) { c.PortMappings[0].HostPort = 65536 },
			"port_mappings[0].host_port", "65536 is no port"},
	}
	for _, test := range sandboxes {
		t.Run("sandbox: "+test.name, func(t *testing.T) {
			sandbox := plainSandbox(t, policy)
			passes(t, policy, sandbox)
			test.change(sandbox.Config)
			isRefused(t, policy, sandbox, denied, "config."+test.path, test.reason)
			// The same rules hold for the sandbox that comes along with a container.
			container := plainContainer(t, policy)
			test.change(container.SandboxConfig)
			isRefused(t, policy, container, denied, "sandbox_config."+test.path, test.reason)
		})
	}
	containers := []struct {
		name         string
		change       func(*runtimev1.ContainerConfig)
		path, reason string
	}{
		{"network of the host", func(c *runtimev1.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = runtimev1.NamespaceMode_NODE
		}, "linux.security_context.namespace_options.network", "NODE is refused"},
		{"processes of another container", func(c *runtimev1.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = runtimev1.NamespaceMode_TARGET
		}, "linux.security_context.namespace_options.pid", "TARGET is refused"},
		{"no seccomp", func(c *runtimev1.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp.ProfileType = runtimev1.SecurityProfile_Unconfined
		}, "linux.security_context.seccomp.profile_type", "Unconfined is refused"},
		{"no masked paths", func(c *runtimev1.ContainerConfig) { c.Linux.SecurityContext.MaskedPaths = nil },
			"linux.security_context.masked_paths", "is not the host's list"},
		{"a masked path less", func(c *runtimev1.ContainerConfig) {
			c.Linux.SecurityContext.MaskedPaths = c.Linux.SecurityContext.MaskedPaths[1:]
		}, "linux.security_context.masked_paths", "is not the host's list"},
		{"no read-only paths", func(c *runtimev1.ContainerConfig) { c.Linux.SecurityContext.ReadonlyPaths = nil },
			"linux.security_context.readonly_paths", "is not the host's list"},
		{"a capability", func(c *runtimev1.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &runtimev1.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
		}, "linux.security_context.capabilities.add_capabilities", `"SYS_ADMIN"`},
		{"all capabilities", func(c *runtimev1.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &runtimev1.Capability{AddCapabilities: []string{"ALL"}}
		}, "linux.security_context.capabilities.add_capabilities", `"ALL"`},
		{"the root of the host", func(c *runtimev1.ContainerConfig) {
			c.Mounts = []*runtimev1.Mount{{ContainerPath: "/host", HostPath: "/"}}
		}, "mounts[0].host_path", `"/" is below no folder of volumes`},
		{"negative memory", func(c *runtimev1.ContainerConfig) { c.Linux.Resources.MemoryLimitInBytes = -1 },
			"linux.resources.memory_limit_in_bytes", "-1 is negative"},
		{"a log elsewhere", func(c *runtimev1.ContainerConfig) { c.LogPath = "../other/server.log" }, "log_path", "is not of the form"},
		{"no log", func(c *runtimev1.ContainerConfig) { c.LogPath = "" }, "log_path", "is not of the form"},
		{"a file for an image", func(c *runtimev1.ContainerConfig) { c.Image.Image = "/var/lib/palisade/layers/x" },
			"image.image", "no reference to an image"},
		{"an image without a digest", func(c *runtimev1.ContainerConfig) { c.Image.Image = "registry.test/web:1" },
			"image.image", "no reference by digest"},
		{"a digest of a file", func(c *runtimev1.ContainerConfig) {
			c.Image.Image = "../web@sha256:" + strings.Repeat("0", 64)
		}, "image.image", "no reference to an image"},
		{"a label that containerd acts upon", func(c *runtimev1.ContainerConfig) { c.Labels["io.cri-containerd.kind"] = "sandbox" },
			"labels", "none of the agent's labels"},
		{"a name with a path", func(c *runtimev1.ContainerConfig) { c.Metadata.Name = "a/b" }, "metadata.name", "is not of the form"},
	}
	for _, test := range containers {
		t.Run("container: "+test.name, func(t *testing.T) {
			request := plainContainer(t, policy)
			passes(t, policy, request)
			test.change(request.Config)
			isRefused(t, policy, request, denied, "config."+test.path, test.reason)
		})
	}
	for name, test := range map[string]struct {
		request proto.Message
		path    string
	}{
		"a runtime of the client's choosing": {
			&runtimev1.RunPodSandboxRequest{Config: plainSandbox(t, policy).Config, RuntimeHandler: "runc"}, "runtime_handler"},
		"a sandbox by a path":  {&runtimev1.StopPodSandboxRequest{PodSandboxId: "../x"}, "pod_sandbox_id"},
		"a container by no ID": {&runtimev1.StartContainerRequest{}, "container_id"},
		"a selector of other labels": {
			&runtimev1.ListContainersRequest{Filter: &runtimev1.ContainerFilter{LabelSelector: map[string]string{"a": "b"}}},
			"filter.label_selector"},
	} {
		t.Run(name, func(t *testing.T) { isRefused(t, policy, test.request, denied, test.path, "") })
	}
}

// TestImagesOfTheAgent takes what the agent takes (hosts/agent/internal/reference).
func TestImagesOfTheAgent(t *testing.T) {
	content, err := os.ReadFile("../../api/testdata/image-references.json")
	if err != nil {
		t.Fatal(err)
	}
	var data struct {
		References []struct{ Reference, Refused string }
	}
	if err := json.Unmarshal(content, &data); err != nil {
		t.Fatal(err)
	}
	taken := 0
	for _, one := range data.References {
		err := image(nil, protoreflect.ValueOfString(one.Reference))
		if one.Refused == "" && err != nil {
			t.Errorf("%v", err)
		} else if one.Refused == "" {
			taken++
		}
	}
	if taken == 0 {
		t.Error("there is no reference in the file")
	}
}

// TestWhatAHostMayPermit sets what is refused above in the host's configuration.
func TestWhatAHostMayPermit(t *testing.T) {
	policy := newPolicy(t)
	policy.Capabilities, policy.Sysctls = []string{"CAP_NET_ADMIN"}, []string{"net.ipv4.ip_unprivileged_port_start"}
	policy.RuntimeHandlers = []string{"crun"}
	sandbox := plainSandbox(t, policy)
	sandbox.RuntimeHandler = "crun"
	sandbox.Config.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
	passes(t, policy, sandbox)
	container := plainContainer(t, policy)
	container.Config.Linux.SecurityContext.Capabilities = &runtimev1.Capability{
		AddCapabilities: []string{"net_admin"}, DropCapabilities: []string{"ALL"},
	}
	container.Config.Linux.SecurityContext.NoNewPrivs, container.Config.Linux.SecurityContext.ReadonlyRootfs = true, true
	passes(t, policy, container)
	container.Config.Linux.SecurityContext.Capabilities.AddCapabilities = []string{"NET_ADMIN", "NET_RAW"}
	isRefused(t, policy, container, codes.PermissionDenied, "config.linux.security_context.capabilities.add_capabilities", `"NET_RAW"`)
}

func volumeFolder(t *testing.T, name string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestMounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the folders of volumes have to be root's")
	}
	policy := newPolicy(t)
	root := volumeFolder(t, "data")
	policy.VolumeRoots = []string{root}
	inside := func(name string) string { return filepath.Join(root, name) }
	for _, err := range []error{
		os.Symlink("/etc", inside("link")),
		os.MkdirAll(inside("data/sub"), 0o755),
		os.Mkdir(inside("writable"), 0o755), os.Chmod(inside("writable"), 0o777), os.Mkdir(inside("writable/sub"), 0o755),
		os.Mkdir(inside("foreign"), 0o755), os.Chown(inside("foreign"), 841, 841), os.Mkdir(inside("foreign/sub"), 0o755),
		os.WriteFile(inside("file"), nil, 0o600), unix.Mkfifo(inside("fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	with := func(mount *runtimev1.Mount) *runtimev1.CreateContainerRequest {
		request := plainContainer(t, policy)
		request.Config.Mounts = []*runtimev1.Mount{mount}
		return request
	}
	for _, host := range []string{"data", "data/sub", "file", "foreign", "writable"} {
		passes(t, policy, with(&runtimev1.Mount{ContainerPath: "/data", HostPath: inside(host), Readonly: true}))
	}
	for host, reason := range map[string]string{
		root:                        "below no folder of volumes",
		root + "x/data":             "below no folder of volumes",
		inside("data") + "/../data": "below no folder of volumes",
		inside("data") + "/":        "below no folder of volumes",
		inside("link"):              "symbolic link",
		inside("link/passwd"):       "only root writes to",
		inside("writable/sub"):      "only root writes to",
		inside("foreign/sub"):       "only root writes to",
		inside("none"):              "no such file",
		inside("file/below"):        "only root writes to",
		inside("fifo"):              "neither a folder nor a file",
		"":                          "below no folder of volumes",
	} {
		isRefused(t, policy, with(&runtimev1.Mount{ContainerPath: "/data", HostPath: host}), codes.PermissionDenied,
			"config.mounts[0].host_path", reason)
	}
	for _, place := range []string{"/", "data", "/data/../etc", "/proc", "/proc/sys", "/sys/fs", "/dev"} {
		isRefused(t, policy, with(&runtimev1.Mount{ContainerPath: place, HostPath: inside("data")}), codes.PermissionDenied,
			"config.mounts[0].container_path", "")
	}
	for _, propagation := range []runtimev1.MountPropagation{1, 2} {
		isRefused(t, policy, with(&runtimev1.Mount{ContainerPath: "/data", HostPath: inside("data"), Propagation: propagation}),
			codes.PermissionDenied, "config.mounts[0].propagation", "is refused")
	}
}
