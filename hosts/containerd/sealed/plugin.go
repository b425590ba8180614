// Package sealed makes containerd run images only as their seals say. Each lower layer of a container is an EROFS file
// system on a dm-verity device, and the kernel checks the signature of the device's root hash. The layers of a
// container are exactly those that the signed seal manifest of its image lists, in the same order.
//
// It has four plugins:
//   - the snapshotter `sealed` wraps upstream's `erofs`, which finds layers in the stores of sealed layers. It takes
//     source, root hash and signature of each mounted layer from the seal manifest;
//   - the mount handler for `erofs` opens and closes the devices;
//   - the content store is upstream's, and compares each blob with its digest when it is read;
//   - a hook lets the snapshotter look up the image of a container.
package sealed

import (
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/plugins/snapshots/erofs"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/palisade-host/palisade/hosts/seal"
)

// Name of the snapshotter, as CRI's configuration names it.
const Name = "sealed"

// Config is the snapshotter's section of containerd's configuration.
type Config struct {
	// Stores are folders of sealed layers (seal.Store), searched in order.
	Stores []string `toml:"stores"`
	// Trust is the folder of the trusted keys of seals and of revocations (seal.LoadTrust).
	Trust string `toml:"trust"`
}

// images is shared by the snapshotter and the hook, which is initialized later.
var images = &imageLookup{}

func init() {
	registry.Register(&plugin.Registration{
		Type:   plugins.SnapshotPlugin,
		ID:     Name,
		Config: &Config{},
		InitFn: initSnapshotter,
	})
	registry.Register(&plugin.Registration{
		Type: plugins.MountHandlerPlugin,
		// containerd chooses mount handlers by the type of the mount.
		ID: "erofs",
		InitFn: func(ic *plugin.InitContext) (any, error) {
			ic.Meta.Platforms = append(ic.Meta.Platforms, platforms.DefaultSpec())
			return newHandler()
		},
	})
	registry.Register(&plugin.Registration{
		Type: plugins.ContentPlugin,
		// It has the name of upstream's, so that it has its folder.
		ID: "content",
		InitFn: func(ic *plugin.InitContext) (any, error) {
			root := ic.Properties[plugins.PropertyRootDir]
			ic.Meta.Exports["root"] = root
			return newContent(root)
		},
	})
	registry.Register(&plugin.Registration{
		Type:     plugins.InternalPlugin,
		ID:       "sealed-images",
		Requires: []plugin.Type{plugins.MetadataPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			database, err := ic.GetSingle(plugins.MetadataPlugin)
			if err != nil {
				return nil, err
			}
			images.use(database.(*metadata.DB))
			return images, nil
		},
	})
}

func initSnapshotter(ic *plugin.InitContext) (any, error) {
	ic.Meta.Platforms = append(ic.Meta.Platforms, platforms.DefaultSpec())
	config, ok := ic.Config.(*Config)
	if !ok {
		return nil, errors.New("sealed: invalid configuration")
	}
	if len(config.Stores) == 0 || config.Trust == "" {
		return nil, fmt.Errorf("sealed: stores and trust have to be configured: %w", plugin.ErrSkipPlugin)
	}
	root := ic.Properties[plugins.PropertyRootDir]
	ic.Meta.Exports[plugins.SnapshotterRootDir] = root
	// As in upstream's erofs, user namespaces use ID-mapped mounts and never change owners.
	ic.Meta.Capabilities = append(ic.Meta.Capabilities, "only-remap-ids", snapshots.RebaseCap)
	// Upstream's verity options are replaced below, so they are not requested here.
	options := []erofs.Opt{erofs.WithLayerContentCaches(config.Stores...), erofs.WithDmverityMode("off")}
	if supported, err := overlayutils.SupportsIDMappedMounts(); err == nil && supported {
		options = append(options, erofs.WithRemapIDs())
		ic.Meta.Capabilities = append(ic.Meta.Capabilities, "remap-ids")
	}
	inner, err := erofs.NewSnapshotter(root, options...)
	if err != nil {
		return nil, err
	}
	stores := make([]seal.Store, len(config.Stores))
	for index, folder := range config.Stores {
		stores[index] = seal.Store(folder)
	}
	return &snapshotter{Snapshotter: inner, binder: binder{stores: stores, trust: config.Trust, images: images}, sealedOnly: true}, nil
}
