package groups

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/redact"
)

// redacted returns a copy of a spec without its secret values.
func redacted(spec *agentv1.GroupSpec) *agentv1.GroupSpec {
	copied := proto.CloneOf(spec)
	for _, container := range copied.GetContainers() {
		for _, variable := range container.GetEnvironment() {
			variable.SecureValue = ""
		}
	}
	for _, registry := range copied.GetImageRegistries() {
		registry.Password = ""
	}
	return copied
}

// secrets returns the secret values of a spec.
func secrets(spec *agentv1.GroupSpec) []string {
	var values []string
	for _, container := range spec.GetContainers() {
		for _, variable := range container.GetEnvironment() {
			values = append(values, variable.GetSecureValue())
		}
	}
	for _, registry := range spec.GetImageRegistries() {
		values = append(values, registry.GetPassword())
	}
	return values
}

// cleaner removes the group's secrets from messages of others, such as containerd's errors. It also knows the secrets
// of the previous spec, because messages may still come from containers of that spec.
type cleaner struct {
	present, former []string
	redactor        *redact.Redactor
}

// of returns a cleaner for the values. It returns c itself while they are the same.
func (c *cleaner) of(values []string) *cleaner {
	if c != nil && slices.Equal(c.present, values) {
		return c
	}
	changed := &cleaner{present: values}
	if c != nil {
		changed.former = c.present
	}
	changed.redactor = redact.New(slices.Concat(changed.present, changed.former)...)
	return changed
}

// clean returns the message without secrets, as valid UTF-8 for a protobuf message.
func (c *cleaner) clean(message string) string {
	message = c.redactor.Redact(strings.ToValidUTF8(message, "\ufffd"))
	return strings.TrimPrefix(message, "rpc error: ")
}
