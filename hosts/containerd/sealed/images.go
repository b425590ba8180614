package sealed

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// imageLookup tells which image a container was made from, out of containerd's own records.
type imageLookup struct {
	database atomic.Pointer[metadata.DB]
}

func (l *imageLookup) use(database *metadata.DB) {
	l.database.Store(database)
}

// digestOf returns the digest of the image of the container that owns a snapshot, or "" when no container is recorded:
// CRI looks into an image, e.g. at /etc/passwd, before it records the container. The key is the metadata store's:
// <namespace>/<number>/<container>.
func (l *imageLookup) digestOf(ctx context.Context, key string) (string, error) {
	database := l.database.Load()
	if database == nil {
		// Not an answer: "not recorded" would let any sealed image pass.
		return "", fmt.Errorf("containerd's records are not there yet: %w", errdefs.ErrUnavailable)
	}
	namespace, rest, found := strings.Cut(key, "/")
	_, name, foundName := strings.Cut(rest, "/")
	if !found || !foundName {
		return "", nil
	}
	ctx = namespaces.WithNamespace(ctx, namespace)
	container, err := metadata.NewContainerStore(database).Get(ctx, name)
	if errdefs.IsNotFound(err) || err == nil && container.Image == "" {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	image, err := metadata.NewImageStore(database).Get(ctx, container.Image)
	if err != nil {
		return "", err
	}
	return image.Target.Digest.String(), nil
}
