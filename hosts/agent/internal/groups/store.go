package groups

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/palisade-host/palisade/hosts/agent/internal/records"
)

const recordSuffix = ".json"

// store keeps one record per group.
type store struct {
	folder *records.Folder[*record]
}

func openStore(directory string, logger *slog.Logger) (*store, error) {
	folder, err := records.Open(directory, recordSuffix, decodeRecord, logger)
	if err != nil {
		return nil, err
	}
	return &store{folder}, nil
}

func (s *store) save(r *record) error {
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.folder.Write(r.spec.GetName(), content)
}

func (s *store) remove(name string) error {
	return s.folder.Remove(name)
}

// decodeRecord refuses a record that Apply would not have written. Its errors do not repeat the content, which may be a
// secret.
func decodeRecord(name string, content []byte) (*record, error) {
	r := &record{}
	var syntax *json.SyntaxError
	err := json.Unmarshal(content, r)
	if errors.As(err, &syntax) {
		return nil, fmt.Errorf("it is no valid JSON from byte %d of %d on", syntax.Offset, len(content))
	}
	if err != nil {
		return nil, errors.New("it is no record of a group")
	}
	if r.spec.GetName() != name {
		return nil, fmt.Errorf("it holds the group %q", r.spec.GetName())
	}
	return r, r.validate()
}
