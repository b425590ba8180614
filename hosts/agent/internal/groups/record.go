package groups

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// record is what the host stores of a group: the desired state, and the history that has to outlive the agent and
// reboots.
type record struct {
	spec *agentv1.GroupSpec
	recordFields
}

type recordFields struct {
	// UID distinguishes the group from an earlier one with the same name.
	UID        string `json:"uid"`
	Generation uint64 `json:"generation"`
	// Salt prevents guessing the spec from its hash, which containerd stores as a label.
	Salt     []byte `json:"salt"`
	Deleting bool   `json:"deleting,omitempty"`
	// SandboxAttempt makes the names of sandboxes unique in containerd.
	SandboxAttempt uint32                    `json:"sandboxAttempt"`
	Containers     map[string]containerState `json:"containers,omitempty"`
	// Manifests are the digests of the manifests for the host's platform, by the reference of the sealed image.
	Manifests map[string]string `json:"manifests,omitempty"`
	// Previous are the images of the spec before the present one, as containerd names them. They are kept, so that the
	// change can be undone quickly.
	Previous []string `json:"previous,omitempty"`
}

// containerState is the history of one container of the present generation.
type containerState struct {
	// Attempt is the number of the newest CRI container.
	Attempt      uint32 `json:"attempt"`
	RestartCount uint32 `json:"restartCount"`
	// ContainerID is that of the newest CRI container; empty before the first one.
	ContainerID string `json:"containerId,omitempty"`
	// Restarts counts those since the back-off was reset.
	Restarts uint32 `json:"restarts,omitempty"`
	// RestartAt is when the next container may start after an exit; zero when no restart is due.
	RestartAt time.Time `json:"restartAt,omitzero"`
	// restartDue is the same time by the monotonic clock, which decides.
	restartDue time.Duration
	BackOff    time.Duration `json:"backOff,omitempty"`
	// Exit is the last observed exit.
	Exit *exit `json:"exit,omitempty"`
	// Done means that the restart policy does not start the container again.
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

var (
	uidPattern    = regexp.MustCompile(`^[0-9a-f]{16}$`)
	digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// validate refuses a record that was planted or edited. The spec has to be valid, as if it were declared now.
func (r *record) validate() error {
	switch {
	case !uidPattern.MatchString(r.UID):
		return fmt.Errorf("uid: %q is no identifier of a group", r.UID)
	case len(r.Salt) == 0:
		return errors.New("salt: is missing")
	case r.Generation == 0:
		return errors.New("generation: is missing")
	}
	for image, digest := range r.Manifests {
		if !digestPattern.MatchString(digest) {
			return fmt.Errorf("manifests: %q of %s is no digest", digest, image)
		}
	}
	return validate(r.spec)
}

// specHash identifies the part of the spec that containers are created from. Labels, the digest of secrets, the access
// to registries and the channels of images can change without a restart.
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

// localReference returns the name by which containerd knows an image. For a sealed image it contains the manifest's
// digest, because containerd must mount by the digest that the seal covers.
func (r *record) localReference(image string) string {
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

// rememberImages stores the images of the record before as the previous ones. A change that keeps the images also keeps
// the previous ones.
func (r *record) rememberImages(before *record) {
	present := r.images()
	if slices.Equal(present, before.images()) {
		return
	}
	r.Previous = nil
	for _, image := range before.images() {
		r.Previous = append(r.Previous, before.localReference(image))
	}
	maps.DeleteFunc(r.Manifests, func(image, _ string) bool { return !slices.Contains(present, image) })
}

// withSpec returns the record of a new spec in the next generation, or r itself when the spec is the same. The history
// of the containers is kept only when the running containers also serve the new spec.
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

// withRestartsDue returns the record with every waiting restart due now, or nil when none waits: declaring a group
// again asks for another attempt.
func (r *record) withRestartsDue(now moment) *record {
	changed := r.clone()
	waiting := false
	for name, state := range changed.Containers {
		if !state.restartIsDue(now) {
			state.delayRestart(now, 0)
			state.Restarts = 0
			changed.Containers[name] = state
			waiting = true
		}
	}
	if !waiting {
		return nil
	}
	return changed
}

// MarshalJSON writes the spec with its secrets. Only the agent reads the file; its mode is 0600.
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
	// After a rollback an older agent has to read the records of a newer one, so unknown fields are ignored.
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(parsed.Spec, r.spec)
}
