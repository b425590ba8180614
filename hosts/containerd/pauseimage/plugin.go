// Package pauseimage brings the image of sandboxes into containerd at its start, from an archive that is part of the
// host image: a client that could import images could import any.
package pauseimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// namespace is CRI's.
const namespace = "k8s.io"

// Config is the plugin's section of containerd's configuration.
type Config struct {
	// Archive is an OCI image layout in a tar file, with one manifest.
	Archive string `toml:"archive"`
	// Reference is the image's name; as pinned_images.sandbox of CRI's section, so that it stays.
	Reference string `toml:"reference"`
}

func init() {
	registry.Register(&plugin.Registration{
		Type:     plugins.InternalPlugin,
		ID:       "pause-image",
		Requires: []plugin.Type{plugins.MetadataPlugin, plugins.LeasePlugin, plugins.CRIServicePlugin},
		Config:   &Config{},
		InitFn:   initPlugin,
	})
}

// criImages is upstream's service of images.
type criImages interface {
	UpdateImage(ctx context.Context, reference string) error
}

func initPlugin(ic *plugin.InitContext) (any, error) {
	config, ok := ic.Config.(*Config)
	if !ok {
		return nil, errors.New("invalid configuration")
	}
	if config.Archive == "" || config.Reference == "" {
		return nil, fmt.Errorf("archive and reference have to be configured: %w", plugin.ErrSkipPlugin)
	}
	database, err := ic.GetSingle(plugins.MetadataPlugin)
	if err != nil {
		return nil, err
	}
	manager, err := ic.GetSingle(plugins.LeasePlugin)
	if err != nil {
		return nil, err
	}
	service, err := ic.GetByID(plugins.CRIServicePlugin, "images")
	if err != nil {
		return nil, err
	}
	cri, ok := service.(criImages)
	if !ok {
		return nil, fmt.Errorf("CRI's images are of type %T, which takes no image", service)
	}
	ctx := namespaces.WithNamespace(ic.Context, namespace)
	target, err := importImage(ctx, database.(*metadata.DB), manager.(leases.Manager), config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", config.Archive, err)
	}
	if err := cri.UpdateImage(ctx, config.Reference); err != nil {
		return nil, err
	}
	log.G(ctx).WithField("image", config.Reference).WithField("digest", target.Digest).Info("the pause image is there")
	return struct{}{}, nil
}

// importImage makes the reference name the archive's image, whatever it named before: after an update of the host that
// is another one.
func importImage(ctx context.Context, database *metadata.DB, manager leases.Manager, config *Config) (ocispec.Descriptor, error) {
	none := ocispec.Descriptor{}
	file, err := os.Open(config.Archive)
	if err != nil {
		return none, err
	}
	defer file.Close()
	// Nothing is collected before the image refers to it. What a crash leaves is, an hour later.
	lease, err := manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(time.Hour))
	if err != nil {
		return none, err
	}
	defer func() {
		if err := manager.Delete(context.WithoutCancel(ctx), lease); err != nil {
			log.G(ctx).WithError(err).Warn("the lease of the pause image expires in an hour")
		}
	}()
	ctx = leases.WithLease(ctx, lease.ID)
	store := database.ContentStore()
	target, err := readManifest(ctx, store, file)
	if err != nil {
		return none, err
	}
	withLabels := images.SetChildrenLabels(store, images.ChildrenHandler(store))
	if err := images.Walk(ctx, withLabels, target); err != nil {
		return none, err
	}
	image := images.Image{Name: config.Reference, Target: target}
	named := metadata.NewImageStore(database)
	_, err = named.Create(ctx, image)
	if errdefs.IsAlreadyExists(err) {
		_, err = named.Update(ctx, image, "target")
	}
	return target, err
}

// readManifest puts the archive's content into the store and returns its one manifest.
func readManifest(ctx context.Context, store content.Store, file *os.File) (ocispec.Descriptor, error) {
	none := ocispec.Descriptor{}
	entry, err := archive.ImportIndex(ctx, store, file)
	if err != nil {
		return none, err
	}
	text, err := content.ReadBlob(ctx, store, entry)
	if err != nil {
		return none, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return none, err
	}
	if len(index.Manifests) != 1 {
		return none, fmt.Errorf("%d manifests in the index, expected 1", len(index.Manifests))
	}
	return index.Manifests[0], nil
}
