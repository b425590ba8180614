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

	"github.com/palisade-host/palisade/hosts/agent/internal/records"
	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
	"github.com/palisade-host/palisade/hosts/seal"
)

const (
	// pollShare is what each group adds to the poll interval.
	pollShare = 100 * time.Millisecond
	// maximumPollInterval guarantees that a container that was stopped by others runs again within 30 s.
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
	// CgroupParent is the cgroup of all sandboxes, as the cgroupfs driver names it.
	CgroupParent string
	// CgroupRoot is where the unified hierarchy is mounted.
	CgroupRoot     string
	MaximumLogSize int64
	PollInterval   time.Duration
	Capacity       Capacity
	// Starts is how many groups may start at a time. With fewer at a time each start is short, and none runs into the
	// runtime's timeouts when a host with many groups boots.
	Starts int
	// Sealed is the client of the role images; nil when images are pulled without seals.
	Sealed agentv1connect.ImageStoreServiceClient
	// LayerDevices reports which layers the kernel found corrupted; nil when images are pulled without seals.
	LayerDevices agentv1connect.LayerDeviceServiceClient
	// Layers are the stores of sealed layers, and Trust are the keys of trusted seals. Both serve the status only.
	Layers []seal.Store
	Trust  seal.Trust
	// DiskUsage returns the used part of the disk of containerd's images, 0 to 1. With nil no image is ever removed.
	DiskUsage func() (float64, error)
	// ReservedPorts are ports that the host itself uses.
	ReservedPorts []uint32
	Now           func() time.Time
	// Monotonic is the time since an arbitrary point, by a clock that never jumps. Default: that of the kernel.
	Monotonic func() time.Duration
	Logger    *slog.Logger
	// Prepare runs until it succeeds, before the first pass. It asks for the runtime's version, for example. It may be
	// nil.
	Prepare func(context.Context) error
}

// Manager runs all groups of the host.
type Manager struct {
	options      Options
	store        *store
	runtime      runtimev1.RuntimeServiceClient
	images       runtimev1.ImageServiceClient
	certificates *registry.Certificates
	startSlots   *semaphore.Weighted
	// pullPatience is the constant of this name. Tests change it.
	pullPatience time.Duration

	// mutex serializes declarations, so that two cannot take one port.
	mutex   sync.Mutex
	groups  map[string]*group
	running sync.WaitGroup
	// context ends the groups' goroutines; nil until containerd is prepared.
	context context.Context

	sealsMutex sync.Mutex
	// seals are the root hashes of an image's layers by the image's digest.
	seals map[string][]string

	readyMutex   sync.Mutex
	ready        bool
	readyMessage string
	containerd   string
}

// recordRetryInterval is the time between two attempts to read the records that could not be read. It is short for a
// disk that recovers, and one that does not recover is not kept busy.
const recordRetryInterval = 10 * time.Second

// NewManager loads the declared groups. Run starts their loops. A group whose record is damaged or cannot be read is
// reported, and the others run.
func NewManager(options Options, runtime runtimev1.RuntimeServiceClient, images runtimev1.ImageServiceClient) (*Manager, error) {
	store, err := openStore(options.DataDirectory, options.Logger)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(options.LogDirectory, 0o700); err != nil {
		return nil, err
	}
	loaded, err := store.folder.Load()
	if err != nil {
		return nil, err
	}
	if options.Monotonic == nil {
		options.Monotonic = monotonicClock()
	}
	m := &Manager{
		options: options, store: store, runtime: runtime, images: images, groups: map[string]*group{}, seals: map[string][]string{},
		certificates: registry.NewCertificates(options.CertificatesDirectory),
		startSlots:   semaphore.NewWeighted(int64(options.Starts)),
		pullPatience: pullPatience,
		readyMessage: "starts",
	}
	for _, r := range loaded {
		m.groups[r.spec.GetName()] = newGroup(m, r)
	}
	return m, nil
}

// Run reconciles the groups until ctx ends. Their containers continue to run.
func (m *Manager) Run(ctx context.Context) error {
	defer m.running.Wait()
	if !m.waitForContainerd(ctx) {
		return nil
	}
	started := m.startAll(ctx)
	for _, g := range started {
		m.setReady(false, fmt.Sprintf("group %q was not looked at yet", g.name))
		select {
		case <-g.firstObserved:
		case <-g.gone:
		case <-ctx.Done():
			return nil
		}
	}
	m.setReady(true, "")
	m.options.Logger.Info("ready", "groups", len(started))
	m.running.Go(func() { m.watchLayers(ctx) })
	m.running.Go(func() { m.watchRecords(ctx) })
	m.collectImages(ctx)
	return nil
}

// waitForContainerd prepares containerd, and tries again until it succeeds. It returns false when ctx ends first.
func (m *Manager) waitForContainerd(ctx context.Context) bool {
	for {
		err := m.prepare(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		m.options.Logger.Warn("waits for containerd", "error", err)
		m.setReady(false, err.Error())
		select {
		case <-ctx.Done():
			return false
		case <-time.After(m.options.PollInterval):
		}
	}
}

// startAll starts the loops of all declared groups. From then on Apply starts the loops of new groups.
func (m *Manager) startAll(ctx context.Context) []*group {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.context = ctx
	started := make([]*group, 0, len(m.groups))
	for _, g := range m.groups {
		started = append(started, g)
		m.start(g)
	}
	return started
}

// watchRecords reads the records that could not be read again, until ctx ends.
func (m *Manager) watchRecords(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(recordRetryInterval):
			m.retryRecords()
		}
	}
}

