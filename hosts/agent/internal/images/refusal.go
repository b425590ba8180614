package images

import (
	"errors"
	"fmt"
	"syscall"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/palisade-host/palisade/hosts/agent/internal/registry"
)

// ErrorDomain of the reasons in google.rpc.ErrorInfo.
const ErrorDomain = "images.palisade.host"

// Reason says why an image does not come into the store.
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

// Refusal is the error of an image that must not run here, or cannot be kept.
type Refusal struct {
	Reason Reason
	// Image is the reference that was asked for.
	Image string
	// Layer is the digest of the layer that the refusal is about; empty when it is about the image.
	Layer string
	// Key is the id of the key that the refusal is about; empty when it is about none.
	Key string
	// Message is a sentence without the image.
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

// isDiskFull also means a quota that is used up.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// connectError turns what Ensure returns into what callers of the service see.
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
