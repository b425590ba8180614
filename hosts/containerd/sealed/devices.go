package sealed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/hosts/devicemapper"
	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/verity"
)

// nodeTimeout is how long devtmpfs may take to make a node.
const nodeTimeout = 5 * time.Second

// linger is how long a device without users stays open. A container's start looks into its image, e.g. at /etc/passwd, before it
// mounts it, and one that crashed comes back: opening a device anew each time costs the kernel's check of the signature and of
// all blocks that are read.
const linger = 10 * time.Second

// signatureLimit bounds a signature, in bytes; one has some hundred.
const signatureLimit = 64 << 10

// devices are the verity devices of layers: one for each root hash, however many containers use it. Who counts the users is
// the kernel: a device that is mounted cannot be removed.
type devices struct {
	control string
	linger  time.Duration
	// mutex keeps a device from being removed between being found and being mounted.
	mutex sync.Mutex
	// idle are the timers of devices that had no user when they were last looked at, by name.
	idle map[string]*time.Timer
}

func newDevices() *devices {
	return &devices{control: devicemapper.Control, linger: linger, idle: map[string]*time.Timer{}}
}

// use calls mount with the node of the layer's device, which stays for as long as something is mounted from it.
func (d *devices) use(l layer, mount func(node string) error) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	mapper, err := devicemapper.Open(d.control)
	if err != nil {
		return err
	}
	defer mapper.Close()
	name := seal.DevicePrefix + l.rootHash
	device, err := mapper.Find(name)
	switch {
	case errors.Is(err, unix.ENXIO):
		if device, err = d.open(mapper, name, l); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		// The kernel checked the signature when the device was opened, if its line says so.
		if err := signedFor(device, l.rootHash); err != nil {
			return err
		}
	}
	node, err := device.AwaitNode(nodeTimeout)
	if err != nil {
		return err
	}
	if err := mount(node); err != nil {
		return errors.Join(err, d.removeIfUnused(mapper, name))
	}
	return nil
}

func signedFor(device devicemapper.Device, rootHash string) error {
	if device.Target != nil && device.Target.Kind == "verity" {
		if found, signed := verity.Signed(device.Target.Parameters); found == rootHash && signed {
			return nil
		}
	}
	return fmt.Errorf("device %s exists, but is no verity device of this root hash with a checked signature", device.Name)
}

func (d *devices) open(mapper *devicemapper.Mapper, name string, l layer) (devicemapper.Device, error) {
	signature, err := readBounded(l.signature, signatureLimit)
	if err != nil {
		return devicemapper.Device{}, fmt.Errorf("its signature: %w", err)
	}
	blob, err := os.Open(l.blob)
	if err != nil {
		return devicemapper.Device{}, err
	}
	defer blob.Close()
	superblock, err := verity.ReadSuperblock(blob, l.hashOffset)
	if err != nil {
		return devicemapper.Device{}, fmt.Errorf("%s: %w", l.blob, err)
	}
	if superblock.DataSize() > uint64(l.hashOffset) {
		return devicemapper.Device{}, fmt.Errorf("%s: the verity header counts %d bytes of data before the tree at %d", l.blob, superblock.DataSize(), l.hashOffset)
	}
	// Detached by the kernel when the verity device goes.
	loop, err := mount.SetupLoop(l.blob, mount.LoopParams{Readonly: true, Autoclear: true})
	if err != nil {
		return devicemapper.Device{}, fmt.Errorf("loop device: %w", err)
	}
	defer loop.Close()
	source := verity.Source{Data: loop.Name(), Hash: loop.Name(), HashOffset: l.hashOffset, Superblock: superblock}
	device, err := verity.Open(mapper, name, source, l.rootHash, signature)
	switch {
	case errors.Is(err, unix.ENOKEY), errors.Is(err, unix.EKEYREJECTED), errors.Is(err, unix.EBADMSG):
		return devicemapper.Device{}, fmt.Errorf("the kernel refused the signature: %w", err)
	case err != nil:
		return devicemapper.Device{}, err
	}
	return device, nil
}

// release removes the device that a mount came from after a while, unless it is used then or is not ours.
func (d *devices) release(node string) error {
	if !strings.HasPrefix(node, "/dev/dm-") {
		return nil
	}
	content, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(node), "dm/name"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name := strings.TrimSpace(string(content))
	if !strings.HasPrefix(name, seal.DevicePrefix) {
		return nil
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if timer := d.idle[name]; timer != nil {
		timer.Reset(d.linger)
		return nil
	}
	d.idle[name] = time.AfterFunc(d.linger, func() {
		if err := d.removeIdle(name); err != nil {
			log.L.WithError(err).WithField("device", name).Warn("sealed: device stays open")
		}
	})
	return nil
}

func (d *devices) removeIdle(name string) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	delete(d.idle, name)
	mapper, err := devicemapper.Open(d.control)
	if err != nil {
		return err
	}
	defer mapper.Close()
	return d.removeIfUnused(mapper, name)
}

// removeUnused removes what an earlier containerd left open and nothing uses.
func (d *devices) removeUnused() error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	mapper, err := devicemapper.Open(d.control)
	if err != nil {
		return err
	}
	defer mapper.Close()
	all, err := mapper.List()
	if err != nil {
		return err
	}
	for _, device := range all {
		if strings.HasPrefix(device.Name, seal.DevicePrefix) {
			err = errors.Join(err, d.removeIfUnused(mapper, device.Name))
		}
	}
	return err
}

func (d *devices) removeIfUnused(mapper *devicemapper.Mapper, name string) error {
	err := mapper.Remove(name)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	return err
}

func readBounded(file string, limit int64) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 || info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, expected 1 to %d", file, info.Size(), limit)
	}
	return os.ReadFile(file)
}
