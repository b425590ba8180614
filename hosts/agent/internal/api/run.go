// Package api is the role that is reachable from the network. It does TLS and authorization and has the host's
// identity. It has no privileges, and asks the other roles over unix sockets.
package api

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/palisade-host/palisade/hosts/agent/internal/enrollment"
	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

// Largest sizes of a call in bytes. Compiled network policies are large.
const (
	maximumRequest        = 4 << 20
	maximumNetworkRequest = 256 << 20
)

// Options of the role.
type Options struct {
	Version         string
	DataDirectory   string
	EnrollmentPort  func() (enrollment.Port, error)
	GroupsSocket    string
	IntegritySocket string
	PowerDirectory  string
	Now             func() time.Time
	Logger          *slog.Logger
}

// Run parses the flags and serves until ctx ends.
func Run(ctx context.Context, version string, arguments []string, logger *slog.Logger) error {
	flags := flag.NewFlagSet("api", flag.ContinueOnError)
	listen := flags.String("listen", ":8443", "address of the agent's port")
	data := flags.String("data", "/var/lib/palisade/agent/api", "folder of the host's identity")
	port := flags.String("enrollment-port", "/dev/virtio-ports/palisade.enrollment", "virtio serial port for the first contact")
	groups := flags.String("groups-socket", "/run/palisade/groups.sock", "socket of the role groups")
	integrity := flags.String("integrity-socket", "/run/palisade/integrity.sock", "socket of the role integrity")
	power := flags.String("power-directory", "/run/palisade/power", "folder watched by the service manager for files named poweroff and reboot")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	return Serve(ctx, listener, Options{
		Version: version, DataDirectory: *data, EnrollmentPort: enrollment.OpenDevice(*port),
		GroupsSocket: *groups, IntegritySocket: *integrity, PowerDirectory: *power, Now: time.Now, Logger: logger,
	})
}

// Serve serves on listener until ctx ends.
func Serve(ctx context.Context, listener net.Listener, options Options) error {
	host, err := identity.Open(options.DataDirectory, identity.NewClock(options.Now))
	if err != nil {
		return err
	}
	options.Logger.Info("serving", "host", host.HostID(), "address", listener.Addr().String(), "needs", host.RequestReason())

	enrolling := make(chan struct{})
	loop := &enrollment.Loop{Identity: host, Open: options.EnrollmentPort, Logger: options.Logger}
	go func() {
		defer close(enrolling)
		loop.Run(ctx)
	}()
	defer func() { <-enrolling }()

	server := &http.Server{
		Handler:           handler(host, options),
		TLSConfig:         tlsConfiguration(host),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          service.ErrorLog(options.Logger),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	server.Protocols = protocols
	service.Notify("READY=1")
	return service.Serve(ctx, server, func() error { return server.ServeTLS(listener, "", "") })
}

func handler(host *identity.Identity, options Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(agentv1connect.NewHostServiceHandler(&hostService{
		identity:       host,
		version:        options.Version,
		facts:          readSystemFacts(),
		groups:         roleClient(options.GroupsSocket),
		integrity:      roleClient(options.IntegritySocket),
		powerDirectory: options.PowerDirectory,
	}, connect.WithReadMaxBytes(maximumRequest)))
	groups := service.Proxy("groups", options.GroupsSocket, options.Logger)
	mux.Handle("/"+agentv1connect.GroupServiceName+"/", groups)
	// Only the role groups can reach the roles images and netd.
	mux.Handle("/"+agentv1connect.ImagePolicyServiceName+"/", groups)
	outer := http.NewServeMux()
	outer.Handle("/", http.MaxBytesHandler(mux, maximumRequest))
	outer.Handle("/"+agentv1connect.NetworkServiceName+"/", http.MaxBytesHandler(groups, maximumNetworkRequest))
	return authorized(host, outer)
}

func roleClient(socket string) agentv1connect.HostServiceClient {
	return agentv1connect.NewHostServiceClient(&http.Client{Transport: service.UnixTransport(socket)}, "http://role")
}
