package registry

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/status"
)

// Reason is why an image could not be pulled.
type Reason string

// Reasons that a person can act on. Everything else is Failed.
const (
	Unauthorized  Reason = "unauthorized"
	NotFound      Reason = "not found"
	Untrusted     Reason = "untrusted certificate"
	WrongPlatform Reason = "wrong platform"
	Unreachable   Reason = "unreachable"
	Failed        Reason = "failed"
)

// PullError is a failed pull with its reason and what to do about it.
type PullError struct {
	Image  string
	Reason Reason
	Hint   string
	Detail string
}

func (e *PullError) Error() string {
	return fmt.Sprintf("pull of %s: %s: %s (%s)", e.Image, e.Reason, e.Hint, e.Detail)
}

// Foreign is the error of an image for another platform.
func Foreign(image, platform, host string) error {
	return &PullError{Image: image, Reason: WrongPlatform, Hint: "the image has no variant for this host", Detail: "image is for " + platform + ", the host is " + host}
}

// signs are searched for in containerd's messages, in this order, because containerd distinguishes these cases only in
// its texts.
var signs = []struct {
	reason Reason
	hint   string
	texts  []string
}{
	{Untrusted, "give the registry's CA in imageRegistries", []string{"x509:", "tls: failed to verify", "certificate signed by unknown authority"}},
	{Unauthorized, "check user name and password in imageRegistries", []string{"401 unauthorized", "403 forbidden", "authorization failed", "insufficient_scope", "pull access denied", "no basic auth credentials", "authentication required", "status code 401", "status code 403", "credential not found"}},
	{WrongPlatform, "the image has no variant for this host", []string{"no match for platform"}},
	{NotFound, "the registry does not have it", []string{"not found", "404 ", "status code 404", "manifest unknown", "name unknown"}},
	{Unreachable, "check server and endpoint", []string{"connection refused", "no such host", "i/o timeout", "network is unreachable", "no route to host", "connection reset", "deadline exceeded", "dial tcp", "server misbehaving", "timeout awaiting", "handshake timeout", "eof"}},
}

// Classify explains an error of containerd's PullImage.
func Classify(image, user string, failure error) error {
	detail := failure.Error()
	if description, ok := status.FromError(failure); ok {
		detail = description.Message()
	}
	result := &PullError{Image: image, Reason: Failed, Hint: "see the detail", Detail: detail}
	lower := strings.ToLower(detail)
	for _, sign := range signs {
		for _, text := range sign.texts {
			if strings.Contains(lower, text) {
				result.Reason, result.Hint = sign.reason, sign.hint
				if result.Reason == Unauthorized && user == "" {
					result.Hint = "the registry asks for credentials: give them in imageRegistries"
				}
				return result
			}
		}
	}
	return result
}
