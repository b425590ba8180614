package groups

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
	"github.com/palisade-host/palisade/hosts/seal"
)

const (
	// pollShare is what each group adds to the time between two looks at containerd.
	pollShare = 100 * time.Millisecond
	// maximumPollInterval keeps the promise that a container stopped behind the agent is back within 30 s.
	maximumPollInterval = 20 * time.Second
)

// Options of the manager.
type Options struct {
	// DataDirectory holds one file per group.
	DataDirectory string
	// LogDirectory holds a folder per group.
	LogDirectory string
	// CertificatesDirectory is containerd's config_path.
	CertificatesDirectory string
	// CgroupParent of all sandboxes, by the cgroupfs driver's rules.
	CgroupParent string
	// CgroupRoot is where the unified hierarchy is mounted.
	CgroupRoot     string
	MaximumLogSize int64
	PollInterval   time.Duration
	Capacity       Capacity
	// Starts is how many groups may start at a time; the others wait their turn, so that each is done soon and none runs into the
	// runtime's time limits when a host with many groups boots.
	Starts int
	// Sealed is the role images; nil when images are pulled without seals.
	Sealed agentv1connect.ImageStoreServiceClient
	// LayerDevices tells what the kernel found when it read layers; nil when images are pulled without seals.
	LayerDevices agentv1connect.LayerDeviceServiceClient
	// Layers are the stores of sealed layers that containers run from, and Trust whose seals are believed; for the status.
	Layers []seal.Store
	Trust  seal.Trust
	// DiskUsage tells how full the disk of containerd's images is, 0 to 1; nil means that images are kept for ever.
	DiskUsage func() (float64, error)
	// ReservedPorts are the host's own.
	ReservedPorts []uint32
	Now           func() time.Time
	Logger        *slog.Logger
	// Prepare runs before the first pass until it succeeds, e.g. asks for the runtime's version; may be nil.
	Prepare func(context.Context) error
}

// Manager keeps all groups of the host.
type Manager struct {
	options      Options
	store        *store
	runtime      runtimev1.RuntimeServiceClient
	images       runtimev1.ImageServiceClient
	certificates *registry.Certificates
	starts       *semaphore.Weighted

	// mutex orders declarations, so that two cannot take one port.
	mutex   sync.Mutex
	groups  map[string]*group
	running sync.WaitGroup
	// context of the goroutines; nil until containerd was prepared.
	context context.Context

	sealsMutex sync.Mutex
	// seals are root hashes by the digest of the image.
	seals map[string][]string

	readyMutex   sync.Mutex
	ready        bool
	readyMessage string
	containerd   string
}

// NewManager loads what was declared; Run brings it about.
func NewManager(options Options, runtime runtimev1.RuntimeServiceClient, images runtimev1.ImageServiceClient) (*Manager, error) {
	store, err := openStore(options.DataDirectory)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(options.LogDirectory, 0o700); err != nil {
		return nil, err
	}
	records, err := store.load()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		options: options, store: store, runtime: runtime, images: images, groups: map[string]*group{}, seals: map[string][]string{},
		certificates: registry.NewCertificates(options.CertificatesDirectory),
		starts:       semaphore.NewWeighted(int64(options.Starts)),
		readyMessage: "starts",
	}
	for _, r := range records {
		m.groups[r.spec.GetName()] = newGroup(m, r)
	}
	return m, nil
}

// Run reconciles until ctx ends. Containers go on running then.
func (m *Manager) Run(ctx context.Context) error {
	defer m.running.Wait()
	for {
		err := m.prepare(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		m.options.Logger.Warn("waits for containerd", "error", err)
		m.setReady(false, err.Error())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(m.options.PollInterval):
		}
	}
	m.mutex.Lock()
	m.context = ctx
	present := make([]*group, 0, len(m.groups))
	for _, g := range m.groups {
		present = append(present, g)
		m.start(g)
	}
	m.mutex.Unlock()
	for _, g := range present {
		m.setReady(false, fmt.Sprintf("group %q was not looked at yet", g.name))
		select {
		case <-g.seen:
		case <-g.gone:
		case <-ctx.Done():
			return nil
		}
	}
	m.setReady(true, "")
	m.options.Logger.Info("ready", "groups", len(present))
	m.running.Go(func() { m.watchLayers(ctx) })
	m.collectImages(ctx)
	return nil
}

func (m *Manager) start(g *group) {
	m.running.Go(func() { g.run(m.context) })
}

// pollInterval is that of the options; longer on a host with many groups, whose looks at containerd would otherwise keep it busy.
func (m *Manager) pollInterval() time.Duration {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return max(m.options.PollInterval, min(time.Duration(len(m.groups))*pollShare, maximumPollInterval))
}

func (m *Manager) prepare(ctx context.Context) error {
	version, err := m.runtime.Version(ctx, &runtimev1.VersionRequest{})
	if err != nil {
		return fmt.Errorf("version of containerd: %w", err)
	}
	m.readyMutex.Lock()
	m.containerd = version.GetRuntimeVersion()
	m.readyMutex.Unlock()
	if m.options.Prepare != nil {
		if err := m.options.Prepare(ctx); err != nil {
			return err
		}
	}
	return m.removeOrphans(ctx)
}

