package groups

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// record is what the host stores of a group: the desired state, and the history that has to outlive the agent and reboots.
type record struct {
	spec *agentv1.GroupSpec
	recordFields
}

type recordFields struct {
	// UID tells a group from an earlier one of the same name.
	UID        string `json:"uid"`
	Generation uint64 `json:"generation"`
	// Salt keeps the spec hash, which containerd stores as a label, from giving away what is in the spec.
	Salt     []byte `json:"salt"`
	Deleting bool   `json:"deleting,omitempty"`
	// SandboxAttempt makes the names of sandboxes unique in containerd.
	SandboxAttempt uint32                    `json:"sandboxAttempt"`
	Containers     map[string]containerState `json:"containers,omitempty"`
	// Manifests are the digests of the manifests for this host's platform, by the sealed image's reference.
	Manifests map[string]string `json:"manifests,omitempty"`
	// Previous are the images, as containerd knows them, of the spec before the present one: they stay for a way back.
	Previous []string `json:"previous,omitempty"`
}

// containerState is the history of one container of the present generation.
type containerState struct {
	// Attempt of the newest CRI container.
	Attempt      uint32 `json:"attempt"`
	RestartCount uint32 `json:"restartCount"`
	// ContainerID of the newest CRI container; empty before the first.
	ContainerID string `json:"containerId,omitempty"`
	// Restarts since the back-off was reset.
	Restarts uint32 `json:"restarts,omitempty"`
	// RestartAt is when the next container is made after an end; zero when none is due.
	RestartAt time.Time     `json:"restartAt,omitzero"`
	BackOff   time.Duration `json:"backOff,omitempty"`
	// Exit is the last end that was seen.
	Exit *exit `json:"exit,omitempty"`
	// Done: by the restart policy it is not started again.
	Done bool `json:"done,omitempty"`
}

type exit struct {
	ContainerID string    `json:"containerId"`
	Code        int32     `json:"code"`
	Reason      string    `json:"reason"`
	Message     string    `json:"message,omitempty"`
	StartedAt   time.Time `json:"startedAt,omitzero"`
	FinishedAt  time.Time `json:"finishedAt,omitzero"`
	ImageDigest string    `json:"imageDigest,omitempty"`
}

func newRecord(spec *agentv1.GroupSpec) *record {
	uid, salt := make([]byte, 8), make([]byte, 16)
	rand.Read(uid)
	rand.Read(salt)
	return &record{spec: spec, recordFields: recordFields{UID: hex.EncodeToString(uid), Salt: salt, Generation: 1}}
}

// specHash identifies what the running containers were made from. Labels, the owner's digest, the way to registries and the
// channels that images follow can change without a restart.
func (r *record) specHash() string {
	spec := proto.CloneOf(r.spec)
	spec.Labels, spec.SecretDigest, spec.ImageRegistries = nil, "", nil
	for _, container := range spec.GetContainers() {
		container.Channel = ""
	}
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		// Only an invalid UTF-8 string fails, and the transport has refused those.
		panic(err)
	}
	hash := hmac.New(sha256.New, r.Salt)
	hash.Write(content)
	return hex.EncodeToString(hash.Sum(nil)[:16])
}

func (r *record) clone() *record {
	copied := &record{spec: proto.CloneOf(r.spec), recordFields: r.recordFields}
	copied.Containers = make(map[string]containerState, len(r.Containers))
	for name, state := range r.Containers {
		copied.Containers[name] = state
	}
	copied.Manifests = maps.Clone(r.Manifests)
	return copied
}

// local is the reference by which containerd knows an image: of a sealed one always the manifest's, so that the digest that the
// seal is about is the one that containerd mounts by.
func (r *record) local(image string) string {
	if digest, found := r.Manifests[image]; found {
		repository, _, _ := strings.Cut(image, "@")
		return repository + "@" + digest
	}
	return image
}

// allDone reports whether every container has exited for good.
func (r *record) allDone() bool {
	return !slices.ContainsFunc(r.spec.GetContainers(), func(container *agentv1.Container) bool {
		return !r.Containers[container.GetName()].Done
	})
}

// images returns the references of the spec, sorted, each once.
func (r *record) images() []string {
	var result []string
	for _, container := range r.spec.GetContainers() {
		result = append(result, container.GetImage())
	}
	slices.Sort(result)
	return slices.Compact(result)
}

// rememberImages makes the images of the record before this one the previous ones. A change that leaves the images as they are
// keeps the way back to those before.
func (r *record) rememberImages(before *record) {
	present := r.images()
	if slices.Equal(present, before.images()) {
		return
	}
	r.Previous = nil
	for _, image := range before.images() {
		r.Previous = append(r.Previous, before.local(image))
	}
	maps.DeleteFunc(r.Manifests, func(image, _ string) bool { return !slices.Contains(present, image) })
}

// withSpec returns the record of a new spec in the next generation, or r itself when the spec is the same. The history of the
// containers is kept only when the running containers also serve the new spec.
func (r *record) withSpec(spec *agentv1.GroupSpec) *record {
	if proto.Equal(r.spec, spec) {
		return r
	}
	changed := r.clone()
	changed.spec = spec
	changed.rememberImages(r)
	changed.Generation++
	if changed.specHash() != r.specHash() {
		changed.Containers = nil
	}
	return changed
}

// withRestartsDue returns the record with every waiting restart due now, or nil when none waits: declaring a group again asks
// for another attempt.
func (r *record) withRestartsDue(now time.Time) *record {
	changed := r.clone()
	waiting := false
	for name, state := range changed.Containers {
		if state.RestartAt.After(now) {
			state.RestartAt, state.BackOff, state.Restarts = now, 0, 0
			changed.Containers[name] = state
			waiting = true
		}
	}
	if !waiting {
		return nil
	}
	return changed
}

// MarshalJSON writes the spec, secrets included: the file is the host's own, mode 0600.
func (r *record) MarshalJSON() ([]byte, error) {
	spec, err := protojson.Marshal(r.spec)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Spec json.RawMessage `json:"spec"`
		recordFields
	}{spec, r.recordFields})
}

func (r *record) UnmarshalJSON(content []byte) error {
	var parsed struct {
		Spec json.RawMessage `json:"spec"`
		recordFields
	}
	if err := json.Unmarshal(content, &parsed); err != nil {
		return err
	}
	r.spec, r.recordFields = &agentv1.GroupSpec{}, parsed.recordFields
	// A newer agent's fields do not keep an older one, after a roll-back, from serving.
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(parsed.Spec, r.spec)
}
