/* Numbers of protocols and messages, and what they say of a packet. */
#pragma once

#include <linux/in.h>
#include <linux/in6.h>
#include <linux/types.h>
#include <stdbool.h>

#include "types.h"

#define PROTOCOL_IPIP 4
#define PROTOCOL_GRE 47
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_AUTHENTICATION 51
#define PROTOCOL_NONE 59
#define PROTOCOL_DESTINATION_OPTIONS 60
#define PROTOCOL_SCTP 132

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_REDIRECT 5
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMP6_ERROR_LAST 4
#define ICMP6_ECHO_REQUEST 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_MLD_QUERY 130
#define ICMP6_MLD_DONE 132
#define ICMP6_ROUTER_SOLICITATION 133
#define ICMP6_ROUTER_ADVERTISEMENT 134
#define ICMP6_NEIGHBOUR_SOLICITATION 135
#define ICMP6_NEIGHBOUR_ADVERTISEMENT 136
#define ICMP6_REDIRECT 137
#define ICMP6_MLD2_REPORT 143

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

static __always_inline bool is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

static __always_inline bool is_icmp_error(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM;
	return protocol == IPPROTO_ICMPV6 && type >= 1 && type <= ICMP6_ERROR_LAST;
}

static __always_inline bool is_icmp_echo(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == ICMP_ECHO_REQUEST || type == ICMP_ECHO_REPLY;
	return protocol == IPPROTO_ICMPV6 && (type == ICMP6_ECHO_REQUEST || type == ICMP6_ECHO_REPLY);
}

/* The same of a tuple: its ports are one identifier. */
static __always_inline bool is_echo_tuple(const struct tuple *tuple)
{
	return is_icmp(tuple->protocol) && tuple->source_port == tuple->destination_port;
}

/* Messages that only neighbours on a link may send each other: they change where packets go. */
static __always_inline bool is_link_message(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == ICMP_REDIRECT;
	return protocol == IPPROTO_ICMPV6 && type >= ICMP6_ROUTER_SOLICITATION && type <= ICMP6_REDIRECT;
}

/* Bytes of the header that a packet cannot do without; zero: the protocol is not looked into. */
static __always_inline __u16 l4_minimum(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 20;
	case PROTOCOL_SCTP:
		return 12;
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 8;
	}
	return 0;
}
