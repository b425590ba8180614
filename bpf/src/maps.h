/* All state. Maps are pinned by the loader under their names; sizes are set at load time. */
#pragma once

#include <bpf/bpf_helpers.h>

#include "packet.h"
#include "reason.h"
#include "types.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct interface);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct address);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct device);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct published_key);
	__type(value, struct published);
} published_ports SEC(".maps");

/* The number of the active policy; its lowest bit is the slot of the maps below. One write of four bytes replaces the
 * policy of the whole host, as every packet reads it once. Zero: there is no policy yet. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} generation SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(
	    values, struct {
		    __uint(type, BPF_MAP_TYPE_HASH);
		    __uint(max_entries, 1);
		    __uint(key_size, sizeof(struct rule_key));
		    __uint(value_size, sizeof(struct rule));
	    });
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(
	    values, struct {
		    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
		    __uint(map_flags, BPF_F_NO_PREALLOC);
		    __uint(max_entries, 1);
		    __uint(key_size, sizeof(struct port_key));
		    __uint(value_size, sizeof(__u32));
	    });
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(
	    values, struct {
		    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
		    __uint(map_flags, BPF_F_NO_PREALLOC);
		    __uint(max_entries, 1);
		    __uint(key_size, sizeof(struct prefix_key));
		    __uint(value_size, sizeof(__u32));
	    });
} prefixes SEC(".maps");

/* SHA-256 of the compiled policy in each slot; programs do not read it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, 32);
} policy_hashes SEC(".maps");

/* Flows that both sides take part in. Never evicted: when it is full, new flows stay among the pending ones. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct tuple);
	__type(value, struct flow);
} flows SEC(".maps");

/* Half-open flows: what a flood fills evicts only its like. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct tuple);
	__type(value, struct flow);
} pending_flows SEC(".maps");

/* Masqueraded tuples, ordered, of established and of half-open flows. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct tuple);
	__type(value, struct alias);
} aliases SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct tuple);
	__type(value, struct alias);
} pending_aliases SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost_events SEC(".maps");

/* Index: hook * REASON_COUNT + reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HOOK_COUNT *REASON_COUNT);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

/* The packet at hand: too large for the stack. A program is never interrupted by another one on its CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} scratch SEC(".maps");
