package images

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	"github.com/palisade-host/palisade/hosts/seal"
)

// Retain removes the images that are not kept; see ImageStoreService.RetainImages.
func (r *Role) Retain(keep, candidates []string) (removed []string, bytes int64, err error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	store := r.options.Store
	present, err := digests(filepath.Join(string(store), "seals"), ".json")
	if err != nil {
		return nil, 0, err
	}
	recorded, err := r.records.all()
	if err != nil {
		return nil, 0, err
	}
	images := slices.Compact(slices.Sorted(slices.Values(append(present, recorded...))))
	kept := map[string]bool{}
	for _, digest := range images {
		names := append([]string{digest}, r.digestsOf(digest)...)
		named := func(list []string) bool {
			return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(list, name) })
		}
		if r.busy[digest] > 0 || named(keep) || len(candidates) > 0 && !named(candidates) {
			kept[digest] = true
			continue
		}
		// The seal is removed first, because an image without a seal does not run.
		for _, file := range []string{store.Seal(digest), r.records.imageFile(digest)} {
			if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
				return removed, 0, err
			}
		}
		removed = append(removed, digest)
	}
	if err := service.SyncDirectory(filepath.Join(string(store), "seals")); err != nil {
		return removed, 0, err
	}
	bytes, err = r.removeLayers(kept)
	if err != nil {
		return removed, bytes, err
	}
	if len(removed) > 0 {
		r.options.Logger.Info("removed images from the store", "images", removed, "bytes", bytes)
	}
	return removed, bytes, r.removeDocuments(kept)
}

// digestsOf returns the digests by which an image was requested.
func (r *Role) digestsOf(digest string) []string {
	var result []string
	for _, text := range r.records.load(digest).References {
		if ref, err := parseReference(text); err == nil {
			result = append(result, ref.Digest)
		}
	}
	return result
}

// removeLayers removes the files of layers that no kept image has. Files of running containers stay readable for the
// kernel.
func (r *Role) removeLayers(kept map[string]bool) (int64, error) {
	store := r.options.Store
	layers := map[string]seal.Layer{}
	byDiffID := map[string]seal.Layer{}
	for digest := range kept {
		content, err := os.ReadFile(store.Seal(digest))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		// The revocations do not matter here: a container with a revoked seal may still run.
		manifest, err := seal.Open(content, r.options.Trust.Keys)
		if err != nil {
			r.options.Logger.Warn("layers are kept, because it is not known which of them a seal uses", "image", digest, "error", err)
			return 0, nil
		}
		for _, layer := range manifest.Layers {
			layers[layer.RootHash] = layer
			byDiffID[layer.DiffID] = layer
		}
	}
	bytes, err := r.removeBlobs(layers)
	if err != nil {
		return bytes, err
	}
	return bytes, r.removeLookups(byDiffID)
}

func (r *Role) removeBlobs(kept map[string]seal.Layer) (bytes int64, err error) {
	folder := filepath.Join(string(r.options.Store), "blobs")
	entries, err := os.ReadDir(folder)
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		rootHash := strings.TrimSuffix(entry.Name(), filepath.Ext(entry.Name()))
		if _, used := kept[rootHash]; used || r.busy[rootHash] > 0 || strings.HasPrefix(entry.Name(), temporaryPrefix) {
			continue
		}
		if info, err := entry.Info(); err == nil {
			bytes += info.Size()
		}
		if err := os.Remove(filepath.Join(folder, entry.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return bytes, err
		}
	}
	return bytes, service.SyncDirectory(folder)
}

// removeLookups removes the diffID names of removed layers. When a kept layer has the same diffID, the name is linked
// to that layer.
func (r *Role) removeLookups(kept map[string]seal.Layer) error {
	root := filepath.Join(string(r.options.Store), "sha256")
	folders, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	lookups := map[string]os.FileInfo{}
	for _, folder := range folders {
		diffIDs, err := digests(filepath.Join(root, folder.Name()), ".erofs")
		if err != nil {
			return err
		}
		for _, diffID := range diffIDs {
			if info, err := os.Stat(r.options.Store.Lookup(diffID)); err == nil {
				lookups[diffID] = info
			}
		}
	}
	// Blobs are listed after the lookups, because a fetch creates a lookup after its blob.
	blobs, err := r.blobs()
	if err != nil {
		return err
	}
	for diffID, lookup := range lookups {
		// The number of links does not decide, because containerd links to the file as well.
		if slices.ContainsFunc(blobs, func(blob os.FileInfo) bool { return os.SameFile(blob, lookup) }) {
			continue
		}
		if layer, used := kept[diffID]; used {
			if err := r.link(layer); err != nil {
				return err
			}
			continue
		}
		for _, file := range []string{r.options.Store.Metadata(diffID), r.options.Store.Lookup(diffID)} {
			if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// blobs returns the files of the layers in the store.
func (r *Role) blobs() ([]os.FileInfo, error) {
	entries, err := os.ReadDir(filepath.Join(string(r.options.Store), "blobs"))
	if err != nil {
		return nil, err
	}
	var found []os.FileInfo
	for _, entry := range entries {
		// A file that a fetch renames meanwhile is new, so it may be missing here.
		if info, err := entry.Info(); err == nil {
			found = append(found, info)
		}
	}
	return found, nil
}

// removeDocuments removes documents that belong to no kept image.
func (r *Role) removeDocuments(kept map[string]bool) error {
	// Documents that a running fetch has just read are not in a record yet.
	if len(r.busy) > 0 {
		return nil
	}
	used := map[string]bool{}
	for digest := range kept {
		for _, document := range r.records.load(digest).Documents {
			used[document] = true
		}
	}
	present, err := digests(r.records.documents(), "")
	if err != nil {
		return err
	}
	for _, digest := range present {
		if used[digest] {
			continue
		}
		if err := os.Remove(r.records.documentFile(digest)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
