// Package fakecri is a container runtime for tests. It serves CRI on a unix socket, starts nothing, and fails when a
// test wants it to.
package fakecri

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime is the fake runtime. Its methods are safe for concurrent use.
type Runtime struct {
	runtimev1.UnimplementedRuntimeServiceServer
	runtimev1.UnimplementedImageServiceServer

	mutex      sync.Mutex
	now        func() time.Time
	number     int
	names      map[string]bool
	sandboxes  map[string]*sandbox
	containers map[string]*container
	images     map[string]bool
	imageIDs   map[string]string
	failures   map[string]error
	calls      map[string]int
	delays     map[string]time.Duration
	// present counts the calls in progress, and atOnce the largest count so far.
	present, atOnce map[string]int
	pulls           []*runtimev1.PullImageRequest
	onPull          func(context.Context)
	onStart         func(Program) *Exit
}

// Program is how a container was started.
type Program struct {
	Config *runtimev1.ContainerConfig
	// Log is the file of the program's output.
	Log string
}

// Exit is how a program exits.
type Exit struct {
	Code   int32
	Reason string
}

type sandbox struct {
	info   *runtimev1.PodSandbox
	config *runtimev1.PodSandboxConfig
}

type container struct {
	status  *runtimev1.ContainerStatus
	sandbox string
	config  *runtimev1.ContainerConfig
}

// New creates a runtime without images. now returns the time for the containers' timestamps.
func New(now func() time.Time) *Runtime {
	return &Runtime{
		now: now, names: map[string]bool{}, sandboxes: map[string]*sandbox{}, containers: map[string]*container{},
		images: map[string]bool{}, imageIDs: map[string]string{}, failures: map[string]error{}, calls: map[string]int{}, delays: map[string]time.Duration{}, present: map[string]int{}, atOnce: map[string]int{},
	}
}

// Server returns a gRPC server of the runtime.
func (r *Runtime) Server() *grpc.Server {
	server := grpc.NewServer(grpc.UnaryInterceptor(r.intercept))
	runtimev1.RegisterRuntimeServiceServer(server, r)
	runtimev1.RegisterImageServiceServer(server, r)
	return server
}

// Start serves a fake runtime on a socket in a folder of the test, and returns it with a connection.
func Start(t *testing.T, now func() time.Time) (*Runtime, grpc.ClientConnInterface) {
	t.Helper()
	fake := New(now)
	// The folder's path is short, because a socket's path has at most 108 characters.
	directory, err := os.MkdirTemp("", "cri")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	socket := filepath.Join(directory, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := fake.Server()
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return fake, connection
}

func (r *Runtime) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	method := filepath.Base(info.FullMethod)
	r.mutex.Lock()
	r.calls[method]++
	r.present[method]++
	r.atOnce[method] = max(r.atOnce[method], r.present[method])
	failure, delay := r.failures[method], r.delays[method]
	r.mutex.Unlock()
	defer func() {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		r.present[method]--
	}()
	time.Sleep(delay)
	if failure != nil {
		return nil, failure
	}
	return handle(ctx, request)
}

// Fail makes calls of a method fail; nil makes them succeed again.
func (r *Runtime) Fail(method string, err error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.failures[method] = err
}

// Delay makes calls of a method take longer.
func (r *Runtime) Delay(method string, delay time.Duration) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.delays[method] = delay
}

// AtOnce returns the largest number of concurrent calls of a method.
func (r *Runtime) AtOnce(method string) int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.atOnce[method]
}

// Calls counts the calls of a method so far.
func (r *Runtime) Calls(method string) int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.calls[method]
}

// OnPull sets a function that each pull calls before it succeeds.
func (r *Runtime) OnPull(hook func(context.Context)) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.onPull = hook
}

// OnStart sets a function that stands for the programs: each container that starts calls it. A program for which it
// returns nil keeps running.
func (r *Runtime) OnStart(program func(Program) *Exit) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.onStart = program
}

