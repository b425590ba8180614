package groups

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math"
	"net/url"
	"path"
	"regexp"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

const (
	maximumContainers = 60
	// minimumMemory is what a runtime needs to start a process (6 MiB, as in other engines).
	minimumMemory = 6 << 20
	minimumCPU    = 0.01
)

var (
	labelPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// violations collects the errors of a spec by their paths, which begin at GroupSpec and use JSON names.
type violations struct {
	list []*errdetails.BadRequest_FieldViolation
}

func (v *violations) add(path, format string, arguments ...any) {
	v.list = append(v.list, &errdetails.BadRequest_FieldViolation{Field: path, Description: fmt.Sprintf(format, arguments...)})
}

// err returns INVALID_ARGUMENT with a google.rpc.BadRequest detail, or nil when there are no violations.
func (v *violations) err() error {
	if len(v.list) == 0 {
		return nil
	}
	lines := make([]string, 0, len(v.list))
	for _, violation := range v.list {
		lines = append(lines, violation.GetField()+": "+violation.GetDescription())
	}
	failure := connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s", strings.Join(lines, "; ")))
	if detail, err := connect.NewErrorDetail(&errdetails.BadRequest{FieldViolations: v.list}); err == nil {
		failure.AddDetail(detail)
	}
	return failure
}

// normalize sets the defaults and the canonical form of a spec, so that equal declarations are equal specs.
func normalize(spec *agentv1.GroupSpec) {
	if spec.GetRestartPolicy() == agentv1.RestartPolicy_RESTART_POLICY_UNSPECIFIED {
		spec.RestartPolicy = agentv1.RestartPolicy_RESTART_POLICY_ALWAYS
	}
	normalizePorts(spec.GetPorts())
	for _, container := range spec.GetContainers() {
		// With a digest the tag has no effect, so changing only the tag is no change.
		if parsed, err := reference.Parse(container.GetImage()); err == nil {
			container.Image = parsed.String()
		}
		normalizePorts(container.GetPorts())
		if resources := container.GetResources(); resources != nil {
			if resources.GetCpuLimit() == 0 {
				resources.CpuLimit = resources.GetCpuRequest()
			}
			if resources.GetMemoryLimitBytes() == 0 {
				resources.MemoryLimitBytes = resources.GetMemoryRequestBytes()
			}
		}
	}
	for _, registry := range spec.GetImageRegistries() {
		registry.Endpoint = strings.TrimSuffix(registry.GetEndpoint(), "/")
	}
}

func normalizePorts(ports []*agentv1.Port) {
	for _, port := range ports {
		if port.GetProtocol() == agentv1.Protocol_PROTOCOL_UNSPECIFIED {
			port.Protocol = agentv1.Protocol_PROTOCOL_TCP
		}
	}
}

// validate checks a normalized spec on its own. The manager checks what depends on the host.
func validate(spec *agentv1.GroupSpec) error {
	v := &violations{}
	if !labelPattern.MatchString(spec.GetName()) {
		v.add("name", "%q is not a DNS label of 1 to 63 lower-case letters, digits and hyphens", spec.GetName())
	}
	if _, known := agentv1.RestartPolicy_name[int32(spec.GetRestartPolicy())]; !known {
		v.add("restartPolicy", "%d is unknown", spec.GetRestartPolicy())
	}
	if count := len(spec.GetContainers()); count == 0 || count > maximumContainers {
		v.add("containers", "%d containers, expected 1 to %d", count, maximumContainers)
	}
	names, listening := map[string]bool{}, map[portKey]string{}
	for index, container := range spec.GetContainers() {
		at := fmt.Sprintf("containers[%d]", index)
		if container == nil {
			v.add(at, "missing")
			continue
		}
		if names[container.GetName()] {
			v.add(at+".name", "%q is used by another container of the group", container.GetName())
		}
		names[container.GetName()] = true
		validateContainer(v, at, container)
		for position, port := range container.GetPorts() {
			where := fmt.Sprintf("%s.ports[%d]", at, position)
			validatePort(v, where, port)
			if other, taken := listening[keyOf(port)]; taken {
				v.add(where+".port", "%s is used by %s; the containers of a group share one network namespace", keyOf(port), other)
			}
			listening[keyOf(port)] = at
		}
	}
	published := map[portKey]bool{}
	for index, port := range spec.GetPorts() {
		at := fmt.Sprintf("ports[%d]", index)
		validatePort(v, at, port)
		if published[keyOf(port)] {
			v.add(at+".port", "%s is published twice", keyOf(port))
		}
		published[keyOf(port)] = true
	}
	servers := map[string]bool{}
	for index, registry := range spec.GetImageRegistries() {
		at := fmt.Sprintf("imageRegistries[%d]", index)
		server := reference.CanonicalServer(registry.GetServer())
		if servers[server] {
			v.add(at+".server", "%q is listed twice", registry.GetServer())
		}
		servers[server] = true
		validateRegistry(v, at, registry)
	}
	return v.err()
}

func validateContainer(v *violations, at string, container *agentv1.Container) {
	if !labelPattern.MatchString(container.GetName()) {
		v.add(at+".name", "%q is not a DNS label of 1 to 63 lower-case letters, digits and hyphens", container.GetName())
	}
	if _, err := reference.Parse(container.GetImage()); err != nil {
		v.add(at+".image", "%q: %v", container.GetImage(), err)
	}
	if channel := container.GetChannel(); channel != "" && !labelPattern.MatchString(channel) {
		v.add(at+".channel", "%q is not a DNS label of 1 to 63 lower-case letters, digits and hyphens", channel)
	}
	for index, argument := range container.GetCommand() {
		if strings.ContainsRune(argument, 0) {
			v.add(fmt.Sprintf("%s.command[%d]", at, index), "contains a NUL character")
		}
	}
	if directory := container.GetWorkingDirectory(); directory != "" && !path.IsAbs(directory) {
		v.add(at+".workingDirectory", "%q is not an absolute path", directory)
	}
	variables := map[string]bool{}
	for index, variable := range container.GetEnvironment() {
		where := fmt.Sprintf("%s.environment[%d]", at, index)
		name := variable.GetName()
		if name == "" || strings.ContainsAny(name, "=\x00") {
			v.add(where+".name", "%q is empty or contains = or NUL", name)
		}
		if variables[name] {
			v.add(where+".name", "%q is set twice", name)
		}
		variables[name] = true
		// Errors never repeat a value, because it may be a secret that was put into the wrong field.
		if variable.GetSecure() && variable.GetValue() != "" {
			v.add(where+".value", "must be empty, as the variable is secure: use secureValue")
		}
		if !variable.GetSecure() && variable.GetSecureValue() != "" {
			v.add(where+".secureValue", "must be empty, as the variable is not secure: set secure")
		}
		if strings.ContainsRune(variable.GetValue()+variable.GetSecureValue(), 0) {
			v.add(where, "the value contains a NUL character")
		}
	}
	if resources := container.GetResources(); resources != nil {
		validateResources(v, at+".resources", resources)
	}
}

func validateResources(v *violations, at string, resources *agentv1.Resources) {
	for _, cpu := range []struct {
		field string
		value float64
	}{{"cpuRequest", resources.GetCpuRequest()}, {"cpuLimit", resources.GetCpuLimit()}} {
		if math.IsNaN(cpu.value) || math.IsInf(cpu.value, 0) || cpu.value < 0 || cpu.value > 0 && cpu.value < minimumCPU {
			v.add(at+"."+cpu.field, "%v is neither 0 (unset) nor at least %v cores", cpu.value, minimumCPU)
		}
	}
	for _, memory := range []struct {
		field string
		value uint64
	}{{"memoryRequestBytes", resources.GetMemoryRequestBytes()}, {"memoryLimitBytes", resources.GetMemoryLimitBytes()}} {
		if memory.value > 0 && memory.value < minimumMemory {
			v.add(at+"."+memory.field, "%d is neither 0 (unset) nor at least %d bytes", memory.value, minimumMemory)
		}
	}
	if resources.GetCpuLimit() < resources.GetCpuRequest() {
		v.add(at+".cpuLimit", "%v is less than the request of %v cores", resources.GetCpuLimit(), resources.GetCpuRequest())
	}
	if resources.GetMemoryLimitBytes() < resources.GetMemoryRequestBytes() {
		v.add(at+".memoryLimitBytes", "%d is less than the request of %d bytes", resources.GetMemoryLimitBytes(), resources.GetMemoryRequestBytes())
	}
}

func validatePort(v *violations, at string, port *agentv1.Port) {
	if port.GetPort() < 1 || port.GetPort() > 65535 {
		v.add(at+".port", "%d is not between 1 and 65535", port.GetPort())
	}
	if _, known := agentv1.Protocol_name[int32(port.GetProtocol())]; !known {
		v.add(at+".protocol", "%d is unknown", port.GetProtocol())
	}
}

func validateRegistry(v *violations, at string, registry *agentv1.ImageRegistry) {
	if err := reference.ValidateServer(registry.GetServer()); err != nil {
		v.add(at+".server", "%v", err)
	}
	if endpoint := registry.GetEndpoint(); endpoint != "" {
		parsed, err := url.Parse(endpoint)
		if err != nil || parsed.Scheme != "https" || reference.ValidateServer(parsed.Host) != nil || parsed.Path != "" || parsed.RawQuery != "" || parsed.User != nil {
			v.add(at+".endpoint", "not of the form https://host[:port]")
		}
	}
	if registry.GetPassword() != "" && registry.GetUsername() == "" {
		v.add(at+".username", "missing, though a password is given")
	}
	if registry.GetCa() != "" {
		rest, count := []byte(registry.GetCa()), 0
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			count++
			if _, err := x509.ParseCertificate(block.Bytes); block.Type != "CERTIFICATE" || err != nil {
				v.add(at+".ca", "PEM block %d (%s) is not a certificate", count, block.Type)
			}
		}
		if count == 0 {
			v.add(at+".ca", "contains no PEM certificate")
		}
	}
}

// portKey is a port of one protocol.
type portKey struct {
	port     uint32
	protocol agentv1.Protocol
}

func keyOf(port *agentv1.Port) portKey {
	return portKey{port.GetPort(), port.GetProtocol()}
}

func (k portKey) String() string {
	return fmt.Sprintf("%s port %d", strings.TrimPrefix(k.protocol.String(), "PROTOCOL_"), k.port)
}
