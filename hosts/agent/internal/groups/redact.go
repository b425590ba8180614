package groups

import (
	"strings"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// redacted is a copy of a spec without its secret values.
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

// shortestSecret is the length from which a value is looked for in messages; shorter ones would tear up ordinary words.
const shortestSecret = 4

// redactor removes a spec's secrets from messages of others, such as containerd's errors.
func redactor(spec *agentv1.GroupSpec) *strings.Replacer {
	var pairs []string
	add := func(secret string) {
		if len(secret) >= shortestSecret {
			pairs = append(pairs, secret, "[secret]")
		}
	}
	for _, container := range spec.GetContainers() {
		for _, variable := range container.GetEnvironment() {
			add(variable.GetSecureValue())
		}
	}
	for _, registry := range spec.GetImageRegistries() {
		add(registry.GetPassword())
	}
	return strings.NewReplacer(pairs...)
}
