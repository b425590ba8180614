package datapath

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// Status is the state of the kernel, compared with what was declared.
type Status struct {
	// Generation counts the applied policies. Zero means that there is none, and nothing passes.
	Generation uint32 `json:"generation"`
	// PolicyHash is that of the compiled policy that was written last.
	PolicyHash string `json:"policyHash"`
	// EntriesHash is computed from the map entries that decide about packets.
	EntriesHash string `json:"entriesHash"`
	// PolicyIntact means that both hashes are those of the policy that was applied last.
	PolicyIntact bool `json:"policyIntact"`
	Endpoints    int  `json:"endpoints"`
	// Instructions is how many instructions the kernel's verifier processed for each program. Its limit is a million.
	Instructions map[string]uint32 `json:"instructions"`
	// Problems are the differences from what was declared, sorted by their descriptions. Repair removes them.
	Problems []Problem `json:"problems"`
}

// Status reads the state of the kernel.
func (d *Datapath) Status() (Status, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.status()
}

func (d *Datapath) status() (Status, error) {
	status := Status{Endpoints: len(d.desired.endpoints), Instructions: map[string]uint32{}}
	for _, hook := range allHooks {
		info, err := d.program(hook).Info()
		if err != nil {
			return status, err
		}
		status.Instructions[string(hook)], _ = info.VerifiedInstructions()
	}
	var err error
	if status.Generation, err = d.generation(); err != nil {
		return status, err
	}
	entries, err := d.readTables(status.Generation & 1)
	if err != nil {
		return status, err
	}
	status.EntriesHash = entries.hash()
	var sum [32]byte
	if err := d.objects.PolicyHashes.Lookup(status.Generation&1, &sum); err != nil {
		return status, err
	}
	if status.Generation != 0 {
		status.PolicyHash = hex.EncodeToString(sum[:])
	}
	if d.desired.policy != nil {
		applied := d.desired.policy.Hash
		if status.PolicyHash != applied {
			status.add(Problem{Kind: PolicyReplaced, AppliedHash: applied, FoundHash: status.PolicyHash})
		} else if status.EntriesHash != d.desired.tables.hash() {
			status.add(Problem{Kind: PolicyEntriesChanged, AppliedHash: applied, FoundHash: status.PolicyHash})
		} else {
			status.PolicyIntact = true
		}
	}
	for name, path := range d.mapPins() {
		if _, err := os.Stat(path); err != nil {
			status.add(Problem{Kind: MapPinMissing, Map: name})
		}
	}
	for where := range d.desiredLinks() {
		existing, known := d.links[where]
		if !known || !existing.attached(where.ifindex) {
			status.add(Problem{Kind: ProgramDetached, Interface: where.ifindex, Program: string(where.hook)})
		} else if _, err := os.Stat(existing.path); err != nil {
			status.add(Problem{Kind: LinkPinMissing, Interface: where.ifindex, Program: string(where.hook)})
		}
	}
	for _, entry := range d.desiredEntries() {
		if !entry.present() {
			status.add(entry.problem)
		}
	}
	slices.SortFunc(status.Problems, func(a, b Problem) int { return strings.Compare(a.String(), b.String()) })
	return status, nil
}

func (s *Status) add(problem Problem) {
	s.Problems = append(s.Problems, problem)
}

// Repair restores what was declared, and returns the problems that it found.
func (d *Datapath) Repair() ([]Problem, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	status, err := d.status()
	if err != nil || len(status.Problems) == 0 {
		return nil, err
	}
	var failures []error
	for name, path := range d.mapPins() {
		if _, err := os.Stat(path); err != nil {
			failures = append(failures, repin(d.maps()[name], path))
		}
	}
	for where := range d.desiredLinks() {
		failures = append(failures, d.attach(where))
	}
	for _, entry := range d.desiredEntries() {
		if !entry.present() {
			failures = append(failures, entry.put())
		}
	}
	if d.desired.policy != nil && !status.PolicyIntact {
		failures = append(failures, d.activate(d.desired.tables, d.desired.policy.Hash))
	}
	return status.Problems, errors.Join(failures...)
}

// repin pins a map again whose pin was removed by others.
func repin(of *ebpf.Map, path string) error {
	if err := of.Unpin(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return of.Pin(path)
}

// Prune removes entries and pins that are not declared, such as those of a previous agent. Call it when everything is
// declared.
func (d *Datapath) Prune() error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	ifindexes, devices := map[uint32]bool{}, map[uint32]bool{}
	addresses, ports := map[datapathAddress]bool{}, map[datapathPublishedKey]bool{}
	for _, endpoint := range d.desired.endpoints {
		ifindexes[uint32(endpoint.Interface)] = true
		for _, address := range endpoint.addresses() {
			addresses[toAddress(address)] = true
		}
	}
	for address := range d.desired.hosts {
		addresses[toAddress(address)] = true
	}
	for address := range d.desired.remotes {
		addresses[toAddress(address)] = true
	}
	for ifindex := range d.desired.devices {
		devices[uint32(ifindex)] = true
	}
	for _, port := range d.desired.published {
		ports[port.entryKey()] = true
	}
	err := errors.Join(
		prune[uint32, datapathDevice](d.objects.Devices, devices),
		prune[uint32, datapathInterface](d.objects.Interfaces, ifindexes),
		prune[datapathAddress, datapathEndpoint](d.objects.Endpoints, addresses),
		prune[datapathPublishedKey, datapathPublished](d.objects.PublishedPorts, ports),
	)
	pins, readError := os.ReadDir(filepath.Join(d.pins, "links"))
	desiredPins := map[string]bool{}
	for where := range d.desiredLinks() {
		desiredPins[filepath.Base(d.linkPath(where))] = true
	}
	for _, pin := range pins {
		if !desiredPins[pin.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(d.pins, "links", pin.Name())))
		}
	}
	return errors.Join(err, readError)
}

