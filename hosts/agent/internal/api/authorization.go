package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
)

var errExpired = errors.New("the client certificate has expired")

// authorization decides about each call, because a connection may live longer than what its handshake has verified.
type authorization struct {
	identity *identity.Identity
	next     http.Handler
	errors   *connect.ErrorWriter
}

func authorized(host *identity.Identity, next http.Handler) http.Handler {
	return &authorization{identity: host, next: next, errors: connect.NewErrorWriter()}
}

// ServeHTTP passes a call on while its client may make it. It ends a call, also one that streams, at the end of the
// client's certificate.
func (a *authorization) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	remaining, err := a.check(request)
	if err != nil {
		// A caller that has left does not need the error.
		_ = a.errors.Write(writer, request, err)
		return
	}
	ctx, cancel := context.WithTimeoutCause(request.Context(), remaining, errExpired)
	defer cancel()
	a.next.ServeHTTP(writer, request.WithContext(ctx))
	if errors.Is(context.Cause(ctx), errExpired) {
		// What was written may be a part of the response, so the client must not take it for the whole.
		panic(http.ErrAbortHandler)
	}
}

// check returns for how long the client's certificate is still valid.
func (a *authorization) check(request *http.Request) (time.Duration, error) {
	if request.TLS == nil || len(request.TLS.VerifiedChains) == 0 {
		return 0, connect.NewError(connect.CodeUnauthenticated, errors.New("no verified client certificate"))
	}
	leaf := request.TLS.VerifiedChains[0][0]
	role, err := parseRole(leaf.Subject.CommonName)
	if err != nil {
		return 0, connect.NewError(connect.CodePermissionDenied, err)
	}
	remaining := leaf.NotAfter.Sub(a.identity.Clock().Now())
	if remaining <= 0 {
		return 0, connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("%w on %s", errExpired, leaf.NotAfter.Format(time.RFC3339)))
	}
	required, known := requiredRoles[request.URL.Path]
	if !known {
		return 0, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("%s is not served", request.URL.Path))
	}
	if !role.permits(required) {
		return 0, connect.NewError(connect.CodePermissionDenied,
			fmt.Errorf("%s requires a client certificate of the role %s; this one has the role %s", request.URL.Path, required, role))
	}
	return remaining, nil
}
