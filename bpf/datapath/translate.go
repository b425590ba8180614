package datapath

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

const (
	verdictDefaultDeny = uint8(0)
	verdictAllow       = uint8(1)
	verdictDeny        = uint8(2)

	directionIngress = uint8(0)
	directionEgress  = uint8(1)
	directionNone    = uint8(2)
)

// tables are the map entries of one policy, in the programs' own types.
type tables struct {
	rules    map[datapathRuleKey]datapathRule
	ports    map[datapathPortKey]uint32
	prefixes map[datapathPrefixKey]uint32
}

// segment is a range of ports with one verdict.
type segment struct {
	start, end uint16
	verdict    uint8
}

// translate resolves all precedence. It computes the verdict of each port for each endpoint, direction, identity and
// protocol, so that a packet needs only look-ups. Equal sets of ports are stored once.
func translate(policy *Policy) (*tables, error) {
	result := &tables{
		rules:    map[datapathRuleKey]datapathRule{},
		ports:    map[datapathPortKey]uint32{},
		prefixes: map[datapathPrefixKey]uint32{},
	}
	sets := map[string]uint32{}
	for _, identity := range policy.Identities {
		prefix, err := netip.ParsePrefix(identity.CIDR)
		if err != nil {
			return nil, err
		}
		key := datapathPrefixKey{PrefixLength: uint32(32 + prefix.Bits()), Family: [4]uint8{6}, Address: prefix.Addr().As16()}
		if prefix.Addr().Is4() {
			key.PrefixLength += 96
			key.Family[0] = 4
		}
		result.prefixes[key] = identity.ID
	}
	for _, endpoint := range policy.Endpoints {
		subject := subjectOf(endpoint.Name)
		result.rules[datapathRuleKey{Subject: subject, Direction: directionNone}] = datapathRule{Ports: endpoint.Identity}
		result.addDirection(sets, subject, directionIngress, endpoint.Ingress)
		result.addDirection(sets, subject, directionEgress, endpoint.Egress)
	}
	if len(result.rules) > maximumRules || len(result.ports) > maximumRules {
		return nil, fmt.Errorf("policy: needs %d entries of identities and %d of ports, at most %d each are possible",
			len(result.rules), len(result.ports), maximumRules)
	}
	return result, nil
}

func (t *tables) addDirection(sets map[string]uint32, subject uint64, direction uint8, rules Direction) {
	byIdentity := map[uint32][]Rule{0: nil}
	if rules.Enforce {
		for _, rule := range rules.Rules {
			byIdentity[rule.Identity] = append(byIdentity[rule.Identity], rule)
		}
	}
	for _, protocol := range protocolNames {
		general := []segment{{0, 65535, verdictAllow}}
		if rules.Enforce {
			general = resolve(byIdentity[0], nil, protocol)
		}
		for identity, own := range byIdentity {
			segments := general
			if identity != 0 {
				segments = resolve(byIdentity[0], own, protocol)
				// Without an own entry the look-up uses the rules for any identity.
				if slices.Equal(segments, general) {
					continue
				}
			}
			key := datapathRuleKey{Subject: subject, Identity: identity, Direction: direction, Protocol: protocolNumbers[protocol]}
			t.rules[key] = t.addSegments(sets, segments)
		}
	}
}

var protocolNames = []string{"", "ICMP", "TCP", "UDP", "ICMPv6", "SCTP"}

