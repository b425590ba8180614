package datapath

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
)

// Status is what the kernel holds, compared with what was declared.
type Status struct {
	// Generation counts the policies; zero: there is none, and nothing passes.
	Generation uint32 `json:"generation"`
	// PolicyHash is that of the compiled policy that was written last.
	PolicyHash string `json:"policyHash"`
	// EntriesHash is computed from the map entries that packets are judged by.
	EntriesHash string `json:"entriesHash"`
	// PolicyIntact says that the kernel holds the policy that was applied last, by both hashes.
	PolicyIntact bool `json:"policyIntact"`
	Endpoints    int  `json:"endpoints"`
	// Instructions is how many the kernel's verifier looked at, for each program. Its limit is a million.
	Instructions map[string]uint32 `json:"instructions"`
	// Problems are differences from what was declared, each with the name of the thing. Repair removes them.
	Problems []string `json:"problems"`
}

// Status reads everything back from the kernel.
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
	add := func(format string, arguments ...any) {
		status.Problems = append(status.Problems, fmt.Sprintf(format, arguments...))
	}
	if d.desired.policy != nil {
		if status.PolicyHash != d.desired.policy.Hash {
			add("policy: %.12s is in the kernel, %.12s was applied", status.PolicyHash, d.desired.policy.Hash)
		} else if status.EntriesHash != d.desired.tables.hash() {
			add("policy %.12s: its map entries were changed", status.PolicyHash)
		} else {
			status.PolicyIntact = true
		}
	}
	for name, path := range d.mapPins() {
		if _, err := os.Stat(path); err != nil {
			add("map %s: its pin is gone", name)
		}
	}
	for where := range d.wantedLinks() {
		existing, known := d.links[where]
		if !known || !existing.attached(where.ifindex) {
			add("interface %d: %s is not attached", where.ifindex, where.hook)
		} else if _, err := os.Stat(existing.path); err != nil {
			add("interface %d: the pin of %s is gone", where.ifindex, where.hook)
		}
	}
	for _, each := range d.wantedEntries() {
		if !each.present() {
			add("%s: its map entry is not as declared", each.name)
		}
	}
	slices.Sort(status.Problems)
	return status, nil
}

// Repair restores what was declared, and returns what it found wrong.
func (d *Datapath) Repair() ([]string, error) {
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
	for where := range d.wantedLinks() {
		failures = append(failures, d.attach(where))
	}
	for _, each := range d.wantedEntries() {
		if !each.present() {
			failures = append(failures, each.put())
		}
	}
	if d.desired.policy != nil && !status.PolicyIntact {
		failures = append(failures, d.activate(d.desired.tables, d.desired.policy.Hash))
	}
	return status.Problems, errors.Join(failures...)
}

// repin pins a map whose pin was removed behind the library's back.
func repin(of *ebpf.Map, path string) error {
	if err := of.Unpin(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return of.Pin(path)
}

// Prune removes entries and pins of what was not declared: the things of an agent before this one that are gone. Call it
// when everything is declared.
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
	wantedPins := map[string]bool{}
	for where := range d.wantedLinks() {
		wantedPins[filepath.Base(d.linkPath(where))] = true
	}
	for _, pin := range pins {
		if !wantedPins[pin.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(d.pins, "links", pin.Name())))
		}
	}
	return errors.Join(err, readError)
}

func prune[Key comparable, Value any](in *ebpf.Map, keep map[Key]bool) error {
	entries, err := getAll[Key, Value](in)
	for key := range entries {
		if !keep[key] {
			err = errors.Join(err, absent(in.Delete(key)))
		}
	}
	return err
}

// wantedEntry is a map entry that was declared.
type wantedEntry struct {
	name    string
	present func() bool
	put     func() error
}

func wanted[Value comparable](name string, in *ebpf.Map, key any, value Value) wantedEntry {
	return wantedEntry{
		name: name,
		present: func() bool {
			var found Value
			return in.Lookup(key, &found) == nil && found == value
		},
		put: func() error { return in.Put(key, value) },
	}
}

func (d *Datapath) wantedEntries() (entries []wantedEntry) {
	for _, endpoint := range d.desired.endpoints {
		name := fmt.Sprintf("endpoint %q", endpoint.Name)
		entries = append(entries, wanted(name, d.objects.Interfaces, uint32(endpoint.Interface), endpoint.interfaceEntry()))
		for _, address := range endpoint.addresses() {
			entries = append(entries, wanted(name, d.objects.Endpoints, toAddress(address), endpoint.entry()))
		}
	}
	for address := range d.desired.hosts {
		entries = append(entries, wanted("host "+address.String(), d.objects.Endpoints, toAddress(address), datapathEndpoint{Identity: identityHost}))
	}
	for address, name := range d.desired.remotes {
		entries = append(entries, wanted("remote "+address.String(), d.objects.Endpoints, toAddress(address), datapathEndpoint{Subject: subjectOf(name)}))
	}
	for _, device := range d.desired.devices {
		entry := datapathDevice{MasqueradeIpv4: toAddress(device.MasqueradeIPv4), MasqueradeIpv6: toAddress(device.MasqueradeIPv6)}
		entries = append(entries, wanted(fmt.Sprintf("device %d", device.Interface), d.objects.Devices, uint32(device.Interface), entry))
	}
	for _, port := range d.desired.published {
		name := fmt.Sprintf("published port %d", port.Port)
		entries = append(entries, wanted(name, d.objects.PublishedPorts, port.entryKey(), port.entry()))
	}
	return entries
}

func (d *Datapath) wantedLinks() map[attachment]bool {
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

// readTables reads the entries of a slot; a slot without maps has none.
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
