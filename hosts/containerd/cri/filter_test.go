package cri

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeCRI stands for upstream's.
type fakeCRI struct {
	runtimev1.UnimplementedRuntimeServiceServer
	runtimev1.UnimplementedImageServiceServer
	sandbox *runtimev1.RunPodSandboxRequest
	headers metadata.MD
}

func (f *fakeCRI) RunPodSandbox(ctx context.Context, request *runtimev1.RunPodSandboxRequest) (*runtimev1.RunPodSandboxResponse, error) {
	f.sandbox = request
	f.headers, _ = metadata.FromIncomingContext(ctx)
	return &runtimev1.RunPodSandboxResponse{PodSandboxId: "0"}, nil
}

func (f *fakeCRI) Status(_ context.Context, request *runtimev1.StatusRequest) (*runtimev1.StatusResponse, error) {
	response := &runtimev1.StatusResponse{Status: &runtimev1.RuntimeStatus{}}
	if request.GetVerbose() {
		response.Info = map[string]string{"config": "of the host"}
	}
	return response, nil
}

func (f *fakeCRI) Register(server *grpc.Server) error {
	runtimev1.RegisterRuntimeServiceServer(server, f)
	runtimev1.RegisterImageServiceServer(server, f)
	return nil
}

// serve serves the fake behind the filter and returns a connection to it.
func serve(t *testing.T, policy *Policy, fake *fakeCRI) *grpc.ClientConn {
	t.Helper()
	server := newServer(&filter{policy: policy, runtimeVersion: func(context.Context) string { return "crun 1.21" }})
	if err := fake.Register(server); err != nil {
		t.Fatal(err)
	}
	if err := servesOnlyCRI(server); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

func TestRequestsReachCRIWithoutHeaders(t *testing.T) {
	policy, fake := newPolicy(t), &fakeCRI{}
	runtime := runtimev1.NewRuntimeServiceClient(serve(t, policy, fake))
	sandbox := plainSandbox(t, policy)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", "moby", "containerd-lease", "x")
	if _, err := runtime.RunPodSandbox(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(fake.sandbox, sandbox) || len(fake.headers) != 0 {
		t.Errorf("headers %v, request %v", fake.headers, fake.sandbox)
	}
	fake.sandbox = nil
	sandbox.Config.Linux.SecurityContext.Privileged = true
	_, err := runtime.RunPodSandbox(t.Context(), sandbox)
	if status.Code(err) != codes.PermissionDenied || fake.sandbox != nil ||
		status.Convert(err).Message() != "config.linux.security_context.privileged: "+noPrivileged {
		t.Errorf("%v, reached CRI: %v", err, fake.sandbox != nil)
	}
}

// TestCRIGetsAnotherMessage looks past the socket: what CRI gets is the message that was made anew, not the client's.
func TestCRIGetsAnotherMessage(t *testing.T) {
	policy := newPolicy(t)
	request := plainSandbox(t, policy)
	info := &grpc.UnaryServerInfo{FullMethod: runtimev1.RuntimeService_RunPodSandbox_FullMethodName}
	_, err := (&filter{policy: policy}).unary(t.Context(), request, info, func(_ context.Context, got any) (any, error) {
		made, ok := got.(*runtimev1.RunPodSandboxRequest)
		if !ok || made == request || made.Config == request.Config || made.Config.Linux == request.Config.Linux {
			t.Errorf("CRI gets the client's own %T", got)
		}
		return &runtimev1.RunPodSandboxResponse{}, nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestStatusTellsTheRuntimeOnly(t *testing.T) {
	runtime := runtimev1.NewRuntimeServiceClient(serve(t, newPolicy(t), &fakeCRI{}))
	for verbose, want := range map[bool]string{true: `map[runtimeVersion:"crun 1.21"]`, false: "map[]"} {
		response, err := runtime.Status(t.Context(), &runtimev1.StatusRequest{Verbose: verbose})
		if err != nil || fmt.Sprint(response.GetInfo()) != want {
			t.Errorf("verbose %t: %v, %v", verbose, response.GetInfo(), err)
		}
	}
}

// TestRefusedCalls makes each call that is refused, over the socket.
func TestRefusedCalls(t *testing.T) {
	connection := serve(t, newPolicy(t), &fakeCRI{})
	for name, reason := range methods {
		if reason == "" {
			continue
		}
		err := call(t, connection, name)
		if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != name+": "+reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	if served("/runtime.v1.RuntimeService/OfANewerCRI") == nil {
		t.Error("an unknown call is served")
	}
}

// call makes a call with an empty request, whatever it is.
func call(t *testing.T, connection *grpc.ClientConn, name string) error {
	t.Helper()
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(name[1:], "/", ".")))
	if err != nil {
		t.Fatal(err)
	}
	method := found.(protoreflect.MethodDescriptor)
	if !method.IsStreamingServer() {
		return connection.Invoke(t.Context(), name, &emptypb.Empty{}, &emptypb.Empty{})
	}
	stream, err := connection.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

func TestOtherServicesAreAMistake(t *testing.T) {
	server := grpc.NewServer()
	runtimev1.RegisterRuntimeServiceServer(server, &fakeCRI{})
	if err := servesOnlyCRI(server); err == nil {
		t.Error("CRI without images passes")
	}
	runtimev1.RegisterImageServiceServer(server, &fakeCRI{})
	if err := servesOnlyCRI(server); err != nil {
		t.Error(err)
	}
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "containerd.services.content.v1.Content", HandlerType: (*any)(nil)}, &fakeCRI{})
	if err := servesOnlyCRI(server); err == nil {
		t.Error("a service of containerd's own passes")
	}
}

func TestVersionOf(t *testing.T) {
	for content, want := range map[string]string{
		`{"annotations":{"run.oci.crun.version":"1.21"}}`:                 "crun 1.21",
		`{"annotations":{"org.opencontainers.runc.version":"1.1.5+ds1"}}`: "runc 1.1.5+ds1",
		`{}`: "",
	} {
		if version, err := versionOf([]byte(content)); err != nil || version != want {
			t.Errorf("%s: %q, %v", content, version, err)
		}
	}
	if _, err := versionOf([]byte("x")); err == nil {
		t.Error("what is no JSON has a version")
	}
}
