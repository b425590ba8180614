package groups

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

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
			h.pass("broken")
			h.edit("broken", change)
			h.manager = h.reload()
			if err := h.manager.prepare(context.Background()); err != nil {
				t.Fatal(err)
			}
			if only(h.pass("good")).GetContainerId() == "" {
				t.Error("the other group does not run")
			}
			if h.hasSandbox("broken") {
				t.Error("the damaged group runs")
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
	if err := h.manager.Delete(context.Background(), "deleted"); err != nil {
		t.Error(err)
	}
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
