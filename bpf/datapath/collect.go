package datapath

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func decode(data []byte, to any) error {
	return binary.Read(bytes.NewReader(data), binary.NativeEndian, to)
}

// now returns the time of the programs' clock.
func now() (time.Duration, error) {
	var at unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &at)
	return time.Duration(at.Nano()), err
}

// FlowCounts counts the flows in the kernel, including expired ones that Collect has not removed yet.
type FlowCounts struct {
	Established, Pending int
}

// Collect removes expired established flows, and the masqueraded tuples whose flow is gone. It need not remove
// half-open flows, because new ones replace old ones. Call it every few seconds. Packets never match an expired flow,
// so only memory depends on the interval.
func (d *Datapath) Collect() (removed int, err error) {
	at, err := now()
	if err != nil {
		return 0, err
	}
	var key datapathTuple
	var flow datapathFlow
	var expired []datapathTuple
	flows := d.objects.Flows.Iterate()
	for flows.Next(&key, &flow) {
		if flow.Expires <= uint64(at) {
			expired = append(expired, key)
		}
	}
	if err := flows.Err(); err != nil {
		return 0, err
	}
	for _, key := range expired {
		if err := ignoreNotFound(d.objects.Flows.Delete(key)); err != nil {
			return removed, err
		}
		removed++
	}
	var alias datapathAlias
	var orphans []datapathTuple
	aliases := d.objects.Aliases.Iterate()
	for aliases.Next(&key, &alias) {
		if !d.ownerLives(key, alias) {
			orphans = append(orphans, key)
		}
	}
	if err := aliases.Err(); err != nil {
		return removed, err
	}
	for _, key := range orphans {
		if err := ignoreNotFound(d.objects.Aliases.Delete(key)); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// ownerLives reports whether the flow of a masqueraded tuple exists. The tuple is ordered and does not say which end is
// the host's, so the endpoint replaces each end in turn to form the flow's key.
func (d *Datapath) ownerLives(key datapathTuple, alias datapathAlias) bool {
	isICMP := key.Protocol == protocolNumbers["ICMP"] || key.Protocol == protocolNumbers["ICMPv6"]
	for _, remote := range []struct {
		address datapathAddress
		port    uint16
	}{{key.Source, key.SourcePort}, {key.Destination, key.DestinationPort}} {
		port := remote.port
		if isICMP {
			port = alias.Port
		}
		for _, candidate := range []datapathTuple{
			{Source: alias.Address, SourcePort: alias.Port, Destination: remote.address, DestinationPort: port, Protocol: key.Protocol},
			{Source: remote.address, SourcePort: port, Destination: alias.Address, DestinationPort: alias.Port, Protocol: key.Protocol},
		} {
			var flow datapathFlow
			for _, flows := range []*ebpf.Map{d.objects.Flows, d.objects.PendingFlows} {
				if flows.Lookup(candidate, &flow) == nil {
					return true
				}
			}
		}
	}
	return false
}

// CountFlows counts the flows. It reads all of them.
func (d *Datapath) CountFlows() (counts FlowCounts, err error) {
	for _, counted := range []struct {
		from *ebpf.Map
		to   *int
	}{{d.objects.Flows, &counts.Established}, {d.objects.PendingFlows, &counts.Pending}} {
		entries, err := getAll[datapathTuple, datapathFlow](counted.from)
		if err != nil {
			return counts, err
		}
		*counted.to = len(entries)
	}
	return counts, nil
}
