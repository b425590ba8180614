package images

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/palisade-host/palisade/hosts/agent/internal/records"
	"github.com/palisade-host/palisade/hosts/agent/internal/reference"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/seal"
)

const (
	policySuffix = ".json"
	// maximumRepositories and maximumKeys bound a policy.
	maximumRepositories = 256
	maximumKeys         = 64
)

var labelPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// policies are the declared policies, one record each.
type policies struct {
	folder *records.Folder[*agentv1.ImagePolicy]

	mutex sync.RWMutex
	known map[string]*agentv1.ImagePolicy
}

// openPolicies reads the declared policies. A policy that is damaged or cannot be read stays in force as far as that is
// possible: see declaredPolicies.
func openPolicies(directory string, logger *slog.Logger) (*policies, error) {
	folder, err := records.Open(directory, policySuffix, decodePolicy, logger)
	if err != nil {
		return nil, err
	}
	loaded, err := folder.Load()
	if err != nil {
		return nil, err
	}
	return &policies{folder: folder, known: loaded}, nil
}

// decodePolicy refuses a policy that apply would not have written.
func decodePolicy(name string, content []byte) (*agentv1.ImagePolicy, error) {
	policy := &agentv1.ImagePolicy{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(content, policy); err != nil {
		return nil, err
	}
	if policy.GetName() != name {
		return nil, fmt.Errorf("it holds the image policy %q", policy.GetName())
	}
	return policy, validatePolicy(policy)
}

// declaredPolicies are the policies that decide about images.
type declaredPolicies struct {
	known []*agentv1.ImagePolicy
	// missing are declared policies whose content is not known. Any image may be theirs and need a signature, so only
	// images that a known policy accepts by their signature are accepted.
	missing []records.Problem
}

// declared returns the policies in force. It first tries to read those again that could not be read.
func (p *policies) declared() declaredPolicies {
	p.mutex.Lock()
	maps.Copy(p.known, p.folder.Retry())
	p.mutex.Unlock()
	return declaredPolicies{known: p.all(), missing: p.folder.Problems()}
}

// apply declares a policy and returns it with its generation.
func (p *policies) apply(wanted *agentv1.ImagePolicy, dryRun bool) (*agentv1.ImagePolicy, error) {
	wanted = proto.CloneOf(wanted)
	normalizePolicy(wanted)
	if err := validatePolicy(wanted); err != nil {
		return nil, err
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	present := p.known[wanted.GetName()]
	wanted.Generation = present.GetGeneration()
	if present != nil && proto.Equal(present, wanted) {
		return present, nil
	}
	wanted.Generation++
	if dryRun {
		return wanted, nil
	}
	content, err := protojson.Marshal(wanted)
	if err != nil {
		return nil, err
	}
	if err := p.folder.Write(wanted.GetName(), content); err != nil {
		return nil, err
	}
	p.known[wanted.GetName()] = wanted
	return wanted, nil
}

// get returns a policy, or nil. Of a policy whose record is damaged or cannot be read, only the name is known.
func (p *policies) get(name string) *agentv1.ImagePolicy {
	p.mutex.RLock()
	defer p.mutex.RUnlock()
	if _, missing := p.folder.Problem(name); missing {
		return &agentv1.ImagePolicy{Name: name}
	}
	return p.known[name]
}

// list returns the policies as get does, sorted by name.
func (p *policies) list() []*agentv1.ImagePolicy {
	result := p.all()
	for _, problem := range p.folder.Problems() {
		result = append(result, &agentv1.ImagePolicy{Name: problem.Name})
	}
	slices.SortFunc(result, byName)
	return result
}

func byName(a, b *agentv1.ImagePolicy) int {
	return cmp.Compare(a.GetName(), b.GetName())
}

// all returns the policies that are known, sorted by name.
func (p *policies) all() []*agentv1.ImagePolicy {
	p.mutex.RLock()
	defer p.mutex.RUnlock()
	var result []*agentv1.ImagePolicy
	for _, policy := range p.known {
		result = append(result, policy)
	}
	slices.SortFunc(result, byName)
	return result
}

func (p *policies) remove(name string) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if _, missing := p.folder.Problem(name); p.known[name] == nil && !missing {
		return nil
	}
	if err := p.folder.Remove(name); err != nil {
		return err
	}
	delete(p.known, name)
	return nil
}

// requirement is what the policies require of the images of a repository.
type requirement struct {
	// unrestricted means that no policy is declared.
	unrestricted bool
	// policies are the names of the matching policies.
	policies []string
	// keys are those of all matching policies; empty means that no signature is required.
	keys seal.Keys
}

// requirementFor combines the matching policies. A policy without keys does not weaken one with keys.
func requirementFor(declared declaredPolicies, repository string) requirement {
	result := requirement{unrestricted: len(declared.known)+len(declared.missing) == 0, keys: seal.Keys{}}
	for _, policy := range declared.known {
		if !slices.ContainsFunc(policy.GetRepositories(), func(pattern string) bool { return matches(pattern, repository) }) {
			continue
		}
		result.policies = append(result.policies, policy.GetName())
		for _, text := range policy.GetKeys() {
			// Every policy was validated when it was declared.
			if keys, err := seal.ParseKeys([]byte(text)); err == nil {
				for id, key := range keys {
					result.keys[id] = key
				}
			}
		}
	}
	return result
}

// matches reports whether server/repository matches a pattern of a policy.
func matches(pattern, repository string) bool {
	pattern, repository = reference.CanonicalName(pattern), reference.CanonicalName(repository)
	if prefix, found := strings.CutSuffix(pattern, "*"); found {
		return strings.HasPrefix(repository, prefix)
	}
	return pattern == repository
}

// normalizePolicy gives equal policies equal forms: the order of lists and the text around a key's PEM block have no
// meaning.
func normalizePolicy(policy *agentv1.ImagePolicy) {
	slices.Sort(policy.Repositories)
	policy.Repositories = slices.Compact(policy.Repositories)
	for index, text := range policy.Keys {
		if block, rest := pem.Decode([]byte(text)); block != nil && strings.TrimSpace(string(rest)) == "" {
			policy.Keys[index] = string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		}
	}
	slices.Sort(policy.Keys)
	policy.Keys = slices.Compact(policy.Keys)
}

// validatePolicy returns an INVALID_ARGUMENT error with a google.rpc.BadRequest detail, or nil.
func validatePolicy(policy *agentv1.ImagePolicy) error {
	var list []*errdetails.BadRequest_FieldViolation
	add := func(path, format string, arguments ...any) {
		list = append(list, &errdetails.BadRequest_FieldViolation{Field: path, Description: fmt.Sprintf(format, arguments...)})
	}
	if !labelPattern.MatchString(policy.GetName()) {
		add("name", "%q is not a DNS label of 1 to 63 lower-case letters, digits and hyphens", policy.GetName())
	}
	if count := len(policy.GetRepositories()); count == 0 || count > maximumRepositories {
		add("repositories", "%d repositories, expected 1 to %d", count, maximumRepositories)
	}
	for index, pattern := range policy.GetRepositories() {
		if err := reference.ValidatePattern(pattern); err != nil {
			add(fmt.Sprintf("repositories[%d]", index), "%q is neither server/repository nor server/prefix/*: %v", pattern, err)
		}
	}
	if count := len(policy.GetKeys()); count > maximumKeys {
		add("keys", "%d keys, expected at most %d", count, maximumKeys)
	}
	for index, text := range policy.GetKeys() {
		if err := validateKey(text); err != nil {
			add(fmt.Sprintf("keys[%d]", index), "%v", err)
		}
	}
	if len(list) == 0 {
		return nil
	}
	var lines []string
	for _, violation := range list {
		lines = append(lines, violation.GetField()+": "+violation.GetDescription())
	}
	failure := connect.NewError(connect.CodeInvalidArgument, errors.New(strings.Join(lines, "; ")))
	if detail, err := connect.NewErrorDetail(&errdetails.BadRequest{FieldViolations: list}); err == nil {
		failure.AddDetail(detail)
	}
	return failure
}

// validateKey accepts one ECDSA P-256 public key. Its errors do not contain the text, which may be a private key by
// mistake.
func validateKey(text string) error {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
		return errors.New("is not one PEM public key, as cosign writes it to cosign.pub")
	}
	keys, err := seal.ParseKeys([]byte(text))
	if err != nil {
		return err
	}
	for _, key := range keys {
		if found, ok := key.(*ecdsa.PublicKey); !ok || found.Curve != elliptic.P256() {
			return errors.New("is not an ECDSA P-256 key")
		}
	}
	return nil
}
