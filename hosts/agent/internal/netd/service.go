package netd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/palisade-host/palisade/bpf/datapath"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// lossInterval is the time between two reports of lost flows to a caller that follows. A report is sent only when more
// were lost.
const lossInterval = time.Second

// networkService serves NetworkService to operators. The roles api and groups forward their calls.
type networkService struct {
	network *network
}

func (s *networkService) ApplyPolicy(_ context.Context, request *connect.Request[agentv1.ApplyPolicyRequest]) (*connect.Response[agentv1.ApplyPolicyResponse], error) {
	policy, err := datapath.ParsePolicy(request.Msg.GetPolicy())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if expected := request.Msg.GetExpectedHash(); expected != policy.Hash {
		return nil, connect.NewError(connect.CodeInvalidArgument,
			fmt.Errorf("expected_hash: %q is not the policy's hash, %q", expected, policy.Hash))
	}
	if !request.Msg.GetDryRun() {
		if _, err := s.network.apply(request.Msg.GetPolicy()); err != nil {
			return nil, connect.NewError(connect.CodeInternal, err)
		}
	}
	response := &agentv1.ApplyPolicyResponse{PolicyHash: policy.Hash}
	for _, endpoint := range s.network.endpoints() {
		if !names(policy, endpoint.Name) {
			response.UnnamedEndpoints = append(response.UnnamedEndpoints, endpoint.Name)
		}
	}
	return connect.NewResponse(response), nil
}

func names(policy *datapath.Policy, endpoint string) bool {
	return slices.ContainsFunc(policy.Endpoints, func(subject datapath.Subject) bool { return subject.Name == endpoint })
}

func (s *networkService) GetPolicy(context.Context, *connect.Request[agentv1.GetPolicyRequest]) (*connect.Response[agentv1.GetPolicyResponse], error) {
	policy, compiled := s.network.declaredPolicy()
	if problems, damaged := s.network.recordProblems(); policy == nil && damaged {
		// This is no proof of absence.
		return nil, connect.NewError(connect.CodeDataLoss,
			fmt.Errorf("the network policy of this host is not known, and nothing is allowed: %s", strings.Join(problems, "; ")))
	}
	if policy == nil {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no network policy is declared on this host"))
	}
	return connect.NewResponse(&agentv1.GetPolicyResponse{Policy: compiled}), nil
}

func (s *networkService) DeletePolicy(context.Context, *connect.Request[agentv1.DeletePolicyRequest]) (*connect.Response[agentv1.DeletePolicyResponse], error) {
	if err := s.network.withdraw(); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&agentv1.DeletePolicyResponse{}), nil
}

func (s *networkService) GetNetwork(context.Context, *connect.Request[agentv1.GetNetworkRequest]) (*connect.Response[agentv1.GetNetworkResponse], error) {
	response, err := s.network.describe()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(response), nil
}

func (n *network) describe() (*agentv1.GetNetworkResponse, error) {
	status, err := n.datapath.Status()
	if err != nil {
		return nil, err
	}
	bypasses, err := findBypasses(n.handle)
	if err != nil {
		return nil, err
	}
	lost, err := n.datapath.LostEvents()
	if err != nil {
		return nil, err
	}
	response := &agentv1.GetNetworkResponse{
		Generation: status.Generation, Problems: descriptions(status.Problems), Bypasses: bypasses, LostEvents: lost,
	}
	policy, _ := n.declaredPolicy()
	recorded, damaged := n.recordProblems()
	response.Problems = append(response.Problems, recorded...)
	response.PolicyDeclared = policy != nil || damaged
	if policy != nil && status.PolicyIntact {
		response.PolicyHash = status.PolicyHash
	}
	for _, endpoint := range n.endpoints() {
		described := &agentv1.NetworkEndpoint{Name: endpoint.Name, Named: policy == nil && !damaged || policy != nil && names(policy, endpoint.Name)}
		for _, address := range []netip.Addr{endpoint.IPv4, endpoint.IPv6} {
			if address.IsValid() {
				described.Addresses = append(described.Addresses, address.String())
			}
		}
		response.Endpoints = append(response.Endpoints, described)
	}
	return response, nil
}

func (s *networkService) Repair(context.Context, *connect.Request[agentv1.RepairRequest]) (*connect.Response[agentv1.RepairResponse], error) {
	problems, err := s.network.datapath.Repair()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&agentv1.RepairResponse{Problems: descriptions(problems)}), nil
}

// descriptions returns the problems as operators read them.
func descriptions(problems []datapath.Problem) (texts []string) {
	for _, problem := range problems {
		texts = append(texts, problem.String())
	}
	return texts
}

