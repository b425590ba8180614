package service

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Listen returns the unix socket of a role. It uses the socket that the service manager passes (sd_listen_fds(3)).
// Without one it creates the socket at path with mode 0660 and the named group, so that only root, the role itself and
// the members of that group can connect. It replaces the socket of an earlier run. A socket that is in use is an error.
func Listen(path, group string) (net.Listener, error) {
	if listener, err := activated(); listener != nil || err != nil {
		return listener, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	previous := syscall.Umask(0o117)
	listener, err := net.Listen("unix", path)
	syscall.Umask(previous)
	if err != nil {
		return nil, err
	}
	if err := grant(path, group); err != nil {
		// The role's own user and root can still connect.
		slog.Warn("socket keeps the role's own group", "path", path, "group", group, "error", err)
	}
	return listener, nil
}

func activated() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		return nil, nil
	}
	const firstDescriptor = 3
	syscall.CloseOnExec(firstDescriptor)
	file := os.NewFile(firstDescriptor, "socket")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("socket of the service manager: %w", err)
	}
	return listener, nil
}

func removeStale(path string) error {
	connection, err := net.Dial("unix", path)
	if err == nil {
		connection.Close()
		return fmt.Errorf("%s: another process serves here", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func grant(path, group string) error {
	if group == "" {
		return nil
	}
	found, err := user.LookupGroup(group)
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(found.Gid)
	if err != nil {
		return err
	}
	return os.Chown(path, -1, id)
}
