// Package records reads and writes folders of records: one file for each record, named after it. A record that is
// damaged, planted or edited is set aside and reported, so that it does not stop the role or the other records.
package records

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

const (
	// damagedFolder is where damaged records are kept, below the folder of the records.
	damagedFolder = "damaged"
	// settledSuffix ends the name of a damaged record that was declared again or deleted since. It is kept, but no
	// longer reported.
	settledSuffix = ".settled"
	// temporaryPrefix begins the names of files that service.WriteFile has not finished.
	temporaryPrefix = "."
	// maximumSize bounds a record in bytes. The largest are compiled network policies.
	maximumSize = 512 << 20
)

// Problem is a record that is not in use.
type Problem struct {
	// Name is that of the record.
	Name string
	// File is where the record is now.
	File string
	// Reason says why it is not in use.
	Reason string
	// Damaged is false when the record could not be read. It may be intact, and is read again.
	Damaged bool
}

// String describes the problem to an operator.
func (p Problem) String() string {
	if p.Damaged {
		return fmt.Sprintf("record %q is damaged and is kept at %s: %s; declare it again or delete it", p.Name, p.File, p.Reason)
	}
	return fmt.Sprintf("record %q cannot be read and is tried again: %s: %s", p.Name, p.File, p.Reason)
}

// Folder is a folder of records, with mode 0700 and files with mode 0600. It is safe for concurrent use.
type Folder[T any] struct {
	path, suffix string
	decode       func(name string, content []byte) (T, error)
	logger       *slog.Logger
	// read returns the content of a record.
	read func(path string) ([]byte, error)

	mutex sync.Mutex
	// problems are the records that are not in use, by name.
	problems map[string]Problem
}

// Open creates the folder if it does not exist. The files of records end with suffix. An error of decode means that a
// record is damaged, so decode also has to refuse what is valid JSON and no valid record of that name.
func Open[T any](path, suffix string, decode func(name string, content []byte) (T, error), logger *slog.Logger) (*Folder[T], error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	return &Folder[T]{path: path, suffix: suffix, decode: decode, logger: logger, read: readRegular, problems: map[string]Problem{}}, nil
}

// Load returns the valid records by name. It sets damaged ones aside, and removes what interrupted writes left.
func (f *Folder[T]) Load() (map[string]T, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return nil, err
	}
	f.loadDamaged()
	loaded := map[string]T{}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), temporaryPrefix) {
			if entry.Type().IsRegular() {
				// A file that remains is ignored, too.
				_ = os.Remove(filepath.Join(f.path, entry.Name()))
			}
			continue
		}
		if name, found := strings.CutSuffix(entry.Name(), f.suffix); found {
			f.loadOne(name, loaded)
		}
	}
	return loaded, nil
}

// Retry reads the records that could not be read before, and returns those that can be read now.
func (f *Folder[T]) Retry() map[string]T {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	loaded := map[string]T{}
	for name, problem := range f.problems {
		if !problem.Damaged {
			delete(f.problems, name)
			f.loadOne(name, loaded)
		}
	}
	return loaded
}

// loadOne adds a record to loaded, or to the problems. The caller holds the mutex.
func (f *Folder[T]) loadOne(name string, loaded map[string]T) {
	file := f.file(name)
	content, err := f.read(file)
	var damage *damageError
	switch {
	case errors.Is(err, os.ErrNotExist):
		return
	case errors.As(err, &damage):
		f.setAside(name, err)
		return
	case err != nil:
		// The disk fails, or has no memory for the read: that says nothing about the record.
		problem := Problem{Name: name, File: file, Reason: err.Error()}
		f.problems[name] = problem
		f.logger.Error("RecordUnreadable", "record", name, "file", file, "error", err)
		return
	}
	record, err := f.decode(name, content)
	if err != nil {
		f.setAside(name, err)
		return
	}
	loaded[name] = record
}

// setAside moves a damaged record out of the way and reports it. A record that cannot be moved, for example because the
// disk is full, stays where it is and is reported all the same. The caller holds the mutex.
func (f *Folder[T]) setAside(name string, reason error) {
	file, err := f.move(name, os.Rename)
	if err != nil {
		f.logger.Error("a damaged record is not set aside", "record", name, "error", err)
		file = f.file(name)
	}
	f.report(name, file, reason)
}

// Copy keeps a copy of a record of which a part is damaged, and reports it. The record itself stays in use.
func (f *Folder[T]) Copy(name string, reason error) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	// Records are replaced and never changed in place, so a second link keeps the present content.
	file, err := f.move(name, os.Link)
	if err != nil {
		return err
	}
	f.report(name, file, reason)
	return nil
}

