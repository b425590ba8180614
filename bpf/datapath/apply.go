package datapath

import (
	"encoding/hex"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL, which returns after an RCU grace period. Every program runs inside one.
const membarrierGlobal = 1

// Apply puts a policy in force, atomically for all endpoints of the host. The next packet of a flow that the policy no
// longer allows is dropped. On an error the previous policy stays in force.
func (d *Datapath) Apply(policy *Policy) error {
	entries, err := translate(policy)
	if err != nil {
		return err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if err := d.activate(entries, policy.Hash); err != nil {
		return fmt.Errorf("policy %.12s: %w", policy.Hash, err)
	}
	d.desired.policy, d.desired.tables = policy, entries
	return nil
}

// activate fills the maps of the slot that is not in use, and switches to it.
func (d *Datapath) activate(entries *tables, hash string) error {
	active, err := d.generation()
	if err != nil {
		return err
	}
	next := active + 1
	if next == 0 {
		// Zero means that there is no policy; after it comes two, so that the slots alternate.
		next = 2
	}
	slot := next & 1
	spec, err := loadDatapath()
	if err != nil {
		return err
	}
	rules, err := fill(spec.Maps["rules"].InnerMap, entries.rules)
	if err != nil {
		return err
	}
	defer func() { _ = rules.Close() }()
	ports, err := fill(spec.Maps["ports"].InnerMap, entries.ports)
	if err != nil {
		return err
	}
	defer func() { _ = ports.Close() }()
	prefixes, err := fill(spec.Maps["prefixes"].InnerMap, entries.prefixes)
	if err != nil {
		return err
	}
	defer func() { _ = prefixes.Close() }()

	sum, err := hex.DecodeString(hash)
	if err != nil || len(sum) != 32 {
		return fmt.Errorf("hash %q is no SHA-256", hash)
	}
	for _, table := range []struct {
		outer *ebpf.Map
		value any
	}{{d.objects.Rules, rules}, {d.objects.Ports, ports}, {d.objects.Prefixes, prefixes}, {d.objects.PolicyHashes, sum}} {
		if err := table.outer.Put(slot, table.value); err != nil {
			return err
		}
	}
	if err := d.objects.Generation.Put(uint32(0), next); err != nil {
		return err
	}
	return d.retire(active & 1)
}

// retire frees the maps of a slot when no program runs any more that chose the slot before the switch.
func (d *Datapath) retire(slot uint32) error {
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		return fmt.Errorf("wait for packets on their way: membarrier: %w", errno)
	}
	for _, outer := range []*ebpf.Map{d.objects.Rules, d.objects.Ports, d.objects.Prefixes} {
		if err := ignoreNotFound(outer.Delete(slot)); err != nil {
			return err
		}
	}
	return nil
}

func (d *Datapath) generation() (generation uint32, err error) {
	return generation, d.objects.Generation.Lookup(uint32(0), &generation)
}

// fill creates a map of exactly the size of its content.
func fill[Key comparable, Value any](template *ebpf.MapSpec, entries map[Key]Value) (*ebpf.Map, error) {
	spec := template.Copy()
	spec.MaxEntries = max(1, uint32(len(entries)))
	created, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, err
	}
	if err := putAll(created, entries); err != nil {
		_ = created.Close()
		return nil, err
	}
	return created, nil
}

// batch is how many entries one system call writes.
const batch = 4096

func putAll[Key comparable, Value any](to *ebpf.Map, entries map[Key]Value) error {
	keys, values := make([]Key, 0, batch), make([]Value, 0, batch)
	flush := func() error {
		if len(keys) == 0 {
			return nil
		}
		_, err := to.BatchUpdate(keys, values, nil)
		keys, values = keys[:0], values[:0]
		return err
	}
	for key, value := range entries {
		keys, values = append(keys, key), append(values, value)
		if len(keys) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func getAll[Key comparable, Value any](from *ebpf.Map) (map[Key]Value, error) {
	entries := map[Key]Value{}
	var key Key
	var value Value
	iterator := from.Iterate()
	for iterator.Next(&key, &value) {
		entries[key] = value
	}
	return entries, iterator.Err()
}
