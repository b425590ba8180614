package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// hook is a place where a program is attached.
type hook string

const (
	hookFromContainer hook = "from_container"
	hookToContainer   hook = "to_container"
	hookFromDevice    hook = "from_device"
	hookToDevice      hook = "to_device"
)

// Hooks of a container's link and of a device to other machines.
var (
	containerHooks = []hook{hookFromContainer, hookToContainer}
	deviceHooks    = []hook{hookFromDevice, hookToDevice}
	allHooks       = slices.Concat(containerHooks, deviceHooks)
)

// attachment is a program on an interface.
type attachment struct {
	ifindex int
	hook    hook
}

// pinnedLink keeps a program attached to an interface. Its pin does so without a process. Without both pin and process
// the kernel detaches the program.
type pinnedLink struct {
	link link.Link
	path string
}

func (d *Datapath) program(hook hook) *ebpf.Program {
	switch hook {
	case hookFromContainer:
		return d.objects.FromContainer
	case hookToContainer:
		return d.objects.ToContainer
	case hookFromDevice:
		return d.objects.FromDevice
	}
	return d.objects.ToDevice
}

func (d *Datapath) linkPath(where attachment) string {
	return filepath.Join(d.pins, "links", fmt.Sprintf("%d-%s", where.ifindex, where.hook))
}

// attach attaches a program. If the link is pinned already, it replaces that link's program atomically.
func (d *Datapath) attach(where attachment) error {
	if existing, ok := d.links[where]; ok {
		if existing.attached(where.ifindex) {
			return existing.pin()
		}
		_ = existing.link.Close()
		delete(d.links, where)
	}
	program := d.program(where.hook)
	path := d.linkPath(where)
	found, err := link.LoadPinnedLink(path, nil)
	if err == nil {
		existing := &pinnedLink{found, path}
		if existing.attached(where.ifindex) && found.Update(program) == nil {
			d.links[where] = existing
			return nil
		}
		// The link's interface is gone, and another interface has its index now.
		_ = found.Unpin()
		_ = found.Close()
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("link %s: %w", path, err)
	}
	attached, err := attachTo(where, program)
	if err != nil {
		return fmt.Errorf("attach %s to interface %d: %w", where.hook, where.ifindex, err)
	}
	d.links[where] = &pinnedLink{attached, path}
	return d.links[where].pin()
}

// attachTo attaches by the kind of the interface. On a veth pair the program sees what arrives at the host's end. On a
// netkit pair it runs where the container transmits to the host's end.
func attachTo(where attachment, program *ebpf.Program) (link.Link, error) {
	device, err := netlink.LinkByIndex(where.ifindex)
	if err != nil {
		return nil, err
	}
	if device.Type() == string(Netkit) && where.hook == hookFromContainer {
		return link.AttachNetkit(link.NetkitOptions{Interface: where.ifindex, Program: program, Attach: ebpf.AttachNetkitPeer})
	}
	point := ebpf.AttachTCXIngress
	if where.hook == hookToContainer || where.hook == hookToDevice {
		point = ebpf.AttachTCXEgress
	}
	return link.AttachTCX(link.TCXOptions{Interface: where.ifindex, Program: program, Attach: point})
}

// attached asks the kernel whether the link is attached. A link outlives its interface, but is not attached then.
func (l *pinnedLink) attached(ifindex int) bool {
	info, err := l.link.Info()
	if err != nil {
		return false
	}
	if tcx := info.TCX(); tcx != nil {
		return tcx.Ifindex == uint32(ifindex)
	}
	// For a netkit pair the kernel reports the index of the container's end in its namespace. That end is removed
	// together with the host's end.
	netkit := info.Netkit()
	return netkit != nil && netkit.Ifindex != 0
}

// pin restores a missing pin.
func (l *pinnedLink) pin() error {
	if _, err := os.Stat(l.path); err == nil {
		return nil
	}
	// The library still remembers a pin that others have removed.
	if err := l.link.Unpin(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("pin %s: %w", l.path, err)
	}
	if err := l.link.Pin(l.path); err != nil {
		return fmt.Errorf("pin %s: %w", l.path, err)
	}
	return nil
}

// detach removes the pin and detaches the program. It is no error when both are gone.
func (d *Datapath) detach(where attachment) error {
	existing, ok := d.links[where]
	if !ok {
		path := d.linkPath(where)
		found, err := link.LoadPinnedLink(path, nil)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		existing = &pinnedLink{found, path}
	}
	delete(d.links, where)
	if err := existing.link.Unpin(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return existing.link.Close()
}
