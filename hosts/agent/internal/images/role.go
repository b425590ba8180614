// Package images is the role that brings sealed images onto the host: it fetches an image's seal and layers from a registry into
// the store, and holds the policies that say which images are accepted. The role is not trusted for integrity: containerd opens
// the seal again at each mount, and the kernel checks each layer's signature.
package images

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/palisade-host/palisade/hosts/seal"
)

// temporaryPrefix begins the names of files that are being written; those of an interrupted run are removed at the start.
const temporaryPrefix = "."

// Options of the role.
type Options struct {
	// DataDirectory holds policies and records.
	DataDirectory string
	// Store is where layers and seals go.
	Store seal.Store
	// Trust says whose seals are believed.
	Trust seal.Trust
	// Stall is how long a registry may be silent.
	Stall time.Duration
	// Available tells how many bytes may be written below a path.
	Available func(path string) (uint64, error)
	Logger    *slog.Logger
}

// Role keeps store, records and policies.
type Role struct {
	options  Options
	records  *records
	policies *policies
	// images and layers order fetches, so that two of one thing become one download.
	images locks
	layers locks

	// mutex orders removals and the beginning of fetches.
	mutex sync.Mutex
	// busy counts fetches by the digest or root hash of what must not be removed meanwhile.
	busy map[string]int
}

// New makes the store's folders and clears away what an interrupted run has left.
func New(options Options) (*Role, error) {
	records, err := openRecords(options.DataDirectory)
	if err != nil {
		return nil, err
	}
	policies, err := openPolicies(filepath.Join(options.DataDirectory, "policies"))
	if err != nil {
		return nil, err
	}
	for _, folder := range []string{"blobs", "sha256", "seals"} {
		if err := makeFolder(filepath.Join(string(options.Store), folder)); err != nil {
			return nil, err
		}
	}
	for _, folder := range []string{string(options.Store), options.DataDirectory} {
		if err := removeTemporary(folder); err != nil {
			return nil, err
		}
	}
	return &Role{options: options, records: records, policies: policies, busy: map[string]int{}}, nil
}

// makeFolder makes a folder that other roles and containerd can read, whatever the umask.
func makeFolder(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

func removeTemporary(folder string) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasPrefix(entry.Name(), temporaryPrefix) {
			return err
		}
		return root.Remove(path)
	})
}

// protect keeps something from being removed until release is called.
func (r *Role) protect(name string) (release func()) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.busy[name]++
	return func() {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		if r.busy[name]--; r.busy[name] == 0 {
			delete(r.busy, name)
		}
	}
}