// Pulls returns the pulls so far.
func (r *Runtime) Pulls() []*runtimev1.PullImageRequest {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return append([]*runtimev1.PullImageRequest(nil), r.pulls...)
}

// Exit ends the running container with a name as if its process had exited.
func (r *Runtime) Exit(name string, code int32, reason string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, c := range r.containers {
		if c.status.Metadata.Name == name && c.status.State == runtimev1.ContainerState_CONTAINER_RUNNING {
			r.exit(c, code, reason)
		}
	}
}

func (r *Runtime) exit(c *container, code int32, reason string) {
	c.status.State = runtimev1.ContainerState_CONTAINER_EXITED
	c.status.ExitCode, c.status.Reason, c.status.FinishedAt = code, reason, r.now().UnixNano()
}

// SetMessage gives the containers of a name a message of the runtime.
func (r *Runtime) SetMessage(name, message string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, c := range r.containers {
		if c.status.Metadata.Name == name {
			c.status.Message = message
		}
	}
}

// Remove removes the containers with a name without the agent's knowledge.
func (r *Runtime) Remove(name string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for id, c := range r.containers {
		if c.status.Metadata.Name == name {
			delete(r.containers, id)
		}
	}
}

// Reboot ends everything that runs, as a restart of the host does.
func (r *Runtime) Reboot() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, c := range r.containers {
		if c.status.State == runtimev1.ContainerState_CONTAINER_RUNNING {
			r.exit(c, 255, "Unknown")
		}
	}
	for _, s := range r.sandboxes {
		s.info.State = runtimev1.PodSandboxState_SANDBOX_NOTREADY
	}
}

// Running returns the configuration and the id of the running container with a name, or nil.
func (r *Runtime) Running(name string) (*runtimev1.ContainerConfig, string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for id, c := range r.containers {
		if c.status.Metadata.Name == name && c.status.State == runtimev1.ContainerState_CONTAINER_RUNNING {
			return c.config, id
		}
	}
	return nil, ""
}

// Sandboxes returns the configurations of all sandboxes.
func (r *Runtime) Sandboxes() []*runtimev1.PodSandboxConfig {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	var configs []*runtimev1.PodSandboxConfig
	for _, s := range r.sandboxes {
		configs = append(configs, s.config)
	}
	return configs
}

// Containers counts all containers.
func (r *Runtime) Containers() int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.containers)
}

func (r *Runtime) id() string {
	r.number++
	return fmt.Sprintf("%064d", r.number)
}

