package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Policies, the peers they are about, and what is asked of them.
type question struct {
	Policies []*networkingv1.NetworkPolicy `json:"policies"`
	Peers    []peer                        `json:"peers"`
	Tuples   []tuple                       `json:"tuples"`
}

// A pod, or without a namespace something outside.
type peer struct {
	Namespace       string            `json:"namespace"`
	NamespaceLabels map[string]string `json:"namespaceLabels"`
	Labels          map[string]string `json:"labels"`
	Address         string            `json:"address"`
}

type tuple struct {
	From     int         `json:"from"`
	To       int         `json:"to"`
	Protocol v1.Protocol `json:"protocol"`
	Port     int         `json:"port"`
	// The destination's name for the port, if it has one.
	Name string `json:"name"`
}

// answer writes for each tuple of a question 0 to 3: 1 when egress is allowed, and 2 when ingress is.
func answer(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<26)
	encoder := json.NewEncoder(out)
	for line := 1; lines.Scan(); line++ {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		// Not simplified: what Cyclonus simplifies is proved equal by its own tests only.
		oracle := matcher.BuildNetworkPolicies(false, asked.Policies)
		verdicts := make([]int, len(asked.Tuples))
		for i, t := range asked.Tuples {
			result := oracle.IsTrafficAllowed(&matcher.Traffic{
				Source:           asked.Peers[t.From].traffic(),
				Destination:      asked.Peers[t.To].traffic(),
				ResolvedPort:     t.Port,
				ResolvedPortName: t.Name,
				Protocol:         t.Protocol,
			})
			if result.Egress.IsAllowed() {
				verdicts[i]++
			}
			if result.Ingress.IsAllowed() {
				verdicts[i] += 2
			}
		}
		if err := encoder.Encode(verdicts); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (p peer) traffic() *matcher.TrafficPeer {
	if p.Namespace == "" {
		return &matcher.TrafficPeer{IP: p.Address}
	}
	return &matcher.TrafficPeer{IP: p.Address, Internal: &matcher.InternalPeer{
		Namespace: p.Namespace, NamespaceLabels: p.NamespaceLabels, PodLabels: p.Labels,
	}}
}
