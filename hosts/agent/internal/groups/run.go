// Package groups is the role that keeps container groups as they were declared: the wish lies on the host's disk, a loop per
// group compares it with what containerd shows over CRI and makes the difference good.
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

// Run parses the flags and serves until ctx ends. Containers outlive it.
func Run(ctx context.Context, _ string, arguments []string, logger *slog.Logger) error {
	flags := flag.NewFlagSet("groups", flag.ContinueOnError)
	socket := flags.String("socket", "/run/palisade/groups.sock", "unix socket the role api asks")
	socketGroup := flags.String("socket-group", "palisade-api", "group that may connect")
	data := flags.String("data", "/var/lib/palisade/agent/groups", "folder of the declared groups")
	logs := flags.String("logs", "", "folder of the containers' logs (default <data>/logs)")
	certificates := flags.String("certificates", "/run/palisade/certs.d", "containerd's config_path of registries")
	address := flags.String("containerd", "/run/containerd/containerd.sock", "containerd's socket")
	cgroupParent := flags.String("cgroup-parent", "/palisade", "cgroup of all containers (cgroupfs driver)")
	reserved := flags.Uint64("reserved-memory", 384<<20, "bytes of memory that groups cannot request")
	poll := flags.Duration("poll-interval", 2*time.Second, "time between two looks at containerd")
	sealed := flags.Bool("sealed", true, "run only images that the role images admits; without, containerd unpacks images itself")
	integrity := flags.String("integrity-socket", "/run/palisade/integrity.sock", "socket of the role integrity")
	images := flags.String("images-socket", "/run/palisade/images.sock", "socket of the role images")
	network := flags.String("netd-socket", "/run/palisade/netd.sock", "socket of the role netd")
	builtIn := flags.String("built-in-layers", "/usr/share/palisade/layers", "folder of the host image's own sealed layers")
	fetched := flags.String("layers", "/var/lib/palisade/layers", "folder of fetched sealed layers")
	trust := flags.String("trust", "/usr/share/palisade/trust", "folder of the keys that seals are believed of, and of revocations")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *logs == "" {
		*logs = filepath.Join(*data, "logs")
	}
	capacity, err := HostCapacity(*reserved)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient("unix://"+*address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)), grpc.WithUnaryInterceptor(bounded))
	if err != nil {
		return err
	}
	defer connection.Close()

	runtimeService := runtimev1.NewRuntimeServiceClient(connection)
	runtimeVersion := &cached{}
	options := Options{
		DataDirectory: *data, LogDirectory: *logs, CertificatesDirectory: *certificates,
		CgroupParent: *cgroupParent, CgroupRoot: "/sys/fs/cgroup", MaximumLogSize: maximumLogSize,
		PollInterval: *poll, Capacity: capacity, Starts: 2 * runtime.NumCPU(), DiskUsage: func() (float64, error) { return diskUsage(*data) }, ReservedPorts: []uint32{8443}, Now: time.Now, Logger: logger,
		Prepare: func(ctx context.Context) error {
			runtimeVersion.set(containerd.RuntimeVersion(ctx, runtimeService))
			return nil
		},
	}
	roleImages := &http.Client{Transport: service.UnixTransport(*images)}
	if *sealed {
		options.Layers = []seal.Store{seal.Store(*builtIn), seal.Store(*fetched)}
		if options.Trust, err = seal.LoadTrust(*trust); err != nil {
			return err
		}
		options.Sealed = agentv1connect.NewImageStoreServiceClient(roleImages, "http://role")
		roleIntegrity := &http.Client{Transport: service.UnixTransport(*integrity)}
		options.LayerDevices = agentv1connect.NewLayerDeviceServiceClient(roleIntegrity, "http://role")
	}
	manager, err := NewManager(options, runtimeService, runtimev1.NewImageServiceClient(connection))
	if err != nil {
		return err
	}
	listener, err := service.Listen(*socket, *socketGroup)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	limit := connect.WithReadMaxBytes(maximumRequest)
	mux.Handle(agentv1connect.NewGroupServiceHandler(&groupService{manager}, limit))
	// The role api reaches this role only.
	mux.Handle("/"+agentv1connect.NetworkServiceName+"/", service.Proxy("netd", *network, logger))
	host := &hostService{manager: manager, runtime: runtimeVersion.get}
	if *sealed {
		mux.Handle("/"+agentv1connect.ImagePolicyServiceName+"/", service.Proxy("images", *images, logger))
		host.images = agentv1connect.NewHostServiceClient(roleImages, "http://role")
	}
	mux.Handle(agentv1connect.NewHostServiceHandler(host, limit))

	reconciling := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { reconciling <- manager.Run(ctx) }()
	logger.Info("serving", "socket", *socket, "cpus", capacity.CPUs, "memory", capacity.MemoryBytes)
	service.Notify("READY=1")
	err = service.ServeUnix(ctx, listener, mux)
	cancel()
	if failure := <-reconciling; err == nil {
		err = failure
	}
	return err
}

// callTimeout bounds each call to containerd, so that one that hangs does not hold a group for ever. Making a sandbox takes
// most of a minute on an emulated host.
const callTimeout = 4 * time.Minute

func bounded(ctx context.Context, method string, request, response any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	// A pull takes as long as it makes progress; containerd ends one that does not.
	if method != runtimev1.ImageService_PullImage_FullMethodName {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	return invoke(ctx, method, request, response, connection, options...)
}

// cached is a text that one goroutine learns and others read.
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
