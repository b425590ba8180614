package netd

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/palisade-host/palisade/bpf/datapath"
)

// firstIdentity is the first identity of an endpoint in the default policy.
const firstIdentity = 256

// network connects containers, one at a time.
type network struct {
	datapath *datapath.Datapath
	handle   *netlink.Handle
	prefixes []netip.Prefix
	// device is the name of the interface to other machines; empty means all devices of the machine.
	device string
	// devices are the interface indices of the devices that are declared to the datapath.
	devices map[int]bool
	// mtu is the smallest MTU of the devices, and the MTU of containers' links, because larger packets would be dropped
	// at the host. Zero means that there are no devices.
	mtu    int
	logger *slog.Logger
	flows  *flowHub

	mutex sync.Mutex
	store *store
	// policy is the declared policy; nil when none is declared.
	policy *datapath.Policy
}

// container describes an interface of a container, as the plugin sends it.
type container struct {
	// ID is the runtime's identifier of the sandbox, and Interface the name of the interface in it. Together they are
	// the key.
	ID        string `json:"id"`
	Interface string `json:"interface"`
	// Namespace is the path of the network namespace.
	Namespace string `json:"namespace,omitempty"`
	// Name is the endpoint's name in policies.
	Name string `json:"name,omitempty"`
	MTU  int    `json:"mtu,omitempty"`
	// PortMappings are the ports to publish.
	PortMappings []portMapping `json:"portMappings,omitempty"`
}

func (c container) key() string {
	return c.ID + "/" + c.Interface
}

// hostInterface returns the name of the host's end of the link. It has at most 15 bytes, and is the same for each
// attempt.
func (c container) hostInterface() string {
	sum := sha256.Sum256([]byte(c.key()))
	return "pal" + hex.EncodeToString(sum[:6])
}

// hostInterfacePattern matches the names that hostInterface returns.
var hostInterfacePattern = regexp.MustCompile(`^pal[0-9a-f]{12}$`)

// errNotConnected means that no such container is connected.
var errNotConnected = errors.New("is not connected")

// add connects a container and publishes its ports. The container cannot send anything before the policy is in force
// for it. For a container that is already connected it returns the existing attachment. It refuses a name or port of
// another container before it changes anything.
func (n *network) add(c container) (attachment, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if err := n.forgetDisconnected(); err != nil {
		return attachment{}, err
	}
	if existing, known := n.store.Attachments[c.key()]; known {
		return existing, nil
	}
	for key, other := range n.store.Attachments {
		// Policies and the datapath identify endpoints by name.
		if other.Endpoint.Name == c.Name {
			return attachment{}, fmt.Errorf("endpoint %q: the name %w: container %s has it", c.Name, datapath.ErrTaken, key)
		}
	}
	namespace, err := netns.GetFromPath(c.Namespace)
	if err != nil {
		return attachment{}, fmt.Errorf("network namespace %s: %w", c.Namespace, err)
	}
	defer func() { _ = namespace.Close() }()
	plug := datapath.Plug{Name: c.Name, Container: c.Interface, Host: c.hostInterface(), MTU: cmp.Or(c.MTU, n.mtu)}
	if plug.IPv4, err = n.freeAddress(n.prefixes[0]); err != nil {
		return attachment{}, err
	}
	if plug.IPv6, err = n.freeAddress(n.prefixes[1]); err != nil {
		return attachment{}, err
	}
	connected := attachment{HostInterface: plug.Host}
	if connected.Published, err = n.portsToPublish(c, plug.IPv4, plug.IPv6); err != nil {
		return attachment{}, err
	}
	// An interrupted attempt may have left this link.
	if stale, err := n.handle.LinkByName(plug.Host); err == nil {
		if err := n.handle.LinkDel(stale); err != nil {
			return attachment{}, err
		}
	}
	err = plug.Connect(n.handle, namespace, func(endpoint datapath.Endpoint) error {
		connected.Endpoint = endpoint
		// The store is written first, so that no address is assigned twice.
		n.store.Attachments[c.key()] = connected
		if err := n.store.write(); err != nil {
			return err
		}
		if err := n.enforceDefault(); err != nil {
			return err
		}
		if err := n.datapath.AddEndpoint(endpoint); err != nil {
			return err
		}
		return n.datapath.Publish(connected.Published...)
	})
	if err != nil {
		return attachment{}, errors.Join(err, n.forget(c.key()))
	}
	n.logger.Info("connected", "endpoint", c.Name, "interface", plug.Host, "link", connected.Endpoint.Kind)
	return connected, nil
}

// remove disconnects a container. It is no error when the container is gone.
func (n *network) remove(c container) error {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return n.forget(c.key())
}

func (n *network) forget(key string) error {
	existing, known := n.store.Attachments[key]
	if !known {
		return nil
	}
	if link, err := n.handle.LinkByName(existing.HostInterface); err == nil {
		if err := n.handle.LinkDel(link); err != nil {
			return err
		}
	}
	if err := n.datapath.Unpublish(existing.Published...); err != nil {
		return err
	}
	if err := n.datapath.RemoveEndpoint(existing.Endpoint.Name); err != nil {
		return err
	}
	delete(n.store.Attachments, key)
	return errors.Join(n.store.writeRemoval(), n.enforceDefault())
}

