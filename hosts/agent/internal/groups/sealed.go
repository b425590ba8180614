package groups

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/palisade-host/palisade/hosts/agent/internal/images"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/seal"
)

// refusedError is the error of an image that must not run on this host.
type refusedError struct {
	message string
}

func (e *refusedError) Error() string {
	return e.message
}

// fetchImage has the role images fetch the image and check it against the policies. It returns the digest of the
// manifest that runs.
func (g *group) fetchImage(ctx context.Context, pull *imagePull, container *agentv1.Container, access *agentv1.ImageRegistry) (string, error) {
	name, image := container.GetName(), container.GetImage()
	request := &agentv1.EnsureImageRequest{Reference: image}
	if access != nil {
		request.ImageRegistries = []*agentv1.ImageRegistry{access}
	}
	// Cancelling ends the call when this function returns before its last message.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := time.Now()
	stream, err := g.manager.options.Sealed.EnsureImage(ctx, connect.NewRequest(request))
	if err != nil {
		return "", refusalOrFailure(err)
	}
	defer stream.Close()
	fetching := false
	for stream.Receive() {
		if progress := stream.Msg().GetProgress(); progress.GetMissingBytes() > 0 && !fetching {
			fetching = true
			g.event(eventNormal, "Fetching", fmt.Sprintf("image %s: %d of %d bytes are not in the store", image, progress.GetMissingBytes(), progress.GetTotalBytes()), name)
			pull.transfers()
		}
		sealed := stream.Msg().GetImage()
		if sealed == nil {
			continue
		}
		if fetching {
			g.event(eventNormal, "Fetched", fmt.Sprintf("image %s: %d of %d bytes in %s, sealed by key %s", image, sealed.GetFetchedBytes(),
				sealed.GetTotalBytes(), time.Since(started).Round(time.Millisecond), sealed.GetSealKeyId()), name)
		}
		return sealed.GetManifestDigest(), nil
	}
	if err := stream.Err(); err != nil {
		return "", refusalOrFailure(err)
	}
	return "", errors.New("role images has ended its answer too early")
}

// refusalOrFailure distinguishes the refusal of an image from a failure of the role, whose message already says what to
// do.
func refusalOrFailure(err error) error {
	var failure *connect.Error
	if !errors.As(err, &failure) {
		return err
	}
	for _, detail := range failure.Details() {
		value, err := detail.Value()
		if info, ok := value.(*errdetails.ErrorInfo); err == nil && ok && info.GetDomain() == images.ErrorDomain {
			return &refusedError{failure.Message()}
		}
	}
	if !connect.IsWireError(err) {
		return fmt.Errorf("role images does not answer: %w", err)
	}
	return errors.New(failure.Message())
}

// checkConfiguration refuses an image whose identifier in CRI, the digest of its configuration, is not the one that its
// seal names. CRI finds the configuration in containerd's records on the disk, and containerd verifies its content.
func (m *Manager) checkConfiguration(image, id string) error {
	_, digest, found := strings.Cut(image, "@")
	if m.options.Sealed == nil || !found || !digestPattern.MatchString(id) {
		return nil
	}
	manifest, _, err := seal.Find(m.options.Layers, m.options.Trust, digest)
	if err != nil {
		return err
	}
	if manifest.Image.Config != id {
		return &refusedError{fmt.Sprintf("image %s is refused: containerd has it with configuration %s, it was sealed with %s", image, id, manifest.Image.Config)}
	}
	return nil
}

// rootHashes returns the root hashes of an image's layers from its seal, bottom first. It returns nothing for an image
// without a seal on this host.
func (m *Manager) rootHashes(digest string) []string {
	if m.options.Sealed == nil || digest == "" {
		return nil
	}
	m.sealsMutex.Lock()
	defer m.sealsMutex.Unlock()
	if known, found := m.seals[digest]; found {
		return known
	}
	manifest, _, err := seal.Find(m.options.Layers, m.options.Trust, digest)
	if err != nil {
		return nil
	}
	var result []string
	for _, layer := range manifest.Layers {
		result = append(result, layer.RootHash)
	}
	m.seals[digest] = result
	return result
}
