package netd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

// store is what survives the role: who is connected, and the policy.
type store struct {
	// Attachments by container and interface.
	Attachments map[string]attachment `json:"attachments"`
	// Policy is the compiled policy, as it came.
	Policy json.RawMessage `json:"policy,omitempty"`

	path string
}

// attachment is one interface of one container.
type attachment struct {
	HostInterface string            `json:"hostInterface"`
	Endpoint      datapath.Endpoint `json:"endpoint"`
	// Published are the host's ports that lead to it.
	Published []datapath.Published `json:"published,omitempty"`
}

func readStore(folder string) (*store, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	s := &store{Attachments: map[string]attachment{}, path: filepath.Join(folder, "state.json")}
	content, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content, s); err != nil {
		return nil, fmt.Errorf("%s: %w; remove the file to start with no container connected", s.path, err)
	}
	return s, nil
}

func (s *store) write() error {
	content, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return service.WriteFile(s.path, content, 0o600)
}
