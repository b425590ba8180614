package cri

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestEveryFieldIsDecided fails when CRI has a call or a field that is neither permitted nor refused with a reason, and
// when a rule is for one that CRI does not have.
func TestEveryFieldIsDecided(t *testing.T) {
	decided := map[string]bool{}
	seen := map[protoreflect.Name]bool{}
	for _, service := range services(t) {
		for index := range service.Methods().Len() {
			method := service.Methods().Get(index)
			name := fmt.Sprintf("/%s/%s", service.FullName(), method.Name())
			reason, known := methods[name]
			if !known {
				t.Errorf("%s: the call is neither served nor refused with a reason", name)
			}
			decided[name] = true
			if !known || reason != "" {
				continue
			}
			if method.IsStreamingClient() || method.IsStreamingServer() {
				t.Errorf("%s streams, and no rule is for that", name)
			}
			decide(t, method.Input(), seen)
		}
	}
	for name := range methods {
		if !decided[name] {
			t.Errorf("%s: CRI has no such call", name)
		}
	}
	for name := range messages {
		if !seen[name] {
			t.Errorf("%s is part of no request that is served", name)
		}
	}
}

// decide looks at the fields of a message and of those that permitted fields hold.
func decide(t *testing.T, message protoreflect.MessageDescriptor, seen map[protoreflect.Name]bool) {
	if seen[message.Name()] {
		return
	}
	seen[message.Name()] = true
	rules, known := messages[message.Name()]
	if !known {
		t.Errorf("%s: there are no rules for the message", message.Name())
		return
	}
	for index := range message.Fields().Len() {
		field := message.Fields().Get(index)
		rule, known := rules[field.Name()]
		switch {
		case !known:
			t.Errorf("%s.%s is neither permitted nor refused with a reason", message.Name(), field.Name())
		case rule.refused != "":
		case field.IsMap():
			if field.MapKey().Kind() != protoreflect.StringKind || field.MapValue().Kind() != protoreflect.StringKind || rule.check == nil {
				t.Errorf("%s.%s: a map has to be of texts, with its keys checked", message.Name(), field.Name())
			}
		case field.Message() != nil:
			decide(t, field.Message(), seen)
		}
	}
	for name := range rules {
		if message.Fields().ByName(name) == nil {
			t.Errorf("%s.%s: CRI has no such field", message.Name(), name)
		}
	}
}

func services(t *testing.T) []protoreflect.ServiceDescriptor {
	t.Helper()
	var result []protoreflect.ServiceDescriptor
	for _, name := range []string{runtimev1.RuntimeService_ServiceDesc.ServiceName, runtimev1.ImageService_ServiceDesc.ServiceName} {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			t.Fatal(err)
		}
		result = append(result, found.(protoreflect.ServiceDescriptor))
	}
	return result
}

func TestRequestsOfTheAgentPassUnchanged(t *testing.T) {
	policy := newPolicy(t)
	passed := map[protoreflect.Name]bool{}
	for _, request := range agentRequests(t, policy) {
		passes(t, policy, request)
		passed[request.ProtoReflect().Descriptor().Name()] = true
	}
	for _, service := range services(t) {
		for index := range service.Methods().Len() {
			method := service.Methods().Get(index)
			if methods[fmt.Sprintf("/%s/%s", service.FullName(), method.Name())] == "" && !passed[method.Input().Name()] {
				t.Errorf("%s is served, and no request of the agent is recorded", method.Name())
			}
		}
	}
}

// TestRefusedFields gives each refused field a value, one at a time, in requests that pass without.
func TestRefusedFields(t *testing.T) {
	policy := newPolicy(t)
	policy.VolumeRoots, policy.Capabilities = []string{volumeFolder(t, "data")}, []string{"NET_BIND_SERVICE"}
	container := plainContainer(t, policy)
	// What the agent does not ask for yet, but may.
	container.Config.Mounts = []*runtimev1.Mount{{ContainerPath: "/data", HostPath: policy.VolumeRoots[0] + "/data"}}
	container.Config.Linux.SecurityContext.Capabilities = &runtimev1.Capability{AddCapabilities: []string{"NET_BIND_SERVICE"}}
	tried := map[string]bool{}
	for _, request := range append(agentRequests(t, policy), container) {
		passes(t, policy, request)
		tryRefused(t, policy, request, request.ProtoReflect(), "", tried)
	}
	for message, rules := range messages {
		for field, rule := range rules {
			if name := fmt.Sprintf("%s.%s", message, field); rule.refused != "" && !tried[name] {
				t.Errorf("%s was not tried", name)
			}
		}
	}
}

