package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/palisade-host/palisade/hosts/agent/internal/enrollment"
	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
	"github.com/palisade-host/palisade/hosts/agent/internal/identity/testca"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

// role stands for the other roles.
type role struct {
	agentv1connect.UnimplementedHostServiceHandler
	agentv1connect.UnimplementedGroupServiceHandler
	agentv1connect.UnimplementedImagePolicyServiceHandler
	agentv1connect.UnimplementedNetworkServiceHandler
}

func (role) GetHost(context.Context, *connect.Request[agentv1.GetHostRequest]) (*connect.Response[agentv1.GetHostResponse], error) {
	return connect.NewResponse(&agentv1.GetHostResponse{ContainerdVersion: "v2.4.2", Cpus: 2, MemoryBytes: 1 << 30, Ready: true}), nil
}

func (role) GetIntegrity(context.Context, *connect.Request[agentv1.GetIntegrityRequest]) (*connect.Response[agentv1.GetIntegrityResponse], error) {
	return connect.NewResponse(&agentv1.GetIntegrityResponse{SecureBoot: true}), nil
}

func (role) GetGroup(_ context.Context, request *connect.Request[agentv1.GetGroupRequest]) (*connect.Response[agentv1.GetGroupResponse], error) {
	return nil, connect.NewError(connect.CodeNotFound, errors.New("no group "+request.Msg.GetName()))
}

func (role) GetImagePolicy(_ context.Context, request *connect.Request[agentv1.GetImagePolicyRequest]) (*connect.Response[agentv1.GetImagePolicyResponse], error) {
	return connect.NewResponse(&agentv1.GetImagePolicyResponse{Policy: &agentv1.ImagePolicy{Name: request.Msg.GetName(), Generation: 3}}), nil
}

func (role) ApplyPolicy(_ context.Context, request *connect.Request[agentv1.ApplyPolicyRequest]) (*connect.Response[agentv1.ApplyPolicyResponse], error) {
	return connect.NewResponse(&agentv1.ApplyPolicyResponse{PolicyHash: strconv.Itoa(len(request.Msg.GetPolicy()))}), nil
}

func (role) WatchGroup(ctx context.Context, _ *connect.Request[agentv1.WatchGroupRequest], stream *connect.ServerStream[agentv1.WatchGroupResponse]) error {
	if err := stream.Send(&agentv1.WatchGroupResponse{Group: &agentv1.Group{Generation: 1}}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

type fixture struct {
	t         *testing.T
	directory string
	now       time.Time
	authority *testca.Authority
	host      *identity.Identity
	address   string
	logs      *lockedBuffer
	// skew is what the host's clock is ahead of the test's.
	skew      atomic.Int64
	stopRoles context.CancelFunc
	stop      func() error
}

type lockedBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(content []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(content)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}

// start serves an enrolled host. offset is the error of its system clock.
func start(t *testing.T, offset time.Duration) *fixture {
	t.Helper()
	directory, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	f := &fixture{t: t, directory: directory, now: time.Now(), logs: &lockedBuffer{}}
	f.skew.Store(int64(offset))
	f.authority = testca.New(t, f.now)
	logger := slog.New(slog.NewTextHandler(f.logs, nil))

	roles, stopRoles := context.WithCancel(context.Background())
	f.stopRoles = stopRoles
	t.Cleanup(stopRoles)
	for _, name := range []string{"groups", "integrity"} {
		listener, err := service.Listen(filepath.Join(directory, name), "")
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.Handle(agentv1connect.NewHostServiceHandler(role{}))
		mux.Handle(agentv1connect.NewGroupServiceHandler(role{}))
		mux.Handle(agentv1connect.NewImagePolicyServiceHandler(role{}))
		mux.Handle(agentv1connect.NewNetworkServiceHandler(role{}))
		go func() { _ = service.ServeUnix(roles, listener, mux) }()
	}

	// The hypervisor's end of the enrollment port.
	hypervisor, guest := net.Pipe()
	enrolled := make(chan struct{})
	go f.sign(hypervisor, enrolled)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, listener, Options{
			Version: "test", DataDirectory: filepath.Join(directory, "identity"), GroupsSocket: filepath.Join(directory, "groups"),
			IntegritySocket: filepath.Join(directory, "integrity"), PowerDirectory: directory, Logger: logger,
			Now:            func() time.Time { return time.Now().Add(time.Duration(f.skew.Load())) },
			EnrollmentPort: func() (enrollment.Port, error) { return guest, nil },
		})
	}()
	f.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = f.stop() })
	select {
	case <-enrolled:
	case <-time.After(10 * time.Second):
		t.Fatalf("not enrolled within 10 s: %s", f.logs)
	}
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(f.logs.String(), "msg=enrolled") {
		if time.Now().After(deadline) {
			t.Fatalf("not enrolled within 10 s: %s", f.logs)
		}
		time.Sleep(time.Millisecond)
	}
	f.host, err = identity.Open(filepath.Join(directory, "identity"), identity.NewClock(time.Now))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) operator() tls.Certificate {
	return f.ofRole(roleOperator)
}

