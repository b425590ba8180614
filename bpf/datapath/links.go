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

// hook is where a program is attached.
type hook string

const (
	hookFromContainer hook = "from_container"
	hookToContainer   hook = "to_container"
	hookFromDevice    hook = "from_device"
	hookToDevice      hook = "to_device"
)

// What is attached to a container's link and to a device to other machines.
var (
	containerHooks = []hook{hookFromContainer, hookToContainer}
	deviceHooks    = []hook{hookFromDevice, hookToDevice}
	allHooks       = slices.Concat(containerHooks, deviceHooks)
)

// attachment is one program on one interface.
type attachment struct {
	ifindex int
	hook    hook
}

// pinnedLink is what holds a program on an interface. Its pin keeps it without a process; without a pin and a process the
// kernel detaches the program.
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

// attach attaches a program, or replaces the one of the pinned link in one step.
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
		// Its interface is gone, and the number is another's now.
		_ = found.Unpin()
		_ = found.Close()
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("link %s: %w", path, err)
	}
	made, err := attachTo(where, program)
	if err != nil {
		return fmt.Errorf("attach %s to interface %d: %w", where.hook, where.ifindex, err)
	}
	d.links[where] = &pinnedLink{made, path}
	return d.links[where].pin()
}

// attachTo chooses the kernel's attach point by the kind of the interface. What a container sends arrives at the host's end of a
// veth pair, and is met where the container transmits to the peer of a netkit pair.
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

// attached asks the kernel. A link outlives its interface, without being attached to anything.
func (l *pinnedLink) attached(ifindex int) bool {
	info, err := l.link.Info()
	if err != nil {
		return false
	}
	if tcx := info.TCX(); tcx != nil {
		return tcx.Ifindex == uint32(ifindex)
	}
	// Of a netkit pair the kernel names the container's end, by its number there; it goes together with the host's end.
	netkit := info.Netkit()
	return netkit != nil && netkit.Ifindex != 0
}

// pin repairs a pin that is absent.
func (l *pinnedLink) pin() error {
	if _, err := os.Stat(l.path); err == nil {
		return nil
	}
	// The library remembers a pin that was removed behind its back.
	if err := l.link.Unpin(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("pin %s: %w", l.path, err)
	}
	if err := l.link.Pin(l.path); err != nil {
		return fmt.Errorf("pin %s: %w", l.path, err)
	}
	return nil
}

// detach removes the pin and detaches the program; it is no error when both are gone.
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
