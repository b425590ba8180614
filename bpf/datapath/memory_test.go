package datapath_test

import (
	"fmt"
	"testing"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
)

// Budgets of the maps' memory. The maps of flows, endpoints and events have a fixed size. Those of a policy grow with
// it.
const (
	mapMemoryBudget = 64 << 20
	// This is for 1,000 endpoints with 20 rules each.
	policyMemoryBudget = 4 << 20
)

func TestMapMemoryBudget(t *testing.T) {
	running := newLab(t, lab.Description{})
	policy := policyOf()
	for n := range 1000 {
		var ingress, egress []datapath.Rule
		for peer := range 10 {
			ingress = append(ingress, rule("allow", uint32(256+(n+peer)%1000), "TCP", uint16(8000+peer)))
			egress = append(egress, rule("allow", uint32(256+(n+peer*7)%1000), "TCP", 443))
		}
		policy.Endpoints = append(policy.Endpoints, datapath.Subject{
			Name: fmt.Sprintf("shop/web-%d", n), Identity: uint32(256 + n), Ingress: enforce(ingress...), Egress: enforce(egress...),
		})
	}
	apply(t, running, policy)
	grown, fixed, err := running.Datapath.MapMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("1,000 endpoints with 20 rules each: %d KiB for the policy, %d KiB for all else", grown>>10, fixed>>10)
	if grown > policyMemoryBudget || fixed > mapMemoryBudget {
		t.Errorf("policy: %d of %d bytes; all else: %d of %d bytes", grown, policyMemoryBudget, fixed, mapMemoryBudget)
	}
	// The measured memory grows with the applied policy.
	apply(t, running, usualPolicy())
	if small, _, err := running.Datapath.MapMemory(); err != nil || small*10 > grown {
		t.Errorf("a policy of two endpoints: %d bytes, %v", small, err)
	}
}
