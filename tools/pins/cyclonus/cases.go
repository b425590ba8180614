package main

import (
	"fmt"
	"sort"

	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/matcher"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

var (
	namespaces = []string{"x", "y", "z"}
	podNames   = []string{"a", "b", "c"}
	ports      = []int{80, 81}
	protocols  = []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolSCTP}
)

// Addresses of pods, each the same in all cases. These have prefixes of 24 and 28 bits around that of z/c.
var addressFormats = map[string]string{"4": "192.168.242.%d", "6": "fd00:242::%x"}

type testCase struct {
	Description string     `json:"description"`
	Tags        []string   `json:"tags"`
	Steps       []testStep `json:"steps"`
}

// What is there when a step's probes run, and what the oracle expects of them.
type testStep struct {
	Policies   []*networkingv1.NetworkPolicy `json:"policies"`
	Namespaces map[string]map[string]string  `json:"namespaces"`
	Pods       []pod                         `json:"pods"`
	Cells      []cell                        `json:"cells"`
}

type pod struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Address   string            `json:"address"`
	Ports     []port            `json:"ports"`
}

type port struct {
	Name     string      `json:"name"`
	Port     int         `json:"port"`
	Protocol v1.Protocol `json:"protocol"`
}

// From and To are places in the list of pods, Port one in the destination's list of ports.
type cell struct {
	From    int  `json:"from"`
	To      int  `json:"to"`
	Port    int  `json:"port"`
	Ingress bool `json:"ingress"`
	Egress  bool `json:"egress"`
}

// The state of a case, as Cyclonus keeps it for its simulation, without a cluster behind it.
type state struct {
	resources *probe.Resources
	policies  []*networkingv1.NetworkPolicy
	addresses map[string]string
}

func newState(addresses map[string]string) *state {
	s := &state{resources: &probe.Resources{Namespaces: map[string]map[string]string{}}, addresses: addresses}
	for _, namespace := range namespaces {
		// The second label is what every cluster adds.
		s.resources.Namespaces[namespace] = map[string]string{"ns": namespace, "kubernetes.io/metadata.name": namespace}
		for _, name := range podNames {
			made := probe.NewDefaultPod(namespace, name, ports, protocols, false, "")
			made.IP = s.addresses[namespace+"/"+name]
			s.resources.Pods = append(s.resources.Pods, made)
		}
	}
	return s
}

func allCases(family string) ([]testCase, error) {
	addresses := map[string]string{}
	address := func(pod string) string {
		if addresses[pod] == "" {
			addresses[pod] = fmt.Sprintf(addressFormats[family], 11+len(addresses))
		}
		return addresses[pod]
	}
	var target string
	for _, namespace := range namespaces {
		for _, name := range podNames {
			target = address(namespace + "/" + name)
		}
	}
	all := generator.NewTestCaseGenerator(true, target, namespaces, nil, nil).GenerateAllTestCases()
	for _, generated := range all {
		for _, step := range generated.Steps {
			for _, action := range step.Actions {
				if action.CreatePod != nil {
					address(action.CreatePod.Namespace + "/" + action.CreatePod.Pod)
				}
			}
		}
	}
	var cases []testCase
	for _, generated := range all {
		tags := generated.Tags.Keys()
		sort.Strings(tags)
		dumped := testCase{Description: generated.Description, Tags: tags}
		s := newState(addresses)
		for _, step := range generated.Steps {
			for _, action := range step.Actions {
				if err := s.apply(action); err != nil {
					return nil, fmt.Errorf("%s: %w", generated.Description, err)
				}
			}
			dumped.Steps = append(dumped.Steps, s.step())
		}
		cases = append(cases, dumped)
	}
	return cases, nil
}

func (s *state) apply(action *generator.Action) (err error) {
	switch {
	case action.CreatePolicy != nil:
		s.policies = append(s.policies, action.CreatePolicy.Policy)
	case action.UpdatePolicy != nil:
		updated := action.UpdatePolicy.Policy
		s.policies = append(s.without(updated.Namespace, updated.Name), updated)
	case action.DeletePolicy != nil:
		s.policies = s.without(action.DeletePolicy.Namespace, action.DeletePolicy.Name)
	case action.CreateNamespace != nil:
		s.resources, err = s.resources.CreateNamespace(action.CreateNamespace.Namespace, action.CreateNamespace.Labels)
	case action.SetNamespaceLabels != nil:
		s.resources, err = s.resources.UpdateNamespaceLabels(action.SetNamespaceLabels.Namespace, action.SetNamespaceLabels.Labels)
	case action.DeleteNamespace != nil:
		s.resources, err = s.resources.DeleteNamespace(action.DeleteNamespace.Namespace)
	case action.CreatePod != nil:
		created := action.CreatePod
		if s.resources, err = s.resources.CreatePod(created.Namespace, created.Pod, created.Labels); err == nil {
			s.resources.Pods[len(s.resources.Pods)-1].IP = s.addresses[created.Namespace+"/"+created.Pod]
		}
	case action.SetPodLabels != nil:
		s.resources, err = s.resources.SetPodLabels(action.SetPodLabels.Namespace, action.SetPodLabels.Pod, action.SetPodLabels.Labels)
	case action.DeletePod != nil:
		s.resources, err = s.resources.DeletePod(action.DeletePod.Namespace, action.DeletePod.Pod)
	default:
		// Reading policies is for clusters that have some already.
		return fmt.Errorf("an action that is not known: %+v", action)
	}
	return err
}

func (s *state) without(namespace, name string) []*networkingv1.NetworkPolicy {
	var kept []*networkingv1.NetworkPolicy
	for _, policy := range s.policies {
		if policy.Namespace != namespace || policy.Name != name {
			kept = append(kept, policy)
		}
	}
	return kept
}

// Every pair of pods, with every port that the destination has, whatever part of it the case itself probes.
func (s *state) step() testStep {
	oracle := matcher.BuildNetworkPolicies(true, s.policies)
	step := testStep{Policies: append([]*networkingv1.NetworkPolicy{}, s.policies...), Namespaces: s.resources.Namespaces}
	for _, p := range s.resources.Pods {
		described := pod{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels, Address: p.IP}
		for _, container := range p.Containers {
			described.Ports = append(described.Ports, port{Name: container.PortName, Port: container.Port, Protocol: container.Protocol})
		}
		step.Pods = append(step.Pods, described)
	}
	for from := range step.Pods {
		for to, destination := range step.Pods {
			for at, port := range destination.Ports {
				result := oracle.IsTrafficAllowed(&matcher.Traffic{
					Source:           s.peer(step.Pods[from]),
					Destination:      s.peer(destination),
					ResolvedPort:     port.Port,
					ResolvedPortName: port.Name,
					Protocol:         port.Protocol,
				})
				step.Cells = append(step.Cells, cell{from, to, at, result.Ingress.IsAllowed(), result.Egress.IsAllowed()})
			}
		}
	}
	return step
}

func (s *state) peer(p pod) *matcher.TrafficPeer {
	return &matcher.TrafficPeer{IP: p.Address, Internal: &matcher.InternalPeer{
		PodLabels:       p.Labels,
		NamespaceLabels: s.resources.Namespaces[p.Namespace],
		Namespace:       p.Namespace,
	}}
}
