package cri

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RuntimeVersionKey is where a verbose StatusResponse holds the OCI runtime's version in its info, as JSON.
const RuntimeVersionKey = "runtimeVersion"

// filter stands between the socket and upstream's CRI.
type filter struct {
	policy *Policy
	// runtimeVersion names the OCI runtime.
	runtimeVersion func(context.Context) string
}

// unary hands over what Rebuild makes of the request.
func (f *filter) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	rebuilt, err := f.rebuild(info.FullMethod, request)
	if err != nil {
		log.G(ctx).WithError(err).WithField("method", info.FullMethod).Warn("refused")
		return nil, err
	}
	// containerd reads namespaces and leases from headers; CRI has its own.
	ctx = metadata.NewIncomingContext(ctx, metadata.MD{})
	question, isStatus := rebuilt.(*runtimev1.StatusRequest)
	if !isStatus {
		return handle(ctx, rebuilt)
	}
	// Upstream tells its configuration, which nobody asks for here.
	response, err := handle(ctx, &runtimev1.StatusRequest{})
	if answer, ok := response.(*runtimev1.StatusResponse); ok && err == nil && question.GetVerbose() {
		version, err := json.Marshal(f.runtimeVersion(ctx))
		if err != nil {
			return nil, err
		}
		answer.Info = map[string]string{RuntimeVersionKey: string(version)}
	}
	return response, err
}

func (f *filter) rebuild(method string, request any) (proto.Message, error) {
	if err := served(method); err != nil {
		return nil, err
	}
	message, ok := request.(proto.Message)
	if !ok {
		return nil, status.Errorf(codes.Internal, "a request of type %T", request)
	}
	return f.policy.Rebuild(message)
}

// stream refuses all calls that stream: none of CRI's is in use.
func (f *filter) stream(_ any, stream grpc.ServerStream, info *grpc.StreamServerInfo, _ grpc.StreamHandler) error {
	err := served(info.FullMethod)
	if err == nil {
		err = status.Errorf(codes.PermissionDenied, "%s: calls that stream are not served", info.FullMethod)
	}
	log.G(stream.Context()).WithError(err).WithField("method", info.FullMethod).Warn("refused")
	return err
}

func served(method string) error {
	reason, known := methods[method]
	if !known {
		reason = "this host does not know the call"
	}
	if reason != "" {
		return status.Error(codes.PermissionDenied, fmt.Sprintf("%s: %s", method, reason))
	}
	return nil
}
