package groups

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// readCgroup adds the limits that the kernel enforces to the status. The fields stay empty where they cannot be read,
// such as without cgroup v2.
func (g *group) readCgroup(container *agentv1.ContainerStatus) {
	id := container.GetContainerId()
	path, known := g.cgroups[id]
	if !known {
		path = g.findCgroup(id)
		g.cgroups[id] = path
	}
	if path == "" {
		return
	}
	read := func(name string) string {
		content, err := os.ReadFile(filepath.Join(path, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(content))
	}
	container.CgroupCpuMax = read("cpu.max")
	container.CgroupMemoryMax = read("memory.max")
	container.CgroupCpuWeight = read("cpu.weight")
}

// findCgroup returns the folder of the cgroup of the container's first process, or nothing when it is not known.
func (g *group) findCgroup(id string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	response, err := g.manager.runtime.ContainerStatus(ctx, &runtimev1.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return ""
	}
	var info struct {
		Pid int `json:"pid"`
	}
	if json.Unmarshal([]byte(response.GetInfo()["info"]), &info) != nil || info.Pid == 0 {
		return ""
	}
	content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(info.Pid), "cgroup"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		// cgroups(7): the unified hierarchy is number 0 without controllers.
		if path, found := strings.CutPrefix(strings.TrimSpace(line), "0::"); found {
			return filepath.Join(g.manager.options.CgroupRoot, path)
		}
	}
	return ""
}
