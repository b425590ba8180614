// Package sealed makes containerd run images only as their seals say: each lower layer of a container is an EROFS file
// system on a dm-verity device of its own root hash, whose signature the kernel checks, and the layers of a container are
// those that the signed seal manifest of its image lists, all of them and in their order.
//
// Three plugins:
//   - the snapshotter `sealed`, around upstream's `erofs`, which it gives the stores of sealed layers as layer content
//     caches; it replaces what it says about mounts by what the seal manifest says;
//   - the mount handler for `erofs`, which opens and closes the devices;
//   - a hook that lets the snapshotter ask which image a container is of.
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
	// Stores are folders of sealed layers (seal.Store), looked through in order.
	Stores []string `toml:"stores"`
	// Trust is the folder of the keys that sign seals, and of what is revoked (seal.LoadTrust).
	Trust string `toml:"trust"`
}

// images is shared by the snapshotter and the hook, which is initialised later.
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
		// Mount handlers are chosen by the type of the mount.
		ID: "erofs",
		InitFn: func(ic *plugin.InitContext) (any, error) {
			ic.Meta.Platforms = append(ic.Meta.Platforms, platforms.DefaultSpec())
			return newHandler()
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
	// As upstream's erofs: user namespaces by ID-mapped mounts, never by changing owners.
	ic.Meta.Capabilities = append(ic.Meta.Capabilities, "only-remap-ids", snapshots.RebaseCap)
	// What upstream says about verity is replaced below, so it is not asked for here.
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
