package groups

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// edit changes the record of a group on the disk.
func (h *harness) edit(name string, change func(content string) string) {
	h.t.Helper()
	file := filepath.Join(h.options.DataDirectory, name+".json")
	content, err := os.ReadFile(file)
	if err != nil {
		h.t.Fatal(err)
	}
	changed := change(string(content))
	if changed == string(content) {
		h.t.Fatal("nothing was changed")
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) hasSandbox(name string) bool {
	return slices.ContainsFunc(h.runtime.Sandboxes(), func(config *runtimev1.PodSandboxConfig) bool { return config.GetMetadata().GetName() == name })
}

// runningIn returns the identifiers of the containers of a group that run.
func (h *harness) runningIn(group string) []string {
	h.t.Helper()
	selector := map[string]string{labelGroup: group}
	response, err := h.manager.runtime.ListContainers(context.Background(),
		&runtimev1.ListContainersRequest{Filter: &runtimev1.ContainerFilter{LabelSelector: selector}})
	if err != nil {
		h.t.Fatal(err)
	}
	var ids []string
	for _, container := range response.Containers {
		if container.State == runtimev1.ContainerState_CONTAINER_RUNNING {
			ids = append(ids, container.Id)
		}
	}
	return ids
}

// run runs the manager until stop is called, or the test ends.
func (h *harness) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.manager.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	h.t.Cleanup(stop)
	return stop
}

// deletes deletes a group, and fails the test when that does not end.
func (h *harness) deletes(name string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.manager.Delete(ctx, name); err != nil {
		h.t.Fatal(err)
	}
}

func replaced(before, after string) func(string) string {
	return func(content string) string { return strings.ReplaceAll(content, before, after) }
}

func TestADamagedRecordStopsNoOtherGroup(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"torn":                     func(content string) string { return content[:len(content)/2] },
		"empty":                    func(string) string { return "" },
		"of another group":         replaced(`"name":"broken"`, `"name":"good"`),
		"with an invalid image":    replaced(testSpec("").GetContainers()[0].GetImage(), "not an image"),
		"without containers":       replaced(`"containers":[`, `"labels":{},"unknown":[`),
		"with another kind of uid": replaced(`"uid":"`, `"uid":"../`),
		"without a generation":     replaced(`"generation":1`, `"generation":0`),
		"a secret of another type": replaced(`"spec":{`, `"spec":{"secretDigest":["password-canary"],`),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.apply(testSpec("broken"))
			h.apply(testSpec("good"))
			h.pass("good")
			running := only(h.pass("broken")).GetContainerId()
			h.edit("broken", change)
			h.manager = h.reload()
			if err := h.manager.prepare(context.Background()); err != nil {
				t.Fatal(err)
			}
			if only(h.pass("good")).GetContainerId() == "" {
				t.Error("the other group does not run")
			}
			if running == "" || !slices.Equal(h.runningIn("broken"), []string{running}) {
				t.Error("the containers of the damaged group do not go on as they are")
			}
			if _, err := os.Stat(filepath.Join(h.options.DataDirectory, "damaged", "broken.json.1")); err != nil {
				t.Error(err)
			}
			if logs := h.logs.String(); !strings.Contains(logs, "RecordDamaged") || !strings.Contains(logs, "broken.json.1") {
				t.Errorf("%s", logs)
			}
			h.expectDamage("broken", "RecordDamaged")
		})
	}
}

// expectDamage requires that status, list and group name the record.
func (h *harness) expectDamage(name, reason string) {
	h.t.Helper()
	ctx := context.Background()
	host, err := (&hostService{manager: h.manager, runtime: func() string { return "" }}).GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{}))
	if err != nil || !strings.Contains(host.Msg.GetReadyMessage(), name+".json") {
		h.t.Errorf("%v, %v", host, err)
	}
	service := &groupService{h.manager}
	list, err := service.ListGroups(ctx, connect.NewRequest(&agentv1.ListGroupsRequest{}))
	if err != nil {
		h.t.Fatal(err)
	}
	found := false
	for _, group := range list.Msg.GetGroups() {
		found = found || group.GetSpec().GetName() == name && strings.Contains(message(group, reason), name+".json")
	}
	if !found {
		h.t.Errorf("%v", list.Msg)
	}
	group, err := service.GetGroup(ctx, connect.NewRequest(&agentv1.GetGroupRequest{Name: name}))
	if err != nil || message(group.Msg.GetGroup(), reason) == "" {
		h.t.Errorf("%v, %v", group, err)
	}
	if _, err := h.manager.find(name); connect.CodeOf(err) != connect.CodeDataLoss {
		h.t.Errorf("%v", err)
	}
}

