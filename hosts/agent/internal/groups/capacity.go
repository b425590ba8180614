package groups

import (
	"fmt"
	"runtime"
	"syscall"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// Capacity is what all groups together may use.
type Capacity struct {
	CPUs        float64
	MemoryBytes uint64
}

// HostCapacity returns all CPUs and the memory that is not reserved for the host itself.
func HostCapacity(reservedMemory uint64) (Capacity, error) {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return Capacity{}, err
	}
	total := info.Totalram * uint64(info.Unit)
	if total <= reservedMemory {
		return Capacity{}, fmt.Errorf("the host has %d bytes of memory, %d are reserved for itself", total, reservedMemory)
	}
	return Capacity{CPUs: float64(runtime.NumCPU()), MemoryBytes: total - reservedMemory}, nil
}

// requests sums the requests of a spec. A container with a limit and no request adds nothing.
func requests(spec *agentv1.GroupSpec) (cpus float64, memory uint64) {
	for _, container := range spec.GetContainers() {
		cpus += container.GetResources().GetCpuRequest()
		memory += container.GetResources().GetMemoryRequestBytes()
	}
	return cpus, memory
}

// admit refuses a group whose requests do not fit beside those of the others.
func (c Capacity) admit(spec *agentv1.GroupSpec, others []*agentv1.GroupSpec) error {
	for index, container := range spec.GetContainers() {
		at := fmt.Sprintf("containers[%d].resources", index)
		if limit := container.GetResources().GetCpuLimit(); limit > c.CPUs {
			return fmt.Errorf("%s.cpuLimit: %v cores exceed the host's %v", at, limit, c.CPUs)
		}
		if limit := container.GetResources().GetMemoryLimitBytes(); limit > c.MemoryBytes {
			return fmt.Errorf("%s.memoryLimitBytes: %d bytes exceed the %d that the host has for groups", at, limit, c.MemoryBytes)
		}
	}
	wantedCPUs, wantedMemory := requests(spec)
	var takenCPUs float64
	var takenMemory uint64
	for _, other := range others {
		cpus, memory := requests(other)
		takenCPUs += cpus
		takenMemory += memory
	}
	// A sum of hundredths is not exact in floating point.
	const rounding = 1e-6
	if wantedCPUs+takenCPUs > c.CPUs+rounding {
		return fmt.Errorf("containers: requests of %v cores exceed the %v that other groups leave of the host's %v", wantedCPUs, max(0, c.CPUs-takenCPUs), c.CPUs)
	}
	if wantedMemory+takenMemory > c.MemoryBytes {
		free := uint64(0)
		if takenMemory < c.MemoryBytes {
			free = c.MemoryBytes - takenMemory
		}
		return fmt.Errorf("containers: memory requests of %d bytes exceed the %d that other groups leave of the host's %d", wantedMemory, free, c.MemoryBytes)
	}
	return nil
}
