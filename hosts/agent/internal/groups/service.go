package groups

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

// firstObservation is how long a call waits until the group was observed for the first time.
const firstObservation = 5 * time.Second

// maximumSuspension is how long reconciliation can be suspended.
const maximumSuspension = time.Hour

// hostService serves this role's part of HostService to the role api.
type hostService struct {
	agentv1connect.UnimplementedHostServiceHandler
	manager *Manager
	runtime func() string
	// images is the client of the role images; nil when images are pulled without seals.
	images agentv1connect.HostServiceClient
}

// imagesTimeout bounds the check whether the role images answers.
const imagesTimeout = 2 * time.Second

// GetHost answers from memory, except that it checks whether the role images answers.
func (s *hostService) GetHost(ctx context.Context, _ *connect.Request[agentv1.GetHostRequest]) (*connect.Response[agentv1.GetHostResponse], error) {
	ready, message, containerd := s.manager.Ready()
	messages := []string{message}
	if s.images != nil {
		ctx, cancel := context.WithTimeout(ctx, imagesTimeout)
		defer cancel()
		images, err := s.images.GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{}))
		if err != nil {
			ready, messages = false, append(messages, "role images does not answer: "+err.Error())
		} else {
			messages = append(messages, images.Msg.GetReadyMessage())
		}
	}
	// The host is ready without these groups, because it can run all others.
	for _, problem := range s.manager.store.folder.Problems() {
		messages = append(messages, "groups: "+describeProblem(problem))
	}
	messages = slices.DeleteFunc(messages, func(message string) bool { return message == "" })
	return connect.NewResponse(&agentv1.GetHostResponse{
		ContainerdVersion: containerd,
		RuntimeVersion:    s.runtime(),
		Cpus:              s.manager.options.Capacity.CPUs,
		MemoryBytes:       s.manager.options.Capacity.MemoryBytes,
		Ready:             ready,
		ReadyMessage:      strings.Join(messages, "; "),
	}), nil
}

// groupService serves GroupService.
type groupService struct {
	manager *Manager
}

func (s *groupService) ApplyGroup(_ context.Context, request *connect.Request[agentv1.ApplyGroupRequest]) (*connect.Response[agentv1.ApplyGroupResponse], error) {
	group, err := s.manager.Apply(request.Msg.GetSpec(), request.Msg.GetExpectedGeneration(), request.Msg.GetDryRun())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&agentv1.ApplyGroupResponse{Group: group}), nil
}

// waitObserved waits until the group was observed for the first time after a start of the agent. It returns an error
// when the status is not known.
func (s *groupService) waitObserved(ctx context.Context, g *group) error {
	select {
	case <-g.firstObserved:
	case <-g.gone:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(firstObservation):
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("group %q was not looked at yet since the agent's start", g.name))
	}
	if err := g.observationError(); err != nil {
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("group %q cannot be observed: %w", g.name, err))
	}
	return nil
}

func (s *groupService) GetGroup(ctx context.Context, request *connect.Request[agentv1.GetGroupRequest]) (*connect.Response[agentv1.GetGroupResponse], error) {
	g, err := s.manager.find(request.Msg.GetName())
	if damaged := s.manager.damaged(request.Msg.GetName()); err != nil && damaged != nil {
		return connect.NewResponse(&agentv1.GetGroupResponse{Group: damaged}), nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.waitObserved(ctx, g); err != nil {
		return nil, err
	}
	view, _ := g.view()
	return connect.NewResponse(&agentv1.GetGroupResponse{Group: view}), nil
}

func (s *groupService) ListGroups(context.Context, *connect.Request[agentv1.ListGroupsRequest]) (*connect.Response[agentv1.ListGroupsResponse], error) {
	response := &agentv1.ListGroupsResponse{}
	for _, g := range s.manager.all() {
		view, _ := g.view()
		response.Groups = append(response.Groups, view)
	}
	for _, problem := range s.manager.store.folder.Problems() {
		listed := slices.ContainsFunc(response.Groups, func(g *agentv1.Group) bool { return g.GetSpec().GetName() == problem.Name })
		if damaged := s.manager.damaged(problem.Name); damaged != nil && !listed {
			response.Groups = append(response.Groups, damaged)
		}
	}
	return connect.NewResponse(response), nil
}

func (s *groupService) DeleteGroup(ctx context.Context, request *connect.Request[agentv1.DeleteGroupRequest]) (*connect.Response[agentv1.DeleteGroupResponse], error) {
	if err := s.manager.Delete(ctx, request.Msg.GetName()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&agentv1.DeleteGroupResponse{}), nil
}

func (s *groupService) WatchGroup(ctx context.Context, request *connect.Request[agentv1.WatchGroupRequest], stream *connect.ServerStream[agentv1.WatchGroupResponse]) error {
	g, err := s.manager.find(request.Msg.GetName())
	if err != nil {
		return err
	}
	for {
		view, changed := g.view()
		if err := stream.Send(&agentv1.WatchGroupResponse{Group: view}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-g.gone:
			return connect.NewError(connect.CodeNotFound, fmt.Errorf("group %q was deleted", g.name))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *groupService) GetLogs(ctx context.Context, request *connect.Request[agentv1.GetLogsRequest], stream *connect.ServerStream[agentv1.GetLogsResponse]) error {
	g, err := s.manager.find(request.Msg.GetGroup())
	if err != nil {
		return err
	}
	name := request.Msg.GetContainer()
	containers := g.desired().spec.GetContainers()
	if !slices.ContainsFunc(containers, func(c *agentv1.Container) bool { return c.GetName() == name }) {
		return connect.NewError(connect.CodeNotFound, fmt.Errorf("group %q has no container %q", g.name, name))
	}
	options := logOptions{
		follow: request.Msg.GetFollow(),
		tail:   int(request.Msg.GetTailLines()),
		finished: func() bool {
			select {
			case <-g.gone:
				return true
			default:
				return g.desired().Containers[name].Done
			}
		},
	}
	if since := request.Msg.GetSince(); since != nil {
		options.since = since.AsTime()
	}
	// Headers are sent at once, so that the caller knows that it is connected even when the container writes nothing.
	if err := stream.Send(nil); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return streamLog(ctx, filepath.Join(g.logDirectory(), logFile(name)), options, func(line logLine) error {
		data := append(line.content, '\n')
		if request.Msg.GetTimestamps() {
			data = append([]byte(line.time.UTC().Format(time.RFC3339Nano)+" "), data...)
		}
		return stream.Send(&agentv1.GetLogsResponse{Data: data, Stream: line.stream})
	})
}

func (s *groupService) SuspendReconcile(_ context.Context, request *connect.Request[agentv1.SuspendReconcileRequest]) (*connect.Response[agentv1.SuspendReconcileResponse], error) {
	duration := request.Msg.GetDuration().AsDuration()
	if duration < 0 || duration > maximumSuspension {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("duration: %s is not between 0 and %s", duration, maximumSuspension))
	}
	groups := s.manager.all()
	if name := request.Msg.GetGroup(); name != "" {
		g, err := s.manager.find(name)
		if err != nil {
			return nil, err
		}
		groups = []*group{g}
	}
	for _, g := range groups {
		g.suspend(duration)
	}
	return connect.NewResponse(&agentv1.SuspendReconcileResponse{}), nil
}
