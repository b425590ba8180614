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

// nodeTimeout is how long devtmpfs may take to create a node.
const nodeTimeout = 5 * time.Second

// linger is how long an unused device stays open and mounted. Before a container mounts its image, containerd looks
// into it, at /etc/passwd for example, and a crashed container starts again soon. A device that is closed meanwhile
// costs time, because the kernel forgets the blocks that it has verified and checks them and the signature again.
const linger = 10 * time.Second

// closing is how long the kernel may take to release a device after its last unmount.
const closing = 500 * time.Millisecond

// signatureLimit bounds a signature in bytes. A signature has some hundred.
const signatureLimit = 64 << 10

// devices are the verity devices of layers. There is one for each root hash, however many containers use it. The kernel
// counts the users, because it does not remove a device that is mounted.
type devices struct {
	control string
	linger  time.Duration
	// mutex prevents the removal of a device between finding and mounting it.
	mutex sync.Mutex
	// idle are the timers, by name, of devices that had no users.
	idle map[string]*time.Timer
	// held are mounts without a path, by name. They keep the blocks that the kernel has read and verified.
	held map[string]*os.File
}

func newDevices() *devices {
	return &devices{control: devicemapper.Control, linger: linger, idle: map[string]*time.Timer{}, held: map[string]*os.File{}}
}

// use calls mount with the node of the layer's device, which mount has to mount at target. The device stays while it is
// mounted.
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
		// The parameters say whether the kernel checked the signature when the device was opened.
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

// hold keeps the file system mounted that is mounted at target. A kernel may refuse that, which only costs time later.
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
	// The kernel detaches the loop device when the verity device is removed.
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

// release removes the device of a mount after linger, unless it is in use then. It ignores other devices.
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

// removeIdle releases an idle device, and removes it unless it is in use.
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
	// The kernel releases a device some time after its last unmount. The lock is released meanwhile.
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

// removeUnused removes unused devices of an earlier containerd.
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
