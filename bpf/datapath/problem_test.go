package datapath_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/palisade-host/palisade/bpf/datapath"
)

// Operators and their tools read these descriptions; the same text is in the JSON of the status.
func TestProblemDescriptions(t *testing.T) {
	const applied, found = "0123456789abcdef", "fedcba9876543210"
	for _, test := range []struct {
		want    string
		problem datapath.Problem
	}{
		{"policy: fedcba987654 is in the kernel, 0123456789ab was applied",
			datapath.Problem{Kind: datapath.PolicyReplaced, AppliedHash: applied, FoundHash: found}},
		{"policy 0123456789ab: its map entries were changed",
			datapath.Problem{Kind: datapath.PolicyEntriesChanged, AppliedHash: applied, FoundHash: applied}},
		{"map flows: its pin is gone", datapath.Problem{Kind: datapath.MapPinMissing, Map: "flows"}},
		{"interface 7: to_container is not attached",
			datapath.Problem{Kind: datapath.ProgramDetached, Interface: 7, Program: "to_container"}},
		{"interface 7: the pin of from_device is gone",
			datapath.Problem{Kind: datapath.LinkPinMissing, Interface: 7, Program: "from_device"}},
		{`endpoint "default/web": its map entry is not as declared`,
			datapath.Problem{Kind: datapath.EndpointEntryWrong, Endpoint: "default/web"}},
		{"host 192.0.2.1: its map entry is not as declared",
			datapath.Problem{Kind: datapath.HostEntryWrong, Address: netip.MustParseAddr("192.0.2.1")}},
		{"remote 2001:db8::1: its map entry is not as declared",
			datapath.Problem{Kind: datapath.RemoteEntryWrong, Address: netip.MustParseAddr("2001:db8::1")}},
		{"device 3: its map entry is not as declared", datapath.Problem{Kind: datapath.DeviceEntryWrong, Interface: 3}},
		{"published port 80: its map entry is not as declared",
			datapath.Problem{Kind: datapath.PublishedEntryWrong, Published: datapath.Published{Port: 80}}},
	} {
		if got := test.problem.String(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
		var text string
		if content, err := json.Marshal(test.problem); err != nil || json.Unmarshal(content, &text) != nil || text != test.want {
			t.Errorf("JSON: %s, %v, want the text %q", content, err, test.want)
		}
	}
}
