package sealed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

// recorded returns the same image for every snapshot; "" stands for a container that is not recorded.
type recorded string

func (r recorded) digestOf(context.Context, string) (string, error) {
	return string(r), nil
}

func (h *host) binder(image string) binder {
	return binder{stores: h.stores(), trust: h.trust, images: recorded(image)}
}

// overlay is the mount that upstream's snapshotter puts on the lower ones.
var overlay = mount.Mount{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{"lowerdir={{ overlay 0 1 }}"}}

func wantLayer(store seal.Store, layer seal.Layer) mount.Mount {
	return mount.Mount{Type: "erofs", Source: store.Blob(layer.RootHash), Options: []string{
		"ro", "X-palisade.root-hash=" + layer.RootHash, fmt.Sprintf("X-palisade.hash-offset=%d", layer.HashOffset),
		"X-palisade.signature=" + store.Signature(layer.RootHash),
	}}
}

func TestBind(t *testing.T) {
	h := newHost(t)
	image := h.sealed(t, "base", "middle", "app")
	layers := image.Sealed.Layers
	given := append(lowers(h.fetched, layers), overlay)
	want := []mount.Mount{wantLayer(h.fetched, layers[2]), wantLayer(h.fetched, layers[1]), wantLayer(h.fetched, layers[0]), overlay}
	for name, recorded := range map[string]string{"recorded container": image.Digest, "not recorded": ""} {
		t.Run(name, func(t *testing.T) {
			before := slices.Clone(given)
			bound, err := h.binder(recorded).bind(t.Context(), "k8s.io/1/c", given)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(bound, want) {
				t.Errorf("got  %+v\nwant %+v", bound, want)
			}
			if !reflect.DeepEqual(given, before) {
				t.Error("the mounts that were given changed")
			}
		})
	}
}

func TestBindUsesTheStoreOfTheSeal(t *testing.T) {
	h := newHost(t)
	image := sealtest.NewImage(t, "pause")
	h.store(t, h.fixed, image, h.key.Seal(t, image.Sealed))
	// The same layer belongs to another image, and the snapshot was made from that one.
	h.store(t, h.fetched, image, nil)
	bound, err := h.binder(image.Digest).bind(t.Context(), "k8s.io/1/c", lowers(h.fetched, image.Sealed.Layers))
	if err != nil {
		t.Fatal(err)
	}
	if want := []mount.Mount{wantLayer(h.fixed, image.Sealed.Layers[0])}; !reflect.DeepEqual(bound, want) {
		t.Errorf("got  %+v\nwant %+v", bound, want)
	}
}

func TestBindOfASingleLayer(t *testing.T) {
	h := newHost(t)
	image := h.sealed(t, "app")
	lower := lowers(h.fetched, image.Sealed.Layers)
	bind := mount.Mount{Type: "format/bind", Source: "{{ mount 0 }}", Options: []string{"ro", "rbind"}}
	for name, rest := range map[string][]mount.Mount{"view": nil, "bind": {bind}} {
		t.Run(name, func(t *testing.T) {
			bound, err := h.binder(image.Digest).bind(t.Context(), "k8s.io/1/c", append(slices.Clone(lower), rest...))
			if err != nil {
				t.Fatal(err)
			}
			if want := append([]mount.Mount{wantLayer(h.fetched, image.Sealed.Layers[0])}, rest...); !reflect.DeepEqual(bound, want) {
				t.Errorf("got  %+v\nwant %+v", bound, want)
			}
		})
	}
}

func TestBindLeavesMountsWithoutLayers(t *testing.T) {
	h := newHost(t)
	given := []mount.Mount{{Type: "bind", Source: "/var/lib/containerd/snapshots/1/fs", Options: []string{"rw", "rbind"}}}
	bound, err := h.binder("").bind(t.Context(), "k8s.io/1/c", given)
	if err != nil || !reflect.DeepEqual(bound, given) {
		t.Errorf("%+v, %v", bound, err)
	}
}

