package cri

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"google.golang.org/grpc"
)

// initNative makes the server of containerd's own API, as upstream's server `grpc` is.
func initNative(ic *plugin.InitContext) (any, error) {
	config, ok := ic.Config.(*NativeConfig)
	if !ok {
		return nil, errors.New("invalid configuration")
	}
	if config.Address == "" {
		return nil, fmt.Errorf("no address is configured: %w", plugin.ErrSkipPlugin)
	}
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize), grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
		grpc.UnaryInterceptor(unaryNamespace), grpc.StreamInterceptor(streamNamespace))
	for _, registered := range ic.Plugins().GetAll() {
		if registered.Registration.Type != plugins.GRPCPlugin {
			continue
		}
		// A plugin that has failed is in containerd's log.
		instance, err := registered.Instance()
		if err != nil {
			continue
		}
		if native, ok := instance.(service); ok {
			if err := native.Register(server); err != nil {
				return nil, err
			}
		}
	}
	return &listener{Server: server, address: config.Address}, nil
}

// inNamespace makes the namespace of a call that of the calls which follow from it.
func inNamespace(ctx context.Context) context.Context {
	if namespace, found := namespaces.Namespace(ctx); found {
		return namespaces.WithNamespace(ctx, namespace)
	}
	return ctx
}

func unaryNamespace(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	return handle(inNamespace(ctx), request)
}

func streamNamespace(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return handle(server, &namespacedStream{ServerStream: stream, ctx: inNamespace(stream.Context())})
}

type namespacedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *namespacedStream) Context() context.Context { return s.ctx }
