package cri

import "google.golang.org/protobuf/reflect/protoreflect"

// Reasons that stand at several fields.
const (
	unused        = "the agent does not use it"
	noAnnotations = "containerd and the runtime act upon annotations"
	noSELinux     = "labels are the host's"
	noWindows     = "this host runs Linux"
	noUsers       = "the image says as whom its program runs"
	noPrivileged  = "nothing privileged runs on this host"
	oneAppArmor   = "this host has no AppArmor"
	noDevices     = "containers get no devices of the host"
)

// messages are the fields of the requests of all methods that are served, and of the messages in them, by the names of
// https://github.com/kubernetes/cri-api/blob/v0.37.2/pkg/apis/runtime/v1/api.proto. A field that is not listed is
// refused, and a test fails until it is: an update of CRI brings nothing unseen.
var messages = map[protoreflect.Name]map[protoreflect.Name]rule{
	"VersionRequest": {"version": refused(unused)},
	"StatusRequest":  {"verbose": permitted},

	"RunPodSandboxRequest":    {"config": required, "runtime_handler": checked(runtimeHandler)},
	"StopPodSandboxRequest":   {"pod_sandbox_id": checked(identifier)},
	"RemovePodSandboxRequest": {"pod_sandbox_id": checked(identifier)},
	"PodSandboxStatusRequest": {"pod_sandbox_id": checked(identifier), "verbose": refused(unused)},
	"ListPodSandboxRequest":   {"filter": permitted},
	"PodSandboxFilter": {
		"id": refused(unused), "state": refused(unused), "label_selector": checked(labels),
	},

	"CreateContainerRequest": {
		"pod_sandbox_id": checked(identifier), "config": required, "sandbox_config": required,
	},
	"StartContainerRequest":     {"container_id": checked(identifier)},
	"StopContainerRequest":      {"container_id": checked(identifier), "timeout": permitted},
	"RemoveContainerRequest":    {"container_id": checked(identifier)},
	"ContainerStatusRequest":    {"container_id": checked(identifier), "verbose": permitted},
	"ReopenContainerLogRequest": {"container_id": checked(identifier)},
	"ListContainersRequest":     {"filter": permitted},
	"ContainerFilter": {
		"id": refused(unused), "state": refused(unused),
		"pod_sandbox_id": permitted, "label_selector": checked(labels),
	},

	"ListImagesRequest":  {"filter": refused(unused)},
	"ImageStatusRequest": {"image": required, "verbose": permitted},
	"RemoveImageRequest": {"image": required},
	"PullImageRequest": {
		"image": required, "auth": permitted,
		"sandbox_config": refused("containerd reads nothing from it but an annotation"),
	},
	"AuthConfig": {
		"username": permitted, "password": permitted,
		"auth": refused(unused), "server_address": refused(unused),
		"identity_token": refused(unused), "registry_token": refused(unused),
	},

	"PodSandboxConfig": {
		"metadata": required, "hostname": checked(name), "log_directory": checked(logDirectory), "dns_config": permitted,
		"port_mappings": permitted, "labels": checked(labels), "linux": required,
		"annotations": refused(noAnnotations), "windows": refused(noWindows),
	},
	"PodSandboxMetadata": {
		"name": checked(name), "uid": checked(identifier), "namespace": checked(name), "attempt": permitted,
	},
	"DNSConfig": {
		"servers": checked(addresses), "searches": checked(words), "options": checked(words),
	},
	"PortMapping": {
		"protocol": checked(protocol), "container_port": checked(port), "host_port": checked(port),
		"host_ip": refused("ports are published on all addresses of the host"),
	},
	"LinuxPodSandboxConfig": {
		"cgroup_parent": checked(cgroupParent), "security_context": required, "sysctls": checked(sysctls),
		"overhead": refused(unused), "resources": refused(unused),
	},
	"LinuxSandboxSecurityContext": {
		"namespace_options": required, "seccomp": required, "readonly_rootfs": permitted,
		"privileged": refused(noPrivileged), "selinux_options": refused(noSELinux), "apparmor": refused(oneAppArmor),
		"run_as_user": refused(noUsers), "run_as_group": refused(noUsers), "supplemental_groups": refused(noUsers),
		"supplemental_groups_policy": refused(noUsers), "seccomp_profile_path": refused("CRI has replaced it by seccomp"),
	},
	"NamespaceOption": {
		"network": checked(podNamespace), "pid": checked(containerNamespace), "ipc": checked(podNamespace),
		"target_id":      refused("no container joins the processes of another"),
		"userns_options": refused(unused),
	},
	"SecurityProfile": {
		"profile_type": checked(runtimeDefault), "localhost_ref": refused("profiles are the host's"),
	},

	"ContainerConfig": {
		"metadata": required, "image": required, "command": permitted, "working_dir": permitted, "envs": permitted,
		"mounts": permitted, "labels": checked(labels), "log_path": checked(logFile), "linux": required,
		"args": refused(unused), "stdin": refused(unused), "stdin_once": refused(unused), "tty": refused(unused),
		"stop_signal": refused(unused), "devices": refused(noDevices), "CDI_devices": refused(noDevices),
		"annotations": refused(noAnnotations), "windows": refused(noWindows),
	},
	"ContainerMetadata": {"name": checked(name), "attempt": permitted},
	"ImageSpec": {
		"image": checked(image), "annotations": refused(noAnnotations), "user_specified_image": refused(unused),
		"runtime_handler": refused(unused), "image_ref": refused(unused),
	},
	"KeyValue": {"key": permitted, "value": permitted},
	"Mount": {
		"container_path": checked(containerPath), "host_path": checked(hostPath), "readonly": permitted,
		"recursive_read_only": permitted, "propagation": checked(privatePropagation),
		"selinux_relabel": refused(noSELinux), "uidMappings": refused(unused), "gidMappings": refused(unused),
		"image": refused(unused), "image_sub_path": refused(unused), "mount_options": refused(unused),
	},
	"LinuxContainerConfig": {"resources": permitted, "security_context": required},
	"LinuxContainerResources": {
		"cpu_period": checked(notNegative), "cpu_quota": checked(notNegative), "cpu_shares": checked(notNegative),
		"memory_limit_in_bytes": checked(notNegative), "memory_swap_limit_in_bytes": checked(notNegative),
		"oom_score_adj": refused("the host decides what is killed when memory runs out"),
		"cpuset_cpus":   refused(unused), "cpuset_mems": refused(unused), "hugepage_limits": refused(unused),
		"unified": refused("it writes any file of a cgroup"),
	},
	"LinuxContainerSecurityContext": {
		"capabilities": permitted, "namespace_options": required, "seccomp": required,
		"readonly_rootfs": permitted, "no_new_privs": permitted,
		"masked_paths": checked(exactly(maskedPaths)), "readonly_paths": checked(exactly(readonlyPaths)),
		"privileged": refused(noPrivileged), "selinux_options": refused(noSELinux),
		"run_as_user": refused(noUsers), "run_as_group": refused(noUsers), "run_as_username": refused(noUsers),
		"supplemental_groups": refused(noUsers), "supplemental_groups_policy": refused(noUsers),
		"apparmor": refused(oneAppArmor), "apparmor_profile": refused(oneAppArmor),
		"seccomp_profile_path": refused("CRI has replaced it by seccomp"),
	},
	"Capability": {
		"add_capabilities": checked(capabilities), "drop_capabilities": permitted,
		"add_ambient_capabilities": refused(unused),
	},
}