func matches(labels, selector map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// Version implements CRI.
func (r *Runtime) Version(context.Context, *runtimev1.VersionRequest) (*runtimev1.VersionResponse, error) {
	return &runtimev1.VersionResponse{RuntimeName: "fake", RuntimeVersion: "v0.0.0"}, nil
}

// RunPodSandbox implements CRI.
func (r *Runtime) RunPodSandbox(_ context.Context, request *runtimev1.RunPodSandboxRequest) (*runtimev1.RunPodSandboxResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	metadata := request.Config.Metadata
	name := fmt.Sprintf("%s_%s_%s_%d", metadata.Name, metadata.Namespace, metadata.Uid, metadata.Attempt)
	if r.names[name] {
		return nil, status.Errorf(codes.Unknown, "name %q is reserved", name)
	}
	r.names[name] = true
	id := r.id()
	r.sandboxes[id] = &sandbox{config: request.Config, info: &runtimev1.PodSandbox{
		Id: id, Metadata: metadata, State: runtimev1.PodSandboxState_SANDBOX_READY, CreatedAt: r.now().UnixNano() + int64(r.number), Labels: request.Config.Labels,
	}}
	return &runtimev1.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox implements CRI.
func (r *Runtime) StopPodSandbox(_ context.Context, request *runtimev1.StopPodSandboxRequest) (*runtimev1.StopPodSandboxResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if s := r.sandboxes[request.PodSandboxId]; s != nil {
		s.info.State = runtimev1.PodSandboxState_SANDBOX_NOTREADY
		for _, c := range r.containers {
			if c.sandbox == request.PodSandboxId && c.status.State == runtimev1.ContainerState_CONTAINER_RUNNING {
				r.exit(c, 137, "Error")
			}
		}
	}
	return &runtimev1.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox implements CRI.
func (r *Runtime) RemovePodSandbox(_ context.Context, request *runtimev1.RemovePodSandboxRequest) (*runtimev1.RemovePodSandboxResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.sandboxes, request.PodSandboxId)
	for id, c := range r.containers {
		if c.sandbox == request.PodSandboxId {
			delete(r.containers, id)
		}
	}
	return &runtimev1.RemovePodSandboxResponse{}, nil
}

// PodSandboxStatus implements CRI.
func (r *Runtime) PodSandboxStatus(_ context.Context, request *runtimev1.PodSandboxStatusRequest) (*runtimev1.PodSandboxStatusResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	s := r.sandboxes[request.PodSandboxId]
	if s == nil {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	return &runtimev1.PodSandboxStatusResponse{Status: &runtimev1.PodSandboxStatus{
		Id: s.info.Id, State: s.info.State, Network: &runtimev1.PodSandboxNetworkStatus{Ip: "10.88.0.2"},
	}}, nil
}

// ListPodSandbox implements CRI.
func (r *Runtime) ListPodSandbox(_ context.Context, request *runtimev1.ListPodSandboxRequest) (*runtimev1.ListPodSandboxResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	response := &runtimev1.ListPodSandboxResponse{}
	for _, s := range r.sandboxes {
		if matches(s.info.Labels, request.GetFilter().GetLabelSelector()) {
			response.Items = append(response.Items, s.info)
		}
	}
	return response, nil
}

// CreateContainer implements CRI.
func (r *Runtime) CreateContainer(_ context.Context, request *runtimev1.CreateContainerRequest) (*runtimev1.CreateContainerResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.sandboxes[request.PodSandboxId] == nil {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	if !r.images[request.Config.Image.Image] {
		return nil, status.Error(codes.NotFound, "no such image")
	}
	id := r.id()
	r.containers[id] = &container{sandbox: request.PodSandboxId, config: request.Config, status: &runtimev1.ContainerStatus{
		Id: id, Metadata: request.Config.Metadata, State: runtimev1.ContainerState_CONTAINER_CREATED,
		CreatedAt: r.now().UnixNano(), Labels: request.Config.Labels, ImageRef: request.Config.Image.Image,
	}}
	return &runtimev1.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer implements CRI.
func (r *Runtime) StartContainer(_ context.Context, request *runtimev1.StartContainerRequest) (*runtimev1.StartContainerResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	c := r.containers[request.ContainerId]
	if c == nil {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	c.status.State, c.status.StartedAt = runtimev1.ContainerState_CONTAINER_RUNNING, r.now().UnixNano()
	if r.onStart != nil {
		log := filepath.Join(r.sandboxes[c.sandbox].config.GetLogDirectory(), c.config.GetLogPath())
		if end := r.onStart(Program{Config: c.config, Log: log}); end != nil {
			r.exit(c, end.Code, end.Reason)
		}
	}
	return &runtimev1.StartContainerResponse{}, nil
}

// StopContainer implements CRI.
func (r *Runtime) StopContainer(_ context.Context, request *runtimev1.StopContainerRequest) (*runtimev1.StopContainerResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if c := r.containers[request.ContainerId]; c != nil && c.status.State == runtimev1.ContainerState_CONTAINER_RUNNING {
		r.exit(c, 143, "Error")
	}
	return &runtimev1.StopContainerResponse{}, nil
}

// RemoveContainer implements CRI.
func (r *Runtime) RemoveContainer(_ context.Context, request *runtimev1.RemoveContainerRequest) (*runtimev1.RemoveContainerResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.containers, request.ContainerId)
	return &runtimev1.RemoveContainerResponse{}, nil
}

// ReopenContainerLog implements CRI.
func (r *Runtime) ReopenContainerLog(context.Context, *runtimev1.ReopenContainerLogRequest) (*runtimev1.ReopenContainerLogResponse, error) {
	return &runtimev1.ReopenContainerLogResponse{}, nil
}

// ListContainers implements CRI.
func (r *Runtime) ListContainers(_ context.Context, request *runtimev1.ListContainersRequest) (*runtimev1.ListContainersResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	response := &runtimev1.ListContainersResponse{}
	for id, c := range r.containers {
		filter := request.GetFilter()
		if matches(c.config.Labels, filter.GetLabelSelector()) && (filter.GetPodSandboxId() == "" || filter.GetPodSandboxId() == c.sandbox) {
			response.Containers = append(response.Containers, &runtimev1.Container{
				Id: id, PodSandboxId: c.sandbox, Metadata: c.status.Metadata, State: c.status.State, CreatedAt: c.status.CreatedAt, Labels: c.config.Labels,
				Image: c.config.Image,
			})
		}
	}
	return response, nil
}

// ContainerStatus implements CRI.
func (r *Runtime) ContainerStatus(_ context.Context, request *runtimev1.ContainerStatusRequest) (*runtimev1.ContainerStatusResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	c := r.containers[request.ContainerId]
	if c == nil {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	// The status is copied, because it is encoded after the lock is released.
	copied := &runtimev1.ContainerStatus{
		Id: c.status.Id, Metadata: c.status.Metadata, State: c.status.State, CreatedAt: c.status.CreatedAt, StartedAt: c.status.StartedAt,
		FinishedAt: c.status.FinishedAt, ExitCode: c.status.ExitCode, Reason: c.status.Reason, Message: c.status.Message, Labels: c.status.Labels, ImageRef: c.status.ImageRef,
	}
	return &runtimev1.ContainerStatusResponse{Status: copied}, nil
}

// ImageStatus implements CRI.
func (r *Runtime) ImageStatus(_ context.Context, request *runtimev1.ImageStatusRequest) (*runtimev1.ImageStatusResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if !r.images[request.Image.Image] {
		return &runtimev1.ImageStatusResponse{}, nil
	}
	id := cmp.Or(r.imageIDs[request.Image.Image], request.Image.Image)
	return &runtimev1.ImageStatusResponse{Image: &runtimev1.Image{Id: id}}, nil
}

// PullImage implements CRI.
func (r *Runtime) PullImage(ctx context.Context, request *runtimev1.PullImageRequest) (*runtimev1.PullImageResponse, error) {
	r.mutex.Lock()
	r.pulls = append(r.pulls, request)
	hook := r.onPull
	r.mutex.Unlock()
	if hook != nil {
		hook(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.images[request.Image.Image] = true
	return &runtimev1.PullImageResponse{ImageRef: request.Image.Image}, nil
}

// ListImages implements CRI. An image with the name "pinned" is pinned.
func (r *Runtime) ListImages(context.Context, *runtimev1.ListImagesRequest) (*runtimev1.ListImagesResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	response := &runtimev1.ListImagesResponse{}
	for name := range r.images {
		response.Images = append(response.Images, &runtimev1.Image{Id: "id of " + name, RepoDigests: []string{name}, Pinned: name == "pinned"})
	}
	return response, nil
}

// RemoveImage implements CRI.
func (r *Runtime) RemoveImage(_ context.Context, request *runtimev1.RemoveImageRequest) (*runtimev1.RemoveImageResponse, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.images, strings.TrimPrefix(request.Image.Image, "id of "))
	return &runtimev1.RemoveImageResponse{}, nil
}

// Images lists the images. AddImage adds one.
func (r *Runtime) Images() []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return slices.Sorted(maps.Keys(r.images))
}

// SetImageID sets the identifier of an image, which by default is its name.
func (r *Runtime) SetImageID(name, id string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.imageIDs[name] = id
}

// AddImage adds an image as if it had been pulled.
func (r *Runtime) AddImage(name string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.images[name] = true
}
