package groups

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/palisade-host/palisade/hosts/agent/internal/images"
	"github.com/palisade-host/palisade/hosts/agent/internal/images/registrytest"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

// sealedHarness is a harness with a real role images and a registry.
type sealedHarness struct {
	*harness
	registry *registrytest.Server
	key      *sealtest.Key
	store    seal.Store
	policies agentv1connect.ImagePolicyServiceClient
	stopRole func()
}

func newSealedHarness(t *testing.T) *sealedHarness {
	t.Helper()
	h := &sealedHarness{harness: newHarness(t), registry: registrytest.New(t), key: sealtest.NewKey(t)}
	h.registry.User, h.registry.Password = "user", "password-canary"
	directory, err := os.MkdirTemp("", "images")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	h.store = seal.Store(filepath.Join(directory, "layers"))
	trust := seal.Trust{Keys: h.key.Keys()}
	role, err := images.New(images.Options{
		DataDirectory: filepath.Join(directory, "data"), Store: h.store, Trust: trust, Stall: 2 * time.Second,
		Available: images.Available, Logger: slog.New(slog.NewTextHandler(h.logs, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(directory, "s")
	listener, err := service.Listen(socket, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = service.ServeUnix(ctx, listener, role.Handler())
	}()
	h.stopRole = func() {
		cancel()
		<-ended
	}
	t.Cleanup(h.stopRole)
	client := &http.Client{Transport: service.UnixTransport(socket)}
	h.options.Sealed = agentv1connect.NewImageStoreServiceClient(client, "http://role")
	h.options.Layers, h.options.Trust = []seal.Store{h.store}, trust
	h.policies = agentv1connect.NewImagePolicyServiceClient(client, "http://role")
	h.manager = h.reload()
	return h
}

// image adds a sealed image to the registry.
func (h *sealedHarness) image(layers ...string) (*sealtest.Image, string) {
	h.t.Helper()
	image := sealtest.NewImage(h.t, layers...)
	reference := h.registry.AddImage(image)
	h.registry.AddSeal(h.t, image, h.key.Seal(h.t, image.Sealed))
	return image, reference
}

// spec returns the spec of a group that runs an image.
func (h *sealedHarness) spec(name, reference string) *agentv1.GroupSpec {
	spec := testSpec(name)
	spec.Containers[0].Image = reference
	spec.ImageRegistries = h.registry.Access()[1:]
	return spec
}

func (h *sealedHarness) has(image *sealtest.Image) bool {
	_, err := os.Stat(h.store.Seal(image.Digest))
	return err == nil
}

func reasons(group *agentv1.Group) (result []string) {
	for _, event := range group.GetStatus().GetEvents() {
		result = append(result, event.GetReason())
	}
	return result
}

func message(group *agentv1.Group, reason string) string {
	for _, event := range group.GetStatus().GetEvents() {
		if event.GetReason() == reason {
			return event.GetType() + " " + event.GetMessage()
		}
	}
	return ""
}

func TestSealedImageRuns(t *testing.T) {
	h := newSealedHarness(t)
	image, _ := h.image("base", "app")
	index := registrytest.Repository + "@" + h.registry.AddManifest(sealtest.Index(t, image))
	h.apply(h.spec("web", index))
	group := h.pass("web")
	// containerd is asked for the sealed manifest, not for the index.
	local := registrytest.Repository + "@" + image.Digest
	if pulls := h.runtime.Pulls(); len(pulls) != 1 || pulls[0].Image.Image != local {
		t.Errorf("%v", pulls)
	}
	if config, _ := h.runtime.Running("server"); config == nil || config.Image.Image != local {
		t.Errorf("%v", config)
	}
	want := []string{image.Sealed.Layers[0].RootHash, image.Sealed.Layers[1].RootHash}
	if c := only(group); !slices.Equal(c.GetSealed(), want) || c.GetImageDigest() != image.Digest {
		t.Errorf("%v", c)
	}
	if got := reasons(group); !slices.Equal(got, []string{"Fetching", "Fetched", "Pulling", "Pulled", "SandboxCreated", "Created", "Started"}) {
		t.Errorf("%v", got)
	}
	if fetched := message(group, "Fetched"); !strings.Contains(fetched, "bytes") || !strings.Contains(fetched, h.key.ID) {
		t.Error(fetched)
	}
	// The agent starts it again from the record, without any registry.
	h.registry.Close()
	h.manager = h.reload()
	h.runtime.Exit("server", 1, "Error")
	h.pass("web")
	if group := h.pass("web"); h.running("server") == "" || len(h.runtime.Pulls()) != 1 || !slices.Equal(only(group).GetSealed(), want) {
		t.Errorf("%v", group)
	}
}

func TestUnsealedImageIsRefused(t *testing.T) {
	h := newSealedHarness(t)
	image := sealtest.NewImage(t, "app")
	h.apply(h.spec("web", h.registry.AddImage(image)))
	group := h.pass("web")
	if c := only(group); c.GetReason() != reasonRefused || !strings.Contains(c.GetMessage(), "SealMissing") || !strings.Contains(c.GetMessage(), image.Digest) {
		t.Errorf("%v", c)
	}
	if refused := message(group, reasonRefused); !strings.HasPrefix(refused, "Warning ") || !strings.Contains(refused, registrytest.Repository) {
		t.Error(refused)
	}
	if h.runtime.Calls("PullImage") != 0 || h.runtime.Calls("RunPodSandbox") != 0 {
		t.Error("containerd was asked for a refused image")
	}
	// The registry is not asked again before the retry is due. The image is admitted once it is sealed.
	asked := h.registry.Asked("")
	h.pass("web")
	if h.registry.Asked("") != asked {
		t.Error("the registry was asked again at once")
	}
	h.registry.AddSeal(t, image, h.key.Seal(t, image.Sealed))
	h.clock.advance(10 * time.Second)
	if group := h.pass("web"); h.running("server") == "" || only(group).GetReason() != "" {
		t.Errorf("%v", group)
	}
}

func TestRefusedLayerIsNamed(t *testing.T) {
	h := newSealedHarness(t)
	image, reference := h.image("base", "app")
	layer := image.Sealed.Layers[1]
	h.registry.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
		if !strings.HasSuffix(request.URL.Path, layer.Blob) {
			return false
		}
		registrytest.Send(writer, make([]byte, layer.Size))
		return true
	})
	h.apply(h.spec("web", reference))
	if refused := message(h.pass("web"), reasonRefused); !strings.Contains(refused, "LayerMismatch") || !strings.Contains(refused, layer.Digest) {
		t.Error(refused)
	}
}

func TestStricterPolicyAtTheNextStart(t *testing.T) {
	h := newSealedHarness(t)
	_, reference := h.image("app")
	h.apply(h.spec("web", reference))
	h.pass("web")
	before := h.running("server")
	applied, err := h.policies.ApplyImagePolicy(t.Context(), connect.NewRequest(&agentv1.ApplyImagePolicyRequest{
		Policy: &agentv1.ImagePolicy{Name: "other", Repositories: []string{"registry.test/other"}},
	}))
	if err != nil || len(applied.Msg.GetRefusedImages()) != 1 {
		t.Fatalf("%v, %v", applied, err)
	}
	h.pass("web")
	if before == "" || h.running("server") != before {
		t.Error("a running container was touched")
	}
	h.runtime.Exit("server", 1, "Error")
	h.pass("web")
	group := h.pass("web")
	if h.running("server") != "" || !strings.Contains(only(group).GetMessage(), "ImageNotAllowed") {
		t.Errorf("%v", group)
	}
}

func TestRegistryTroubleIsToldAsBefore(t *testing.T) {
	h := newSealedHarness(t)
	_, reference := h.image("app")
	spec := h.spec("web", reference)
	spec.ImageRegistries[0].Password = "wrong-canary"
	h.apply(spec)
	if c := only(h.pass("web")); c.GetReason() != reasonPullFailed || !strings.Contains(c.GetMessage(), ": unauthorized: ") {
		t.Errorf("%v", c)
	}
	h.stopRole()
	h.clock.advance(time.Hour)
	if c := only(h.pass("web")); c.GetReason() != reasonPullFailed || !strings.Contains(c.GetMessage(), "role images does not answer") {
		t.Errorf("%v", c)
	}
}

func TestImagesOfADeletedGroup(t *testing.T) {
	h := newSealedHarness(t)
	shared, sharedReference := h.image("shared")
	own, ownReference := h.image("own")
	idle, idleReference := h.image("idle")
	h.apply(h.spec("idle", idleReference))
	h.pass("idle")
	h.apply(h.spec("idle", sharedReference))
	h.pass("idle")
	h.apply(h.spec("keeps", sharedReference))
	h.pass("keeps")
	spec := h.spec("web", ownReference)
	second := h.spec("web", sharedReference).Containers[0]
	second.Name, second.Ports = "second", nil
	spec.Containers = append(spec.Containers, second)
	h.apply(spec)
	h.pass("web")
	for _, image := range []*sealtest.Image{shared, own, idle} {
		if !h.has(image) {
			t.Fatalf("%s is not in the store", image.Digest)
		}
	}
	h.remove("web")
	if h.has(own) || !h.has(shared) || !h.has(idle) {
		t.Error("the wrong images left the store")
	}
	if got := h.runtime.Images(); slices.Contains(got, ownReference) || !slices.Contains(got, sharedReference) || !slices.Contains(got, idleReference) {
		t.Errorf("%q", got)
	}
	// The previous image is removed with its group.
	h.remove("idle")
	if h.has(idle) || !h.has(shared) {
		t.Error("the wrong images left the store")
	}
}

// remove deletes a group and runs the pass that removes it.
func (h *sealedHarness) remove(name string) {
	h.t.Helper()
	g, err := h.manager.find(name)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = h.manager.Delete(ctx, name)
	if err := g.reconcile(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	<-g.gone
}

func TestPreviousImagesStayWhenTheDiskIsFull(t *testing.T) {
	h := newSealedHarness(t)
	var sealed []*sealtest.Image
	var references []string
	for _, name := range []string{"first", "second", "third"} {
		image, reference := h.image(name)
		sealed, references = append(sealed, image), append(references, reference)
		h.apply(h.spec("web", reference))
		h.pass("web")
	}
	// A change that keeps the image also keeps the previous one.
	spec := h.spec("web", references[2])
	spec.Labels = map[string]string{"team": "a"}
	h.apply(spec)
	h.pass("web")
	h.manager = h.reload()
	if err := h.manager.removeUnusedImages(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.has(sealed[0]) || !h.has(sealed[1]) || !h.has(sealed[2]) {
		t.Error("the wrong images left the store")
	}
	if got := h.runtime.Images(); slices.Contains(got, references[0]) || !slices.Contains(got, references[1]) || !slices.Contains(got, references[2]) {
		t.Errorf("%q", got)
	}
}

func TestRefusedImageIsTriedAnewWhenDeclaredAgain(t *testing.T) {
	h := newSealedHarness(t)
	image := sealtest.NewImage(t, "app")
	spec := h.spec("web", h.registry.AddImage(image))
	h.apply(spec)
	if c := only(h.pass("web")); c.GetReason() != reasonRefused {
		t.Fatalf("%v", c)
	}
	h.registry.AddSeal(t, image, h.key.Seal(t, image.Sealed))
	// A caller must not take the earlier refusal for one of this declaration.
	h.apply(spec)
	if c := only(h.group("web")); c.GetReason() == reasonRefused || c.GetMessage() != "" {
		t.Errorf("%v", c)
	}
	if group := h.pass("web"); h.running("server") == "" {
		t.Errorf("%v", group)
	}
}

func TestCorruptedLayerIsToldOnceToTheGroupsThatUseIt(t *testing.T) {
	h := newSealedHarness(t)
	image, reference := h.image("base", "app")
	h.apply(h.spec("web", reference))
	h.pass("web")
	corrupted := &agentv1.LayerDevice{RootHash: image.Sealed.Layers[1].RootHash, Corrupted: true}
	sound := &agentv1.LayerDevice{RootHash: image.Sealed.Layers[0].RootHash}
	count := func() int {
		n := 0
		for _, event := range h.group("web").GetStatus().GetEvents() {
			if event.GetReason() == reasonLayerCorrupted {
				n++
				if event.GetContainer() != "server" || !strings.Contains(event.GetMessage(), corrupted.RootHash) {
					t.Errorf("%v", event)
				}
			}
		}
		return n
	}
	reported := h.manager.reportCorruption([]*agentv1.LayerDevice{sound}, nil)
	if count() != 0 || len(reported) != 0 {
		t.Error("a sound layer is reported as corrupted")
	}
	reported = h.manager.reportCorruption([]*agentv1.LayerDevice{sound, corrupted}, reported)
	reported = h.manager.reportCorruption([]*agentv1.LayerDevice{sound, corrupted}, reported)
	if count() != 1 || len(reported) != 1 {
		t.Errorf("%d events, %v", count(), reported)
	}
	elsewhere := &agentv1.LayerDevice{RootHash: strings.Repeat("0", 64), Corrupted: true}
	if reported = h.manager.reportCorruption([]*agentv1.LayerDevice{elsewhere}, reported); count() != 1 || len(reported) != 0 {
		t.Errorf("%d events, %v", count(), reported)
	}
}

func TestAnImageWithAnotherConfigurationThanItsSealIsRefused(t *testing.T) {
	h := newSealedHarness(t)
	image, reference := h.image("app")
	h.apply(h.spec("web", reference))
	h.runtime.SetImageID(reference, image.Sealed.Image.Config)
	if group := h.pass("web"); h.running("server") == "" {
		t.Fatalf("%v", group)
	}
	h.runtime.SetImageID(reference, "sha256:"+strings.Repeat("0", 64))
	h.runtime.Exit("server", 1, "Error")
	h.pass("web")
	group := h.pass("web")
	if c := only(group); c.GetReason() != reasonRefused || !strings.Contains(c.GetMessage(), image.Sealed.Image.Config) || h.running("server") != "" {
		t.Errorf("%v", c)
	}
	if !strings.Contains(message(group, reasonRefused), "Warning") {
		t.Errorf("%v", reasons(group))
	}
}

func TestAConfigurationThatWasChangedOnTheDiskIsRefused(t *testing.T) {
	h := newSealedHarness(t)
	_, reference := h.image("app")
	h.runtime.Fail("PullImage", grpcstatus.Error(codes.DataLoss, "blob sha256:00 was changed on the disk"))
	h.apply(h.spec("web", reference))
	if c := only(h.pass("web")); c.GetReason() != reasonRefused || !strings.Contains(c.GetMessage(), "was changed on the disk") {
		t.Errorf("%v", c)
	}
}

// drip makes the registry send the layers of an image byte by byte.
func (h *sealedHarness) drip(image *sealtest.Image) {
	h.registry.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
		if !strings.HasSuffix(request.URL.Path, image.Sealed.Layers[0].Blob) {
			return false
		}
		registrytest.Drip(writer, request, image.Blobs[0], 1, 10*time.Millisecond)
		return true
	})
}

func TestARegistryThatDripsBytesHoldsUpOnlyItsImage(t *testing.T) {
	h := newSealedHarness(t)
	h.manager.pullPatience = 500 * time.Millisecond
	slowImage, slow := h.image("slow")
	_, quick := h.image("quick")
	h.drip(slowImage)
	spec := h.spec("both", quick)
	second := proto.CloneOf(spec.GetContainers()[0])
	second.Name, second.Image, second.Ports = "slow", slow, nil
	spec.Containers = append(spec.Containers, second)
	h.apply(spec)
	h.apply(h.spec("other", quick))
	started := time.Now()
	group := h.pass("both")
	if quick, slow := group.GetStatus().GetContainers()[0], group.GetStatus().GetContainers()[1]; quick.GetPhase() != agentv1.ContainerPhase_CONTAINER_PHASE_RUNNING || slow.GetReason() != reasonPulling {
		t.Errorf("%v", group)
	}
	// An exit is seen and the container restarts while the pull goes on.
	before := h.running("server")
	h.runtime.Exit("server", 1, "Error")
	group = h.pass("both")
	if quick, slow := group.GetStatus().GetContainers()[0], group.GetStatus().GetContainers()[1]; quick.GetContainerId() == before || quick.GetRestartCount() != 1 || slow.GetReason() != reasonPulling {
		t.Errorf("%v", group)
	}
	if c := only(h.pass("other")); c.GetPhase() != agentv1.ContainerPhase_CONTAINER_PHASE_RUNNING {
		t.Errorf("%v", c)
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	// The registry makes no progress, which is an error, and the pull is tried again after the back-off.
	eventually(t, func() bool {
		return group.GetStatus().GetContainers()[1].GetReason() == reasonPullFailed || h.passed("both", &group)
	})
	if c := group.GetStatus().GetContainers()[1]; !strings.Contains(c.GetMessage(), "makes no progress") {
		t.Errorf("%v", c)
	}
	h.registry.Tell(nil)
	if c := h.pass("both").GetStatus().GetContainers()[1]; c.GetReason() != reasonPullFailed {
		t.Errorf("it is tried again at once: %v", c)
	}
	h.clock.advance(10 * time.Second)
	h.manager.pullPatience = time.Minute
	if c := h.pass("both").GetStatus().GetContainers()[1]; c.GetPhase() != agentv1.ContainerPhase_CONTAINER_PHASE_RUNNING {
		t.Errorf("%v", c)
	}
}

// passed makes another pass and reports false, so that it can stand in a condition.
func (h *sealedHarness) passed(name string, group **agentv1.Group) bool {
	*group = h.pass(name)
	return false
}

func TestAGroupIsDeletedWhileARegistryDripsBytes(t *testing.T) {
	h := newSealedHarness(t)
	h.manager.pullPatience = time.Hour
	image, reference := h.image("slow")
	h.drip(image)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.manager.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	h.apply(h.spec("web", reference))
	eventually(t, func() bool { return only(h.group("web")).GetReason() == reasonPulling })
	started := time.Now()
	if err := h.manager.Delete(ctx, "web"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(started); took > time.Second {
		t.Errorf("took %s", took)
	}
}

func TestAnImageOnTheHostDoesNotKeepTheLoopBusy(t *testing.T) {
	h := newSealedHarness(t)
	_, reference := h.image("app")
	h.apply(h.spec("web", reference))
	for range 2 {
		h.pass("web")
		h.runtime.Exit("server", 1, "Error")
	}
	// The container waits for its restart, and the passes check its image.
	h.pass("web")
	g, err := h.manager.find("web")
	if err != nil {
		t.Fatal(err)
	}
	for len(g.wake) > 0 {
		<-g.wake
	}
	if h.pass("web"); len(g.wake) > 0 {
		t.Error("a pass wakes the loop for another one")
	}
}
