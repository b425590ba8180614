package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/palisade-host/palisade/hosts/seal"
)

// Documents of registries are read by the same rules in provider/local/registry/documents.ts. The tests of both
// read hosts/api/testdata/image-documents.json.

const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

var (
	indexTypes    = []string{"", ocispec.MediaTypeImageIndex, dockerIndex}
	manifestTypes = []string{"", ocispec.MediaTypeImageManifest, dockerManifest}
)

// document is an image manifest or an index.
type document struct {
	isIndex bool
	config  ocispec.Descriptor
	layers  []ocispec.Descriptor
	// manifests are the entries of an index, without those that are not descriptors.
	manifests []ocispec.Descriptor
}

// readDocument distinguishes an index from a manifest. It refuses content that could be read as both, because other
// programs might read it differently (CVE-2021-41190).
func readDocument(content []byte) (*document, error) {
	var head struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
	}
	var fields map[string]json.RawMessage
	if err := errors.Join(seal.Decode(content, &head), seal.Decode(content, &fields)); err != nil {
		return nil, err
	}
	manifests, isIndex := fields["manifests"]
	layers, hasLayers := fields["layers"]
	config, hasConfig := fields["config"]
	if head.SchemaVersion != 2 || isIndex == (hasLayers || hasConfig) {
		return nil, errors.New("it is neither an image manifest nor an index")
	}
	if isIndex && slices.Contains(indexTypes, head.MediaType) {
		list, err := descriptors(manifests)
		return &document{isIndex: true, manifests: list}, err
	}
	if isIndex || !slices.Contains(manifestTypes, head.MediaType) {
		return nil, fmt.Errorf("it says that it is %q, which its content is not", head.MediaType)
	}
	found := &document{}
	if len(config) == 0 || seal.Decode(config, &found.config) != nil || !isDigest(found.config) {
		return nil, fmt.Errorf("it names the configuration %q, which is no digest", found.config.Digest)
	}
	if hasLayers {
		if err := seal.Decode(layers, &found.layers); err != nil {
			return nil, fmt.Errorf("layers: %w", err)
		}
	}
	for index, layer := range found.layers {
		if !isDigest(layer) {
			return nil, fmt.Errorf("layers[%d]: %q is no digest", index, layer.Digest)
		}
	}
	return found, nil
}

// descriptors parses a list of descriptors. It skips entries that are not descriptors, so that they do not hide the
// others.
func descriptors(list json.RawMessage) ([]ocispec.Descriptor, error) {
	var entries []json.RawMessage
	if err := seal.Decode(list, &entries); err != nil {
		return nil, fmt.Errorf("its list of manifests or layers: %w", err)
	}
	var result []ocispec.Descriptor
	for _, entry := range entries {
		var descriptor ocispec.Descriptor
		if seal.Decode(entry, &descriptor) == nil && isDigest(descriptor) {
			result = append(result, descriptor)
		}
	}
	return result, nil
}

func isDigest(descriptor ocispec.Descriptor) bool {
	return digestPattern.MatchString(descriptor.Digest.String()) && descriptor.Size >= 0
}

// artifactLayers returns the layers of an artifact, such as a signature or a seal. It skips entries that are not
// descriptors.
func artifactLayers(content []byte) ([]ocispec.Descriptor, error) {
	return listIn(content, "layers")
}

// referrerEntries returns the manifests of an index of referrers. It skips entries that are not descriptors.
func referrerEntries(content []byte) ([]ocispec.Descriptor, error) {
	return listIn(content, "manifests")
}

func listIn(content []byte, name string) ([]ocispec.Descriptor, error) {
	var fields map[string]json.RawMessage
	if err := seal.Decode(content, &fields); err != nil {
		return nil, err
	}
	if fields == nil {
		return nil, errors.New("it is null")
	}
	if list, found := fields[name]; found {
		return descriptors(list)
	}
	return nil, nil
}

// baseline are the variants that every CPU of an architecture runs. The provider seals the image and does not know the
// host's CPU.
var baseline = map[string][]string{"amd64": {"", "v1"}, "arm64": {"", "v8"}}

// candidates returns the entries of an index that may be the image for Linux on an architecture: those with that
// platform or, when there are none, those without a platform, whose configuration decides. More than one entry with the
// platform is ambiguous.
func candidates(manifests []ocispec.Descriptor, architecture string) []ocispec.Descriptor {
	variants := baseline[architecture]
	if variants == nil {
		variants = []string{""}
	}
	var named, unnamed []ocispec.Descriptor
	for _, entry := range manifests {
		if !slices.Contains(manifestTypes, entry.MediaType) || entry.ArtifactType != "" {
			continue
		}
		platform := entry.Platform
		if platform == nil {
			unnamed = append(unnamed, entry)
		} else if platform.OS == "linux" && platform.Architecture == architecture && slices.Contains(variants, platform.Variant) {
			if !slices.ContainsFunc(named, func(other ocispec.Descriptor) bool { return other.Digest == entry.Digest }) {
				named = append(named, entry)
			}
		}
	}
	if named != nil {
		return named
	}
	return unnamed
}

// platformsOf lists the platforms of an index's entries.
func platformsOf(manifests []ocispec.Descriptor) string {
	var names []string
	for _, entry := range manifests {
		name := "no platform"
		if platform := entry.Platform; platform != nil {
			name = strings.Trim(platform.OS+"/"+platform.Architecture+"/"+platform.Variant, "/")
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}