// removeOrphans takes away sandboxes of groups that are not declared here, e.g. from before the agent's data was lost.
func (m *Manager) removeOrphans(ctx context.Context) error {
	response, err := m.runtime.ListPodSandbox(ctx, &runtimev1.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	for _, sandbox := range response.Items {
		name, ours := sandbox.Labels[labelGroup]
		m.mutex.Lock()
		_, declared := m.groups[name]
		m.mutex.Unlock()
		if !ours || declared {
			continue
		}
		if err := removeSandbox(ctx, m.runtime, sandbox); err != nil {
			return err
		}
		m.options.Logger.Info("removed a sandbox of an unknown group", "group", name, "sandbox", sandbox.Id)
	}
	return nil
}

func (m *Manager) setReady(ready bool, message string) {
	m.readyMutex.Lock()
	defer m.readyMutex.Unlock()
	m.ready, m.readyMessage = ready, message
}

// Ready tells whether every group was looked at since the start, and why not.
func (m *Manager) Ready() (ready bool, message, containerdVersion string) {
	m.readyMutex.Lock()
	defer m.readyMutex.Unlock()
	return m.ready, m.readyMessage, m.containerd
}

// Apply declares a group; see GroupService.ApplyGroup.
func (m *Manager) Apply(spec *agentv1.GroupSpec, expected uint64, dryRun bool) (*agentv1.Group, error) {
	if spec == nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("spec: missing"))
	}
	spec = proto.CloneOf(spec)
	normalize(spec)
	if err := validate(spec); err != nil {
		return nil, err
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if err := m.admit(spec); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	g := m.groups[spec.GetName()]
	if g == nil {
		if expected != 0 {
			return nil, otherGeneration(spec.GetName(), 0, expected)
		}
		r := newRecord(spec)
		if dryRun {
			return &agentv1.Group{Spec: redacted(spec), Generation: r.Generation}, nil
		}
		if err := m.store.save(r); err != nil {
			return nil, connect.NewError(connect.CodeInternal, err)
		}
		g = newGroup(m, r)
		m.groups[spec.GetName()] = g
		if m.context != nil {
			m.start(g)
		}
		view, _ := g.view()
		return view, nil
	}
	var preview *agentv1.Group
	err := g.replace(func(present *record) (*record, error) {
		if present.Deleting {
			return nil, connect.NewError(connect.CodeAborted, fmt.Errorf("group %q is being deleted; try again", g.name))
		}
		if expected != 0 && present.Generation != expected {
			return nil, otherGeneration(g.name, present.Generation, expected)
		}
		if proto.Equal(present.spec, spec) {
			if dryRun {
				return nil, nil
			}
			return present.withoutBackOff(m.options.Now()), nil
		}
		changed := present.clone()
		changed.spec = spec
		changed.rememberImages(present)
		changed.Generation++
		if changed.specHash() != present.specHash() {
			changed.Containers = nil
		}
		if dryRun {
			preview = &agentv1.Group{Spec: redacted(spec), Generation: changed.Generation}
			return nil, nil
		}
		return changed, nil
	})
	if err != nil {
		return nil, err
	}
	if !dryRun {
		g.tryImagesAnew()
	}
	view, _ := g.view()
	if preview != nil {
		preview.Status = view.GetStatus()
		return preview, nil
	}
	return view, nil
}

// otherGeneration tells a caller that somebody else has declared the group since it looked.
func otherGeneration(name string, present, expected uint64) error {
	return connect.NewError(connect.CodeFailedPrecondition,
		fmt.Errorf("expectedGeneration: group %q has generation %d, not %d: it was declared anew meanwhile", name, present, expected))
}

// admit checks ports and room against the other groups. The caller holds the mutex.
func (m *Manager) admit(spec *agentv1.GroupSpec) error {
	var others []*agentv1.GroupSpec
	for name, other := range m.groups {
		if name != spec.GetName() {
			others = append(others, other.wish().spec)
		}
	}
	for index, port := range spec.GetPorts() {
		if port.GetProtocol() == agentv1.Protocol_PROTOCOL_TCP && slices.Contains(m.options.ReservedPorts, port.GetPort()) {
			return fmt.Errorf("ports[%d].port: %s is the host's own", index, keyOf(port))
		}
		for _, other := range others {
			for _, taken := range other.GetPorts() {
				if keyOf(taken) == keyOf(port) {
					return fmt.Errorf("ports[%d].port: %s is published by group %q", index, keyOf(port), other.GetName())
				}
			}
		}
	}
	return m.options.Capacity.admit(spec, others)
}

func (m *Manager) find(name string) (*group, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	g := m.groups[name]
	if g == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("group %q is not declared on this host", name))
	}
	return g, nil
}

func (m *Manager) all() []*group {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	result := make([]*group, 0, len(m.groups))
	for _, g := range m.groups {
		result = append(result, g)
	}
	slices.SortFunc(result, func(a, b *group) int { return strings.Compare(a.name, b.name) })
	return result
}

// Delete declares a group unwanted and waits until nothing is left of it. When ctx ends before, the removal goes on.
func (m *Manager) Delete(ctx context.Context, name string) error {
	g, err := m.find(name)
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	err = g.replace(func(present *record) (*record, error) {
		if present.Deleting {
			return nil, nil
		}
		changed := present.clone()
		changed.Deleting = true
		return changed, nil
	})
	if err != nil {
		return connect.NewError(connect.CodeInternal, err)
	}
	select {
	case <-g.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget drops a group of which nothing is left.
func (m *Manager) forget(g *group, wish *record) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if err := m.store.remove(wish.spec.GetName()); err != nil {
		return err
	}
	delete(m.groups, g.name)
	close(g.gone)
	g.logger.Info("deleted")
	return nil
}
