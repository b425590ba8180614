package datapath

import (
	"fmt"
	"net/netip"
)

// ProblemKind is what differs from the declaration.
type ProblemKind int

// Kinds of problems.
const (
	// PolicyReplaced means that the kernel holds another policy than the one that was applied last.
	PolicyReplaced ProblemKind = iota + 1
	// PolicyEntriesChanged means that the policy's map entries were changed after it was applied.
	PolicyEntriesChanged
	// MapPinMissing means that the pin of a map was removed.
	MapPinMissing
	// ProgramDetached means that a program is not attached to its interface.
	ProgramDetached
	// LinkPinMissing means that a program is attached, but the pin that keeps it without a process was removed.
	LinkPinMissing
	// EndpointEntryWrong means that a map entry of an endpoint is missing or differs. The other kinds of entries follow
	// it.
	EndpointEntryWrong
	// HostEntryWrong concerns an address of the host.
	HostEntryWrong
	// RemoteEntryWrong concerns an address of an endpoint on another host.
	RemoteEntryWrong
	// DeviceEntryWrong concerns an interface to other machines.
	DeviceEntryWrong
	// PublishedEntryWrong concerns a published port.
	PublishedEntryWrong
)

// Problem is one difference between the kernel and what was declared. Decide by Kind and the other fields, never by the
// text of String.
type Problem struct {
	Kind ProblemKind
	// AppliedHash is the hash of the policy that was applied last, FoundHash that of the policy in the kernel. Only the
	// kinds of policies have them.
	AppliedHash, FoundHash string
	// Map is the name of the map whose pin is missing.
	Map string
	// Interface is the index of the interface of a program, a link pin or a device.
	Interface int
	// Program is the name of the program that is detached, or whose pin is missing.
	Program string
	// Endpoint is the name of the endpoint whose entry is wrong.
	Endpoint string
	// Address is that of the host or of the remote endpoint whose entry is wrong.
	Address netip.Addr
	// Published is the port whose entry is wrong.
	Published Published
}

// String describes the problem for people, the affected object first.
func (p Problem) String() string {
	const wrongEntry = "its map entry is not as declared"
	switch p.Kind {
	case PolicyReplaced:
		return fmt.Sprintf("policy: %.12s is in the kernel, %.12s was applied", p.FoundHash, p.AppliedHash)
	case PolicyEntriesChanged:
		return fmt.Sprintf("policy %.12s: its map entries were changed", p.AppliedHash)
	case MapPinMissing:
		return fmt.Sprintf("map %s: its pin is gone", p.Map)
	case ProgramDetached:
		return fmt.Sprintf("interface %d: %s is not attached", p.Interface, p.Program)
	case LinkPinMissing:
		return fmt.Sprintf("interface %d: the pin of %s is gone", p.Interface, p.Program)
	case EndpointEntryWrong:
		return fmt.Sprintf("endpoint %q: %s", p.Endpoint, wrongEntry)
	case HostEntryWrong:
		return fmt.Sprintf("host %s: %s", p.Address, wrongEntry)
	case RemoteEntryWrong:
		return fmt.Sprintf("remote %s: %s", p.Address, wrongEntry)
	case DeviceEntryWrong:
		return fmt.Sprintf("device %d: %s", p.Interface, wrongEntry)
	case PublishedEntryWrong:
		return fmt.Sprintf("published port %d: %s", p.Published.Port, wrongEntry)
	}
	return fmt.Sprintf("unknown problem %d", p.Kind)
}

// MarshalText makes the JSON form of a problem its description: those who read it there are people and their tools.
func (p Problem) MarshalText() ([]byte, error) {
	return []byte(p.String()), nil
}
