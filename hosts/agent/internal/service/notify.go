// Package service holds what all roles have in common: readiness, sockets, shutdown, atomic files.
package service

import (
	"log/slog"
	"net"
	"os"
)

// Notify sends a state such as "READY=1" to the service manager (sd_notify(3)). Without one it does nothing.
func Notify(state string) {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return
	}
	if address[0] == '@' {
		address = "\x00" + address[1:]
	}
	connection, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		slog.Warn("service manager cannot be notified", "error", err)
		return
	}
	defer connection.Close()
	if _, err := connection.Write([]byte(state)); err != nil {
		slog.Warn("service manager cannot be notified", "error", err)
	}
}
