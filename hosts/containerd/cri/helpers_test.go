package cri

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	support "github.com/palisade-host/palisade/test/support/containerd"
)

// hostLogs is the folder of logs in the recorded requests.
const hostLogs = "/var/lib/palisade/logs"

// newPolicy is a host's with a folder of logs in which the agent has made that of the group web.
func newPolicy(t *testing.T) *Policy {
	t.Helper()
	policy := &Policy{CgroupParent: "/palisade", LogRoot: filepath.Join(t.TempDir(), "logs")}
	if err := os.MkdirAll(filepath.Join(policy.LogRoot, "web"), 0o700); err != nil {
		t.Fatal(err)
	}
	return policy
}

// agentRequests are what the agent asks for, as its own tests have recorded it
// (hosts/agent/internal/groups/requests_test.go).
func agentRequests(t *testing.T, policy *Policy) []proto.Message {
	t.Helper()
	content, err := os.ReadFile("testdata/agent-requests.json")
	if err != nil {
		t.Fatal(err)
	}
	return support.DecodeRequests(t, bytes.ReplaceAll(content, []byte(hostLogs), []byte(policy.LogRoot)))
}

// plain is the agent's last request of a type.
func plain[Request proto.Message](t *testing.T, policy *Policy) Request {
	t.Helper()
	var found Request
	for _, request := range agentRequests(t, policy) {
		if request, ok := request.(Request); ok {
			found = request
		}
	}
	return found
}

// isRefused fails the test unless the request is refused with the code and a message that begins with the path and
// holds the reason.
func isRefused(t *testing.T, policy *Policy, request proto.Message, code codes.Code, path, reason string) {
	t.Helper()
	_, err := policy.Rebuild(request)
	message := status.Convert(err).Message()
	if status.Code(err) != code || !strings.HasPrefix(message, path+": ") || !strings.Contains(message, reason) {
		t.Errorf("%v, expected %s at %s with %q", err, code, path, reason)
	}
}

// passes fails the test unless the request passes as it is.
func passes(t *testing.T, policy *Policy, request proto.Message) {
	t.Helper()
	rebuilt, err := policy.Rebuild(request)
	if err != nil {
		t.Errorf("refused: %v", err)
	} else if !proto.Equal(rebuilt, request) {
		t.Errorf("changed to\n%v\nfrom\n%v", rebuilt, request)
	}
}

func plainSandbox(t *testing.T, policy *Policy) *runtimev1.RunPodSandboxRequest {
	return plain[*runtimev1.RunPodSandboxRequest](t, policy)
}

func plainContainer(t *testing.T, policy *Policy) *runtimev1.CreateContainerRequest {
	return plain[*runtimev1.CreateContainerRequest](t, policy)
}
