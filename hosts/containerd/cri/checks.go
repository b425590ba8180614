package cri

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// labelPrefix is that of the labels by which the agent knows its own. containerd acts upon others, e.g.
// containerd.io/gc.ref.
const labelPrefix = "palisade.host/"

// labelNames are the agent's labels (hosts/agent/internal/groups/sandbox.go).
var labelNames = []string{"group", "uid", "generation", "spec-hash", "container"}

// Paths that containers do not see or not change, as the agent gives them: the defaults of the OCI engines.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

var (
	identifierPattern = regexp.MustCompile(`^[0-9a-f]{1,64}$`)
	namePattern       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	logFilePattern    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.log$`)
	imageIDPattern    = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

func matches(value protoreflect.Value, pattern *regexp.Regexp) error {
	if !pattern.MatchString(value.String()) {
		return fmt.Errorf("%q is not of the form %s", value.String(), pattern)
	}
	return nil
}

func identifier(_ *Policy, value protoreflect.Value) error { return matches(value, identifierPattern) }

func name(_ *Policy, value protoreflect.Value) error { return matches(value, namePattern) }

// logFile keeps the name from leaving the folder of the logs.
func logFile(_ *Policy, value protoreflect.Value) error { return matches(value, logFilePattern) }

func labels(_ *Policy, value protoreflect.Value) error {
	for key := range value.Map().Range {
		if own, found := strings.CutPrefix(key.String(), labelPrefix); !found || !slices.Contains(labelNames, own) {
			return fmt.Errorf("%q is none of the agent's labels", key.String())
		}
	}
	return nil
}

// image takes a reference by digest or the ID of an image. Anything else could be read as something of the host, as a
// path.
func image(_ *Policy, value protoreflect.Value) error {
	text := value.String()
	if imageIDPattern.MatchString(text) {
		return nil
	}
	parsed, err := reference.Parse(text)
	if err != nil {
		return fmt.Errorf("%q is no reference to an image: %w", text, err)
	}
	_, isNamed := parsed.(reference.Named)
	_, byDigest := parsed.(reference.Digested)
	if !isNamed || !byDigest {
		return fmt.Errorf("%q is no reference by digest", text)
	}
	return nil
}

func runtimeHandler(p *Policy, value protoreflect.Value) error {
	if handler := value.String(); handler != "" && !slices.Contains(p.RuntimeHandlers, handler) {
		return fmt.Errorf("%q is no runtime handler of this host", handler)
	}
	return nil
}

func cgroupParent(p *Policy, value protoreflect.Value) error {
	if value.String() != p.CgroupParent {
		return fmt.Errorf("%q is not %q, the cgroup of all containers", value.String(), p.CgroupParent)
	}
	return nil
}

func sysctls(p *Policy, value protoreflect.Value) error {
	for key := range value.Map().Range {
		if !slices.Contains(p.Sysctls, key.String()) {
			return fmt.Errorf("%q is no kernel parameter that this host lets containers set", key.String())
		}
	}
	return nil
}

func capabilities(p *Policy, value protoreflect.Value) error {
	plain := func(name string) string { return strings.TrimPrefix(strings.ToUpper(name), "CAP_") }
	for index := range value.List().Len() {
		wanted := plain(value.List().Get(index).String())
		if !slices.ContainsFunc(p.Capabilities, func(allowed string) bool { return plain(allowed) == wanted }) {
			return fmt.Errorf("this host adds no capability %q", wanted)
		}
	}
	return nil
}

func podNamespace(_ *Policy, value protoreflect.Value) error {
	return only(value, runtimev1.NamespaceMode_POD, runtimev1.NamespaceMode(value.Enum()))
}

func containerNamespace(_ *Policy, value protoreflect.Value) error {
	return only(value, runtimev1.NamespaceMode_CONTAINER, runtimev1.NamespaceMode(value.Enum()))
}

func runtimeDefault(_ *Policy, value protoreflect.Value) error {
	return only(value, runtimev1.SecurityProfile_RuntimeDefault, runtimev1.SecurityProfile_ProfileType(value.Enum()))
}

func privatePropagation(_ *Policy, value protoreflect.Value) error {
	return only(value, runtimev1.MountPropagation_PROPAGATION_PRIVATE, runtimev1.MountPropagation(value.Enum()))
}

func protocol(_ *Policy, value protoreflect.Value) error {
	if runtimev1.Protocol(value.Enum()) == runtimev1.Protocol_UDP {
		return nil
	}
	return only(value, runtimev1.Protocol_TCP, runtimev1.Protocol(value.Enum()))
}

// only compares an enumeration with the one value that is permitted.
func only[Enum interface {
	Number() protoreflect.EnumNumber
	String() string
}](value protoreflect.Value, want, given Enum) error {
	if value.Enum() != want.Number() {
		return fmt.Errorf("%s is refused, %s is the only choice", given, want)
	}
	return nil
}

// exactly refuses a list with more or less in it: left out, a path would be open, and containerd has other defaults.
func exactly(want []string) func(*Policy, protoreflect.Value) error {
	return func(_ *Policy, value protoreflect.Value) error {
		if !slices.Equal(texts(value), want) {
			return fmt.Errorf("%q is not the host's list %q", texts(value), want)
		}
		return nil
	}
}

func texts(value protoreflect.Value) []string {
	var result []string
	for index := range value.List().Len() {
		result = append(result, value.List().Get(index).String())
	}
	return result
}

func addresses(_ *Policy, value protoreflect.Value) error {
	for _, text := range texts(value) {
		if _, err := netip.ParseAddr(text); err != nil {
			return fmt.Errorf("%q is no address", text)
		}
	}
	return nil
}

// words keeps a value of resolv.conf(5) in its line.
func words(_ *Policy, value protoreflect.Value) error {
	for _, text := range texts(value) {
		if text == "" || len(strings.Fields(text)) != 1 || strings.TrimSpace(text) != text {
			return fmt.Errorf("%q is not one word", text)
		}
	}
	return nil
}

func port(_ *Policy, value protoreflect.Value) error {
	if number := value.Int(); number < 1 || number > 65535 {
		return fmt.Errorf("%d is no port", number)
	}
	return nil
}

func notNegative(_ *Policy, value protoreflect.Value) error {
	if value.Int() < 0 {
		return fmt.Errorf("%d is negative", value.Int())
	}
	return nil
}

// containerPath keeps mounts off what the runtime mounts: the masked paths are there.
func containerPath(_ *Policy, value protoreflect.Value) error {
	path := value.String()
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return fmt.Errorf("%q is not an absolute path in its shortest form, or is the root", path)
	}
	for _, kept := range []string{"/proc", "/sys", "/dev"} {
		if path == kept || strings.HasPrefix(path, kept+"/") {
			return fmt.Errorf("%q is in %s, which the runtime mounts", path, kept)
		}
	}
	return nil
}

func hostPath(p *Policy, value protoreflect.Value) error {
	for _, root := range p.VolumeRoots {
		if relative, found := below(root, value.String()); found {
			return steadyPath(root, relative)
		}
	}
	return fmt.Errorf("%q is below no folder of volumes", value.String())
}

func logDirectory(p *Policy, value protoreflect.Value) error {
	relative, found := below(p.LogRoot, value.String())
	if !found {
		return fmt.Errorf("%q is not below %s, the folder of all logs", value.String(), p.LogRoot)
	}
	return folderWithoutLinks(p.LogRoot, relative)
}

// below returns the part of path that follows root; both in their shortest form.
func below(root, path string) (relative string, found bool) {
	if filepath.Clean(path) != path {
		return "", false
	}
	return strings.CutPrefix(path, root+"/")
}

var errLink = errors.New("it is a symbolic link, or one leads to it")