// forgetDisconnected forgets containers whose links are gone. Links disappear with their network namespaces, without a
// call of the plugin.
func (n *network) forgetDisconnected() error {
	links, err := n.handle.LinkList()
	if err != nil {
		return err
	}
	present := map[string]int{}
	for _, link := range links {
		present[link.Attrs().Name] = link.Attrs().Index
	}
	for key, attached := range n.store.Attachments {
		if present[attached.HostInterface] == attached.Endpoint.Interface {
			continue
		}
		n.logger.Warn("the link of a container is gone", "container", key, "endpoint", attached.Endpoint.Name)
		if err := n.forget(key); err != nil {
			return err
		}
	}
	return nil
}

// check returns an error that lists what differs from how the container was connected.
func (n *network) check(c container) error {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	existing, known := n.store.Attachments[c.key()]
	if !known {
		return fmt.Errorf("container %s, interface %s: %w", c.ID, c.Interface, errNotConnected)
	}
	link, err := n.handle.LinkByName(existing.HostInterface)
	if err != nil {
		return fmt.Errorf("link %s: %w", existing.HostInterface, err)
	}
	if link.Attrs().Index != existing.Endpoint.Interface {
		return fmt.Errorf("link %s was replaced by another", existing.HostInterface)
	}
	status, err := n.datapath.Status()
	if err != nil {
		return err
	}
	var problems []string
	for _, problem := range status.Problems {
		if existing.affectedBy(problem) {
			problems = append(problems, problem.String())
		}
	}
	if len(problems) != 0 {
		return fmt.Errorf("endpoint %q: %s", existing.Endpoint.Name, strings.Join(problems, "; "))
	}
	return nil
}

// affectedBy reports whether a problem of the datapath changes what reaches or leaves this container.
func (a attachment) affectedBy(problem datapath.Problem) bool {
	switch problem.Kind {
	case datapath.PolicyReplaced, datapath.PolicyEntriesChanged:
		return true
	case datapath.ProgramDetached, datapath.LinkPinMissing:
		return problem.Interface == a.Endpoint.Interface
	case datapath.EndpointEntryWrong:
		return problem.Endpoint == a.Endpoint.Name
	case datapath.PublishedEntryWrong:
		return slices.Contains(a.Published, problem.Published)
	}
	return false
}

// freeAddress returns the lowest unused address of a prefix. It skips the first address, because much software treats
// that as the network's own.
func (n *network) freeAddress(prefix netip.Prefix) (netip.Addr, error) {
	taken := map[netip.Addr]bool{}
	for _, attached := range n.store.Attachments {
		taken[attached.Endpoint.IPv4], taken[attached.Endpoint.IPv6] = true, true
	}
	for address := prefix.Addr().Next(); prefix.Contains(address); address = address.Next() {
		if !taken[address] {
			return address, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("prefix %s: all addresses are taken; start netd with a larger one", prefix)
}

// enforceDefault puts the default policy in force when no policy is declared. As on Kubernetes, it allows everything to
// containers that no policy selects. The datapath drops everything of endpoints that its policy does not name, so the
// default policy names all that are connected. After damage to a declared policy it names none.
func (n *network) enforceDefault() error {
	if len(n.store.Policy) != 0 {
		return nil
	}
	names := map[string]bool{}
	for _, attached := range n.store.Attachments {
		names[attached.Endpoint.Name] = true
	}
	if n.store.PolicyDamaged {
		// The declared policy is not known, and the datapath drops everything of endpoints that are not named.
		clear(names)
	}
	open := datapath.Policy{Version: 1}
	for i, name := range slices.Sorted(maps.Keys(names)) {
		open.Endpoints = append(open.Endpoints, datapath.Subject{Name: name, Identity: firstIdentity + uint32(i)})
	}
	sealed, err := open.Seal()
	if err != nil {
		return err
	}
	policy, err := datapath.ParsePolicy(sealed)
	if err != nil {
		return err
	}
	return n.datapath.Apply(policy)
}

// apply replaces the policy. The policy is stored once it is in force, and is restored when the role starts again.
func (n *network) apply(compiled []byte) (string, error) {
	policy, err := datapath.ParsePolicy(compiled)
	if err != nil {
		return "", err
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if err := n.datapath.Apply(policy); err != nil {
		return "", err
	}
	n.store.Policy, n.store.PolicyDamaged, n.policy = compiled, false, policy
	return policy.Hash, n.store.writePolicy()
}

// withdraw forgets the declared policy. The default policy is in force before the store is written, so a crash in
// between keeps the declared policy.
func (n *network) withdraw() error {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	declared, damaged := n.store.Policy, n.store.PolicyDamaged
	n.store.Policy, n.store.PolicyDamaged = nil, false
	if err := n.enforceDefault(); err != nil {
		n.store.Policy, n.store.PolicyDamaged = declared, damaged
		return err
	}
	n.policy = nil
	return n.store.writePolicy()
}

// endpoints returns the connected endpoints, sorted by name.
func (n *network) endpoints() []datapath.Endpoint {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	endpoints := make([]datapath.Endpoint, 0, len(n.store.Attachments))
	for _, attached := range n.store.Attachments {
		endpoints = append(endpoints, attached.Endpoint)
	}
	slices.SortFunc(endpoints, func(a, b datapath.Endpoint) int { return strings.Compare(a.Name, b.Name) })
	return endpoints
}

// declaredPolicy returns the declared policy and its compiled JSON, or nil when none is declared.
func (n *network) declaredPolicy() (*datapath.Policy, []byte) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return n.policy, n.store.Policy
}

// recordProblems returns what is wrong with the role's record, and whether the declared policy is not known.
func (n *network) recordProblems() (texts []string, policyDamaged bool) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for _, problem := range n.store.folder.Problems() {
		texts = append(texts, problem.String())
	}
	return texts, n.store.PolicyDamaged
}
