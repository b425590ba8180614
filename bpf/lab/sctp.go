package lab

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// SCTP over raw sockets, because a kernel without the SCTP module has no other: an INIT, answered by an INIT ACK (RFC
// 9260, 5.1).
const (
	chunkInit    = 1
	chunkInitAck = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sctpPacket returns a packet with one chunk, whose parameters have no meaning here.
func sctpPacket(source, destination uint16, chunk byte) []byte {
	packet := make([]byte, 32)
	binary.BigEndian.PutUint16(packet, source)
	binary.BigEndian.PutUint16(packet[2:], destination)
	packet[12] = chunk
	binary.BigEndian.PutUint16(packet[14:], 20)
	binary.BigEndian.PutUint32(packet[16:], 1)
	binary.BigEndian.PutUint32(packet[20:], 65535)
	binary.BigEndian.PutUint16(packet[24:], 1)
	binary.BigEndian.PutUint16(packet[26:], 1)
	binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, castagnoli))
	return packet
}

func sctpNetwork(address netip.Addr) string {
	if address.Is4() {
		return "ip4:132"
	}
	return "ip6:132"
}

func serveSCTP(address netip.Addr) (func(), error) {
	socket, err := net.ListenIP(sctpNetwork(address), &net.IPAddr{IP: address.AsSlice()})
	if err != nil {
		return nil, err
	}
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := socket.ReadFromIP(buffer)
			if err != nil {
				return
			}
			if n < 13 || buffer[12] != chunkInit {
				continue
			}
			source, destination := binary.BigEndian.Uint16(buffer), binary.BigEndian.Uint16(buffer[2:])
			_, _ = socket.WriteToIP(sctpPacket(destination, source, chunkInitAck), from)
		}
	}()
	return func() { _ = socket.Close() }, nil
}

func (n *Node) exchangeSCTP(ctx context.Context, source netip.Addr, to netip.AddrPort) error {
	var socket *net.IPConn
	if err := n.Do(func() (err error) {
		socket, err = net.ListenIP(sctpNetwork(source), &net.IPAddr{IP: source.AsSlice()})
		return err
	}); err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Now()) })
	defer stop()
	port := uint16(32768 + rand.IntN(28000))
	if _, err := socket.WriteToIP(sctpPacket(port, to.Port(), chunkInit), &net.IPAddr{IP: to.Addr().AsSlice()}); err != nil {
		return err
	}
	buffer := make([]byte, 2048)
	for {
		length, from, err := socket.ReadFromIP(buffer)
		if err != nil {
			return err
		}
		if isFrom(from, to.Addr()) && length >= 13 && buffer[12] == chunkInitAck &&
			binary.BigEndian.Uint16(buffer[2:]) == port && binary.BigEndian.Uint16(buffer) == to.Port() {
			return nil
		}
	}
}

// isFrom reports whether a packet came from an address. A raw socket receives the answers of all exchanges of a node,
// and another exchange may use the same port or identifier.
func isFrom(from *net.IPAddr, address netip.Addr) bool {
	sender, _ := netip.AddrFromSlice(from.IP)
	return sender.Unmap() == address.Unmap()
}
