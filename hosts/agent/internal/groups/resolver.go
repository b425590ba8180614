package groups

import (
	"net/netip"
	"os"
	"strings"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// resolverFiles are read in this order. The first lists the real servers of systemd-resolved. The second usually names
// its stub, which listens on the host's loopback address, and containers do not reach that.
var resolverFiles = []string{"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"}

// maximumServers is what resolv.conf(5) allows.
const maximumServers = 3

// resolver returns the DNS configuration of containers. It always has an option: for an empty configuration containerd
// would copy the host's own file.
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