func tryRefused(t *testing.T, policy *Policy, request proto.Message, message protoreflect.Message, path string, tried map[string]bool) {
	name := message.Descriptor().Name()
	fields := message.Descriptor().Fields()
	for index := range fields.Len() {
		field := fields.Get(index)
		at := join(path, string(field.Name()))
		rule := messages[name][field.Name()]
		switch {
		case rule.refused != "":
			tried[fmt.Sprintf("%s.%s", name, field.Name())] = true
			message.Set(field, something(message, field))
			isRefused(t, policy, request, codes.PermissionDenied, at, rule.refused)
			message.Clear(field)
		case field.Message() == nil || field.IsMap() || !message.Has(field):
		case field.IsList():
			list := message.Get(field).List()
			for element := range list.Len() {
				tryRefused(t, policy, request, list.Get(element).Message(), fmt.Sprintf("%s[%d]", at, element), tried)
			}
		default:
			tryRefused(t, policy, request, message.Get(field).Message(), at, tried)
		}
	}
}

// something is a value of the field's type that is not the one of a field without a value.
func something(message protoreflect.Message, field protoreflect.FieldDescriptor) protoreflect.Value {
	fresh := message.NewField(field)
	switch {
	case field.IsMap():
		fresh.Map().Set(protoreflect.ValueOfString("io.kubernetes.cri.runtime-handler").MapKey(), protoreflect.ValueOfString("x"))
		return fresh
	case field.IsList() && field.Message() != nil:
		fresh.List().Append(fresh.List().NewElement())
		return fresh
	case field.IsList():
		fresh.List().Append(scalar(field))
		return fresh
	case field.Message() != nil:
		return fresh
	}
	return scalar(field)
}

func scalar(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("x")
	}
	panic(fmt.Sprintf("%s is of kind %s", field.FullName(), field.Kind()))
}

func TestWhatHasToBeGiven(t *testing.T) {
	policy := newPolicy(t)
	for path, remove := range map[string]func(*runtimev1.CreateContainerRequest){
		"config":                        func(r *runtimev1.CreateContainerRequest) { r.Config = nil },
		"config.metadata":               func(r *runtimev1.CreateContainerRequest) { r.Config.Metadata = nil },
		"config.image":                  func(r *runtimev1.CreateContainerRequest) { r.Config.Image = nil },
		"config.linux":                  func(r *runtimev1.CreateContainerRequest) { r.Config.Linux = nil },
		"config.linux.security_context": func(r *runtimev1.CreateContainerRequest) { r.Config.Linux.SecurityContext = nil },
		"config.linux.security_context.seccomp": func(r *runtimev1.CreateContainerRequest) {
			r.Config.Linux.SecurityContext.Seccomp = nil
		},
		"config.linux.security_context.namespace_options": func(r *runtimev1.CreateContainerRequest) {
			r.Config.Linux.SecurityContext.NamespaceOptions = nil
		},
		"sandbox_config":       func(r *runtimev1.CreateContainerRequest) { r.SandboxConfig = nil },
		"sandbox_config.linux": func(r *runtimev1.CreateContainerRequest) { r.SandboxConfig.Linux = nil },
		"sandbox_config.linux.security_context.seccomp": func(r *runtimev1.CreateContainerRequest) {
			r.SandboxConfig.Linux.SecurityContext.Seccomp = nil
		},
	} {
		request := plainContainer(t, policy)
		remove(request)
		isRefused(t, policy, request, codes.InvalidArgument, path, "has to be given")
	}
}

// TestFieldsOfANewerCRI sends a field that this version of CRI has not, at the top and inside.
func TestFieldsOfANewerCRI(t *testing.T) {
	policy := newPolicy(t)
	// Number 1000, a text of one byte.
	unknown := protoreflect.RawFields{0xc2, 0x3e, 0x01, 'x'}
	top := plainSandbox(t, policy)
	top.ProtoReflect().SetUnknown(unknown)
	if _, err := policy.Rebuild(top); status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
	inside := plainSandbox(t, policy)
	inside.Config.Linux.SecurityContext.ProtoReflect().SetUnknown(unknown)
	isRefused(t, policy, inside, codes.InvalidArgument, "config.linux.security_context", "does not know")
}

// TestMessagesWithoutRules sends a request of which nothing is known.
func TestMessagesWithoutRules(t *testing.T) {
	_, err := newPolicy(t).Rebuild(&runtimev1.ExecSyncRequest{ContainerId: "0"})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("%v", err)
	}
}

// TestSecretsStayOutOfErrors breaks each request of the agent and looks for its secrets in the refusal.
func TestSecretsStayOutOfErrors(t *testing.T) {
	policy := newPolicy(t)
	pull := plain[*runtimev1.PullImageRequest](t, policy)
	pull.Auth.IdentityToken = "secret"
	container := plainContainer(t, policy)
	container.Config.Tty = true
	for _, request := range []proto.Message{pull, container} {
		if _, err := policy.Rebuild(request); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
}