// ofRole returns a new client certificate that is valid for an hour.
func (f *fixture) ofRole(role clientRole) tls.Certificate {
	return f.authority.Client(string(role), x509.ExtKeyUsageClientAuth, f.now.Add(-time.Hour), f.now.Add(time.Hour))
}

func (f *fixture) client(certificates ...tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(f.authority.Certificate)
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: f.host.DNSName(), Certificates: certificates, MinVersion: tls.VersionTLS12},
	}
	f.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (f *fixture) hosts(client *http.Client, options ...connect.ClientOption) agentv1connect.HostServiceClient {
	return agentv1connect.NewHostServiceClient(client, "https://"+f.address, options...)
}

func (f *fixture) groups(client *http.Client, options ...connect.ClientOption) agentv1connect.GroupServiceClient {
	return agentv1connect.NewGroupServiceClient(client, "https://"+f.address, options...)
}

func TestServes(t *testing.T) {
	f := start(t, 0)
	ctx := context.Background()
	for name, options := range map[string][]connect.ClientOption{"Connect": nil, "gRPC": {connect.WithGRPC()}} {
		t.Run(name, func(t *testing.T) {
			client := f.client(f.operator())
			host, err := f.hosts(client, options...).GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{}))
			if err != nil {
				t.Fatal(err)
			}
			if m := host.Msg; m.GetHostId() != f.host.HostID() || !m.GetReady() || m.GetContainerdVersion() != "v2.4.2" || m.GetKernelVersion() == "" || m.GetBootId() == "" {
				t.Errorf("%v", m)
			}
			integrity, err := f.hosts(client, options...).GetIntegrity(ctx, connect.NewRequest(&agentv1.GetIntegrityRequest{}))
			if err != nil || !integrity.Msg.GetSecureBoot() {
				t.Errorf("%v, %v", integrity, err)
			}
			_, err = f.groups(client, options...).GetGroup(ctx, connect.NewRequest(&agentv1.GetGroupRequest{Name: "web"}))
			if connect.CodeOf(err) != connect.CodeNotFound || !strings.Contains(err.Error(), "no group web") {
				t.Errorf("%v", err)
			}
			policies := agentv1connect.NewImagePolicyServiceClient(client, "https://"+f.address, options...)
			policy, err := policies.GetImagePolicy(ctx, connect.NewRequest(&agentv1.GetImagePolicyRequest{Name: "signed"}))
			if err != nil || policy.Msg.GetPolicy().GetName() != "signed" || policy.Msg.GetPolicy().GetGeneration() != 3 {
				t.Errorf("%v, %v", policy, err)
			}
			// A compiled network policy is larger than the limit of other services.
			large := make([]byte, 2*maximumRequest)
			network := agentv1connect.NewNetworkServiceClient(client, "https://"+f.address, options...)
			applied, err := network.ApplyPolicy(ctx, connect.NewRequest(&agentv1.ApplyPolicyRequest{Policy: large}))
			if err != nil || applied.Msg.GetPolicyHash() != strconv.Itoa(len(large)) {
				t.Errorf("%v, %v", applied, err)
			}
			if _, err := policies.GetImagePolicy(ctx, connect.NewRequest(&agentv1.GetImagePolicyRequest{Name: string(large)})); err == nil {
				t.Error("as large a request passes to another service")
			}
			// Only the role groups may reach the store.
			store := agentv1connect.NewImageStoreServiceClient(client, "https://"+f.address, options...)
			if _, err := store.RetainImages(ctx, connect.NewRequest(&agentv1.RetainImagesRequest{})); connect.CodeOf(err) != connect.CodeUnimplemented {
				t.Errorf("the store is reached from outside: %v", err)
			}
			// The first message of a stream arrives while the call continues.
			watching, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := f.groups(client, options...).WatchGroup(watching, connect.NewRequest(&agentv1.WatchGroupRequest{Name: "web"}))
			if err != nil || !stream.Receive() || stream.Msg().GetGroup().GetGeneration() != 1 {
				t.Errorf("%v, %v", err, stream.Err())
			}
		})
	}
}

