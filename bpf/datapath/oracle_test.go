package datapath_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/test/support/acceptance/row"
)

// oracle evaluates a compiled policy rule by rule, as its specification says. It shares nothing with the translation.
type oracle struct {
	policy datapath.Policy
	local  map[netip.Addr]string
}

func (o oracle) identity(address netip.Addr) uint32 {
	if name, local := o.local[address]; local {
		for _, endpoint := range o.policy.Endpoints {
			if endpoint.Name == name {
				return endpoint.Identity
			}
		}
	}
	identity, longest := uint32(3), -1
	if address.Is4() {
		identity = 2
	}
	for _, each := range o.policy.Identities {
		if prefix := netip.MustParsePrefix(each.CIDR); prefix.Contains(address) && prefix.Bits() > longest {
			identity, longest = each.ID, prefix.Bits()
		}
	}
	return identity
}

func (o oracle) direction(direction datapath.Direction, remote uint32, protocol uint8, port uint16) string {
	if !direction.Enforce {
		return "forwarded"
	}
	names := map[uint8]string{1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
	best, verdict := -1, "policy_default_denied"
	for _, rule := range direction.Rules {
		if rule.Identity != 0 && rule.Identity != remote {
			continue
		}
		if rule.Protocol != "any" && rule.Protocol != names[protocol] {
			continue
		}
		if rule.Protocol == "ICMP" || rule.Protocol == "ICMPv6" {
			kind, code := port>>8, uint8(port)
			if kind < rule.PortStart || kind > rule.PortEnd || (rule.Code != nil && *rule.Code != code) {
				continue
			}
		} else if port < rule.PortStart || port > rule.PortEnd {
			continue
		}
		if int(rule.Precedence) > best || (int(rule.Precedence) == best && rule.Action == "deny") {
			best, verdict = int(rule.Precedence), map[string]string{"allow": "forwarded", "deny": "policy_denied"}[rule.Action]
		}
	}
	return verdict
}

func (o oracle) judge(source, destination netip.Addr, protocol uint8, port uint16) string {
	sourceIdentity, destinationIdentity := o.identity(source), o.identity(destination)
	for _, side := range []struct {
		address netip.Addr
		remote  uint32
		egress  bool
	}{{source, destinationIdentity, true}, {destination, sourceIdentity, false}} {
		name, local := o.local[side.address]
		if !local {
			continue
		}
		verdict := "no_policy"
		for _, endpoint := range o.policy.Endpoints {
			if endpoint.Name != name {
				continue
			}
			direction := endpoint.Ingress
			if side.egress {
				direction = endpoint.Egress
			}
			verdict = o.direction(direction, side.remote, protocol, port)
		}
		if verdict != "forwarded" {
			return verdict
		}
	}
	return "forwarded"
}

// world has the values of random policies and tuples. It has few values, so that rules overlap and tuples match them.
type world struct {
	random   *rand.Rand
	local    map[netip.Addr]string
	prefixes []string
	ports    []uint16
}

func pick[T any](w *world, from []T) T {
	return from[w.random.IntN(len(from))]
}

func (w *world) policy() datapath.Policy {
	policy := datapath.Policy{Version: 1}
	identities := []uint32{0, 0, 1, 2, 3}
	for i, cidr := range w.prefixes {
		if w.random.IntN(4) > 0 {
			id := 0x01000000 + uint32(i)
			policy.Identities = append(policy.Identities, datapath.PrefixIdentity{ID: id, CIDR: cidr})
			identities = append(identities, id)
		}
	}
	for i := range 5 {
		identities = append(identities, 256+uint32(i/2))
	}
	for i := range 5 {
		// One endpoint has no policy.
		if i == 4 {
			continue
		}
		policy.Endpoints = append(policy.Endpoints, datapath.Subject{
			Name: fmt.Sprintf("endpoint-%d", i), Identity: 256 + uint32(i/2),
			Ingress: w.direction(identities), Egress: w.direction(identities),
		})
	}
	return policy
}

func (w *world) direction(identities []uint32) datapath.Direction {
	direction := datapath.Direction{Enforce: w.random.IntN(5) > 0}
	seen := map[string]bool{}
	for range w.random.IntN(30) {
		rule := datapath.Rule{
			Precedence: uint16(w.random.IntN(4)), Action: pick(w, []string{"allow", "allow", "deny"}),
			Identity: pick(w, identities), Protocol: pick(w, []string{"any", "TCP", "UDP", "SCTP", "ICMP", "ICMPv6"}),
		}
		switch rule.Protocol {
		case "any":
			rule.PortEnd = 65535
		case "ICMP", "ICMPv6":
			rule.PortStart = uint16(pick(w, []int{0, 3, 8, 128}))
			rule.PortEnd = rule.PortStart
			if w.random.IntN(3) == 0 {
				rule.PortStart, rule.PortEnd = 0, 255
			} else if w.random.IntN(2) == 0 {
				code := uint8(w.random.IntN(3))
				rule.Code = &code
			}
		default:
			rule.PortStart, rule.PortEnd = pick(w, w.ports), pick(w, w.ports)
			if rule.PortStart > rule.PortEnd {
				rule.PortStart, rule.PortEnd = rule.PortEnd, rule.PortStart
			}
		}
		code := -1
		if rule.Code != nil {
			code = int(*rule.Code)
		}
		match := fmt.Sprint(rule.Precedence, rule.Identity, rule.Protocol, rule.PortStart, rule.PortEnd, code)
		if !seen[match] {
			direction.Rules = append(direction.Rules, rule)
		}
		seen[match] = true
	}
	return direction
}

// seedOf returns the seed of a test with random numbers. PALISADE_SEED repeats a run.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	given := os.Getenv("PALISADE_SEED")
	if given == "" {
		return uint64(os.Getpid())
	}
	seed, err := strconv.ParseUint(given, 10, 64)
	if err != nil {
		t.Fatalf("PALISADE_SEED: %v", err)
	}
	return seed
}

