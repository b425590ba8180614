// Package datapath loads Palisade's eBPF programs, attaches them to containers' links and to devices, fills their maps, and
// reads back what the kernel holds. Everything is pinned: packets flow by the same rules while no process of ours runs.
//
// What is absent is closed: a link without an entry, or an endpoint without a policy, passes nothing.
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

// layout is the version of the maps' types. A new one gets a folder of its own, so that an older agent finds its maps.
const layout = "v1"

// EventLevel says what is written to the ring of events.
type EventLevel uint32

// EventsNone to EventsPackets: nothing; flows that were opened and drops; every packet.
const (
	EventsNone EventLevel = iota
	EventsFlows
	EventsPackets
)

// Config of a datapath.
type Config struct {
	// Pins is a folder on a BPF file system.
	Pins string
	// Events defaults to nothing.
	Events EventLevel
	// Flows bounds established flows, PendingFlows half-open ones. Defaults: 131072 and 65536; both about 150 bytes each.
	Flows, PendingFlows uint32
	// Ring is the size of the ring of events in bytes, a power of two. Default: 1 MiB.
	Ring uint32
}

// Datapath is what is loaded. Its methods may be called by several goroutines.
type Datapath struct {
	objects objects
	pins    string

	mutex   sync.Mutex
	desired desired
	links   map[attachment]*pinnedLink
}

// objects leaves out the variables: they only keep types in BTF, or are set before the programs are loaded.
type objects struct {
	datapathPrograms
	datapathMaps
}

// Open loads the programs. Maps that are pinned are taken over with what they hold, links are updated to the new programs
// when their interfaces are declared again; no packet is lost in between.
//
// An error names the map whose type differs from the pinned one's; then another version of this agent has left it.
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

// isPinned leaves out the programs' scratch memory and variables.
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

// Close closes this process's view. What is pinned keeps working.
func (d *Datapath) Close() error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for _, each := range d.links {
		_ = each.link.Close()
	}
	return errors.Join(d.objects.datapathPrograms.Close(), d.objects.datapathMaps.Close())
}
