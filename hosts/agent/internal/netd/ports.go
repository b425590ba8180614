package netd

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/palisade-host/palisade/bpf/datapath"
)

// portMapping is a port to publish, as the CNI capability portMappings has it.
type portMapping struct {
	HostPort      int `json:"hostPort"`
	ContainerPort int `json:"containerPort"`
	// Protocol is tcp, udp or sctp in any case. Default: tcp.
	Protocol string `json:"protocol,omitempty"`
	// HostIP is the host's address. Default, as for an unspecified one: all addresses of the host.
	HostIP string `json:"hostIP,omitempty"`
}

// published are the host's ports that a mapping means, one of each family in which the container has an address. An error
// begins with the field.
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

// publishable are the ports of a new container; one that is taken is refused. Nothing is changed.
func (n *network) publishable(c container, backends ...netip.Addr) (ports []datapath.Published, err error) {
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
