package datapath

import (
	"crypto/sha256"
	"encoding/binary"
	"net"
	"net/netip"
	"unsafe"
)

// toAddress converts an address to the programs' form, in which IPv4 is IPv4-mapped IPv6. The invalid address is all
// zeroes.
func toAddress(address netip.Addr) datapathAddress {
	if !address.IsValid() {
		return datapathAddress{}
	}
	bytes := address.As16()
	return *(*datapathAddress)(unsafe.Pointer(&bytes))
}

func fromAddress(address datapathAddress) netip.Addr {
	if address == (datapathAddress{}) {
		return netip.Addr{}
	}
	return netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(&address))).Unmap()
}

// toPort converts a port to network byte order.
func toPort(port uint16) uint16 {
	var bytes [2]byte
	binary.BigEndian.PutUint16(bytes[:], port)
	return binary.NativeEndian.Uint16(bytes[:])
}

func fromPort(port uint16) uint16 {
	return toPort(port)
}

// subjectOf returns the programs' name of an endpoint: the first eight bytes of SHA-256 over its name. So no allocation
// has to survive the agent. A policy in which names collide is refused.
func subjectOf(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:8])
}

func toMAC(mac net.HardwareAddr) (result [6]byte) {
	copy(result[:], mac)
	return result
}
