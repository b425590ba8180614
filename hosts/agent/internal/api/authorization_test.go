package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
	"github.com/palisade-host/palisade/hosts/agent/internal/identity/testca"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

// innerServices are served between the roles only.
var innerServices = []string{agentv1connect.ImageStoreServiceName, agentv1connect.LayerDeviceServiceName}

// declaredRPCs returns every RPC of the contract by its path.
func declaredRPCs(inner bool) map[string]protoreflect.MethodDescriptor {
	declared := map[string]protoreflect.MethodDescriptor{}
	protoregistry.GlobalFiles.RangeFilesByPackage("palisade.agent.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			if slices.Contains(innerServices, string(service.FullName())) != inner {
				continue
			}
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				declared["/"+string(service.FullName())+"/"+string(method.Name())] = method
			}
		}
		return true
	})
	return declared
}

func TestEveryRPCRequiresARole(t *testing.T) {
	declared := declaredRPCs(false)
	if len(declared) < 20 {
		t.Fatalf("only %d RPCs are found", len(declared))
	}
	for path, method := range declared {
		required, found := requiredRoles[path]
		if !found {
			t.Errorf("%s: rolesByService has no role for it", path)
			continue
		}
		// What has another name than these may change something.
		name := string(method.Name())
		reads := slices.ContainsFunc([]string{"Get", "List", "Watch", "Stream"}, func(verb string) bool { return strings.HasPrefix(name, verb) })
		if want := reads && name != "GetLogs"; want != (required == roleReader) {
			t.Errorf("%s requires %q", path, required)
		}
	}
	for path := range requiredRoles {
		if _, found := declared[path]; !found {
			t.Errorf("%s: the contract has no such RPC", path)
		}
	}
}

// call calls an RPC with an empty request, and returns the code of its error or 0.
func (f *fixture) call(client *http.Client, path string, isStream bool, options ...connect.ClientOption) connect.Code {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	caller := connect.NewClient[emptypb.Empty, emptypb.Empty](client, "https://"+f.address+path, options...)
	var err error
	if isStream {
		var stream *connect.ServerStreamForClient[emptypb.Empty]
		if stream, err = caller.CallServerStream(ctx, connect.NewRequest(&emptypb.Empty{})); err == nil {
			stream.Receive()
			err = stream.Err()
		}
	} else {
		_, err = caller.CallUnary(ctx, connect.NewRequest(&emptypb.Empty{}))
	}
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}

func TestReaderReadsOnly(t *testing.T) {
	f := start(t, 0)
	reader, operator := f.client(f.ofRole(roleReader)), f.client(f.operator())
	for name, options := range map[string][]connect.ClientOption{"Connect": nil, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()}} {
		t.Run(name, func(t *testing.T) {
			for path, method := range declaredRPCs(false) {
				refused := f.call(reader, path, method.IsStreamingServer(), options...) == connect.CodePermissionDenied
				if want := requiredRoles[path] == roleOperator; refused != want {
					t.Errorf("%s: refused for a reader: %t", path, refused)
				}
				if path == agentv1connect.HostServicePowerOffProcedure {
					continue
				}
				if f.call(operator, path, method.IsStreamingServer(), options...) == connect.CodePermissionDenied {
					t.Errorf("%s: refused for an operator", path)
				}
			}
			for path, method := range declaredRPCs(true) {
				if code := f.call(operator, path, method.IsStreamingServer(), options...); code != connect.CodeUnimplemented {
					t.Errorf("%s is served: %v", path, code)
				}
			}
		})
	}
	_, err := f.hosts(reader).PowerOff(context.Background(), connect.NewRequest(&agentv1.PowerOffRequest{}))
	if err == nil || !strings.Contains(err.Error(), "requires a client certificate of the role operator; this one has the role reader") {
		t.Errorf("%v", err)
	}
}

