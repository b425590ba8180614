package images

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
)

// ErrorDomain is the domain of the reasons in google.rpc.ErrorInfo.
const ErrorDomain = "images.palisade.host"

// Reason is why an image is refused.
type Reason string

// Reasons of refusals.
const (
	InvalidReference      Reason = "InvalidReference"
	ContentMismatch       Reason = "ContentMismatch"
	ImageNotAllowed       Reason = "ImageNotAllowed"
	SignatureMissing      Reason = "SignatureMissing"
	SignatureByUnknownKey Reason = "SignatureByUnknownKey"
	SealMissing           Reason = "SealMissing"
	SealInvalid           Reason = "SealInvalid"
	SealByUnknownKey      Reason = "SealByUnknownKey"
	SealMismatch          Reason = "SealMismatch"
	SealRevoked           Reason = "SealRevoked"
	LayerMismatch         Reason = "LayerMismatch"
	DiskFull              Reason = "DiskFull"
)

// Refusal is the error of an image that must not run here, or that cannot be stored.
type Refusal struct {
	Reason Reason
	// Image is the requested reference.
	Image string
	// Layer is the digest of the layer that caused the refusal; empty when none did.
	Layer string
	// Key is the id of the key that caused the refusal; empty when none did.
	Key string
	// Message is a sentence that does not name the image.
	Message string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("image %s is refused (%s): %s", r.Image, r.Reason, r.Message)
}

func (r *Refusal) code() connect.Code {
	switch r.Reason {
	case InvalidReference:
		return connect.CodeInvalidArgument
	case ImageNotAllowed, SignatureMissing, SignatureByUnknownKey:
		return connect.CodePermissionDenied
	case ContentMismatch, LayerMismatch:
		return connect.CodeDataLoss
	case DiskFull:
		return connect.CodeResourceExhausted
	}
	return connect.CodeFailedPrecondition
}

// connectError converts an error of Ensure to the error that callers of the service get.
func connectError(err error) error {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		failure := connect.NewError(refusal.code(), errors.New(refusal.Error()))
		info := &errdetails.ErrorInfo{Reason: string(refusal.Reason), Domain: ErrorDomain, Metadata: map[string]string{"image": refusal.Image}}
		if refusal.Layer != "" {
			info.Metadata["layer"] = refusal.Layer
		}
		if refusal.Key != "" {
			info.Metadata["key"] = refusal.Key
		}
		if detail, err := connect.NewErrorDetail(info); err == nil {
			failure.AddDetail(detail)
		}
		return failure
	}
	var pull *registry.PullError
	if errors.As(err, &pull) {
		return connect.NewError(connect.CodeUnavailable, pull)
	}
	var known *connect.Error
	if errors.As(err, &known) {
		return known
	}
	return connect.NewError(connect.CodeInternal, err)
}
