package netd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

// store is the state that survives a restart of the role: the connected containers and the policy.
type store struct {
	// Attachments are keyed by container and interface.
	Attachments map[string]attachment `json:"attachments"`
	// Policy is the compiled policy, as it was received.
	Policy json.RawMessage `json:"policy,omitempty"`

	path string
	// names are the endpoints' names by address. Readers need no lock, so they do not wait for a change in progress.
	names atomic.Pointer[map[netip.Addr]string]
}

// attachment is a connected interface of a container.
type attachment struct {
	HostInterface string            `json:"hostInterface"`
	Endpoint      datapath.Endpoint `json:"endpoint"`
	// Published are the host's ports that lead to the container.
	Published []datapath.Published `json:"published,omitempty"`
}

func readStore(folder string) (*store, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	s := &store{Attachments: map[string]attachment{}, path: filepath.Join(folder, "state.json")}
	content, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		s.indexNames()
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content, s); err != nil {
		return nil, fmt.Errorf("%s: %w; remove the file to start with no container connected", s.path, err)
	}
	s.indexNames()
	return s, nil
}

// nameOf returns the name of the endpoint with an address, or nothing.
func (s *store) nameOf(address netip.Addr) string {
	return (*s.names.Load())[address]
}

func (s *store) indexNames() {
	names := map[netip.Addr]string{}
	for _, attached := range s.Attachments {
		for _, address := range []netip.Addr{attached.Endpoint.IPv4, attached.Endpoint.IPv6} {
			if address.IsValid() {
				names[address] = attached.Endpoint.Name
			}
		}
	}
	s.names.Store(&names)
}

func (s *store) write() error {
	s.indexNames()
	content, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return service.WriteFile(s.path, content, 0o600)
}
