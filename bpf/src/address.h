/* Addresses and tuples. */
#pragma once

#include <bpf/bpf_endian.h>

#include "types.h"

#define __must_check __attribute__((warn_unused_result))

#ifndef memcpy
#define memcpy(to, from, size) __builtin_memcpy(to, from, size)
#endif
#ifndef memset
#define memset(to, value, size) __builtin_memset(to, value, size)
#endif

/* Bytes 8 to 11 of an IPv4-mapped address are 00 00 ff ff. */
#define MAPPED_PREFIX ((__u64)bpf_htonl(0xffff))

static __always_inline struct address address_from_ipv4(__be32 ipv4)
{
	struct address address = {
	    .high = 0,
	    .low = MAPPED_PREFIX | (__u64)ipv4 << 32,
	};
	return address;
}

static __always_inline struct address address_from_ipv6(const __be32 words[4])
{
	struct address address = {
	    .high = (__u64)words[0] | (__u64)words[1] << 32,
	    .low = (__u64)words[2] | (__u64)words[3] << 32,
	};
	return address;
}

static __always_inline bool address_equal(const struct address *a, const struct address *b)
{
	return a->high == b->high && a->low == b->low;
}

static __always_inline bool address_is_zero(const struct address *a)
{
	return (a->high | a->low) == 0;
}

static __always_inline bool address_is_ipv4(const struct address *a)
{
	return a->high == 0 && (__u32)a->low == (__u32)MAPPED_PREFIX;
}

/* The IPv4 address of a mapped one. */
static __always_inline __be32 address_ipv4(const struct address *a)
{
	return a->low >> 32;
}

/* Multicast, and IPv4's limited broadcast. */
static __always_inline bool address_is_multicast(const struct address *a)
{
	if (address_is_ipv4(a)) {
		__u32 ipv4 = bpf_ntohl(address_ipv4(a));
		return ipv4 >> 28 == 0xe || ipv4 == 0xffffffff;
	}
	return (a->high & 0xff) == 0xff;
}

/* fe80::/10 */
static __always_inline bool address_is_link_local(const struct address *a)
{
	return (bpf_ntohl((__u32)a->high) & 0xffc00000) == 0xfe800000;
}

/* ordered_key writes the tuple with its lower end first: one key for both directions. Returns whether that is the order
 * it came in. */
static __always_inline bool ordered_key(const struct tuple *tuple, struct tuple *key)
{
	const struct address *s = &tuple->source, *d = &tuple->destination;
	bool ordered = s->high != d->high ? s->high < d->high
		       : s->low != d->low ? s->low < d->low
					  : tuple->source_port <= tuple->destination_port;

	memset(key, 0, sizeof(*key));
	key->source = ordered ? *s : *d;
	key->destination = ordered ? *d : *s;
	key->source_port = ordered ? tuple->source_port : tuple->destination_port;
	key->destination_port = ordered ? tuple->destination_port : tuple->source_port;
	key->protocol = tuple->protocol;
	return ordered;
}

static __always_inline void reverse(const struct tuple *tuple, struct tuple *reversed)
{
	reversed->source = tuple->destination;
	reversed->destination = tuple->source;
	reversed->source_port = tuple->destination_port;
	reversed->destination_port = tuple->source_port;
	reversed->protocol = tuple->protocol;
	memset(reversed->padding, 0, sizeof(reversed->padding));
}
