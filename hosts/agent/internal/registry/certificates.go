// Package registry configures how containerd reaches image registries, and explains why a pull has failed.
package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

// Certificates is the folder in containerd's `config_path`: <server>/hosts.toml with the CA beside it. It contains no
// credentials. Groups may reach one server in different ways, so the entry is written for each pull. Pulls that reach
// it in the same way run at the same time, and others wait for them.
type Certificates struct {
	directory string

	mutex   sync.Mutex
	servers map[string]*entry
}

// entry is a server's entry while pulls use it.
type entry struct {
	endpoint, ca string
	users        int
	// unused is closed when the last pull has ended.
	unused chan struct{}
}

// NewCertificates uses a directory, which is created when it is needed.
func NewCertificates(directory string) *Certificates {
	return &Certificates{directory: directory, servers: map[string]*entry{}}
}

// Use writes the server's entry and keeps it until release is called. It waits while pulls use another entry of the
// server, until ctx ends. Endpoint and ca may be empty. Without both, containerd's defaults apply.
func (c *Certificates) Use(ctx context.Context, server, endpoint, ca string) (release func(), err error) {
	for {
		used, err := c.use(server, endpoint, ca)
		if err != nil {
			return nil, err
		}
		if used.endpoint == endpoint && used.ca == ca {
			return func() { c.release(server, used) }, nil
		}
		select {
		case <-used.unused:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// use returns the server's entry, of which the caller is a user if it is the wanted one.
func (c *Certificates) use(server, endpoint, ca string) (*entry, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	present := c.servers[server]
	if present == nil {
		if err := c.write(server, endpoint, ca); err != nil {
			return nil, err
		}
		present = &entry{endpoint: endpoint, ca: ca, unused: make(chan struct{})}
		c.servers[server] = present
	}
	if present.endpoint == endpoint && present.ca == ca {
		present.users++
	}
	return present, nil
}

func (c *Certificates) release(server string, used *entry) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if used.users--; used.users == 0 {
		delete(c.servers, server)
		close(used.unused)
	}
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