func prune[Key comparable, Value any](in *ebpf.Map, keep map[Key]bool) error {
	entries, err := getAll[Key, Value](in)
	for key := range entries {
		if !keep[key] {
			err = errors.Join(err, ignoreNotFound(in.Delete(key)))
		}
	}
	return err
}

// mapEntry is a key of a map and the value that it should have.
type mapEntry struct {
	present func() bool
	put     func() error
}

func entryOf[Value comparable](in *ebpf.Map, key any, value Value) mapEntry {
	return mapEntry{
		present: func() bool {
			var found Value
			return in.Lookup(key, &found) == nil && found == value
		},
		put: func() error { return in.Put(key, value) },
	}
}

// desiredEntry is a map entry that was declared.
type desiredEntry struct {
	mapEntry
	// problem is reported when the map holds another value or none.
	problem Problem
}

func (d *Datapath) desiredEntries() (entries []desiredEntry) {
	for _, endpoint := range d.desired.endpoints {
		problem := Problem{Kind: EndpointEntryWrong, Endpoint: endpoint.Name}
		entries = append(entries, desiredEntry{entryOf(d.objects.Interfaces, uint32(endpoint.Interface), endpoint.interfaceEntry()), problem})
		for _, address := range endpoint.addresses() {
			entries = append(entries, desiredEntry{entryOf(d.objects.Endpoints, toAddress(address), endpoint.entry()), problem})
		}
	}
	for address := range d.desired.hosts {
		problem := Problem{Kind: HostEntryWrong, Address: address}
		entry := datapathEndpoint{Identity: identityHost}
		entries = append(entries, desiredEntry{entryOf(d.objects.Endpoints, toAddress(address), entry), problem})
	}
	for address, name := range d.desired.remotes {
		problem := Problem{Kind: RemoteEntryWrong, Address: address}
		entry := datapathEndpoint{Subject: subjectOf(name)}
		entries = append(entries, desiredEntry{entryOf(d.objects.Endpoints, toAddress(address), entry), problem})
	}
	for _, device := range d.desired.devices {
		problem := Problem{Kind: DeviceEntryWrong, Interface: device.Interface}
		entry := datapathDevice{MasqueradeIpv4: toAddress(device.MasqueradeIPv4), MasqueradeIpv6: toAddress(device.MasqueradeIPv6)}
		entries = append(entries, desiredEntry{entryOf(d.objects.Devices, uint32(device.Interface), entry), problem})
	}
	for _, port := range d.desired.published {
		problem := Problem{Kind: PublishedEntryWrong, Published: port}
		entries = append(entries, desiredEntry{entryOf(d.objects.PublishedPorts, port.entryKey(), port.entry()), problem})
	}
	return entries
}

func (d *Datapath) desiredLinks() map[attachment]bool {
	links := map[attachment]bool{}
	for _, endpoint := range d.desired.endpoints {
		links[attachment{endpoint.Interface, hookFromContainer}] = true
		links[attachment{endpoint.Interface, hookToContainer}] = true
	}
	for ifindex := range d.desired.devices {
		links[attachment{ifindex, hookFromDevice}] = true
		links[attachment{ifindex, hookToDevice}] = true
	}
	return links
}

func (d *Datapath) maps() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		"interfaces": d.objects.Interfaces, "endpoints": d.objects.Endpoints, "devices": d.objects.Devices,
		"published_ports": d.objects.PublishedPorts, "generation": d.objects.Generation, "rules": d.objects.Rules,
		"ports": d.objects.Ports, "prefixes": d.objects.Prefixes, "policy_hashes": d.objects.PolicyHashes,
		"flows": d.objects.Flows, "pending_flows": d.objects.PendingFlows, "aliases": d.objects.Aliases,
		"pending_aliases": d.objects.PendingAliases, "fragments": d.objects.Fragments, "events": d.objects.Events,
		"lost_events": d.objects.LostEvents, "counts": d.objects.Counts,
	}
}

func (d *Datapath) mapPins() map[string]string {
	pins := map[string]string{}
	for name := range d.maps() {
		pins[name] = filepath.Join(d.pins, "maps", name)
	}
	return pins
}

// readTables reads the entries of a slot. A slot without maps has none.
func (d *Datapath) readTables(slot uint32) (*tables, error) {
	result := &tables{}
	var err error
	if result.rules, err = readInner[datapathRuleKey, datapathRule](d.objects.Rules, slot); err != nil {
		return nil, err
	}
	if result.ports, err = readInner[datapathPortKey, uint32](d.objects.Ports, slot); err != nil {
		return nil, err
	}
	result.prefixes, err = readInner[datapathPrefixKey, uint32](d.objects.Prefixes, slot)
	return result, err
}

func readInner[Key comparable, Value any](outer *ebpf.Map, slot uint32) (map[Key]Value, error) {
	var inner *ebpf.Map
	err := outer.Lookup(slot, &inner)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return map[Key]Value{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = inner.Close() }()
	return getAll[Key, Value](inner)
}
