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

// linger is how long a device without users stays open and mounted. A container's start looks into its image, e.g. at
// /etc/passwd, before it mounts it, and one that crashed comes back: anew, each time, the kernel would check the signature and
// all blocks that are read, as what it has read goes with the last mount.
const linger = 10 * time.Second

// closing is how long the kernel may take to let go of a device after its last mount has gone.
const closing = 500 * time.Millisecond

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
	// held are mounts of devices that no path leads to, by name: they keep what the kernel has read and checked.
	held map[string]*os.File
}

func newDevices() *devices {
	return &devices{control: devicemapper.Control, linger: linger, idle: map[string]*time.Timer{}, held: map[string]*os.File{}}
}

// use calls mount with the node of the layer's device, to be mounted at target. The device stays for as long as something is
// mounted from it.
func (d *devices) use(l layer, target string, mount func(node string) error) error {
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
	d.hold(name, target)
	return nil
}

// hold keeps the file system that is mounted at target. Without it, which a kernel may refuse, all is as well, but slower.
func (d *devices) hold(name, target string) {
	if d.held[name] != nil {
		return
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, target, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		log.L.WithError(err).WithField("device", name).Warn("sealed: file system is not held")
		return
	}
	d.held[name] = os.NewFile(uintptr(tree), target)
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

// removeIdle lets go of a device, and removes it if nobody else uses it.
func (d *devices) removeIdle(name string) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	delete(d.idle, name)
	if tree := d.held[name]; tree != nil {
		delete(d.held, name)
		if err := tree.Close(); err != nil {
			return err
		}
	}
	mapper, err := devicemapper.Open(d.control)
	if err != nil {
		return err
	}
	defer mapper.Close()
	// The kernel completes the closing of a last mount a little later; others go on meanwhile.
	for end := time.Now().Add(closing); ; {
		err := mapper.Remove(name)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return ignoreInUse(err)
		}
		d.mutex.Unlock()
		time.Sleep(closing / 10)
		d.mutex.Lock()
		if d.held[name] != nil || d.idle[name] != nil {
			return nil
		}
	}
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
	return ignoreInUse(mapper.Remove(name))
}

func ignoreInUse(err error) error {
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
