package groups

import (
	"net/netip"
	"os"
	"strings"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// resolverFiles are read in this order. The first is systemd-resolved's list of the real servers: the stub that the second
// usually names listens on the host's loopback address, which is not the containers'.
var resolverFiles = []string{"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"}

// maximumServers is what resolv.conf(5) allows.
const maximumServers = 3

// resolver returns what containers resolve names with. An option is always set: without any content containerd would copy the
// host's own file.
func resolver(files []string) *runtimev1.DNSConfig {
	config := &runtimev1.DNSConfig{Options: []string{"edns0"}}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(content)) {
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			switch fields[0] {
			case "nameserver":
				address, err := netip.ParseAddr(fields[1])
				if err == nil && !address.IsLoopback() && len(config.Servers) < maximumServers {
					config.Servers = append(config.Servers, fields[1])
				}
			case "search":
				config.Searches = fields[1:]
			}
		}
		if len(config.Servers) > 0 {
			return config
		}
	}
	return config
}
