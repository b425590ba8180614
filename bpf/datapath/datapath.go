// Package datapath loads Palisade's eBPF programs, attaches them to containers' links and to devices, fills their maps,
// and reads the kernel's state back. Programs, maps and links are pinned, so packets follow the same rules while no
// process of the agent runs.
//
// The default is to drop: a link without an entry, or an endpoint without a policy, passes nothing.
package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// layout is the version of the maps' types. Each version has a folder of its own, so that an older agent still finds
// its maps.
const layout = "v1"

// EventLevel is which events are written to the ring buffer.
type EventLevel uint32

// EventsNone writes no events. EventsFlows writes new flows and drops, and EventsPackets every packet.
const (
	EventsNone EventLevel = iota
	EventsFlows
	EventsPackets
)

// Config configures a datapath.
type Config struct {
	// Pins is a folder on a BPF file system.
	Pins string
	// Events defaults to EventsNone.
	Events EventLevel
	// Flows and PendingFlows bound the established and the half-open flows. Defaults: 131072 and 65536. Each takes
	// about 150 bytes.
	Flows, PendingFlows uint32
	// Ring is the size of the ring buffer for events in bytes, a power of two. Default: 1 MiB.
	Ring uint32
}

// Datapath is a loaded datapath. Its methods are safe for concurrent use.
type Datapath struct {
	objects objects
	pins    string

	mutex   sync.Mutex
	desired desired
	links   map[attachment]*pinnedLink
}

// objects omits the variables, which only keep types in BTF or are set before the programs are loaded.
type objects struct {
	datapathPrograms
	datapathMaps
}

// Open loads the programs. It reuses pinned maps with their content. Links are updated to the new programs when their
// interfaces are declared again, and no packet is lost meanwhile.
//
// A pinned map with another type is an error that names the map: another version of the agent has left it.
func Open(config Config) (*Datapath, error) {
	pins := filepath.Join(config.Pins, layout)
	for _, folder := range []string{"maps", "links"} {
		if err := os.MkdirAll(filepath.Join(pins, folder), 0o700); err != nil {
			return nil, fmt.Errorf("datapath: %w; pins must be a folder on a BPF file system", err)
		}
	}
	if err := requireBPFFileSystem(pins); err != nil {
		return nil, err
	}
	spec, err := loadDatapath()
	if err != nil {
		return nil, err
	}
	for name, entries := range map[string]uint32{
		"flows": config.Flows, "aliases": config.Flows, "pending_flows": config.PendingFlows,
		"pending_aliases": config.PendingFlows, "events": config.Ring,
	} {
		if entries != 0 {
			spec.Maps[name].MaxEntries = entries
		}
	}
	for name, mapSpec := range spec.Maps {
		if isPinned(name) {
			mapSpec.Pinning = ebpf.PinByName
		}
	}
	if err := spec.Variables["event_level"].Set(uint32(config.Events)); err != nil {
		return nil, err
	}
	d := &Datapath{pins: pins, links: map[attachment]*pinnedLink{}, desired: newDesired()}
	options := &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: filepath.Join(pins, "maps")}}
	if err := spec.LoadAndAssign(&d.objects, options); err != nil {
		var refused *ebpf.VerifierError
		if errors.As(err, &refused) {
			//nolint:errorlint // Only this verb prints the verifier's log.
			return nil, fmt.Errorf("datapath: the kernel's verifier refuses a program: %+v", refused)
		}
		return nil, fmt.Errorf("datapath: %w", err)
	}
	return d, nil
}

// isPinned reports whether a map is pinned. The programs' scratch memory and variables are not.
func isPinned(name string) bool {
	return name != "scratch" && !strings.HasPrefix(name, ".")
}

func requireBPFFileSystem(path string) error {
	var status unix.Statfs_t
	if err := unix.Statfs(path, &status); err != nil {
		return fmt.Errorf("datapath: %s: %w", path, err)
	}
	if status.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("datapath: %s is not on a BPF file system; mount one (mount -t bpf bpf %s)", path, path)
	}
	return nil
}

// Close releases what this process holds. What is pinned stays in force.
func (d *Datapath) Close() error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for _, pinned := range d.links {
		_ = pinned.link.Close()
	}
	return errors.Join(d.objects.datapathPrograms.Close(), d.objects.datapathMaps.Close())
}
