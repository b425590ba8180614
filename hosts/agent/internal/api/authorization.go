package api

import (
	"context"
	"crypto/x509"
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

// ServeHTTP passes a call on while its client may make it. It ends a call, also one that streams, when the client's
// certificate ends or is revoked, or its CA is not accepted any more.
func (a *authorization) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	ctx, end, err := a.begin(request)
	if err != nil {
		// A caller that has left does not need the error.
		_ = a.errors.Write(writer, request, err)
		return
	}
	defer end()
	a.next.ServeHTTP(writer, request.WithContext(ctx))
	if isRefused(context.Cause(ctx)) {
		// What was written may be a part of the response, so the client must not take it for the whole.
		panic(http.ErrAbortHandler)
	}
}

// isRefused reports whether a call was ended because its client may not go on with it.
func isRefused(cause error) bool {
	return errors.Is(cause, errExpired) || errors.Is(cause, identity.ErrRevoked) || errors.Is(cause, identity.ErrAuthorityNotAccepted)
}

// begin returns the context of a call that its client may make.
func (a *authorization) begin(request *http.Request) (context.Context, context.CancelFunc, error) {
	if request.TLS == nil || len(request.TLS.VerifiedChains) == 0 {
		return nil, nil, connect.NewError(connect.CodeUnauthenticated, errors.New("no verified client certificate"))
	}
	leaf := request.TLS.VerifiedChains[0][0]
	role, err := parseRole(leaf.Subject.CommonName)
	if err != nil {
		return nil, nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	remaining := leaf.NotAfter.Sub(a.identity.Clock().Now())
	if remaining <= 0 {
		err := fmt.Errorf("%w on %s", errExpired, leaf.NotAfter.Format(time.RFC3339))
		return nil, nil, connect.NewError(connect.CodeUnauthenticated, err)
	}
	required, known := requiredRoles[request.URL.Path]
	if !known {
		return nil, nil, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("%s is not served", request.URL.Path))
	}
	if !role.permits(required) {
		err := fmt.Errorf("%s requires a client certificate of the role %s; this one has the role %s", request.URL.Path, required, role)
		return nil, nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	chains := request.TLS.VerifiedChains
	ctx, ended, err := a.identity.Call(context.WithValue(request.Context(), callerKey{}, chains), chains)
	if err != nil {
		return nil, nil, connect.NewError(connect.CodeUnauthenticated, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, remaining, errExpired)
	return ctx, func() {
		cancel()
		ended()
	}, nil
}

type callerKey struct{}

// callerChains returns the verified chains of the certificate with which a call is made.
func callerChains(ctx context.Context) [][]*x509.Certificate {
	chains, _ := ctx.Value(callerKey{}).([][]*x509.Certificate)
	return chains
}