func (f *Folder[T]) report(name, file string, reason error) {
	f.problems[name] = Problem{Name: name, File: file, Reason: reason.Error(), Damaged: true}
	f.logger.Error("RecordDamaged", "record", name, "file", file, "error", reason)
}

// move renames or links a record into the folder of damaged ones, under a name that is not taken.
func (f *Folder[T]) move(name string, move func(from, to string) error) (string, error) {
	folder := filepath.Join(f.path, damagedFolder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	for number := 1; ; number++ {
		target := filepath.Join(folder, name+f.suffix+"."+strconv.Itoa(number))
		if exists(target) || exists(target+settledSuffix) {
			continue
		}
		if err := move(f.file(name), target); err != nil {
			return "", err
		}
		// When this is lost at a power loss, the record is set aside again.
		return target, errors.Join(service.SyncDirectory(folder), service.SyncDirectory(f.path))
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// loadDamaged reports what an earlier run has set aside. The caller holds the mutex.
func (f *Folder[T]) loadDamaged() {
	folder := filepath.Join(f.path, damagedFolder)
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		// Valid records do not depend on it.
		f.logger.Error("records that were set aside are not known", "error", err)
	}
	for _, entry := range entries {
		name, found := f.damagedName(entry.Name())
		if !found {
			continue
		}
		file := filepath.Join(folder, entry.Name())
		problem := Problem{Name: name, File: file, Reason: "it was set aside by an earlier run", Damaged: true}
		content, err := f.read(file)
		if err == nil {
			_, err = f.decode(name, content)
		}
		if err != nil {
			problem.Reason = err.Error()
		}
		f.problems[name] = problem
	}
}

// damagedName returns the name of the record that a file of the folder of damaged ones held.
func (f *Folder[T]) damagedName(file string) (string, bool) {
	index := strings.LastIndexByte(file, '.')
	if index < 0 || strings.HasSuffix(file, settledSuffix) {
		return "", false
	}
	return strings.CutSuffix(file[:index], f.suffix)
}

// Write stores a record atomically. It settles what was reported of it before.
func (f *Folder[T]) Write(name string, content []byte) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if err := f.settle(name); err != nil {
		return err
	}
	return service.WriteFile(f.file(name), content, 0o600)
}

// Update stores a record atomically, and keeps what was reported of it.
func (f *Folder[T]) Update(name string, content []byte) error {
	return service.WriteFile(f.file(name), content, 0o600)
}

// Remove deletes a record. It settles what was reported of it before. It is no error when there is no such record.
func (f *Folder[T]) Remove(name string) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if err := f.settle(name); err != nil {
		return err
	}
	if err := os.Remove(f.file(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return service.SyncDirectory(f.path)
}

// settle ends the report of a damaged record, and keeps its file. The caller holds the mutex.
func (f *Folder[T]) settle(name string) error {
	problem, found := f.problems[name]
	if !found {
		return nil
	}
	if problem.Damaged && problem.File == f.file(name) {
		// It could not be moved before, and must not be overwritten.
		if _, err := f.move(name, os.Rename); err != nil {
			return err
		}
	}
	folder := filepath.Join(f.path, damagedFolder)
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if damaged, found := f.damagedName(entry.Name()); found && damaged == name {
			file := filepath.Join(folder, entry.Name())
			if err := os.Rename(file, file+settledSuffix); err != nil {
				return err
			}
		}
	}
	delete(f.problems, name)
	return nil
}

// Problems returns the records that are not in use, sorted by name.
func (f *Folder[T]) Problems() []Problem {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	result := make([]Problem, 0, len(f.problems))
	for _, problem := range f.problems {
		result = append(result, problem)
	}
	slices.SortFunc(result, func(a, b Problem) int { return cmp.Compare(a.Name, b.Name) })
	return result
}

// Problem returns what is wrong with a record.
func (f *Folder[T]) Problem(name string) (problem Problem, found bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	problem, found = f.problems[name]
	return problem, found
}

func (f *Folder[T]) file(name string) string {
	return filepath.Join(f.path, name+f.suffix)
}

// damageError is an error of a file that cannot be a record, whatever its content.
type damageError struct {
	text string
}

func (e *damageError) Error() string {
	return e.text
}

// readRegular reads a regular file. It does not follow symbolic links and does not wait for a pipe's other end, because
// anything may have been planted in the folder.
func readRegular(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, &damageError{"it is no regular file"}
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &damageError{"it is no regular file"}
	}
	if info.Size() > maximumSize {
		return nil, &damageError{fmt.Sprintf("it has %d bytes, more than %d", info.Size(), maximumSize)}
	}
	return io.ReadAll(file)
}
