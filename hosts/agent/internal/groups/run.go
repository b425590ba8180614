// Package groups is the role that runs the declared container groups. The desired state of each group is stored on the
// host's disk. One loop per group observes the group in containerd over CRI, converges it on the desired state, and
// publishes its status.
package groups

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/containerd"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
	"github.com/palisade-host/palisade/hosts/seal"
)

// maximumRequest bounds what one call may send, in bytes.
const maximumRequest = 4 << 20

// settings are the flags of the role.
type settings struct {
	socket, socketGroup string

	// Folders.
	data, logs, certificates string
	builtInLayers, layers    string
	trust                    string

	containerd     string
	cgroupParent   string
	reservedMemory uint64
	pollInterval   time.Duration
	sealed         bool

	// Sockets of other roles.
	integritySocket, imagesSocket, netdSocket string
}

func parseSettings(arguments []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("groups", flag.ContinueOnError)
	flags.StringVar(&s.socket, "socket", "/run/palisade/groups.sock", "unix socket the role api asks")
	flags.StringVar(&s.socketGroup, "socket-group", "palisade-api", "group that may connect")
	flags.StringVar(&s.data, "data", "/var/lib/palisade/agent/groups", "folder of the declared groups")
	flags.StringVar(&s.logs, "logs", "", "folder of the containers' logs (default <data>/logs)")
	flags.StringVar(&s.certificates, "certificates", "/run/palisade/certs.d", "containerd's config_path of registries")
	flags.StringVar(&s.containerd, "containerd", "/run/containerd/containerd.sock", "containerd's socket")
	flags.StringVar(&s.cgroupParent, "cgroup-parent", "/palisade", "cgroup of all containers (cgroupfs driver)")
	flags.Uint64Var(&s.reservedMemory, "reserved-memory", 384<<20, "bytes of memory that groups cannot request")
	flags.DurationVar(&s.pollInterval, "poll-interval", 2*time.Second, "time between two passes over a group")
	flags.BoolVar(&s.sealed, "sealed", true, "run only images that the role images admits; without, containerd unpacks images itself")
	flags.StringVar(&s.integritySocket, "integrity-socket", "/run/palisade/integrity.sock", "socket of the role integrity")
	flags.StringVar(&s.imagesSocket, "images-socket", "/run/palisade/images.sock", "socket of the role images")
	flags.StringVar(&s.netdSocket, "netd-socket", "/run/palisade/netd.sock", "socket of the role netd")
	flags.StringVar(&s.builtInLayers, "built-in-layers", "/usr/share/palisade/layers", "folder of the host image's own sealed layers")
	flags.StringVar(&s.layers, "layers", "/var/lib/palisade/layers", "folder of fetched sealed layers")
	flags.StringVar(&s.trust, "trust", "/usr/share/palisade/trust", "folder of the trusted keys of seals, and of revocations")
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	if s.logs == "" {
		s.logs = filepath.Join(s.data, "logs")
	}
	return s, nil
}

// Run parses the flags and serves until ctx ends. Containers outlive it.
func Run(ctx context.Context, _ string, arguments []string, logger *slog.Logger) error {
	settings, err := parseSettings(arguments)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient("unix://"+settings.containerd, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)), grpc.WithUnaryInterceptor(bounded))
	if err != nil {
		return err
	}
	defer connection.Close()
	runtimeService := runtimev1.NewRuntimeServiceClient(connection)
	runtimeVersion := &cached{}
	options, err := settings.options(runtimeService, runtimeVersion, logger)
	if err != nil {
		return err
	}
	manager, err := NewManager(options, runtimeService, runtimev1.NewImageServiceClient(connection))
	if err != nil {
		return err
	}
	listener, err := service.Listen(settings.socket, settings.socketGroup)
	if err != nil {
		return err
	}
	reconciled := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { reconciled <- manager.Run(ctx) }()
	logger.Info("serving", "socket", settings.socket, "cpus", options.Capacity.CPUs, "memory", options.Capacity.MemoryBytes)
	service.Notify("READY=1")
	err = service.ServeUnix(ctx, listener, settings.handler(manager, runtimeVersion, logger))
	cancel()
	if failure := <-reconciled; err == nil {
		err = failure
	}
	return err
}

// options are those of the manager. The version of the runtime is known once Prepare has run.
func (s settings) options(runtimeService runtimev1.RuntimeServiceClient, runtimeVersion *cached, logger *slog.Logger) (Options, error) {
	capacity, err := HostCapacity(s.reservedMemory)
	if err != nil {
		return Options{}, err
	}
	options := Options{
		DataDirectory: s.data, LogDirectory: s.logs, CertificatesDirectory: s.certificates,
		CgroupParent: s.cgroupParent, CgroupRoot: "/sys/fs/cgroup",
		MaximumLogSize: maximumLogSize,
		PollInterval:   s.pollInterval,
		Capacity:       capacity,
		Starts:         2 * runtime.NumCPU(),
		DiskUsage:      func() (float64, error) { return diskUsage(s.data) },
		ReservedPorts:  []uint32{8443},
		Now:            time.Now,
		Logger:         logger,
		Prepare: func(ctx context.Context) error {
			runtimeVersion.set(containerd.RuntimeVersion(ctx, runtimeService))
			return nil
		},
	}
	if !s.sealed {
		return options, nil
	}
	options.Layers = []seal.Store{seal.Store(s.builtInLayers), seal.Store(s.layers)}
	if options.Trust, err = seal.LoadTrust(s.trust); err != nil {
		return Options{}, err
	}
	options.Sealed = agentv1connect.NewImageStoreServiceClient(roleClient(s.imagesSocket), roleURL)
	options.LayerDevices = agentv1connect.NewLayerDeviceServiceClient(roleClient(s.integritySocket), roleURL)
	return options, nil
}

// handler serves this role's own services, and passes on those of the roles that the role api does not reach.
func (s settings) handler(manager *Manager, runtimeVersion *cached, logger *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	limit := connect.WithReadMaxBytes(maximumRequest)
	mux.Handle(agentv1connect.NewGroupServiceHandler(&groupService{manager}, limit))
	mux.Handle("/"+agentv1connect.NetworkServiceName+"/", service.Proxy("netd", s.netdSocket, logger))
	host := &hostService{manager: manager, runtime: runtimeVersion.get}
	if s.sealed {
		mux.Handle("/"+agentv1connect.ImagePolicyServiceName+"/", service.Proxy("images", s.imagesSocket, logger))
		host.images = agentv1connect.NewHostServiceClient(roleClient(s.imagesSocket), roleURL)
	}
	mux.Handle(agentv1connect.NewHostServiceHandler(host, limit))
	return mux
}

// roleURL is the base of requests to another role. Its name is not looked up: the client's transport connects to a
// socket.
const roleURL = "http://role"

func roleClient(socket string) *http.Client {
	return &http.Client{Transport: service.UnixTransport(socket)}
}

// callTimeout bounds each call to containerd, so that a call that hangs does not stop a group for ever. Creating a
// sandbox takes most of a minute on an emulated host.
const callTimeout = 4 * time.Minute

// bounded is the gRPC interceptor that applies callTimeout.
func bounded(ctx context.Context, method string, request, response any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	// A pull may take as long as it makes progress; containerd cancels one that makes none.
	if method != runtimev1.ImageService_PullImage_FullMethodName {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	return invoke(ctx, method, request, response, connection, options...)
}

// cached is a text that one goroutine writes and others read.
type cached struct {
	mutex sync.Mutex
	text  string
}

func (c *cached) set(text string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.text = text
}

func (c *cached) get() string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.text
}
