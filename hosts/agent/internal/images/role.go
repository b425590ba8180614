// Package images is the role that fetches sealed images. It downloads an image's seal and layers from a registry into
// the store, and holds the policies that decide which images are accepted. The role is not trusted for integrity:
// containerd verifies the seal again at each mount, and the kernel verifies each layer's signature.
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

// temporaryPrefix begins the names of files that are being written. At its start the role removes those of an
// interrupted run.
const temporaryPrefix = "."

// Options of the role.
type Options struct {
	// DataDirectory holds policies and records.
	DataDirectory string
	// Store holds layers and seals.
	Store seal.Store
	// Trust holds the trusted keys of seals, and revocations.
	Trust seal.Trust
	// Stall is how long a registry may make no progress: send no whole document, or less than minimumProgress of a blob.
	Stall time.Duration
	// Available returns how many bytes can be written below a path.
	Available func(path string) (uint64, error)
	Logger    *slog.Logger
}

// Role is the state of the role images.
type Role struct {
	options  Options
	records  *recordStore
	policies *policies
	// images and layers serialize fetches, so that two fetches of the same content download it once.
	images locks
	layers locks

	// mutex serializes removals and the start of fetches.
	mutex sync.Mutex
	// busy counts the fetches that need a digest or root hash, which must not be removed meanwhile.
	busy map[string]int
}

// New creates the store's folders and removes what an interrupted run left behind.
func New(options Options) (*Role, error) {
	records, err := openRecords(options.DataDirectory)
	if err != nil {
		return nil, err
	}
	policies, err := openPolicies(filepath.Join(options.DataDirectory, "policies"), options.Logger)
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

// makeFolder creates a folder that other roles and containerd can read, whatever the umask.
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

// protect prevents the removal of a digest or root hash until release is called.
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