// Each refusal belongs to TestBind, which binds the same image without an error.
func TestBindRefuses(t *testing.T) {
	foreign := sealtest.NewKey(t)
	for name, test := range map[string]struct {
		// recorded returns the recorded image, if it is not the image itself.
		recorded func(h *host, image *sealtest.Image) string
		// spoil changes the host or the mounts. The image has three layers.
		spoil func(t *testing.T, h *host, image *sealtest.Image, lowers []mount.Mount) []mount.Mount
		says  string
	}{
		"a missing layer": {
			spoil: func(_ *testing.T, _ *host, _ *sealtest.Image, lowers []mount.Mount) []mount.Mount { return lowers[1:] },
			says:  "was sealed with the layers",
		},
		"an extra layer": {
			spoil: func(t *testing.T, h *host, _ *sealtest.Image, given []mount.Mount) []mount.Mount {
				return append(lowers(h.fetched, h.sealed(t, "other").Sealed.Layers), given...)
			},
			says: "was sealed with the layers",
		},
		"swapped layers": {
			spoil: func(_ *testing.T, _ *host, _ *sealtest.Image, lowers []mount.Mount) []mount.Mount {
				lowers[0], lowers[1] = lowers[1], lowers[0]
				return lowers
			},
			says: "was sealed with the layers",
		},
		"a layer twice": {
			spoil: func(_ *testing.T, _ *host, _ *sealtest.Image, lowers []mount.Mount) []mount.Mount {
				lowers[0] = lowers[1]
				return lowers
			},
			says: "was sealed with the layers",
		},
		"layers of another sealed image": {
			spoil: func(t *testing.T, h *host, _ *sealtest.Image, _ []mount.Mount) []mount.Mount {
				return lowers(h.fetched, h.sealed(t, "x", "y", "z").Sealed.Layers)
			},
			says: "was sealed with the layers",
		},
		"the seal of another image under this one's name": {
			spoil: func(t *testing.T, h *host, image *sealtest.Image, given []mount.Mount) []mount.Mount {
				other := image.Sealed
				other.Image.Digest = "sha256:" + strings.Repeat("b", 64)
				writeFile(t, h.fetched.Seal(image.Digest), h.key.Seal(t, other))
				return given
			},
			says: "it is for image sha256:bbbb",
		},
		"a foreign key": {
			spoil: func(t *testing.T, h *host, image *sealtest.Image, given []mount.Mount) []mount.Mount {
				writeFile(t, h.fetched.Seal(image.Digest), foreign.Seal(t, image.Sealed))
				return given
			},
			says: "trusted key",
		},
		"a key that is not trusted any more": {
			spoil: func(t *testing.T, h *host, _ *sealtest.Image, given []mount.Mount) []mount.Mount {
				writeFile(t, filepath.Join(h.trust, "seals", "seal.pem"), []byte(foreign.PEM))
				return given
			},
			says: "trusted key",
		},
		"a host that trusts nobody": {
			spoil: func(t *testing.T, h *host, _ *sealtest.Image, given []mount.Mount) []mount.Mount {
				remove(t, filepath.Join(h.trust, "seals", "seal.pem"))
				return given
			},
			says: "trusted key",
		},
		"a revoked image": {
			spoil: func(t *testing.T, h *host, image *sealtest.Image, given []mount.Mount) []mount.Mount {
				h.revoke(t, seal.Revocations{Images: []string{image.Digest}})
				return given
			},
			says: "is revoked",
		},
		"a revoked root hash": {
			spoil: func(t *testing.T, h *host, image *sealtest.Image, given []mount.Mount) []mount.Mount {
				h.revoke(t, seal.Revocations{RootHashes: []string{image.Sealed.Layers[0].RootHash}})
				return given
			},
			says: "is revoked",
		},
		"a revoked seal key": {
			spoil: func(t *testing.T, h *host, _ *sealtest.Image, given []mount.Mount) []mount.Mount {
				h.revoke(t, seal.Revocations{Keys: []string{h.key.ID}})
				return given
			},
			says: "is revoked",
		},
		"a revoked layer key": {
			spoil: func(t *testing.T, h *host, image *sealtest.Image, given []mount.Mount) []mount.Mount {
				h.revoke(t, seal.Revocations{Keys: []string{image.Sealed.LayerKey}})
				return given
			},
			says: "is revoked",
		},
		"revocations that cannot be read": {
			spoil: func(t *testing.T, h *host, _ *sealtest.Image, given []mount.Mount) []mount.Mount {
				writeFile(t, filepath.Join(h.trust, "revoked.json"), []byte("{"))
				return given
			},
			says: "revoked.json",
		},
		"no seal": {
			spoil: func(t *testing.T, h *host, image *sealtest.Image, given []mount.Mount) []mount.Mount {
				remove(t, h.fetched.Seal(image.Digest))
				return given
			},
			says: "not sealed",
		},
		"a recorded image that is no digest": {
			recorded: func(*host, *sealtest.Image) string { return "../../etc" },
			says:     "is no digest",
		},
		"a container that is not recorded, with layers of no sealed image": {
			recorded: func(*host, *sealtest.Image) string { return "" },
			spoil: func(_ *testing.T, _ *host, _ *sealtest.Image, lowers []mount.Mount) []mount.Mount {
				return lowers[1:]
			},
			says: "no sealed image has the layers",
		},
		"a container that is not recorded, and a revoked image": {
			recorded: func(*host, *sealtest.Image) string { return "" },
			spoil: func(t *testing.T, h *host, image *sealtest.Image, given []mount.Mount) []mount.Mount {
				h.revoke(t, seal.Revocations{Images: []string{image.Digest}})
				return given
			},
			says: "is revoked",
		},
		"a container that is not recorded, and a foreign key": {
			recorded: func(*host, *sealtest.Image) string { return "" },
			spoil: func(t *testing.T, h *host, image *sealtest.Image, given []mount.Mount) []mount.Mount {
				writeFile(t, h.fetched.Seal(image.Digest), foreign.Seal(t, image.Sealed))
				return given
			},
			says: "trusted key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			image := h.sealed(t, "base", "middle", "app")
			recorded, mounts := image.Digest, lowers(h.fetched, image.Sealed.Layers)
			if test.recorded != nil {
				recorded = test.recorded(h, image)
			}
			if test.spoil != nil {
				mounts = test.spoil(t, h, image, mounts)
			}
			bound, err := h.binder(recorded).bind(t.Context(), "k8s.io/1/c", append(mounts, overlay))
			if !errors.Is(err, errdefs.ErrPermissionDenied) || bound != nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %+v, %v; want a refusal that says %q", bound, err, test.says)
			}
		})
	}
}