func TestOnlyClientsOfARoleAreAdmitted(t *testing.T) {
	f := start(t, 0)
	early, late := f.now.Add(-time.Hour), f.now.Add(time.Hour)
	foreign := testca.New(t, f.now)
	tests := map[string][]tls.Certificate{
		"nobody":                 nil,
		"of another CA":          {foreign.Client(string(roleOperator), x509.ExtKeyUsageClientAuth, early, late)},
		"another name":           {f.authority.Client("host-0123456789abcdef", x509.ExtKeyUsageClientAuth, early, late)},
		"a role of another case": {f.authority.Client("Operator", x509.ExtKeyUsageClientAuth, early, late)},
		"a server certificate":   {f.authority.Client(string(roleOperator), x509.ExtKeyUsageServerAuth, early, late)},
		"expired":                {f.authority.Client(string(roleOperator), x509.ExtKeyUsageClientAuth, early, early.Add(time.Minute))},
		"not yet valid":          {f.authority.Client(string(roleOperator), x509.ExtKeyUsageClientAuth, late, late.Add(time.Hour))},
	}
	for name, certificates := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := f.hosts(f.client(certificates...)).GetHost(context.Background(), connect.NewRequest(&agentv1.GetHostRequest{}))
			// With TLS 1.3 the alert may arrive after the client's first write.
			if err == nil {
				t.Error("admitted")
			}
		})
	}
	if _, err := f.hosts(f.client(f.operator())).GetHost(context.Background(), connect.NewRequest(&agentv1.GetHostRequest{})); err != nil {
		t.Errorf("an operator: %v", err)
	}
	t.Run("TLS 1.2", func(t *testing.T) {
		client := f.client(f.operator())
		client.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
		if _, err := f.hosts(client).GetHost(context.Background(), connect.NewRequest(&agentv1.GetHostRequest{})); err == nil {
			t.Error("admitted")
		}
	})
	t.Run("the host is not another host", func(t *testing.T) {
		client := f.client(f.operator())
		client.Transport.(*http.Transport).TLSClientConfig.ServerName = "host-0000000000000000" + identity.DomainSuffix
		_, err := f.hosts(client).GetHost(context.Background(), connect.NewRequest(&agentv1.GetHostRequest{}))
		if err == nil || !strings.Contains(err.Error(), "not host-0000000000000000") {
			t.Errorf("%v", err)
		}
	})
}

