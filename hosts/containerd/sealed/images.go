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

// imageLookup finds the image of a container in containerd's own records.
type imageLookup struct {
	database atomic.Pointer[metadata.DB]
}

func (l *imageLookup) use(database *metadata.DB) {
	l.database.Store(database)
}

// digestOf returns the digest of the image of the container that owns a snapshot, or "" when no container is recorded,
// because CRI looks into an image, at /etc/passwd for example, before it records the container. The key is that of the
// metadata store: <namespace>/<number>/<container>.
func (l *imageLookup) digestOf(ctx context.Context, key string) (string, error) {
	database := l.database.Load()
	if database == nil {
		// This must be an error: "" would allow any sealed image.
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
	target := image.Target.Digest.String()
	if _, named, found := strings.Cut(image.Name, "@"); found && named != target {
		// containerd's records lie on the disk as well.
		return "", fmt.Errorf("image %s is recorded with another digest, %s: %w", image.Name, target, errdefs.ErrDataLoss)
	}
	return target, nil
}