// resolve computes the verdict of each port for one protocol, from the rules for any identity and for one identity.
func resolve(general, own []Rule, protocol string) []segment {
	type interval struct {
		start, end uint32
		precedence uint16
		verdict    uint8
	}
	var intervals []interval
	for _, rules := range [][]Rule{general, own} {
		for _, rule := range rules {
			if rule.Protocol != protocolAny && rule.Protocol != protocol {
				continue
			}
			start, end := portRange(rule)
			verdict := verdictAllow
			if rule.Action == "deny" {
				verdict = verdictDeny
			}
			intervals = append(intervals, interval{uint32(start), uint32(end), rule.Precedence, verdict})
		}
	}
	// The highest precedence comes first, and denials come first among equals, because a port keeps its first verdict.
	slices.SortFunc(intervals, func(a, b interval) int {
		return cmp.Or(cmp.Compare(b.precedence, a.precedence), cmp.Compare(b.verdict, a.verdict))
	})
	bounds := []uint32{0, 65536}
	for _, interval := range intervals {
		bounds = append(bounds, interval.start, interval.end+1)
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	verdicts := make([]uint8, len(bounds))
	// next[i] is the first piece from i on that has no verdict yet.
	next := make([]int, len(bounds)+1)
	for i := range next {
		next[i] = i
	}
	find := func(i int) int {
		for next[i] != i {
			next[i] = next[next[i]]
			i = next[i]
		}
		return i
	}
	for _, interval := range intervals {
		from, _ := slices.BinarySearch(bounds, interval.start)
		to, _ := slices.BinarySearch(bounds, interval.end+1)
		for i := find(from); i < to; i = find(i) {
			verdicts[i] = interval.verdict
			next[i] = i + 1
		}
	}
	var segments []segment
	for i := 0; i+1 < len(bounds); i++ {
		if last := len(segments) - 1; last >= 0 && segments[last].verdict == verdicts[i] {
			segments[last].end = uint16(bounds[i+1] - 1)
			continue
		}
		segments = append(segments, segment{uint16(bounds[i]), uint16(bounds[i+1] - 1), verdicts[i]})
	}
	return segments
}

// portRange returns the range of a rule in the programs' form. For ICMP the type is in the upper byte and the code in
// the lower.
func portRange(rule Rule) (uint16, uint16) {
	if !strings.HasPrefix(rule.Protocol, "ICMP") {
		return rule.PortStart, rule.PortEnd
	}
	if rule.Code != nil {
		point := rule.PortStart<<8 | uint16(*rule.Code)
		return point, point
	}
	return rule.PortStart << 8, rule.PortEnd<<8 | 0xff
}

// addSegments stores a set of ports, unless an equal set is stored. The most frequent verdict is stored in the rule
// itself.
func (t *tables) addSegments(sets map[string]uint32, segments []segment) datapathRule {
	var width [3]int
	for _, part := range segments {
		width[part.verdict] += int(part.end) - int(part.start) + 1
	}
	base := uint8(0)
	for verdict := range width {
		if width[verdict] > width[base] {
			base = uint8(verdict)
		}
	}
	if len(segments) == 1 {
		return datapathRule{Verdict: base}
	}
	name := fmt.Sprint(segments)
	set, known := sets[name]
	if !known {
		set = uint32(len(sets) + 1)
		sets[name] = set
		for _, part := range segments {
			if part.verdict != base {
				t.addRange(set, part)
			}
		}
	}
	return datapathRule{Ports: set, Verdict: base}
}

// addRange splits a range of ports into prefixes.
func (t *tables) addRange(set uint32, each segment) {
	for start, end := uint32(each.start), uint32(each.end); start <= end; {
		size := min(bits.TrailingZeros32(start|1<<16), bits.Len32(end-start+1)-1)
		key := datapathPortKey{
			PrefixLength: uint32(32 + 16 - size),
			Set:          bits.ReverseBytes32(set),
			Port:         toPort(uint16(start)),
		}
		t.ports[key] = uint32(each.verdict)
		start += 1 << size
	}
}

// hash identifies entries that were translated or read back. Equal policies can number their sets differently, so it
// covers the ports of each rule and not the numbers of sets.
func (t *tables) hash() string {
	contents := map[uint32][]string{}
	for key, verdict := range t.ports {
		set := bits.ReverseBytes32(key.Set)
		contents[set] = append(contents[set], fmt.Sprintf("%d/%d=%d", fromPort(key.Port), key.PrefixLength-32, verdict))
	}
	for _, lines := range contents {
		slices.Sort(lines)
	}
	var lines []string
	for key, rule := range t.rules {
		line := fmt.Sprintf("rule %016x %d %d %d: ", key.Subject, key.Direction, key.Identity, key.Protocol)
		if key.Direction == directionNone {
			line += fmt.Sprint(rule.Ports)
		} else {
			line += fmt.Sprintf("%d %v", rule.Verdict, contents[rule.Ports])
		}
		lines = append(lines, line)
	}
	for key, identity := range t.prefixes {
		lines = append(lines, fmt.Sprintf("prefix %d %x/%d: %d", key.Family[0], key.Address, key.PrefixLength, identity))
	}
	slices.Sort(lines)
	digest := sha256.New()
	for _, line := range lines {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(line)))
		digest.Write(length[:])
		digest.Write([]byte(line))
	}
	return hex.EncodeToString(digest.Sum(nil))
}
