package groups

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

// serve runs the whole role on a fake runtime and returns clients of its socket.
func serve(t *testing.T) (*harness, agentv1connect.GroupServiceClient, agentv1connect.HostServiceClient) {
	t.Helper()
	h := newHarness(t)
	h.options.Now = time.Now
	h.manager = h.reload()
	directory, err := os.MkdirTemp("", "groups")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	socket := filepath.Join(directory, "s")
	listener, err := service.Listen(socket, "")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(agentv1connect.NewGroupServiceHandler(&groupService{h.manager}))
	mux.Handle(agentv1connect.NewHostServiceHandler(&hostService{manager: h.manager, runtime: func() string { return "crun 1.21" }}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	go func() { _ = service.ServeUnix(ctx, listener, mux); ended <- struct{}{} }()
	go func() { _ = h.manager.Run(ctx); ended <- struct{}{} }()
	t.Cleanup(func() {
		cancel()
		<-ended
		<-ended
	})
	client := &http.Client{Transport: service.UnixTransport(socket)}
	return h, agentv1connect.NewGroupServiceClient(client, "http://role"), agentv1connect.NewHostServiceClient(client, "http://role")
}

func TestService(t *testing.T) {
	h, groups, hosts := serve(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	eventually(t, func() bool {
		response, err := hosts.GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{}))
		return err == nil && response.Msg.GetReady() && response.Msg.GetRuntimeVersion() == "crun 1.21" && response.Msg.GetMemoryBytes() == 1<<30
	})
	if _, err := groups.GetGroup(ctx, connect.NewRequest(&agentv1.GetGroupRequest{Name: "web"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("%v", err)
	}
	applied, err := groups.ApplyGroup(ctx, connect.NewRequest(&agentv1.ApplyGroupRequest{Spec: testSpec("web")}))
	if err != nil || applied.Msg.GetGroup().GetSpec().GetContainers()[0].GetEnvironment()[1].GetSecureValue() != "" || applied.Msg.GetGroup().GetSpec().GetImageRegistries()[0].GetPassword() != "" {
		t.Fatalf("%v, %v", applied, err)
	}
	_, err = groups.ApplyGroup(ctx, connect.NewRequest(&agentv1.ApplyGroupRequest{}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("%v", err)
	}

	watch, err := groups.WatchGroup(ctx, connect.NewRequest(&agentv1.WatchGroupRequest{Name: "web"}))
	if err != nil {
		t.Fatal(err)
	}
	for watch.Receive() && watch.Msg().GetGroup().GetStatus().GetPhase() != agentv1.GroupPhase_GROUP_PHASE_RUNNING {
	}
	if err := watch.Err(); err != nil {
		t.Fatal(err)
	}

	// A caller that follows a silent container is connected, and receives what is written later.
	logs, err := groups.GetLogs(ctx, connect.NewRequest(&agentv1.GetLogsRequest{Group: "web", Container: "server", Follow: true, Timestamps: true}))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(h.options.LogDirectory, "web", "server.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("2026-11-23T12:00:00.5Z stderr F hello\n"); err != nil {
		t.Fatal(err)
	}
	file.Close()
	if !logs.Receive() || string(logs.Msg().GetData()) != "2026-11-23T12:00:00.5Z hello\n" || logs.Msg().GetStream() != "stderr" {
		t.Errorf("%v, %v", logs.Msg(), logs.Err())
	}
	absent, err := groups.GetLogs(ctx, connect.NewRequest(&agentv1.GetLogsRequest{Group: "web", Container: "absent"}))
	if err == nil {
		absent.Receive()
		err = absent.Err()
	}
	if connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("%v", err)
	}

	if _, err := groups.SuspendReconcile(ctx, connect.NewRequest(&agentv1.SuspendReconcileRequest{Duration: durationpb.New(2 * time.Hour)})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("%v", err)
	}
	if _, err := groups.SuspendReconcile(ctx, connect.NewRequest(&agentv1.SuspendReconcileRequest{Duration: durationpb.New(time.Hour)})); err != nil {
		t.Error(err)
	}
	h.runtime.Exit("server", 137, "Error")
	eventually(t, func() bool {
		response, err := groups.GetGroup(ctx, connect.NewRequest(&agentv1.GetGroupRequest{Name: "web"}))
		return err == nil && response.Msg.GetGroup().GetStatus().GetPhase() == agentv1.GroupPhase_GROUP_PHASE_STOPPED
	})
	if _, err := groups.SuspendReconcile(ctx, connect.NewRequest(&agentv1.SuspendReconcileRequest{Group: "web"})); err != nil {
		t.Error(err)
	}
	eventually(t, func() bool { return h.running("server") != "" })

	list, err := groups.ListGroups(ctx, connect.NewRequest(&agentv1.ListGroupsRequest{}))
	if err != nil || len(list.Msg.GetGroups()) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := groups.DeleteGroup(ctx, connect.NewRequest(&agentv1.DeleteGroupRequest{Name: "web"})); err != nil {
		t.Error(err)
	}
	for watch.Receive() {
	}
	if connect.CodeOf(watch.Err()) != connect.CodeNotFound {
		t.Errorf("%v", watch.Err())
	}
	for logs.Receive() {
	}
	if err := logs.Err(); err != nil {
		t.Errorf("a follower of a deleted group: %v", err)
	}
}

func TestGroupIsNotShownBeforeItWasObserved(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	h.pass("web")
	h.manager = h.reload()
	s := &groupService{h.manager}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.GetGroup(ctx, connect.NewRequest(&agentv1.GetGroupRequest{Name: "web"})); err == nil {
		t.Error("shown")
	}
	h.pass("web")
	response, err := s.GetGroup(context.Background(), connect.NewRequest(&agentv1.GetGroupRequest{Name: "web"}))
	if err != nil || response.Msg.GetGroup().GetStatus().GetObservedGeneration() != 1 {
		t.Errorf("%v, %v", response, err)
	}
}

func TestUnusedImagesAreRemoved(t *testing.T) {
	h := newHarness(t)
	h.runtime.AddImage("pinned")
	h.runtime.AddImage("unused")
	h.apply(testSpec("web"))
	h.pass("web")
	waiting := testSpec("waiting")
	waiting.Containers[0].Image = strings.Replace(testImage, "nginx", "waiting", 1)
	h.runtime.AddImage(waiting.Containers[0].Image)
	h.apply(waiting)
	if err := h.manager.removeUnusedImages(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := []string{"pinned", testImage, waiting.Containers[0].Image}
	slices.Sort(want)
	if got := h.runtime.Images(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if usage, err := diskUsage(t.TempDir()); err != nil || usage <= 0 || usage > 1 {
		t.Errorf("%v, %v", usage, err)
	}
}
