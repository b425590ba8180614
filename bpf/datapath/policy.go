package datapath

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Limits of a compiled policy. They bound the kernel's memory. The cost per packet does not depend on them.
const (
	maximumEndpoints = 4096
	maximumRules     = 1 << 20
	maximumPrefixes  = 1 << 18

	firstEndpointIdentity = 256
	firstPrefixIdentity   = 0x01000000
)

// Policy is a compiled policy, which is the contract with the compiler (components/policy). It contains numeric
// identities only.
type Policy struct {
	Version    int              `json:"version"`
	Identities []PrefixIdentity `json:"identities"`
	Endpoints  []Subject        `json:"endpoints"`
	// Hash is SHA-256 over the canonical JSON (sorted keys, no spaces) of all other fields, in lower-case hexadecimal.
	Hash string `json:"hash,omitempty"`
}

// PrefixIdentity is the identity of addresses that belong to no endpoint.
type PrefixIdentity struct {
	ID   uint32 `json:"id"`
	CIDR string `json:"cidr"`
}

// Subject is an endpoint with rules.
type Subject struct {
	Name     string    `json:"name"`
	Identity uint32    `json:"identity"`
	Ingress  Direction `json:"ingress"`
	Egress   Direction `json:"egress"`
}

// Direction holds the rules of ingress or egress. Without Enforce everything is allowed.
type Direction struct {
	Enforce bool   `json:"enforce"`
	Rules   []Rule `json:"rules"`
}

// Rule allows or denies. The matching rule with the highest precedence applies. With equal precedence a denial applies.
type Rule struct {
	Precedence uint16 `json:"precedence"`
	// Action is "allow" or "deny".
	Action string `json:"action"`
	// Identity is that of the other side; zero means any.
	Identity uint32 `json:"identity"`
	// Protocol is any, TCP, UDP, SCTP, ICMP or ICMPv6.
	Protocol string `json:"protocol"`
	// PortStart and PortEnd are inclusive. For ICMP they are the message's type, and 0 to 255 means any type.
	PortStart uint16 `json:"portStart"`
	PortEnd   uint16 `json:"portEnd"`
	// Code is that of an ICMP message; without it any code matches.
	Code *uint8 `json:"code,omitempty"`
}

const protocolAny = "any"