// retryRecords starts the groups whose records can be read by now.
func (m *Manager) retryRecords() {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for name, r := range m.store.folder.Retry() {
		m.options.Logger.Info("a record can be read again", "group", name)
		m.groups[name] = newGroup(m, r)
		if m.context != nil {
			m.start(m.groups[name])
		}
	}
}

// start starts the loop of a group.
func (m *Manager) start(g *group) {
	m.running.Go(func() { g.run(m.context) })
}

// pollInterval returns the configured interval, or a longer one on a host with many groups, to limit the load on
// containerd.
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

// removeOrphans removes the sandboxes of groups that are not declared, for example because the agent's data was lost. A
// group whose record is damaged or could not be read was declared, so its sandboxes stay as they are.
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
		_, reported := m.store.folder.Problem(name)
		if !ours || declared || reported {
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

// Ready reports whether every group was observed since the agent's start, and if not, why.
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
	if g := m.groups[spec.GetName()]; g != nil {
		return g.update(spec, expected, dryRun)
	}
	return m.create(spec, expected, dryRun)
}

// create declares a group that did not exist. The caller holds the mutex.
func (m *Manager) create(spec *agentv1.GroupSpec, expected uint64, dryRun bool) (*agentv1.Group, error) {
	r := newRecord(spec)
	problem, damaged := m.store.folder.Problem(spec.GetName())
	if expected != 0 {
		if !damaged {
			return nil, generationConflict(spec.GetName(), 0, expected)
		}
		// The generation was lost with the record, so the caller's is the best known.
		r.Generation = expected + 1
	}
	if dryRun {
		return &agentv1.Group{Spec: redacted(spec), Generation: r.Generation}, nil
	}
	if err := m.store.save(r); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	g := newGroup(m, r)
	m.groups[spec.GetName()] = g
	if damaged {
		g.event(eventWarning, problemReason(problem), problem.String(), "")
	}
	if m.context != nil {
		m.start(g)
	}
	view, _ := g.view()
	return view, nil
}

// Reasons of events about records.
const (
	reasonRecordDamaged    = "RecordDamaged"
	reasonRecordUnreadable = "RecordUnreadable"
)

func problemReason(problem records.Problem) string {
	if problem.Damaged {
		return reasonRecordDamaged
	}
	return reasonRecordUnreadable
}

// describeProblem also says what happens to the group's containers.
func describeProblem(problem records.Problem) string {
	return problem.String() + "; until then its containers are left as they are"
}

// damaged returns what is known of a group whose record is not in use: its name, and an event that says why. It returns
// nil when there is no such group.
func (m *Manager) damaged(name string) *agentv1.Group {
	problem, found := m.store.folder.Problem(name)
	if !found {
		return nil
	}
	var events eventRing
	events.add(m.now(), eventWarning, problemReason(problem), describeProblem(problem), "")
	return &agentv1.Group{
		Spec:   &agentv1.GroupSpec{Name: name},
		Status: &agentv1.GroupStatus{Phase: agentv1.GroupPhase_GROUP_PHASE_FAILED, Events: events.snapshot()},
	}
}

// generationConflict is the error of a caller that expected another generation than the present one.
func generationConflict(name string, present, expected uint64) error {
	return connect.NewError(connect.CodeFailedPrecondition,
		fmt.Errorf("expectedGeneration: group %q has generation %d, not %d: it was declared anew meanwhile", name, present, expected))
}

// admit checks ports and capacity against the other groups. The caller holds the mutex.
func (m *Manager) admit(spec *agentv1.GroupSpec) error {
	var others []*agentv1.GroupSpec
	for name, other := range m.groups {
		if name != spec.GetName() {
			others = append(others, other.desired().spec)
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
	if problem, found := m.store.folder.Problem(name); g == nil && found {
		// This is no proof of absence.
		return nil, connect.NewError(connect.CodeDataLoss, fmt.Errorf("group %q: %s", name, problem))
	}
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

// Delete marks a group for deletion and waits until nothing remains of it. The removal continues when ctx ends first.
func (m *Manager) Delete(ctx context.Context, name string) error {
	g, err := m.findToDelete(name)
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if err := g.markDeleting(); err != nil {
		return connect.NewError(connect.CodeInternal, err)
	}
	select {
	case <-g.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// findToDelete is find, except that it also returns a group whose record is damaged: one that is being deleted, of
// which only the name is known. Its record is not written. After a crash the damaged one is still there, and is deleted
// again.
func (m *Manager) findToDelete(name string) (*group, error) {
	g, err := m.find(name)
	if connect.CodeOf(err) != connect.CodeDataLoss {
		return g, err
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if g := m.groups[name]; g != nil {
		return g, nil
	}
	if problem, found := m.store.folder.Problem(name); !found || !problem.Damaged {
		return nil, err
	}
	r := newRecord(&agentv1.GroupSpec{Name: name})
	r.Deleting = true
	g = newGroup(m, r)
	m.groups[name] = g
	if m.context != nil {
		m.start(g)
	}
	return g, nil
}

// forget drops a group of which nothing remains.
func (m *Manager) forget(g *group, desired *record) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if err := m.store.remove(desired.spec.GetName()); err != nil {
		return err
	}
	delete(m.groups, g.name)
	close(g.gone)
	g.logger.Info("deleted")
	return nil
}