// N3: for random policies and tuples, the programs decide as the rules say.
func TestVerdictsEqualTheOracle(t *testing.T) {
	datapath.RequireRoot(t)
	observation := row.Observe(t, "N3")
	policies, tuples := 50, 2400
	if os.Getenv("PALISADE_FUZZ") != "" {
		policies, tuples = 500, 2000
	} else {
		observation.Missing = "10^6 tuples (make fuzz)"
	}
	seed := seedOf(t)
	w := &world{
		random: rand.New(rand.NewPCG(seed, 3)),
		local:  map[netip.Addr]string{},
		prefixes: []string{"0.0.0.0/0", "10.0.0.0/8", "10.20.0.0/16", "10.20.30.0/24", "10.20.30.40/32", "192.168.0.0/17",
			"::/0", "fd00::/8", "fd00:20::/32", "fd00:20:30::/48", "2001:db8::/32"},
		ports: []uint16{0, 1, 79, 80, 81, 443, 1023, 1024, 8080, 32767, 32768, 65534, 65535},
	}
	var v4, v6 []netip.Addr
	for i := range 5 {
		for _, address := range []string{fmt.Sprintf("10.20.30.%d", i+1), fmt.Sprintf("fd00:20::%d", i+1)} {
			w.local[netip.MustParseAddr(address)] = fmt.Sprintf("endpoint-%d", i)
		}
	}
	for _, address := range []string{"10.20.30.40", "10.20.30.41", "10.20.31.1", "10.9.9.9", "192.168.1.1", "8.8.8.8"} {
		v4 = append(v4, netip.MustParseAddr(address))
	}
	for _, address := range []string{"fd00:20:30::1", "fd00:20:31::1", "fd01::1", "2001:db8::1", "2606::1"} {
		v6 = append(v6, netip.MustParseAddr(address))
	}
	for address := range w.local {
		if address.Is4() {
			v4 = append(v4, address)
		} else {
			v6 = append(v6, address)
		}
	}

	running := newLab(t, lab.Description{})
	judge := datapath.NewJudge(t, running.Datapath, w.local)
	seen := map[string]int{}
	for range policies {
		policy := w.policy()
		apply(t, running, policy)
		check := oracle{policy, w.local}
		for range tuples {
			addresses := v4
			if w.random.IntN(2) == 0 {
				addresses = v6
			}
			source, destination := pick(w, addresses), pick(w, addresses)
			protocol := pick(w, []uint8{6, 17, 132, 1, 58, 50})
			port := pick(w, w.ports)
			switch protocol {
			case 1, 58:
				port = uint16(pick(w, []int{0, 3, 8, 128})<<8 | w.random.IntN(4))
			case 50:
				port = 0
			}
			want, got := check.judge(source, destination, protocol, port), judge.Ask(t, source, destination, protocol, port)
			if want != got {
				t.Fatalf("%s → %s protocol %d port %d: the programs say %s, the rules %s; PALISADE_SEED=%d repeats it",
					source, destination, protocol, port, got, want, seed)
			}
			seen[got]++
		}
	}
	// Random values must not test only one result.
	for _, reason := range []string{"forwarded", "policy_denied", "policy_default_denied", "no_policy"} {
		if seen[reason] < policies*tuples/100 {
			t.Errorf("only %d of %d verdicts are %s", seen[reason], policies*tuples, reason)
		}
	}
	observation.Observed = fmt.Sprintf("%d policies, %d tuples, no difference; verdicts %v", policies, policies*tuples, seen)
}