// The IP protocols that rules can name; "" stands for all others.
var protocolNumbers = map[string]uint8{"": 0, "TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}

// ProtocolName returns the name of an IP protocol in rules, or the number of another protocol.
func ProtocolName(number uint8) string {
	for name, of := range protocolNumbers {
		if name != "" && of == number {
			return name
		}
	}
	return strconv.Itoa(int(number))
}

// ParsePolicy parses and checks a compiled policy. Its error contains the path of the wrong field, the value and the
// reason.
func ParsePolicy(data []byte) (*Policy, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var policy Policy
	if err := decoder.Decode(&policy); err != nil {
		return nil, fmt.Errorf("policy: not a compiled policy: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("policy: something follows the compiled policy")
	}
	hash, fields, err := canonicalHash(data)
	if err != nil {
		return nil, err
	}
	if policy.Hash != hash {
		return nil, fmt.Errorf("policy.hash: %q is not the hash of this policy (%s); compile it again", policy.Hash, hash)
	}
	if err := requireFields(fields); err != nil {
		return nil, err
	}
	if err := policy.validate(); err != nil {
		return nil, err
	}
	return &policy, nil
}

// fieldsOf are the fields of each object in a compiled policy. All of them are required except "code".
var fieldsOf = struct{ policy, identity, endpoint, direction, rule []string }{
	policy:    []string{"version", "identities", "endpoints", "hash"},
	identity:  []string{"id", "cidr"},
	endpoint:  []string{"name", "identity", "ingress", "egress"},
	direction: []string{"enforce", "rules"},
	rule:      []string{"precedence", "action", "identity", "protocol", "portStart", "portEnd"},
}

// requireFields refuses a policy in which a field is missing or null. With its zero value a missing "enforce" would
// open a direction, and a missing "identity" would mean every peer. Names are case-sensitive here, although
// encoding/json accepts any case.
func requireFields(policy map[string]any) error {
	if err := present("policy", policy, fieldsOf.policy); err != nil {
		return err
	}
	if err := presentInEach("policy.identities", policy["identities"], fieldsOf.identity, nil); err != nil {
		return err
	}
	return presentInEach("policy.endpoints", policy["endpoints"], fieldsOf.endpoint, func(path string, endpoint map[string]any) error {
		for _, name := range []string{"ingress", "egress"} {
			path := path + "." + name
			// It is an object, because it was decoded into a Direction before.
			direction, _ := endpoint[name].(map[string]any)
			if err := present(path, direction, fieldsOf.direction); err != nil {
				return err
			}
			if err := presentInEach(path+".rules", direction["rules"], fieldsOf.rule, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func presentInEach(path string, list any, names []string, visit func(string, map[string]any) error) error {
	items, _ := list.([]any)
	for i, item := range items {
		path := path + "[" + strconv.Itoa(i) + "]"
		fields, _ := item.(map[string]any)
		if err := present(path, fields, names); err != nil {
			return err
		}
		if visit == nil {
			continue
		}
		if err := visit(path, fields); err != nil {
			return err
		}
	}
	return nil
}

func present(path string, fields map[string]any, names []string) error {
	for _, name := range names {
		if fields[name] == nil {
			return fmt.Errorf("%s.%s: is not there; compile the policy again", path, name)
		}
	}
	for name, value := range fields {
		if name == "code" && value == nil {
			return fmt.Errorf("%s.code: is null; leave it out where every code is meant", path)
		}
		if !slices.Contains(names, name) && name != "code" {
			return fmt.Errorf("%s.%s: is no field of a compiled policy", path, name)
		}
	}
	return nil
}

// Seal returns the policy as JSON with its hash.
func (p Policy) Seal() ([]byte, error) {
	p.Hash = ""
	// A nil list is written as an empty one.
	p.Identities = append([]PrefixIdentity{}, p.Identities...)
	p.Endpoints = append([]Subject{}, p.Endpoints...)
	for i := range p.Endpoints {
		for _, direction := range []*Direction{&p.Endpoints[i].Ingress, &p.Endpoints[i].Egress} {
			direction.Rules = append([]Rule{}, direction.Rules...)
		}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	if p.Hash, _, err = canonicalHash(data); err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

// canonicalHash returns the hash of a policy without its own hash, and the fields of the policy.
func canonicalHash(data []byte) (string, map[string]any, error) {
	var fields map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&fields); err != nil {
		return "", nil, fmt.Errorf("policy: not a JSON object: %w", err)
	}
	written := maps.Clone(fields)
	delete(fields, "hash")
	var canonical bytes.Buffer
	encoder := json.NewEncoder(&canonical)
	encoder.SetEscapeHTML(false)
	// The encoder sorts the keys of maps.
	if err := encoder.Encode(fields); err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(bytes.TrimSuffix(canonical.Bytes(), []byte("\n")))
	return hex.EncodeToString(sum[:]), written, nil
}

func (p *Policy) validate() error {
	if p.Version != 1 {
		return fmt.Errorf("policy.version: %d is not known; this agent reads version 1", p.Version)
	}
	if len(p.Identities) > maximumPrefixes {
		return fmt.Errorf("policy.identities: %d prefixes, at most %d are possible", len(p.Identities), maximumPrefixes)
	}
	if len(p.Endpoints) > maximumEndpoints {
		return fmt.Errorf("policy.endpoints: %d endpoints, at most %d are possible", len(p.Endpoints), maximumEndpoints)
	}
	identities, prefixes := map[uint32]bool{}, map[netip.Prefix]bool{}
	for i, identity := range p.Identities {
		path := fmt.Sprintf("policy.identities[%d]", i)
		prefix, err := netip.ParsePrefix(identity.CIDR)
		if err != nil || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
			return fmt.Errorf("%s.cidr: %q is not a prefix in its shortest form", path, identity.CIDR)
		}
		if identity.ID < firstPrefixIdentity {
			return fmt.Errorf("%s.id: %d is below %d, where the identities of prefixes begin", path, identity.ID, firstPrefixIdentity)
		}
		if prefixes[prefix] || identities[identity.ID] {
			return fmt.Errorf("%s: prefix %s or identity %d is there twice", path, prefix, identity.ID)
		}
		prefixes[prefix], identities[identity.ID] = true, true
	}
	subjects, count := map[uint64]string{}, 0
	for i := range p.Endpoints {
		endpoint := &p.Endpoints[i]
		path := fmt.Sprintf("policy.endpoints[%d]", i)
		if endpoint.Name == "" {
			return fmt.Errorf("%s.name: is empty", path)
		}
		if other, taken := subjects[subjectOf(endpoint.Name)]; taken {
			return fmt.Errorf("%s.name: %q is not distinct from %q", path, endpoint.Name, other)
		}
		subjects[subjectOf(endpoint.Name)] = endpoint.Name
		if endpoint.Identity < firstEndpointIdentity || endpoint.Identity >= firstPrefixIdentity {
			return fmt.Errorf("%s.identity: %d is not between %d and %d", path, endpoint.Identity, firstEndpointIdentity, firstPrefixIdentity-1)
		}
		for name, direction := range map[string]Direction{"ingress": endpoint.Ingress, "egress": endpoint.Egress} {
			if err := validateRules(path+"."+name+".rules", direction.Rules); err != nil {
				return err
			}
			count += len(direction.Rules)
		}
	}
	if count > maximumRules {
		return fmt.Errorf("policy.endpoints: %d rules in sum, at most %d are possible", count, maximumRules)
	}
	return nil
}

func validateRules(path string, rules []Rule) error {
	type match struct {
		precedence uint16
		identity   uint32
		protocol   string
		start, end uint16
		code       int
	}
	seen := make(map[match]bool, len(rules))
	for i, rule := range rules {
		path := fmt.Sprintf("%s[%d]", path, i)
		if rule.Action != "allow" && rule.Action != "deny" {
			return fmt.Errorf("%s.action: %q is neither allow nor deny", path, rule.Action)
		}
		if _, known := protocolNumbers[rule.Protocol]; (!known && rule.Protocol != protocolAny) || rule.Protocol == "" {
			return fmt.Errorf("%s.protocol: %q is not any, TCP, UDP, SCTP, ICMP or ICMPv6", path, rule.Protocol)
		}
		if rule.PortStart > rule.PortEnd {
			return fmt.Errorf("%s.portStart: %d is above portEnd %d", path, rule.PortStart, rule.PortEnd)
		}
		isICMP := strings.HasPrefix(rule.Protocol, "ICMP")
		if isICMP && rule.PortEnd > 255 {
			return fmt.Errorf("%s.portEnd: %d is not a type of ICMP, which end at 255", path, rule.PortEnd)
		}
		if rule.Protocol == protocolAny && (rule.PortStart != 0 || rule.PortEnd != 65535) {
			return fmt.Errorf("%s.portStart: %d to %d without a protocol; any protocol has all ports", path, rule.PortStart, rule.PortEnd)
		}
		code := -1
		if rule.Code != nil {
			if !isICMP || rule.PortStart != rule.PortEnd {
				return fmt.Errorf("%s.code: %d needs one type of ICMP", path, *rule.Code)
			}
			code = int(*rule.Code)
		}
		key := match{rule.Precedence, rule.Identity, rule.Protocol, rule.PortStart, rule.PortEnd, code}
		if seen[key] {
			return fmt.Errorf("%s: matches what a rule before it matches", path)
		}
		seen[key] = true
	}
	return nil
}
