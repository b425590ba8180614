package groups

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

const recordSuffix = ".json"

// store keeps one file per group, with mode 0600 in a folder with mode 0700. Files are replaced atomically.
type store struct {
	directory string
}

func openStore(directory string) (*store, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	return &store{directory: directory}, nil
}

func (s *store) path(name string) string {
	return filepath.Join(s.directory, name+recordSuffix)
}

func (s *store) save(r *record) error {
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return service.WriteFile(s.path(r.spec.GetName()), content, 0o600)
}

func (s *store) remove(name string) error {
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return service.SyncDirectory(s.directory)
}

// load returns every record. A record that cannot be read is an error, because silently forgetting a group is worse
// than not starting.
func (s *store) load() ([]*record, error) {
	entries, err := os.ReadDir(s.directory)
	if err != nil {
		return nil, err
	}
	var records []*record
	for _, entry := range entries {
		name, found := strings.CutSuffix(entry.Name(), recordSuffix)
		if !found || strings.HasPrefix(name, ".") {
			continue
		}
		content, err := os.ReadFile(s.path(name))
		if err != nil {
			return nil, err
		}
		r := &record{}
		if err := json.Unmarshal(content, r); err != nil {
			return nil, fmt.Errorf("%s: %w", s.path(name), err)
		}
		if r.spec.GetName() != name {
			return nil, fmt.Errorf("%s: holds the group %q", s.path(name), r.spec.GetName())
		}
		records = append(records, r)
	}
	return records, nil
}