func TestCertificateExpiresOnAnOpenConnection(t *testing.T) {
	f := start(t, 0)
	ctx := context.Background()
	client := f.client(f.operator())
	hosts := f.hosts(client)
	if _, err := hosts.GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{})); err != nil {
		t.Fatal(err)
	}
	f.skew.Store(int64(2 * time.Hour))
	_, err := hosts.GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{}))
	if connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "has expired on ") {
		t.Errorf("%v", err)
	}
	f.skew.Store(0)
	if _, err := hosts.GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{})); err != nil {
		t.Errorf("the control: %v", err)
	}
}

func TestRevokedAtOnce(t *testing.T) {
	f := start(t, 0)
	ctx := context.Background()
	lost, kept := f.operator(), f.operator()
	lostClient, keptClient := f.client(lost), f.client(kept)
	number := identity.SerialNumber(lost.Leaf.SerialNumber)
	revoke := func(client *http.Client, numbers ...string) (*connect.Response[agentv1.RevokeClientCertificatesResponse], error) {
		return f.hosts(client).RevokeClientCertificates(ctx, connect.NewRequest(&agentv1.RevokeClientCertificatesRequest{SerialNumbers: numbers}))
	}
	stream, err := f.groups(lostClient).WatchGroup(ctx, connect.NewRequest(&agentv1.WatchGroupRequest{Name: "web"}))
	if err != nil || !stream.Receive() {
		t.Fatalf("%v, %v", err, stream.Err())
	}

	// Whoever has no other certificate would be locked out.
	if _, err := revoke(lostClient, "a1", number); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "serial_numbers[1]: this call is made with "+number) {
		t.Errorf("one's own: %v", err)
	}
	if _, err := revoke(keptClient, "0A"); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "serial_numbers[0]") {
		t.Errorf("no serial number: %v", err)
	}
	if host, err := f.hosts(lostClient).GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{})); err != nil || len(host.Msg.GetRevokedSerialNumbers()) != 0 {
		t.Fatalf("after refused revocations: %v, %v", host, err)
	}

	revoked, err := revoke(keptClient, number)
	if err != nil || !slices.Equal(revoked.Msg.GetRevokedSerialNumbers(), []string{number}) {
		t.Fatalf("%v, %v", revoked, err)
	}
	if stream.Receive() || stream.Err() == nil {
		t.Errorf("a stream goes on: %v", stream.Err())
	}
	// On the open connection and on a new one.
	for name, client := range map[string]*http.Client{"open": lostClient, "new": f.client(lost)} {
		_, err := f.hosts(client).GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{}))
		if connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "is revoked: serial number "+number) {
			t.Errorf("%s: %v", name, err)
		}
	}
	host, err := f.hosts(keptClient).GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{}))
	if err != nil || !slices.Equal(host.Msg.GetRevokedSerialNumbers(), []string{number}) {
		t.Errorf("the control: %v, %v", host, err)
	}
}

func TestCallEndsWithTheCertificate(t *testing.T) {
	now := time.Now()
	host, err := identity.Open(t.TempDir(), identity.NewClock(func() time.Time { return now }))
	if err != nil {
		t.Fatal(err)
	}
	authority := testca.New(t, now)
	certificateRequest, err := host.CertificateRequest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := host.Enroll(authority.Host(certificateRequest, now, now.Add(time.Hour)), authority.PEM(), now, nil); err != nil {
		t.Fatal(err)
	}
	serve := func(remaining time.Duration, next http.HandlerFunc) (aborted any) {
		defer func() { aborted = recover() }()
		leaf := authority.Client(string(roleReader), x509.ExtKeyUsageClientAuth, now.Add(-time.Hour), now.Add(remaining)).Leaf
		leaf.NotAfter = now.Add(remaining)
		request := httptest.NewRequest(http.MethodPost, agentv1connect.GroupServiceWatchGroupProcedure, nil)
		request.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf, authority.Certificate}}}
		authorized(host, next).ServeHTTP(httptest.NewRecorder(), request)
		return nil
	}
	stream := func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() }
	if aborted := serve(time.Millisecond, stream); aborted != http.ErrAbortHandler {
		t.Errorf("the stream ends with %v", aborted)
	}
	if aborted := serve(time.Hour, func(http.ResponseWriter, *http.Request) {}); aborted != nil {
		t.Errorf("the control: %v", aborted)
	}
}
