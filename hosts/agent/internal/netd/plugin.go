package netd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/palisade-host/palisade/bpf/datapath"
)

// pluginTimeout bounds a call of the plugin. The runtime tries again after that.
const pluginTimeout = 30 * time.Second

// pluginConfig is the plugin's part of a CNI network configuration.
type pluginConfig struct {
	types.NetConf
	// Socket of netd. Default: Socket.
	Socket string `json:"socket"`
	// MTU of containers' links. Default: the smallest of the devices to other machines.
	MTU int `json:"mtu"`
	// RuntimeConfig holds what the runtime adds for the capabilities in the configuration.
	RuntimeConfig struct {
		PortMappings []portMapping `json:"portMappings"`
	} `json:"runtimeConfig"`
}

// podArguments are what runtimes pass about a pod in CNI_ARGS.
type podArguments struct {
	types.CommonArgs
	// Named by the convention of Kubernetes.
	//nolint:revive
	K8S_POD_NAMESPACE, K8S_POD_NAME types.UnmarshallableString
}

// Plugin is a CNI plugin (specification 1.1) that forwards ADD, DEL and CHECK to netd. It reads the command from the
// environment and the configuration from standard input, and ends the process.
func Plugin() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: pluginAdd, Del: pluginDel, Check: pluginCheck},
		version.PluginSupports("0.4.0", "1.0.0", "1.1.0"), "palisade: connects containers to Palisade's datapath")
}

func readPlugin(arguments *skel.CmdArgs) (pluginConfig, container, error) {
	config := pluginConfig{Socket: Socket}
	if err := json.Unmarshal(arguments.StdinData, &config); err != nil {
		return config, container{}, fmt.Errorf("network configuration: %w", err)
	}
	var pod podArguments
	pod.IgnoreUnknown = true
	if err := types.LoadArgs(arguments.Args, &pod); err != nil {
		return config, container{}, fmt.Errorf("CNI_ARGS: %w", err)
	}
	name := arguments.ContainerID
	if pod.K8S_POD_NAME != "" && pod.K8S_POD_NAMESPACE != "" {
		name = string(pod.K8S_POD_NAMESPACE) + "/" + string(pod.K8S_POD_NAME)
	}
	return config, container{
		ID: arguments.ContainerID, Interface: arguments.IfName, Namespace: arguments.Netns, Name: name, MTU: config.MTU,
		PortMappings: config.RuntimeConfig.PortMappings,
	}, nil
}

func pluginAdd(arguments *skel.CmdArgs) error {
	config, c, err := readPlugin(arguments)
	if err != nil {
		return err
	}
	var connected attachment
	if err := ask(config.Socket, "add", c, &connected); err != nil {
		return err
	}
	result := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: connected.HostInterface, Mac: connected.Endpoint.HostMAC.String()},
			{Name: c.Interface, Mac: connected.Endpoint.MAC.String(), Sandbox: arguments.Netns},
		},
	}
	for _, assigned := range []struct{ address, gateway netip.Addr }{
		{connected.Endpoint.IPv4, datapath.GatewayIPv4}, {connected.Endpoint.IPv6, datapath.GatewayIPv6},
	} {
		result.IPs = append(result.IPs, &current.IPConfig{
			Interface: current.Int(1), Gateway: assigned.gateway.AsSlice(),
			Address: net.IPNet{IP: assigned.address.AsSlice(), Mask: net.CIDRMask(assigned.address.BitLen(), assigned.address.BitLen())},
		})
	}
	return types.PrintResult(result, config.CNIVersion)
}

func pluginDel(arguments *skel.CmdArgs) error {
	config, c, err := readPlugin(arguments)
	if err != nil {
		return err
	}
	return ask(config.Socket, "remove", c, nil)
}

func pluginCheck(arguments *skel.CmdArgs) error {
	config, c, err := readPlugin(arguments)
	if err != nil {
		return err
	}
	return ask(config.Socket, "check", c, nil)
}

// ask sends a command to netd and decodes the result.
func ask(socket, command string, c container, result any) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), pluginTimeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://netd/v1/containers/"+command, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("netd at %s: %w; is the role netd running?", socket, err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		var failed failure
		if err := json.Unmarshal(content, &failed); err != nil {
			return fmt.Errorf("netd at %s: %s", socket, response.Status)
		}
		return errors.New(failed.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(content, result)
}
