package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/palisade-host/palisade/hosts/agent/internal/records"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

// storeService serves ImageStoreService to the role groups.
type storeService struct {
	role *Role
}

func (s *storeService) EnsureImage(ctx context.Context, request *connect.Request[agentv1.EnsureImageRequest], stream *connect.ServerStream[agentv1.EnsureImageResponse]) error {
	report := func(progress *agentv1.ImageProgress) {
		// When the caller is gone, its context ends the call.
		_ = stream.Send(&agentv1.EnsureImageResponse{Content: &agentv1.EnsureImageResponse_Progress{Progress: progress}})
	}
	image, err := s.role.Ensure(ctx, request.Msg.GetReference(), request.Msg.GetImageRegistries(), report)
	if err != nil {
		return connectError(err)
	}
	return stream.Send(&agentv1.EnsureImageResponse{Content: &agentv1.EnsureImageResponse_Image{Image: image}})
}

func (s *storeService) RetainImages(_ context.Context, request *connect.Request[agentv1.RetainImagesRequest]) (*connect.Response[agentv1.RetainImagesResponse], error) {
	removed, bytes, err := s.role.Retain(request.Msg.GetImages(), request.Msg.GetCandidates())
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&agentv1.RetainImagesResponse{RemovedImages: removed, RemovedBytes: uint64(bytes)}), nil
}

// policyService serves ImagePolicyService to operators. The roles api and groups forward their calls.
type policyService struct {
	role *Role
}

func (s *policyService) ApplyImagePolicy(_ context.Context, request *connect.Request[agentv1.ApplyImagePolicyRequest]) (*connect.Response[agentv1.ApplyImagePolicyResponse], error) {
	if request.Msg.GetPolicy() == nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("policy: missing"))
	}
	policy, err := s.role.policies.apply(request.Msg.GetPolicy(), request.Msg.GetDryRun())
	if err != nil {
		return nil, connectError(err)
	}
	refused, err := s.role.refused(policy)
	if err != nil {
		return nil, connectError(err)
	}
	return connect.NewResponse(&agentv1.ApplyImagePolicyResponse{Policy: policy, RefusedImages: refused}), nil
}

func (s *policyService) GetImagePolicy(_ context.Context, request *connect.Request[agentv1.GetImagePolicyRequest]) (*connect.Response[agentv1.GetImagePolicyResponse], error) {
	policy := s.role.policies.get(request.Msg.GetName())
	if policy == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("image policy %q is not declared on this host", request.Msg.GetName()))
	}
	return connect.NewResponse(&agentv1.GetImagePolicyResponse{Policy: policy}), nil
}

func (s *policyService) ListImagePolicies(context.Context, *connect.Request[agentv1.ListImagePoliciesRequest]) (*connect.Response[agentv1.ListImagePoliciesResponse], error) {
	return connect.NewResponse(&agentv1.ListImagePoliciesResponse{Policies: s.role.policies.list()}), nil
}

func (s *policyService) DeleteImagePolicy(_ context.Context, request *connect.Request[agentv1.DeleteImagePolicyRequest]) (*connect.Response[agentv1.DeleteImagePolicyResponse], error) {
	if err := s.role.policies.remove(request.Msg.GetName()); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&agentv1.DeleteImagePolicyResponse{}), nil
}

// refused returns the stored images that could no longer start with another policy declared.
func (r *Role) refused(added *agentv1.ImagePolicy) ([]*agentv1.RefusedImage, error) {
	declared := r.policies.declared()
	isAdded := func(name string) bool { return name == added.GetName() }
	declared.known = append(slices.DeleteFunc(declared.known, func(policy *agentv1.ImagePolicy) bool { return isAdded(policy.GetName()) }), added)
	declared.missing = slices.DeleteFunc(declared.missing, func(problem records.Problem) bool { return isAdded(problem.Name) })
	recorded, err := r.records.all()
	if err != nil {
		return nil, err
	}
	var result []*agentv1.RefusedImage
	for _, digest := range recorded {
		if _, err := os.Stat(r.options.Store.Seal(digest)); err != nil {
			continue
		}
		found := r.records.load(digest)
		for _, text := range found.References {
			ref, err := parseReference(text)
			if err != nil {
				continue
			}
			if refusal := checkPolicies(declared, ref, digest, found.Signatures); refusal != nil {
				result = append(result, &agentv1.RefusedImage{Reference: text, Reason: string(refusal.Reason), Message: strings.ToValidUTF8(refusal.Message, "\ufffd")})
			}
		}
	}
	return result, nil
}

// hostService reports that the role is running, and the policies whose records are not in use.
type hostService struct {
	agentv1connect.UnimplementedHostServiceHandler
	role *Role
}

// GetHost answers immediately.
func (s hostService) GetHost(context.Context, *connect.Request[agentv1.GetHostRequest]) (*connect.Response[agentv1.GetHostResponse], error) {
	var messages []string
	for _, problem := range s.role.policies.folder.Problems() {
		messages = append(messages, "image policies: "+problem.String())
	}
	return connect.NewResponse(&agentv1.GetHostResponse{Ready: true, ReadyMessage: strings.Join(messages, "; ")}), nil
}
