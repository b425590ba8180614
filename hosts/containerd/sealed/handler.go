package sealed

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
)

// layerContext is the SELinux label of everything in a layer. It is the same for all containers, because they share the
// device. What a container writes has the container's own label, on the overlay.
const layerContext = "system_u:object_r:container_ro_file_t:s0"

// blockSize is that of file systems and trees, in bytes.
const blockSize = 4096

var rootHashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// handler mounts layers from verity devices, which it opens and closes.
type handler struct {
	devices *devices
	// labelled is true if SELinux is enabled.
	labelled bool
}

func newHandler() (*handler, error) {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	h := &handler{devices: newDevices(), labelled: err == nil}
	if err := h.devices.removeUnused(); err != nil {
		// On a host without a device mapper every mount fails with this error.
		log.L.WithError(err).Warn("sealed: devices of an earlier run are not removed")
	}
	return h, nil
}

// Mount opens the layer's device, unless it is already open, and mounts it.
func (h *handler) Mount(ctx context.Context, m mount.Mount, target string, _ []mount.ActiveMount) (mount.ActiveMount, error) {
	layer, err := layerOf(m)
	if err != nil {
		return mount.ActiveMount{}, err
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return mount.ActiveMount{}, err
	}
	mounted := mount.Mount{Type: "erofs", Options: []string{"ro", "nodev"}}
	if h.labelled {
		mounted.Options = append(mounted.Options, "context="+strconv.Quote(layerContext))
	}
	err = h.devices.use(layer, target, func(node string) error {
		mounted.Source = node
		if err := mounted.Mount(target); err != nil {
			return err
		}
		if err := layer.mapUsers(target); err != nil {
			_ = mount.UnmountAll(target, 0)
			return err
		}
		return nil
	})
	if err != nil {
		return mount.ActiveMount{}, fmt.Errorf("layer with root hash %s: %w", layer.rootHash, err)
	}
	log.G(ctx).WithField("root-hash", layer.rootHash).WithField("device", mounted.Source).Debug("sealed: layer mounted")
	now := time.Now()
	return mount.ActiveMount{Mount: mounted, MountedAt: &now, MountPoint: target}, nil
}

// Unmount unmounts a layer. Its device is closed when no other mount uses it.
func (h *handler) Unmount(ctx context.Context, target string) error {
	info, err := mount.Lookup(target)
	// Where nothing is mounted, Lookup returns the file system around it.
	mounted := err == nil && info.Mountpoint == target
	// A mapped layer is mounted over the unmapped one.
	if err := mount.UnmountAll(target, 0); err != nil {
		return err
	}
	if !mounted {
		return nil
	}
	if err := h.devices.release(info.Source); err != nil {
		log.G(ctx).WithError(err).WithField("device", info.Source).Warn("sealed: device stays open")
	}
	return nil
}

// layer is a layer as the snapshotter of this package describes it in a mount.
type layer struct {
	blob, signature string
	rootHash        string
	hashOffset      int64
	// uidMap and gidMap are those of the container's user namespace; empty when it has none.
	uidMap, gidMap string
}

// mapUsers maps the owners of files in a mounted layer to the container's user namespace. Device and file system stay
// shared, because only the mount is mapped.
func (l layer) mapUsers(target string) error {
	if l.uidMap == "" || l.gidMap == "" {
		return nil
	}
	namespace, err := userNamespace(l.uidMap, l.gidMap)
	if err != nil {
		return err
	}
	defer namespace.Close()
	return mount.IDMapMount(target, target, int(namespace.Fd()))
}

// layerOf parses the mount's options. It refuses any other EROFS mount.
func layerOf(m mount.Mount) (layer, error) {
	if m.Type != "erofs" {
		return layer{}, errdefs.ErrNotImplemented
	}
	l := layer{blob: m.Source}
	for _, option := range m.Options {
		if value, found := strings.CutPrefix(option, optionRootHash); found {
			l.rootHash = value
		} else if value, found := strings.CutPrefix(option, optionSignature); found {
			l.signature = value
		} else if value, found := strings.CutPrefix(option, optionMapping+"uidmap="); found {
			l.uidMap = value
		} else if value, found := strings.CutPrefix(option, optionMapping+"gidmap="); found {
			l.gidMap = value
		} else if value, found := strings.CutPrefix(option, optionHashOffset); found {
			offset, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return layer{}, fmt.Errorf("%s: %w", option, errdefs.ErrInvalidArgument)
			}
			l.hashOffset = offset
		}
	}
	if l.rootHash == "" || l.signature == "" || l.hashOffset == 0 {
		return layer{}, fmt.Errorf("refused to mount %s: only layers of sealed images are mounted: %w", m.Source, errdefs.ErrPermissionDenied)
	}
	// Both become part of the device's name and parameters.
	if !rootHashPattern.MatchString(l.rootHash) {
		return layer{}, fmt.Errorf("%s%s is no SHA-256 value: %w", optionRootHash, l.rootHash, errdefs.ErrInvalidArgument)
	}
	if l.hashOffset < 0 || l.hashOffset%blockSize != 0 {
		return layer{}, fmt.Errorf("%s%d is no positive multiple of %d: %w", optionHashOffset, l.hashOffset, blockSize, errdefs.ErrInvalidArgument)
	}
	return l, nil
}