func TestBindOfAnUnrecordedContainerPassesOverBadSeals(t *testing.T) {
	h := newHost(t)
	image := h.sealed(t, "app")
	writeFile(t, h.fixed.Seal("sha256:"+strings.Repeat("0", 64)), []byte("no envelope"))
	// A seal that is being removed can disappear between listing and reading.
	if err := os.Symlink("gone", h.fixed.Seal("sha256:"+strings.Repeat("1", 64))); err != nil {
		t.Fatal(err)
	}
	bound, err := h.binder("").bind(t.Context(), "k8s.io/1/c", lowers(h.fetched, image.Sealed.Layers))
	if err != nil || len(bound) != 1 {
		t.Errorf("%+v, %v", bound, err)
	}
}

// The source of a mount is from containerd's database on the state disk, which is not trusted.
func TestBindRefusesSourcesOutsideTheStores(t *testing.T) {
	h := newHost(t)
	image := h.sealed(t, "app")
	layer := image.Sealed.Layers[0]
	lookup := h.fetched.Lookup(layer.DiffID)
	folder := filepath.Join(string(h.fetched), "sha256")
	for name, source := range map[string]string{
		"nothing":                     "",
		"a snapshot's own layer":      "/var/lib/containerd/snapshots/1/layer.erofs",
		"the same file name":          filepath.Join(t.TempDir(), filepath.Base(lookup)),
		"a blob by its root hash":     h.fetched.Blob(layer.RootHash),
		"a store that begins alike":   string(h.fetched) + "2" + strings.TrimPrefix(lookup, string(h.fetched)),
		"a folder above":              folder + "/../sha256/" + layer.DiffID[7:9] + "/" + filepath.Base(lookup),
		"out of the store":            folder + "/../../../etc/" + filepath.Base(lookup),
		"a folder too many":           filepath.Join(folder, "xx", layer.DiffID[7:9], filepath.Base(lookup)),
		"no folder between":           filepath.Join(folder, filepath.Base(lookup)),
		"another folder between":      filepath.Join(folder, "zz", filepath.Base(lookup)),
		"two separators":              folder + "//" + layer.DiffID[7:9] + "/" + filepath.Base(lookup),
		"another ending":              strings.TrimSuffix(lookup, ".erofs") + ".img",
		"the verity side-car":         h.fetched.Metadata(layer.DiffID),
		"upper case":                  filepath.Join(folder, layer.DiffID[7:9], strings.ToUpper(layer.DiffID[7:])+".erofs"),
		"a name too short":            filepath.Join(folder, "ab", "a.erofs"),
		"no name":                     filepath.Join(folder, "ab") + "/.erofs",
		"the folder itself":           folder + "/",
		"a digest as the file's name": filepath.Join(folder, layer.DiffID[7:9], layer.DiffID+".erofs"),
	} {
		t.Run(name, func(t *testing.T) {
			given := []mount.Mount{{Type: "erofs", Source: source, Options: []string{"ro", "loop"}}}
			bound, err := h.binder("").bind(t.Context(), "k8s.io/1/c", given)
			if !errors.Is(err, errdefs.ErrPermissionDenied) || bound != nil {
				t.Errorf("%+v, %v", bound, err)
			}
		})
	}
}