func TestADamagedGroupIsDeclaredAgainOrDeleted(t *testing.T) {
	h := newHarness(t)
	for _, name := range []string{"again", "deleted"} {
		h.apply(testSpec(name))
		h.edit(name, func(content string) string { return content[:10] })
	}
	h.manager = h.reload()
	group, err := h.manager.Apply(testSpec("again"), 7, false)
	if err != nil || group.GetGeneration() != 8 || message(group, "RecordDamaged") == "" {
		t.Errorf("%v, %v", group, err)
	}
	stop := h.run()
	h.deletes("deleted")
	stop()
	h.manager = h.reload()
	if only(h.pass("again")).GetContainerId() == "" {
		t.Error("it does not run")
	}
	if _, err := h.manager.find("deleted"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("%v", err)
	}
	if problems := h.manager.store.folder.Problems(); len(problems) != 0 {
		t.Errorf("%v", problems)
	}
	if kept, _ := filepath.Glob(filepath.Join(h.options.DataDirectory, "damaged", "*")); len(kept) != 2 {
		t.Errorf("%v", kept)
	}
}

// The containers of a group whose record is damaged go on until the group is declared again.
func TestADamagedGroupThatRunsIsReplacedWhenItIsDeclaredAgain(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("again"))
	before := only(h.pass("again")).GetContainerId()
	h.edit("again", func(content string) string { return content[:10] })
	h.manager = h.reload()
	if err := h.manager.prepare(context.Background()); err != nil {
		t.Fatal(err)
	}
	if before == "" || !slices.Equal(h.runningIn("again"), []string{before}) {
		t.Fatal("the group does not go on")
	}
	h.apply(testSpec("again"))
	if after := only(h.pass("again")).GetContainerId(); after == "" || after == before || !slices.Equal(h.runningIn("again"), []string{after}) {
		t.Errorf("before %q, after %q", before, after)
	}
	if sandboxes := len(h.runtime.Sandboxes()); sandboxes != 1 {
		t.Errorf("%d sandboxes", sandboxes)
	}
}

func TestADamagedGroupThatRunsIsDeletedWithItsContainers(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("deleted"))
	h.apply(testSpec("good"))
	h.pass("good")
	h.pass("deleted")
	h.edit("deleted", func(content string) string { return content[:10] })
	h.manager = h.reload()
	h.run()
	h.deletes("deleted")
	if h.hasSandbox("deleted") || !h.hasSandbox("good") {
		t.Errorf("%v", h.runtime.Sandboxes())
	}
	if _, err := h.manager.find("deleted"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("%v", err)
	}
	if problems := h.manager.store.folder.Problems(); len(problems) != 0 {
		t.Errorf("%v", problems)
	}
	if _, err := os.Stat(filepath.Join(h.options.LogDirectory, "deleted")); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

// Its removal is what frees the disk.
func TestAGroupIsDeletedOnAFullDisk(t *testing.T) {
	h := newHarness(t)
	if err := os.MkdirAll(h.options.DataDirectory, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", h.options.DataDirectory, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("needs root: a small file system")
	}
	defer func() { _ = syscall.Unmount(h.options.DataDirectory, 0) }()
	h.apply(testSpec("deleted"))
	h.apply(testSpec("good"))
	h.pass("good")
	h.pass("deleted")
	filler := filepath.Join(h.options.DataDirectory, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := h.manager.Apply(testSpec("another"), 0, false); err == nil {
		t.Error("a group is declared on a full disk")
	}
	g, err := h.manager.find("deleted")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.markDeleting(); err != nil {
		t.Fatal(err)
	}
	if err := g.reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.manager.find("deleted"); connect.CodeOf(err) != connect.CodeNotFound || h.hasSandbox("deleted") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(h.options.DataDirectory, "deleted.json")); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
	if len(h.runningIn("good")) != 1 {
		t.Error("the other group does not run")
	}
}

func TestAReadErrorOfARecordIsRetried(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("failing"))
	h.apply(testSpec("good"))
	running := only(h.pass("failing")).GetContainerId()
	file := filepath.Join(h.options.DataDirectory, "failing.json")
	// The kernel answers reads of the first page of a process with EIO.
	if err := syscall.Mount("/proc/self/mem", file, "", syscall.MS_BIND, ""); err != nil {
		t.Skip("needs root: a file that cannot be read")
	}
	mounted := true
	defer func() {
		if mounted {
			_ = syscall.Unmount(file, 0)
		}
	}()
	h.manager = h.reload()
	if err := h.manager.prepare(context.Background()); err != nil {
		t.Fatal(err)
	}
	if only(h.pass("good")).GetContainerId() == "" {
		t.Error("the other group does not run")
	}
	if !h.hasSandbox("failing") {
		t.Error("containers of the group that cannot be read were removed")
	}
	h.expectDamage("failing", "RecordUnreadable")
	if !strings.Contains(h.logs.String(), "input/output error") {
		t.Error(h.logs.String())
	}
	if err := h.manager.Delete(context.Background(), "failing"); err == nil {
		t.Error("a group that cannot be read counts as deleted")
	}
	h.manager.retryRecords()
	if err := syscall.Unmount(file, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	h.manager.retryRecords()
	if only(h.pass("failing")).GetContainerId() != running {
		t.Error("the group was started anew")
	}
	if problems := h.manager.store.folder.Problems(); len(problems) != 0 {
		t.Errorf("%v", problems)
	}
}
