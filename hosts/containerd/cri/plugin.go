// Package cri serves clients of containerd: CRI and nothing else. Each request is made anew from the fields that are
// permitted (fields.go), so that whoever holds the socket can ask for what the agent asks for, and a field that a new
// version of CRI brings is refused until somebody has decided about it.
//
// Two plugins:
//   - the server `grpc`, in place of upstream's of the same name;
//   - the server `native`, containerd's own API on a socket of root's, for tests; there is none unless it is
//     configured.
package cri

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/sys"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"google.golang.org/grpc"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Config is the section of the server `grpc` in containerd's configuration.
type Config struct {
	// Address is the path of the socket; it belongs to root and the group.
	Address string `toml:"address"`
	// GID is the number of the group whose members may connect.
	GID int `toml:"gid"`
	// MaxRecvMsgSize and MaxSendMsgSize bound one message, in bytes; containerd's main program sets them.
	MaxRecvMsgSize int `toml:"max_recv_message_size"`
	MaxSendMsgSize int `toml:"max_send_message_size"`
	// RuntimeBinary is the OCI runtime whose version is told; as BinaryName of the runtime in CRI's section.
	RuntimeBinary string `toml:"runtime_binary"`
	Policy
}

// NativeConfig is the section of the server `native`.
type NativeConfig struct {
	// Address is the path of the socket, which is root's; without it there is none.
	Address string `toml:"address"`
}

func init() {
	registry.Register(&plugin.Registration{
		Type:     plugins.ServerPlugin,
		ID:       "grpc",
		Requires: []plugin.Type{plugins.GRPCPlugin, plugins.RuntimePluginV2},
		Config: &Config{
			Address: defaults.DefaultAddress, RuntimeBinary: "crun",
			MaxRecvMsgSize: defaults.DefaultMaxRecvMsgSize, MaxSendMsgSize: defaults.DefaultMaxSendMsgSize,
		},
		InitFn: initServer,
	})
	registry.Register(&plugin.Registration{
		Type:     plugins.ServerPlugin,
		ID:       "native",
		Requires: []plugin.Type{plugins.GRPCPlugin},
		Config:   &NativeConfig{},
		InitFn:   initNative,
	})
}

// service is what upstream's plugins of type GRPCPlugin are.
type service interface {
	Register(*grpc.Server) error
}

func initServer(ic *plugin.InitContext) (any, error) {
	config, ok := ic.Config.(*Config)
	if !ok {
		return nil, errors.New("invalid configuration")
	}
	instance, err := ic.GetByID(plugins.GRPCPlugin, "cri")
	if errors.Is(err, plugin.ErrPluginNotFound) {
		return nil, fmt.Errorf("there is no CRI to serve: %w", plugin.ErrSkipPlugin)
	}
	if err != nil {
		return nil, err
	}
	criService, ok := instance.(service)
	if !ok {
		return nil, fmt.Errorf("CRI is of type %T, which registers no service", instance)
	}
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if err := withoutLinks(config.LogRoot); err != nil {
		return nil, err
	}
	runtime, err := ic.GetByID(plugins.RuntimePluginV2, "task")
	if err != nil {
		return nil, err
	}
	version, err := newRuntimeVersion(runtime, config.RuntimeBinary)
	if err != nil {
		return nil, err
	}
	server := newServer(&filter{policy: &config.Policy, runtimeVersion: version.get},
		grpc.MaxRecvMsgSize(config.MaxRecvMsgSize), grpc.MaxSendMsgSize(config.MaxSendMsgSize))
	if err := criService.Register(server); err != nil {
		return nil, err
	}
	if err := servesOnlyCRI(server); err != nil {
		return nil, err
	}
	return &listener{Server: server, address: config.Address, gid: config.GID}, nil
}

func newServer(f *filter, options ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(options, grpc.UnaryInterceptor(f.unary), grpc.StreamInterceptor(f.stream))...)
}

func servesOnlyCRI(server *grpc.Server) error {
	served := slices.Sorted(maps.Keys(server.GetServiceInfo()))
	want := []string{runtimev1.ImageService_ServiceDesc.ServiceName, runtimev1.RuntimeService_ServiceDesc.ServiceName}
	if !slices.Equal(served, want) {
		return fmt.Errorf("the plugin of CRI registers the services %q, expected %q", served, want)
	}
	return nil
}

// listener is a server that containerd starts and stops.
type listener struct {
	*grpc.Server
	address string
	gid     int
}

// Start serves on the socket until Close.
func (l *listener) Start(ctx context.Context) error {
	socket, err := sys.GetLocalListener(l.address, 0, l.gid)
	if err != nil {
		return err
	}
	log.G(ctx).WithField("address", l.address).Info("serving")
	go func() {
		if err := l.Serve(socket); err != nil && !errors.Is(err, net.ErrClosed) {
			log.G(ctx).WithError(err).WithField("address", l.address).Fatal("the server has ended")
		}
	}()
	return nil
}

// Close ends the server with its connections.
func (l *listener) Close() error {
	l.Stop()
	return nil
}
