package images

import (
	"fmt"
	"regexp"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference"
)

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// imageReference is an image reference that creates refusals of its image.
type imageReference struct {
	reference.Reference
}

func parseReference(text string) (imageReference, error) {
	parsed, err := reference.Parse(text)
	if err != nil {
		return imageReference{}, &Refusal{Reason: InvalidReference, Image: text, Message: err.Error()}
	}
	return imageReference{parsed}, nil
}

func (r imageReference) refuse(reason Reason, format string, arguments ...any) *Refusal {
	return &Refusal{Reason: reason, Image: r.String(), Message: fmt.Sprintf(format, arguments...)}
}
