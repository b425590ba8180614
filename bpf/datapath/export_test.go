package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

// What tests outside the package need from inside it.

// The variable replaces the programs, so that tests can be seen to fail on other programs.
func init() {
	file := os.Getenv("PALISADE_BPF_OBJECT")
	if file == "" {
		return
	}
	object, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	_DatapathBytes = object
}

// Hook is a place where a program is attached.
type Hook = hook

// Hooks of Run.
const (
	FromContainer = hookFromContainer
	ToContainer   = hookToContainer
	FromDevice    = hookFromDevice
	ToDevice      = hookToDevice
)

// skb is the start of the kernel's struct __sk_buff.
type skb struct {
	_       [10]uint32
	Ifindex uint32
	_       uint32
}

// Run runs a program on a frame as if the frame met it on the interface. Call it in the network namespace of the
// interface.
func (d *Datapath) Run(hook hook, ifindex int, frame []byte) (action uint32, out []byte, err error) {
	options := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Context: skb{Ifindex: uint32(ifindex)}}
	action, err = d.program(hook).Run(options)
	return action, options.DataOut, err
}

// Detach detaches a program from an interface.
func (d *Datapath) Detach(ifindex int, hook hook) error {
	return d.detach(attachment{ifindex, hook})
}

// Reattach undoes Detach.
func (d *Datapath) Reattach(ifindex int, hook hook) error {
	return d.attach(attachment{ifindex, hook})
}

// DeleteInterface removes the map entry of an interface, as an attacker would.
func (d *Datapath) DeleteInterface(ifindex int) error {
	return d.objects.Interfaces.Delete(uint32(ifindex))
}

// AllowByHand writes a rule that is in no policy.
func (d *Datapath) AllowByHand(name string) error {
	generation, err := d.generation()
	if err != nil {
		return err
	}
	var inner *ebpf.Map
	if err := d.objects.Rules.Lookup(generation&1, &inner); err != nil {
		return err
	}
	defer inner.Close()
	return inner.Put(datapathRuleKey{Subject: subjectOf(name), Protocol: 6}, datapathRule{Verdict: verdictAllow})
}

// DeleteAddress removes the map entry of an endpoint's address.
func (d *Datapath) DeleteAddress(address netip.Addr) error {
	return d.objects.Endpoints.Delete(toAddress(address))
}

// PublishByHand publishes a port that Publish refuses.
func (d *Datapath) PublishByHand(port Published) error {
	return d.objects.PublishedPorts.Put(port.entryKey(), port.entry())
}

// ForgetAliases removes the aliases of half-open flows, as new flows do when the map is full.
func (d *Datapath) ForgetAliases() error {
	aliases, err := getAll[datapathTuple, datapathAlias](d.objects.PendingAliases)
	for key := range aliases {
		err = errors.Join(err, ignoreNotFound(d.objects.PendingAliases.Delete(key)))
	}
	return err
}

// ExpireFragments makes all first fragments too old for later ones.
func (d *Datapath) ExpireFragments() error {
	fragments, err := getAll[datapathFragmentKey, datapathFragment](d.objects.Fragments)
	for key, fragment := range fragments {
		fragment.Expires = 1
		err = errors.Join(err, d.objects.Fragments.Put(key, fragment))
	}
	return err
}

// MapMemory returns the kernel's memory for the maps of a policy in force and for all other maps, in bytes.
func (d *Datapath) MapMemory() (policy, others uint64, err error) {
	generation, err := d.generation()
	if err != nil {
		return 0, 0, err
	}
	for name, counted := range d.maps() {
		size, err := memory(counted)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", name, err)
		}
		others += size
	}
	for _, outer := range []*ebpf.Map{d.objects.Rules, d.objects.Ports, d.objects.Prefixes} {
		var inner *ebpf.Map
		if err := outer.Lookup(generation&1, &inner); err != nil {
			return 0, 0, err
		}
		size, err := memory(inner)
		_ = inner.Close()
		if err != nil {
			return 0, 0, err
		}
		policy += size
	}
	return policy, others, nil
}

func memory(of *ebpf.Map) (size uint64, err error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", of.FD()))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(info), "memlock:")
	if !found {
		return 0, fmt.Errorf("no memlock in %q", info)
	}
	_, err = fmt.Sscan(rest, &size)
	return size, err
}

// LinkPin returns the path of a program's pin.
func (d *Datapath) LinkPin(ifindex int, hook hook) string {
	return d.links[attachment{ifindex, hook}].path
}

// Judge runs the policy lookup of policy.h without a packet.
type Judge struct {
	program *ebpf.Program
	names   names
}

// NewJudge returns a Judge that shares the maps of a datapath. local are addresses of endpoints on this host, which
// need no link for this.
func NewJudge(t *testing.T, d *Datapath, local map[netip.Addr]string) *Judge {
	t.Helper()
	spec, err := loadJudge()
	if err != nil {
		t.Fatal(err)
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		"generation": d.objects.Generation, "rules": d.objects.Rules, "ports": d.objects.Ports,
		"prefixes": d.objects.Prefixes, "endpoints": d.objects.Endpoints,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(collection.Close)
	for address, name := range local {
		if err := d.objects.Endpoints.Put(toAddress(address), datapathEndpoint{Subject: subjectOf(name), Ifindex: 1 << 30}); err != nil {
			t.Fatal(err)
		}
	}
	known, err := readNames()
	if err != nil {
		t.Fatal(err)
	}
	return &Judge{program: collection.Programs["judge"], names: known}
}

// Ask returns the reason for the first packet of a flow. port is in the form of the policy lookup.
func (j *Judge) Ask(t *testing.T, source, destination netip.Addr, protocol uint8, port uint16) string {
	t.Helper()
	question := judgeQuestion{Port: uint32(port)}
	question.Tuple.Source = judgeAddress(toAddress(source))
	question.Tuple.Destination = judgeAddress(toAddress(destination))
	question.Tuple.Protocol = protocol
	answer := judgeQuestion{}
	options := &ebpf.RunOptions{Context: question, ContextOut: &answer}
	if code, err := j.program.Run(options); err != nil || code != 0 {
		t.Fatalf("judge: code %d, %v", code, err)
	}
	return j.names.reasons[answer.Reason]
}

// RequireRoot skips a test without root, because the kernel allows it only to root.
func RequireRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: BPF programs, network namespaces")
	}
}
