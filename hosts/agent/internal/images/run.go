package images

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
	"github.com/palisade-host/palisade/hosts/seal"
)

// maximumRequest bounds what one call may send, in bytes.
const maximumRequest = 4 << 20

// Run parses the flags and serves until ctx ends.
func Run(ctx context.Context, arguments []string, logger *slog.Logger) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	socket := flags.String("socket", "/run/palisade/images.sock", "unix socket the role groups asks")
	socketGroup := flags.String("socket-group", "palisade-groups", "group that may connect")
	data := flags.String("data", "/var/lib/palisade/agent/images", "folder of policies and records")
	store := flags.String("store", "/var/lib/palisade/layers", "folder of sealed layers")
	trust := flags.String("trust", "/usr/share/palisade/trust", "folder of the trusted keys of seals, and of revocations")
	stall := flags.Duration("stall", time.Minute, "how long a registry may make no progress")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	trusted, err := seal.LoadTrust(*trust)
	if err != nil {
		return err
	}
	role, err := New(Options{
		DataDirectory: *data, Store: seal.Store(*store), Trust: trusted, Stall: *stall, Available: Available, Logger: logger,
	})
	if err != nil {
		return err
	}
	listener, err := service.Listen(*socket, *socketGroup)
	if err != nil {
		return err
	}
	logger.Info("serving", "socket", *socket, "policies", len(role.policies.all()), "trusted keys", len(trusted.Keys))
	service.Notify("READY=1")
	return service.ServeUnix(ctx, listener, role.Handler())
}

// Handler serves the role's services.
func (r *Role) Handler() http.Handler {
	limit := connect.WithReadMaxBytes(maximumRequest)
	mux := http.NewServeMux()
	mux.Handle(agentv1connect.NewImageStoreServiceHandler(&storeService{r}, limit))
	mux.Handle(agentv1connect.NewImagePolicyServiceHandler(&policyService{r}, limit))
	mux.Handle(agentv1connect.NewHostServiceHandler(hostService{role: r}, limit))
	return mux
}

// Available returns how many bytes an unprivileged user can write to the file system of path.
func Available(path string) (uint64, error) {
	var status syscall.Statfs_t
	if err := syscall.Statfs(path, &status); err != nil {
		return 0, err
	}
	return status.Bavail * uint64(status.Bsize), nil
}