func TestWrongClockServes(t *testing.T) {
	f := start(t, -40*365*24*time.Hour)
	host, err := f.hosts(f.client(f.operator())).GetHost(context.Background(), connect.NewRequest(&agentv1.GetHostRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Until(host.Msg.GetTime().AsTime()); off < -time.Minute || off > time.Minute {
		t.Errorf("off by %s", off)
	}
}

func TestCertificateIsRenewedWithoutANewListener(t *testing.T) {
	f := start(t, 0)
	ctx := context.Background()
	client := f.hosts(f.client(f.operator()))
	request, err := client.CreateCertificateRequest(ctx, connect.NewRequest(&agentv1.CreateCertificateRequestRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	notAfter := f.now.Add(48 * time.Hour).Truncate(time.Second)
	chain := f.authority.Host(request.Msg.GetCertificateRequest(), f.now.Add(-time.Minute), notAfter)
	installed, err := client.InstallCertificate(ctx, connect.NewRequest(&agentv1.InstallCertificateRequest{CertificateChain: chain}))
	if err != nil || !installed.Msg.GetNotAfter().AsTime().Equal(notAfter) {
		t.Fatalf("%v, %v", installed, err)
	}
	connection, err := tls.Dial("tcp", f.address, f.client(f.operator()).Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if got := connection.ConnectionState().PeerCertificates[0].NotAfter; !got.Equal(notAfter) {
		t.Errorf("serves until %s", got)
	}
	_, err = client.InstallCertificate(ctx, connect.NewRequest(&agentv1.InstallCertificateRequest{
		CertificateChain: testca.New(t, f.now).Host(request.Msg.GetCertificateRequest(), f.now.Add(-time.Minute), notAfter),
	}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a foreign certificate: %v", err)
	}
}

func TestOtherRolesDown(t *testing.T) {
	f := start(t, 0)
	f.stopRoles()
	client := f.client(f.operator())
	ctx := context.Background()
	deadline := time.Now().Add(10 * time.Second)
	for {
		host, err := f.hosts(client).GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if m := host.Msg.GetReadyMessage(); !host.Msg.GetReady() && strings.Contains(m, "groups") && strings.Contains(m, "integrity") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v", host.Msg)
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, err := f.groups(client).GetGroup(ctx, connect.NewRequest(&agentv1.GetGroupRequest{Name: "web"}))
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("%v", err)
	}
	stream, err := f.groups(client).WatchGroup(ctx, connect.NewRequest(&agentv1.WatchGroupRequest{Name: "web"}))
	if err == nil {
		stream.Receive()
		err = stream.Err()
	}
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("stream: %v", err)
	}
}

func TestPowerOff(t *testing.T) {
	f := start(t, 0)
	client := f.hosts(f.client(f.operator()))
	if _, err := client.PowerOff(context.Background(), connect.NewRequest(&agentv1.PowerOffRequest{Reboot: true})); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(f.directory, "reboot")); err != nil {
		t.Error(err)
	}
}

func TestStopsInOrder(t *testing.T) {
	f := start(t, 0)
	client := f.client(f.operator())
	stream, err := f.groups(client).WatchGroup(context.Background(), connect.NewRequest(&agentv1.WatchGroupRequest{Name: "web"}))
	if err != nil || !stream.Receive() {
		t.Fatalf("%v", err)
	}
	started := time.Now()
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(started); took > service.ShutdownTimeout+time.Second {
		t.Errorf("took %s", took)
	}
}

// TestClientsLeave covers clients that close their connections, such as Node's with GOAWAY and CANCEL. Operators need
// no warning about that.
func TestClientsLeave(t *testing.T) {
	f := start(t, 0)
	roots := x509.NewCertPool()
	roots.AddCert(f.authority.Certificate)
	dial := func(certificates ...tls.Certificate) *tls.Conn {
		connection, err := tls.Dial("tcp", f.address, &tls.Config{
			RootCAs: roots, ServerName: f.host.DNSName(), Certificates: certificates, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return connection
	}
	for _, code := range []byte{0, 8} { // NO_ERROR, CANCEL
		connection := dial(f.operator())
		if _, err := io.WriteString(connection, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		for _, frame := range [][]byte{
			{0, 0, 0, 4, 0, 0, 0, 0, 0},                            // SETTINGS
			{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code}, // GOAWAY
		} {
			if _, err := connection.Write(frame); err != nil {
				t.Fatal(err)
			}
		}
		// The server closes the connection after it has read the frame.
		_, _ = io.Copy(io.Discard, connection)
		_ = connection.Close()
	}
	if logs := f.logs.String(); strings.Contains(logs, "level=WARN") {
		t.Errorf("a client that closes its connection causes a warning: %s", logs)
	}
	// The control: a client without a certificate causes a warning.
	connection := dial()
	_, _ = io.Copy(io.Discard, connection)
	_ = connection.Close()
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(f.logs.String(), "level=WARN") {
		if time.Now().After(deadline) {
			t.Fatalf("a client without a certificate is no warning: %s", f.logs)
		}
		time.Sleep(time.Millisecond)
	}
}
