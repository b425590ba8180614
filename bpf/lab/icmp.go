package lab

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// exchangeEcho sends an echo request, which the other side's kernel answers.
func (n *Node) exchangeEcho(ctx context.Context, to netip.Addr) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	var socket *net.IPConn
	if err := n.Do(func() (err error) {
		socket, err = net.ListenIP(network, nil)
		return err
	}); err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Now()) })
	defer stop()
	id := uint16(rand.IntN(1 << 16))
	message := make([]byte, 16)
	message[0] = request
	binary.BigEndian.PutUint16(message[4:], id)
	if to.Is4() {
		// The kernel computes this checksum for IPv6.
		var sum uint32
		for i := 0; i < len(message); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(message[i:]))
		}
		binary.BigEndian.PutUint16(message[2:], ^uint16(sum+sum>>16))
	}
	if _, err := socket.WriteToIP(message, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	buffer := make([]byte, 2048)
	for {
		length, from, err := socket.ReadFromIP(buffer)
		if err != nil {
			return err
		}
		if isFrom(from, to) && length >= 8 && buffer[0] == reply && binary.BigEndian.Uint16(buffer[4:]) == id {
			return nil
		}
	}
}
