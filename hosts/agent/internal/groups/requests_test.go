package groups

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	support "github.com/palisade-host/palisade/test/support/containerd"
)

// recordedRequests are what this role asks of containerd, which takes nothing else (hosts/containerd/cri). Its tests
// read them too. Set PALISADE_RECORD=1 to write the file anew.
const recordedRequests = "../../../containerd/cri/testdata/agent-requests.json"

// TestRequestsAreRecorded keeps the agent and the filter of its requests together.
func TestRequestsAreRecorded(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	writeFile(t, resolv, "nameserver 192.0.2.53\nnameserver fd00::53\nsearch example.test\n")
	defer func(before []string) { resolverFiles = before }(resolverFiles)
	resolverFiles = []string{resolv}

	container := &agentv1.Container{
		Name: "server", Image: "registry.test:5000/web@sha256:" + hexadecimal, Command: []string{"/server", "--verbose"},
		WorkingDirectory: "/srv",
		Environment:      []*agentv1.EnvironmentVariable{{Name: "MODE", Value: "test"}, {Name: "TOKEN", Secure: true, SecureValue: "secret"}},
		Resources:        &agentv1.Resources{CpuRequest: 0.5, CpuLimit: 1, MemoryRequestBytes: 64 << 20, MemoryLimitBytes: 128 << 20},
	}
	desired := &record{recordFields: recordFields{UID: "0123456789abcdef", Generation: 3, SandboxAttempt: 2}, spec: &agentv1.GroupSpec{
		Name: "web", Containers: []*agentv1.Container{container},
		Ports: []*agentv1.Port{{Port: 80, Protocol: agentv1.Protocol_PROTOCOL_TCP}, {Port: 53, Protocol: agentv1.Protocol_PROTOCOL_UDP}},
	}}
	g := &group{name: "web", manager: &Manager{options: Options{LogDirectory: "/var/lib/palisade/logs", CgroupParent: "/palisade"}}}
	selector := map[string]string{labelGroup: "web"}
	image := &runtimev1.ImageSpec{Image: container.GetImage()}
	asked := []proto.Message{
		&runtimev1.VersionRequest{},
		&runtimev1.StatusRequest{Verbose: true},
		&runtimev1.ListPodSandboxRequest{},
		&runtimev1.ListPodSandboxRequest{Filter: &runtimev1.PodSandboxFilter{LabelSelector: selector}},
		&runtimev1.PodSandboxStatusRequest{PodSandboxId: hexadecimal},
		&runtimev1.RunPodSandboxRequest{Config: g.sandboxConfig(desired)},
		&runtimev1.StopPodSandboxRequest{PodSandboxId: hexadecimal},
		&runtimev1.RemovePodSandboxRequest{PodSandboxId: hexadecimal},
		&runtimev1.ListContainersRequest{},
		&runtimev1.ListContainersRequest{Filter: &runtimev1.ContainerFilter{LabelSelector: selector}},
		&runtimev1.ListContainersRequest{Filter: &runtimev1.ContainerFilter{PodSandboxId: hexadecimal}},
		&runtimev1.ContainerStatusRequest{ContainerId: hexadecimal},
		&runtimev1.ContainerStatusRequest{ContainerId: hexadecimal, Verbose: true},
		&runtimev1.CreateContainerRequest{
			PodSandboxId: hexadecimal, Config: g.containerConfig(desired, container, 1), SandboxConfig: g.sandboxConfig(desired),
		},
		&runtimev1.StartContainerRequest{ContainerId: hexadecimal},
		&runtimev1.StopContainerRequest{ContainerId: hexadecimal, Timeout: 10},
		&runtimev1.RemoveContainerRequest{ContainerId: hexadecimal},
		&runtimev1.ReopenContainerLogRequest{ContainerId: hexadecimal},
		&runtimev1.ListImagesRequest{},
		&runtimev1.ImageStatusRequest{Image: image, Verbose: true},
		&runtimev1.PullImageRequest{Image: image},
		&runtimev1.PullImageRequest{Image: image, Auth: &runtimev1.AuthConfig{Username: "user", Password: "secret"}},
		&runtimev1.RemoveImageRequest{Image: &runtimev1.ImageSpec{Image: "sha256:" + hexadecimal}},
	}
	if os.Getenv("PALISADE_RECORD") != "" {
		writeFile(t, recordedRequests, string(support.EncodeRequests(t, asked)))
	}
	content, err := os.ReadFile(recordedRequests)
	if err != nil {
		t.Fatal(err)
	}
	recorded := support.DecodeRequests(t, content)
	if len(recorded) != len(asked) {
		t.Fatalf("%d requests are recorded, expected %d", len(recorded), len(asked))
	}
	for index, request := range asked {
		if !proto.Equal(request, recorded[index]) {
			t.Errorf("recorded is\n%v, asked is\n%v", recorded[index], request)
		}
	}
}

const hexadecimal = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
