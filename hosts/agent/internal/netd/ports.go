package netd

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/palisade-host/palisade/bpf/datapath"
)

// portMapping is a port to publish, in the form of the CNI capability portMappings.
type portMapping struct {
	HostPort      int `json:"hostPort"`
	ContainerPort int `json:"containerPort"`
	// Protocol is tcp, udp or sctp, in upper or lower case. Default: tcp.
	Protocol string `json:"protocol,omitempty"`
	// HostIP is the host's address. By default, and for an unspecified address, the port is published on all addresses
	// of the host.
	HostIP string `json:"hostIP,omitempty"`
}

// published returns the host's ports of a mapping, one for each family in which the container has an address. An error
// begins with the name of the wrong field.
func (m portMapping) published(backends ...netip.Addr) (ports []datapath.Published, err error) {
	if m.HostPort < 1 || m.HostPort > 65535 {
		return nil, fmt.Errorf("hostPort: %d is not between 1 and 65535", m.HostPort)
	}
	if m.ContainerPort < 1 || m.ContainerPort > 65535 {
		return nil, fmt.Errorf("containerPort: %d is not between 1 and 65535", m.ContainerPort)
	}
	var host netip.Addr
	if m.HostIP != "" {
		if host, err = netip.ParseAddr(m.HostIP); err != nil {
			return nil, fmt.Errorf("hostIP: %q is no IP address", m.HostIP)
		}
		host = host.Unmap()
	}
	for _, backend := range backends {
		address := host
		if !address.IsValid() {
			address = netip.IPv6Unspecified()
			if backend.Is4() {
				address = netip.IPv4Unspecified()
			}
		}
		if address.Is4() == backend.Is4() {
			ports = append(ports, datapath.Published{
				Address: address, Port: uint16(m.HostPort), Protocol: strings.ToUpper(cmp.Or(m.Protocol, "tcp")),
				Backend: backend, BackendPort: uint16(m.ContainerPort),
			})
		}
	}
	return ports, nil
}

// portsToPublish returns the ports of a new container, and refuses one that is taken. It changes nothing.
func (n *network) portsToPublish(c container, backends ...netip.Addr) (ports []datapath.Published, err error) {
	for i, mapping := range c.PortMappings {
		path := fmt.Sprintf("endpoint %q: portMappings[%d]", c.Name, i)
		published, err := mapping.published(backends...)
		if err != nil {
			return nil, fmt.Errorf("%s.%w", path, err)
		}
		for _, port := range published {
			if err := n.datapath.CheckPublish(port, ports...); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			ports = append(ports, port)
		}
	}
	return ports, nil
}
