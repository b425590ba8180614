package service

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// IsDiskFull reports whether an error means that nothing more can be written, for lack of space or by a quota.
func IsDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// WriteFile replaces a file atomically: after a crash or a power loss the file has either the old or the new content.
// An interrupted call may leave a temporary file in the folder, whose name begins with a dot.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	r := &replacement{path: path, content: content, mode: mode}
	defer r.discard()
	for _, step := range r.steps() {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// replacement is a file that is about to replace the one at path.
type replacement struct {
	path    string
	content []byte
	mode    os.FileMode
	// temporary is nil before it was created.
	temporary *os.File
}

// steps are what WriteFile does, in this order. Up to and without the rename the file at path is the old one.
func (r *replacement) steps() []func() error {
	return []func() error{r.create, r.chmod, r.write, r.sync, r.close, r.rename, r.syncDirectory}
}

func (r *replacement) create() (err error) {
	r.temporary, err = os.CreateTemp(filepath.Dir(r.path), "."+filepath.Base(r.path)+".*")
	return err
}

func (r *replacement) chmod() error {
	return r.temporary.Chmod(r.mode)
}

func (r *replacement) write() error {
	_, err := r.temporary.Write(r.content)
	return err
}

func (r *replacement) sync() error {
	return r.temporary.Sync()
}

func (r *replacement) close() error {
	return r.temporary.Close()
}

func (r *replacement) rename() error {
	return os.Rename(r.temporary.Name(), r.path)
}

func (r *replacement) syncDirectory() error {
	return SyncDirectory(filepath.Dir(r.path))
}

// discard removes what a failed call left. After a successful one there is nothing to remove.
func (r *replacement) discard() {
	if r.temporary != nil {
		_ = r.temporary.Close()
		_ = os.Remove(r.temporary.Name())
	}
}

// SyncDirectory makes renames and removals in a folder durable.
func SyncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	defer directory.Close()
	return directory.Sync()
}
