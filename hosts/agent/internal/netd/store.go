package netd

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/hosts/agent/internal/records"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

// stateName is the name of the role's only record.
const stateName = "state"

// store is the state that survives a restart of the role: the connected containers and the policy.
type store struct {
	state
	folder *records.Folder[*state]
	logger *slog.Logger
	// unwritten means that the record on the disk still holds containers that are gone, because the disk was full.
	unwritten bool
	// names are the endpoints' names by address. Readers need no lock, so they do not wait for a change in progress.
	names atomic.Pointer[map[netip.Addr]string]
}

// state is the record.
type state struct {
	// Attachments are keyed by container and interface.
	Attachments map[string]attachment `json:"attachments"`
	// Policy is the compiled policy, as it was received.
	Policy json.RawMessage `json:"policy,omitempty"`
	// PolicyDamaged means that a policy may have been declared, and that it is not known. Nothing is allowed until a
	// policy is declared or withdrawn.
	PolicyDamaged bool `json:"policyDamaged,omitempty"`

	// damage says which parts of the record were not valid. The others are in use.
	damage error
}

// attachment is a connected interface of a container.
type attachment struct {
	HostInterface string            `json:"hostInterface"`
	Endpoint      datapath.Endpoint `json:"endpoint"`
	// Published are the host's ports that lead to the container.
	Published []datapath.Published `json:"published,omitempty"`
}

// validate refuses an attachment that was planted or edited.
func (a attachment) validate() error {
	switch endpoint := a.Endpoint; {
	case endpoint.Name == "":
		return errors.New("the endpoint has no name")
	case endpoint.Interface <= 0 || a.HostInterface == "":
		return errors.New("it has no interface")
	case !endpoint.IPv4.IsValid() && !endpoint.IPv6.IsValid():
		return errors.New("the endpoint has no address")
	case len(endpoint.MAC) != 6 || len(endpoint.HostMAC) != 6:
		return errors.New("the endpoint has no Ethernet addresses")
	}
	return nil
}

// readStore reads the record. A damaged one is set aside, and then every container is disconnected and nothing is
// allowed. Of one that is damaged in part, the other parts are used. A record that cannot be read is an error, because
// the role has no other to go on with, and the service manager starts it again.
func readStore(folder string, logger *slog.Logger) (*store, error) {
	opened, err := records.Open(folder, ".json", decodeState, logger)
	if err != nil {
		return nil, err
	}
	loaded, err := opened.Load()
	if err != nil {
		return nil, err
	}
	s := &store{folder: opened, logger: logger, state: state{Attachments: map[string]attachment{}}}
	problem, reported := opened.Problem(stateName)
	if found := loaded[stateName]; found != nil {
		s.state = *found
	} else if reported && !problem.Damaged {
		return nil, errors.New(problem.String())
	} else {
		s.PolicyDamaged = reported
	}
	s.indexNames()
	if s.damage != nil {
		// On a full disk neither of these works. The damaged record is then still there at the next start.
		if err := errors.Join(opened.Copy(stateName, s.damage), s.write()); err != nil {
			logger.Error("a damaged record is not set aside", "record", stateName, "error", err)
		}
	}
	return s, nil
}

// decodeState reads each part of the record on its own.
func decodeState(name string, content []byte) (*state, error) {
	if name != stateName {
		return nil, errors.New("the role has no record of that name")
	}
	var parts struct {
		Attachments   map[string]json.RawMessage `json:"attachments"`
		Policy        json.RawMessage            `json:"policy"`
		PolicyDamaged bool                       `json:"policyDamaged"`
	}
	if err := json.Unmarshal(content, &parts); err != nil {
		return nil, err
	}
	s := &state{Attachments: map[string]attachment{}, Policy: parts.Policy, PolicyDamaged: parts.PolicyDamaged}
	if len(s.Policy) > 0 {
		if _, err := datapath.ParsePolicy(s.Policy); err != nil {
			s.Policy, s.PolicyDamaged = nil, true
			s.damage = fmt.Errorf("policy: %w", err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(parts.Attachments)) {
		if err := s.addAttachment(key, parts.Attachments[key]); err != nil {
			s.damage = errors.Join(s.damage, fmt.Errorf("attachments[%q]: %w", key, err))
		}
	}
	return s, nil
}

// addAttachment refuses an attachment with the name or an address of another one.
func (s *state) addAttachment(key string, content json.RawMessage) error {
	var added attachment
	if err := json.Unmarshal(content, &added); err != nil {
		return err
	}
	if err := added.validate(); err != nil {
		return err
	}
	for other, present := range s.Attachments {
		a, b := added.Endpoint, present.Endpoint
		if a.Name == b.Name || a.IPv4.IsValid() && a.IPv4 == b.IPv4 || a.IPv6.IsValid() && a.IPv6 == b.IPv6 {
			return fmt.Errorf("its name or address is that of %q", other)
		}
	}
	s.Attachments[key] = added
	return nil
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

// write stores the state after a container was connected, so that its addresses are not assigned again after a restart.
func (s *store) write() error {
	s.indexNames()
	content, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	if err := s.folder.Update(stateName, content); err != nil {
		return err
	}
	s.unwritten = false
	return nil
}

// writeRemoval stores the state after a container was disconnected. On a full disk the record keeps the container until
// rewrite succeeds: its link is gone, so a restart of the role only forgets it once more. Otherwise neither the role
// could start on a full disk nor a container be removed, and the disk would stay full.
func (s *store) writeRemoval() error {
	err := s.write()
	if !service.IsDiskFull(err) {
		return err
	}
	if !s.unwritten {
		s.logger.Warn("the record of the role is not up to date", "error", err)
	}
	s.unwritten = true
	return nil
}

// rewrite stores what writeRemoval could not store, if there is anything.
func (s *store) rewrite() error {
	if !s.unwritten {
		return nil
	}
	return s.writeRemoval()
}

// writePolicy stores a policy that was declared or withdrawn, which ends the report of a damaged one.
func (s *store) writePolicy() error {
	content, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	return s.folder.Write(stateName, content)
}