func (s *networkService) StreamFlows(ctx context.Context, request *connect.Request[agentv1.StreamFlowsRequest], stream *connect.ServerStream[agentv1.StreamFlowsResponse]) error {
	wants, err := flowFilter(request.Msg)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	lostBefore, err := s.network.datapath.LostEvents()
	if err != nil {
		return connect.NewError(connect.CodeInternal, err)
	}
	kept, caller := s.network.flows.follow(wants)
	defer s.network.flows.unfollow(caller)
	for _, flow := range kept {
		if err := stream.Send(flowResponse(flow)); err != nil {
			return err
		}
	}
	if !request.Msg.GetFollow() {
		return nil
	}
	// This first message shows the caller that it receives all flows from now on.
	if err := stream.Send(lossResponse(0, 0)); err != nil {
		return err
	}
	ticker := time.NewTicker(lossInterval)
	defer ticker.Stop()
	var sentRing, sentCaller uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case flow := <-caller.flows:
			if err := stream.Send(flowResponse(flow)); err != nil {
				return err
			}
		case <-ticker.C:
			ring, err := s.network.datapath.LostEvents()
			if err != nil {
				return connect.NewError(connect.CodeInternal, err)
			}
			ring -= lostBefore
			slow := s.network.flows.lostBy(caller)
			if ring == sentRing && slow == sentCaller {
				continue
			}
			sentRing, sentCaller = ring, slow
			if err := stream.Send(lossResponse(ring, slow)); err != nil {
				return err
			}
		}
	}
}

func lossResponse(ring, caller uint64) *agentv1.StreamFlowsResponse {
	lost := &agentv1.LostFlows{Ring: ring, Caller: caller}
	return &agentv1.StreamFlowsResponse{Content: &agentv1.StreamFlowsResponse_Lost{Lost: lost}}
}

// flowFilter checks a request and returns a function that selects the requested flows.
func flowFilter(request *agentv1.StreamFlowsRequest) (func(observedFlow) bool, error) {
	reasons, err := datapath.Reasons()
	if err != nil {
		return nil, err
	}
	if reason := request.GetReason(); reason != "" && !slices.Contains(reasons, reason) {
		return nil, fmt.Errorf("reason: %q is none; there are %s", reason, strings.Join(reasons, ", "))
	}
	if request.GetPort() > 65535 {
		return nil, fmt.Errorf("port: %d is above 65535", request.GetPort())
	}
	prefix, err := prefixOf(request.GetAddress())
	if err != nil {
		return nil, err
	}
	if since := request.GetSince(); since != nil && !since.IsValid() {
		return nil, errors.New("since: is no time")
	}
	return func(flow observedFlow) bool {
		if since := request.GetSince(); since != nil && flow.at.Before(since.AsTime()) {
			return false
		}
		if port := uint16(request.GetPort()); port != 0 && portOf(flow, flow.Source) != port && portOf(flow, flow.Destination) != port {
			return false
		}
		if prefix.IsValid() && !prefix.Contains(flow.Source.Addr()) && !prefix.Contains(flow.Destination.Addr()) {
			return false
		}
		if reason := request.GetReason(); reason != "" && flow.Reason != reason {
			return false
		}
		if verdict := request.GetVerdict(); verdict != agentv1.FlowVerdict_FLOW_VERDICT_UNSPECIFIED && verdict != verdictOf(flow) {
			return false
		}
		return ofGroup(request, flow)
	}, nil
}

func ofGroup(request *agentv1.StreamFlowsRequest, flow observedFlow) bool {
	group := request.GetGroup()
	is := func(endpoint string) bool {
		return endpoint != "" && (group == "" || endpoint == group || strings.HasSuffix(endpoint, "/"+group))
	}
	switch request.GetDirection() {
	case agentv1.FlowDirection_FLOW_DIRECTION_INGRESS:
		return is(flow.destination)
	case agentv1.FlowDirection_FLOW_DIRECTION_EGRESS:
		return is(flow.source)
	default:
		return group == "" || is(flow.source) || is(flow.destination)
	}
}

// prefixOf parses an address or a prefix. An empty text gives the invalid prefix.
func prefixOf(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if address, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("address: %q is neither an address nor a prefix", text)
	}
	return prefix, nil
}

// portOf returns a flow's port, and zero for protocols without ports. For those the kernel stores something else there,
// such as the identifier of an ICMP echo.
func portOf(flow observedFlow, at netip.AddrPort) uint16 {
	switch flow.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
		return at.Port()
	default:
		return 0
	}
}

func verdictOf(flow observedFlow) agentv1.FlowVerdict {
	if flow.Forwarded {
		return agentv1.FlowVerdict_FLOW_VERDICT_FORWARDED
	}
	return agentv1.FlowVerdict_FLOW_VERDICT_DROPPED
}

func flowResponse(flow observedFlow) *agentv1.StreamFlowsResponse {
	peer := func(at netip.AddrPort, endpoint string, identity uint32) *agentv1.FlowPeer {
		described := &agentv1.FlowPeer{Port: uint32(portOf(flow, at)), Endpoint: endpoint, Identity: identity}
		// Frames that are not IP have no address.
		if at.Addr().IsValid() {
			described.Address = at.Addr().String()
		}
		return described
	}
	return &agentv1.StreamFlowsResponse{Content: &agentv1.StreamFlowsResponse_Flow{Flow: &agentv1.Flow{
		Time:        timestamppb.New(flow.at),
		Source:      peer(flow.Source, flow.source, flow.SourceIdentity),
		Destination: peer(flow.Destination, flow.destination, flow.DestinationIdentity),
		Protocol:    datapath.ProtocolName(flow.Protocol), Verdict: verdictOf(flow), Reason: flow.Reason, Hook: flow.Hook, Length: flow.Length,
	}}}
}
