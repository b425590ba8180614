// Package registry configures how containerd reaches image registries, and explains why a pull has failed.
package registry

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

// Certificates is the folder in containerd's `config_path`: <server>/hosts.toml with the CA beside it. It contains no
// credentials. Groups may reach one server in different ways, so the entry is written for each pull, one pull at a
// time.
type Certificates struct {
	directory string

	mutex   sync.Mutex
	servers map[string]*sync.Mutex
}

// NewCertificates uses a directory, which is created when it is needed.
func NewCertificates(directory string) *Certificates {
	return &Certificates{directory: directory, servers: map[string]*sync.Mutex{}}
}

// Use writes the server's entry and locks it until release is called. Endpoint and ca may be empty. Without both,
// containerd's defaults apply.
func (c *Certificates) Use(server, endpoint, ca string) (release func(), err error) {
	c.mutex.Lock()
	lock := c.servers[server]
	if lock == nil {
		lock = &sync.Mutex{}
		c.servers[server] = lock
	}
	c.mutex.Unlock()
	lock.Lock()
	if err := c.write(server, endpoint, ca); err != nil {
		lock.Unlock()
		return nil, err
	}
	return lock.Unlock, nil
}

func (c *Certificates) write(server, endpoint, ca string) error {
	directory := filepath.Join(c.directory, strings.ToLower(server))
	if endpoint == "" && ca == "" {
		return os.RemoveAll(directory)
	}
	if endpoint == "" {
		endpoint = "https://" + server
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	authority := filepath.Join(directory, "ca.pem")
	var hosts bytes.Buffer
	fmt.Fprintf(&hosts, "server = %q\ncapabilities = [\"pull\", \"resolve\"]\n", endpoint)
	if ca != "" {
		if err := service.WriteFile(authority, []byte(ca), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&hosts, "ca = [%q]\n", authority)
	} else if err := os.Remove(authority); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return service.WriteFile(filepath.Join(directory, "hosts.toml"), hosts.Bytes(), 0o644)
}
