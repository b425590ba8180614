package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	support "github.com/palisade-host/palisade/test/support/containerd"
)

// daemon is our containerd on a machine of the test, without any container.
type daemon struct {
	support.Folder
	client *grpc.ClientConn
	// stop ends the program that runs.
	stop func()
}

// start builds containerd and starts it with what is added to its configuration.
func start(t *testing.T, more string) *daemon {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containerd needs root")
	}
	// Where programs may be executed, which /dev/shm is not everywhere.
	folder, err := os.MkdirTemp(os.Getenv("GOTMPDIR"), "containerd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	d := &daemon{Folder: support.Folder(folder)}
	build := exec.Command("go", "build", "-tags=no_btrfs", "-o", d.At("containerd"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if output, err := exec.Command("../pause/build.sh", d.Pause()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	d.Configure(t, support.Options{More: more})
	t.Cleanup(func() {
		if err := unix.Unmount(d.Logs(), unix.MNT_DETACH); err != nil {
			t.Errorf("the folder of logs was not mounted: %v", err)
		}
		if err := unix.Unmount(d.Logs(), unix.MNT_DETACH); err == nil {
			t.Error("the folder of logs was mounted twice")
		}
	})
	d.run(t)
	d.client = connect(t, d.Socket())
	return d
}

// run starts the program, which ends with the test or when stop is called.
func (d *daemon) run(t *testing.T) {
	t.Helper()
	output, err := os.Create(d.At("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	command := exec.Command(d.At("containerd"), "--config", d.Configuration())
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	d.stop = sync.OnceFunc(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
		if content, err := os.ReadFile(d.At("log")); err == nil && t.Failed() {
			t.Logf("containerd:\n%s", content)
		}
	})
	t.Cleanup(d.stop)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	runtime := runtimev1.NewRuntimeServiceClient(connect(t, d.Socket()))
	for {
		_, err := runtime.Version(ctx, &runtimev1.VersionRequest{}, grpc.WaitForReady(true))
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("does not serve: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func connect(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// nativeCalls are one of each service that upstream's server has on this socket.
var nativeCalls = []string{
	"containers.v1.Containers/List", "content.v1.Content/Info", "diff.v1.Diff/Diff", "images.v1.Images/List",
	"introspection.v1.Introspection/Server", "leases.v1.Leases/List", "mounts.v1.Mounts/Info", "namespaces.v1.Namespaces/List",
	"sandbox.v1.Controller/Platform", "sandbox.v1.Store/List", "snapshots.v1.Snapshots/Stat", "tasks.v1.Tasks/List",
	"transfer.v1.Transfer/Transfer", "version.v1.Version/Version",
}

// asRoot is the owner and the mode of a socket of root's.
const asRoot = "0:0 srw-rw----"

func owner(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	status := info.Sys().(*syscall.Stat_t)
	return strings.ToLower(fmt.Sprintf("%d:%d %s", status.Uid, status.Gid, info.Mode()))
}

func TestTheSocketServesCRIOnly(t *testing.T) {
	d := start(t, "")
	for path, want := range map[string]string{"sock": fmt.Sprintf("0:%d srw-rw----", support.ClientGroup), "ttrpc": asRoot} {
		if got := owner(t, d.At(path)); got != want {
			t.Errorf("%s: %s, expected %s", path, got, want)
		}
	}
	for _, name := range nativeCalls {
		err := d.client.Invoke(t.Context(), "/containerd.services."+name, &emptypb.Empty{}, &emptypb.Empty{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"/containerd.services.content.v1.Content/Write", "/containerd.services.events.v1.Events/Subscribe",
		"/containerd.services.streaming.v1.Streaming/Stream", "/grpc.health.v1.Health/Watch",
	} {
		stream, err := d.client.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, name)
		if err == nil {
			err = stream.RecvMsg(&emptypb.Empty{})
		}
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Upstream's CRI is behind the filter, and says what is wrong with a request that passes.
	runtime := runtimev1.NewRuntimeServiceClient(d.client)
	if _, err := runtime.ContainerStatus(t.Context(), &runtimev1.ContainerStatusRequest{ContainerId: "0"}); status.Code(err) != codes.NotFound {
		t.Errorf("status of no container: %v", err)
	}
	_, err := runtime.ExecSync(t.Context(), &runtimev1.ExecSyncRequest{ContainerId: "0", Cmd: []string{"/bin/true"}})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("execution: %v", err)
	}
}

// TestPauseImage starts containerd twice with one archive, and then with one that an update of the host has brought.
func TestPauseImage(t *testing.T) {
	d := start(t, "")
	images := runtimev1.NewImageServiceClient(d.client)
	pause := func() string {
		t.Helper()
		response, err := images.ListImages(t.Context(), &runtimev1.ListImagesRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, image := range response.Images {
			if image.Pinned && slices.Contains(image.RepoTags, "palisade.internal/pause:1") {
				found = append(found, image.Id)
			}
		}
		if len(found) != 1 {
			t.Fatalf("%d pause images among %v", len(found), response.Images)
		}
		return found[0]
	}
	first := pause()
	d.stop()
	d.run(t)
	if again := pause(); again != first {
		t.Errorf("%s after a restart, before it was %s", again, first)
	}
	d.stop()
	if err := os.WriteFile(d.At("other"), []byte("another program"), 0o700); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "run", "./hosts/pause/archive", "-program", d.At("other"), "-output", d.Pause())
	build.Dir = "../.."
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	d.run(t)
	if updated := pause(); updated == first {
		t.Error("the image is the one before the update")
	}
	d.stop()
	// A host without its archive says so, and does not serve.
	if err := os.WriteFile(d.Pause(), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command(d.At("containerd"), "--config", d.Configuration()).CombinedOutput()
	if err == nil || !strings.Contains(string(output), "pause.oci.tar: ") {
		t.Errorf("%v: %s", err, output)
	}
}

func TestTheNativeAPIIsRootsAndOnlyWhenConfigured(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "native")
	d := start(t, fmt.Sprintf("[plugins.\"io.containerd.server.v1.native\"]\n  address = %q\n", socket))
	if got := owner(t, socket); got != asRoot {
		t.Errorf("%s, expected %s", got, asRoot)
	}
	native := connect(t, socket)
	for _, name := range nativeCalls {
		err := native.Invoke(t.Context(), "/containerd.services."+name, &emptypb.Empty{}, &emptypb.Empty{})
		if status.Code(err) == codes.Unimplemented && strings.Contains(status.Convert(err).Message(), "unknown") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Not on the other socket.
	err := d.client.Invoke(t.Context(), "/containerd.services."+nativeCalls[0], &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat("/run/containerd/native.sock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a host's socket on this machine: %v", err)
	}
}
