package netd

import (
	"net/netip"
	"testing"

	"github.com/palisade-host/palisade/bpf/datapath"
)

// CHECK of one container fails for a problem of the policy or of the container itself, not for another container's.
func TestProblemsThatAffectAContainer(t *testing.T) {
	web := datapath.Published{Address: netip.IPv4Unspecified(), Port: 80, Protocol: "TCP", Backend: netip.MustParseAddr("10.88.0.2"), BackendPort: 8080}
	otherProtocol := web
	otherProtocol.Protocol = "UDP"
	connected := attachment{
		Endpoint:  datapath.Endpoint{Name: "default/web", Interface: 7},
		Published: []datapath.Published{web},
	}
	for _, test := range []struct {
		problem datapath.Problem
		want    bool
	}{
		{datapath.Problem{Kind: datapath.PolicyReplaced}, true},
		{datapath.Problem{Kind: datapath.PolicyEntriesChanged}, true},
		{datapath.Problem{Kind: datapath.ProgramDetached, Interface: 7}, true},
		{datapath.Problem{Kind: datapath.ProgramDetached, Interface: 77}, false},
		{datapath.Problem{Kind: datapath.LinkPinMissing, Interface: 7}, true},
		{datapath.Problem{Kind: datapath.LinkPinMissing, Interface: 77}, false},
		{datapath.Problem{Kind: datapath.EndpointEntryWrong, Endpoint: "default/web"}, true},
		{datapath.Problem{Kind: datapath.EndpointEntryWrong, Endpoint: "default/web-2"}, false},
		{datapath.Problem{Kind: datapath.PublishedEntryWrong, Published: web}, true},
		{datapath.Problem{Kind: datapath.PublishedEntryWrong, Published: otherProtocol}, false},
		{datapath.Problem{Kind: datapath.MapPinMissing, Map: "flows"}, false},
		{datapath.Problem{Kind: datapath.DeviceEntryWrong, Interface: 7}, false},
	} {
		if got := connected.affectedBy(test.problem); got != test.want {
			t.Errorf("%+v affects the container: %t, want %t", test.problem, got, test.want)
		}
	}
}
