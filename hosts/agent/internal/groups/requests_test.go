package groups

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
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
		recordRequests(t, asked)
	}
	recorded := readRequests(t)
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

// recordedRequest is a request with the name of its message.
type recordedRequest struct {
	Message protoreflect.FullName `json:"message"`
	Request json.RawMessage       `json:"request"`
}

func recordRequests(t *testing.T, requests []proto.Message) {
	t.Helper()
	var records []recordedRequest
	for _, request := range requests {
		content, err := protojson.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, recordedRequest{request.ProtoReflect().Descriptor().FullName(), content})
	}
	content, err := json.MarshalIndent(records, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, recordedRequests, string(content)+"\n")
}

func readRequests(t *testing.T) []proto.Message {
	t.Helper()
	content, err := os.ReadFile(recordedRequests)
	if err != nil {
		t.Fatal(err)
	}
	var records []recordedRequest
	if err := json.Unmarshal(content, &records); err != nil {
		t.Fatal(err)
	}
	var requests []proto.Message
	for _, one := range records {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(one.Message)
		if err != nil {
			t.Fatal(err)
		}
		request := kind.New().Interface()
		if err := protojson.Unmarshal(one.Request, request); err != nil {
			t.Fatal(err)
		}
		requests = append(requests, request)
	}
	return requests
}
