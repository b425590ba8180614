package images

import (
	"fmt"
	"regexp"
)

const (
	serverForm = `[a-zA-Z0-9][-.a-zA-Z0-9]*(?::[0-9]{1,5})?`
	// repositoryForm is the OCI distribution specification's <name>.
	repositoryForm = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*`
)

var (
	referencePattern = regexp.MustCompile(`^(` + serverForm + `)/(` + repositoryForm + `)@(sha256:[0-9a-f]{64})$`)
	digestPattern    = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// reference names an image by digest.
type reference struct {
	server     string
	repository string
	digest     string
}

func parseReference(text string) (reference, error) {
	match := referencePattern.FindStringSubmatch(text)
	if match == nil {
		return reference{}, &Refusal{Reason: InvalidReference, Image: text, Message: "it is not of the form <server>/<repository>@sha256:<64 hexadecimal digits>"}
	}
	return reference{server: match[1], repository: match[2], digest: match[3]}, nil
}

// name is server and repository.
func (r reference) name() string {
	return r.server + "/" + r.repository
}

func (r reference) String() string {
	return r.name() + "@" + r.digest
}

func (r reference) refuse(reason Reason, format string, arguments ...any) *Refusal {
	return &Refusal{Reason: reason, Image: r.String(), Message: fmt.Sprintf(format, arguments...)}
}