// The target of a link in the store does not matter, because the name only selects an entry of the manifest.
func TestBindFollowsNoLink(t *testing.T) {
	h := newHost(t)
	image := h.sealed(t, "app")
	lookup := h.fetched.Lookup(image.Sealed.Layers[0].DiffID)
	remove(t, lookup)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere.erofs")
	writeFile(t, elsewhere, []byte("not what was sealed"))
	if err := os.Symlink(elsewhere, lookup); err != nil {
		t.Fatal(err)
	}
	writeFile(t, h.fetched.Metadata(image.Sealed.Layers[0].DiffID), []byte(`{"roothash":"00","hashoffset":8192}`))
	bound, err := h.binder(image.Digest).bind(t.Context(), "k8s.io/1/c", lowers(h.fetched, image.Sealed.Layers))
	if err != nil {
		t.Fatal(err)
	}
	if want := []mount.Mount{wantLayer(h.fetched, image.Sealed.Layers[0])}; !reflect.DeepEqual(bound, want) {
		t.Errorf("got  %+v\nwant %+v", bound, want)
	}
}

// A merged file system in a snapshot's folder stands for many layers, which its options name.
func TestBindRefusesMergedLayers(t *testing.T) {
	h := newHost(t)
	image := h.sealed(t, "base", "app")
	merged := mount.Mount{Type: "erofs", Source: "/var/lib/containerd/snapshots/2/fsmeta.erofs", Options: []string{"ro", "loop"}}
	for _, layer := range image.Sealed.Layers {
		merged.Options = append(merged.Options, "device="+h.fetched.Lookup(layer.DiffID))
	}
	if _, err := h.binder(image.Digest).bind(t.Context(), "k8s.io/1/c", []mount.Mount{merged, overlay}); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Error(err)
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}
